/** `templatecenter daemon` and `config check`: the service itself, and its configuration. */
import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import type { Command } from "commander";
import {
  AppError,
  errorText,
  isAppError,
  LIMITS,
  type Clock,
  type Log,
  type Random,
} from "../../domain/index.ts";
import {
  describeConfig,
  exampleConfig,
  loadConfig,
  type Config,
  type LoadedConfig,
} from "../config.ts";
import { createHealth, watchLoopLag } from "../health.ts";
import { watchProcess, within } from "../lifecycle.ts";
import { chooseFormat, createLog, type LevelledLog } from "../log.ts";
import { createMetrics } from "../metrics.ts";
import { createNotifier } from "../systemd.ts";
import { startDaemon, type Daemon } from "../wire.ts";
import type { CliIo } from "./io.ts";

const DEFAULT_FILE = "/etc/templatecenter/config.toml";
const STATUS_MS = 30_000;

export interface ProcessPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly version: string;
}

const FLAGS: readonly [flags: string, description: string][] = [
  ["--node-id <name>", "this node's name (default: the host name)"],
  ["--listen <host:port>", "HTTP address (default 127.0.0.1:7330; port 0 takes a free one)"],
  ["--p2p-listen <multiaddr>", "where a member of a cluster listens for the others"],
  ["--p2p-announce <multiaddrs>", "where others reach it, when not there; comma-separated"],
  ["--join <token>", "join a cluster at the first start, with a token of one of its nodes"],
  ["--session-term <seconds>", "a leader that is gone is succeeded after this (default 8)"],
  ["--upload-limit <MiB/s>", "of artifacts to other nodes (default: none)"],
  ["--driver <driver>", "auto, qemu, rootfs or exec"],
  ["--exec-driver <path>", "executable of the exec driver"],
  ["--guest-dir <dir>", "guest kernel and initramfs"],
  ["--guest-network <mode>", "auto, open or isolated (auto: open only with an API token)"],
  ["--log-level <level>", "debug, info, warn or error"],
  ["--log-format <format>", "auto, json, pretty or journal"],
  ["--api-token-file <file>", "bearer token for TCP"],
  ["--job-deadline <duration>", "a job that runs longer fails (default 1h)"],
  ["--artifact-grace <duration>", "artifacts without a reference go after this (default 1h)"],
  ["--orphan-grace <duration>", "files that nothing knows go after this (default 1h)"],
  ["--retention-keep-last <count>", "newest templates of a name that stay (default all)"],
  ["--retention-unused-ttl <duration>", "templates unused for so long go (default never)"],
  ["--resnapshot-interval <duration>", "pause between stale replicas made again (default never)"],
  ["--storage-thresholds <percents>", "warn, reject, delete_only begin at (default 70,85,95)"],
  ["--concurrent-builds <count>", "builds at once"],
  ["--sandbox-pool-size <count>", "waiting VM processes per used template"],
];

/** Flags, environment and file in one; the default file may be missing, a named one may not. */
async function readConfig(command: Command, io: CliIo): Promise<LoadedConfig> {
  const options = command.optsWithGlobals<Record<string, string | undefined>>();
  const path = options["config"] ?? DEFAULT_FILE;
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    const isMissing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    if (options["config"] === undefined && isMissing) return undefined;
    throw new AppError("config_invalid", `the configuration file ${path} cannot be read`, {
      cause,
    });
  });
  const flags = Object.fromEntries(
    Object.entries(options).map(([key, value]) => [
      key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      value,
    ]),
  );
  return loadConfig({
    flags,
    environment: io.env,
    hostname: hostname(),
    ...(text === undefined ? {} : { file: { path, text } }),
  });
}

export function registerDaemon(program: Command, io: CliIo, ports: ProcessPorts): void {
  const daemon = program
    .command("daemon")
    .description("run the service in the foreground")
    .option("--config <file>", `configuration file (default ${DEFAULT_FILE})`);
  for (const [flags, description] of FLAGS) daemon.option(flags, description);
  daemon.action(async () => {
    await serve(() => readConfig(daemon, io), io, ports);
  });

  const config = program.command("config").description("the daemon's configuration");
  const check = config
    .command("check")
    .description("check flags, environment and file, and show where each value comes from")
    .option("--config <file>", `configuration file (default ${DEFAULT_FILE})`)
    .action(async () => {
      const loaded = await readConfig(check, io);
      io.out(describeConfig(loaded));
      io.out("the configuration is valid\n");
    });
  config
    .command("example")
    .description("print a configuration file with every key and its default")
    .action(() => io.out(exampleConfig()));
}

async function serve(
  readAgain: () => Promise<LoadedConfig>,
  io: CliIo,
  { clock, random, version }: ProcessPorts,
): Promise<void> {
  const { config } = await readAgain();
  const joinToken = config.join;
  const log = createLog({
    level: config.log_level,
    format: chooseFormat(config.log_format, process.stderr, io.env["JOURNAL_STREAM"]),
    clock,
    write: (line) => void process.stderr.write(line),
  });
  const notifier = createNotifier(io.env, clock, log);
  let serving: Daemon | undefined;
  const { stopped } = watchProcess(process, log, async () => {
    if (serving === undefined) return log.warn("a reload has to wait until the daemon is ready");
    await notifier.reloading();
    try {
      applyChanges(config, (await readAgain()).config, log);
    } finally {
      await notifier.ready(serving.status());
    }
  });
  let metrics = createMetrics(version, process.version);
  const lag = watchLoopLag(clock, (lagMs) => metrics.loopDelay(lagMs));
  const begin = async (running: Config) => {
    const health = createHealth(lag);
    metrics = createMetrics(version, process.version);
    return startDaemon({ config: running, version, log, clock, random, metrics, health });
  };
  let daemon = await begin(config);
  await joinAtFirstStart(daemon, joinToken, log);
  for (;;) {
    log.info("ready", { url: daemon.listening.url, page: `${daemon.listening.url}/ui/`, version });
    await notifier.ready(daemon.status());
    serving = daemon;
    const quiet = keepManagerInformed(daemon, notifier, clock);
    const ended = await Promise.race([
      stopped.then((signal) => ({ signal })),
      daemon.restartWanted.then((reason) => ({ reason })),
      daemon.failed.then((error) => ({ error })),
    ]);
    serving = undefined;
    quiet();
    const text = daemon.status();
    if ("signal" in ended) {
      log.info("stopping", { signal: ended.signal, status: text });
      await notifier.stopping();
      await end(daemon, log, clock);
      return;
    }
    if ("error" in ended) {
      log.error("this daemon must not run on", { code: ended.error.code, status: text });
      await notifier.stopping();
      await end(daemon, log, clock);
      throw ended.error;
    }
    log.info("starting anew", { reason: ended.reason });
    const { port } = daemon.listening;
    await end(daemon, log, clock);
    // Clients know the port by now, also when it was a free one at first.
    daemon = await begin({ ...config, listen: { ...config.listen, port } });
  }
}

async function end(daemon: Daemon, log: LevelledLog, clock: Clock): Promise<void> {
  try {
    await within(daemon.stop(), LIMITS.shutdownGraceMs, clock);
    log.info("stopped");
  } catch (error) {
    const level = isAppError(error, "catalog_degraded") ? "warn" : "error";
    log[level]("not everything stopped cleanly", { err: error, text: errorText(error) });
    throw error;
  }
}

/** A unit file or a container may carry the token for good: it counts at the first start only. */
async function joinAtFirstStart(daemon: Daemon, token: string, log: Log): Promise<void> {
  if (token === "" || daemon.queries.cluster().clustered) return;
  log.info("joining the cluster of the token");
  const context = { requestId: "start", actor: "start" };
  await daemon.commands.joinCluster({ token }, context);
}

/** Puts into force what can change at run time, and says what needs a restart. */
function applyChanges(running: Config, next: Config, log: LevelledLog): void {
  const isSame = (key: keyof Config) => JSON.stringify(running[key]) === JSON.stringify(next[key]);
  const fixed = (Object.keys(next) as (keyof Config)[]).filter(
    (key) => key !== "log_level" && !key.endsWith("_ms"),
  );
  const restart = fixed.filter((key) => !isSame(key));
  log.setLevel(next.log_level);
  log.info("configuration read again", {
    log_level: next.log_level,
    needs_restart: restart.join(",") || "nothing",
  });
}

function keepManagerInformed(
  daemon: Daemon,
  notifier: ReturnType<typeof createNotifier>,
  clock: Clock,
): () => void {
  const unwatch = notifier.watch(() => daemon.alive());
  let last = "";
  let timer: { cancel(): void };
  const tell = () => {
    const text = daemon.status();
    if (text !== last) void notifier.status((last = text));
    timer = clock.after(STATUS_MS, tell);
  };
  timer = clock.after(STATUS_MS, tell);
  return () => {
    unwatch();
    timer.cancel();
  };
}
