/**
 * The composition root: opens what a daemon needs in order, joins adapters to ports, and takes it
 * all down again in reverse. Nothing here decides anything.
 */
import { mkdir, readdir, rm, writeFile, rename } from "node:fs/promises";
import { cpus, networkInterfaces, totalmem } from "node:os";
import { join } from "node:path";
import {
  AppError,
  LIMITS,
  type Catalog,
  type Clock,
  type Commands,
  type Log,
  type Platform,
  type Queries,
  type Random,
} from "../domain/index.ts";
import {
  createAudit,
  createIdempotencyStore,
  openArtifactStore,
  openCatalog,
} from "../storage/index.ts";
import { createUi } from "../ui/index.ts";
import { readBakePlan } from "./bake.ts";
import { createArtifacts } from "./build/artifacts.ts";
import { createRootfsBuilder } from "./build/rootfs-builder.ts";
import { parseReference } from "./build/source/reference.ts";
import { createImageSource } from "./build/source/source.ts";
import { assertDiskSpace } from "./build/disk-space.ts";
import { createCommands, trimJobs } from "./commands.ts";
import type { Config } from "./config.ts";
import { createEventHub, publishEntries } from "./events.ts";
import type { Health } from "./health.ts";
import { createApp } from "./http/app.ts";
import { listen, type Listening } from "./http/server.ts";
import { createJobLog } from "./job-log.ts";
import type { Metrics } from "./metrics.ts";
import { createQueries } from "./queries.ts";
import { createFacts, createRecords } from "./records.ts";
import { isolatesGuests, readTokens, sourceOptions } from "./secrets.ts";
import { endProcess, findVms } from "./runtime/qemu/vm-process.ts";
import { createDriver } from "./runtime/select.ts";
import { createSandboxes } from "./sandboxes.ts";
import { BuildsWorker } from "./workers/builds.ts";
import { createNodeFact } from "./workers/node-fact.ts";
import { ReplicasWorker } from "./workers/replicas.ts";

export interface DaemonParts {
  readonly config: Config;
  readonly version: string;
  readonly log: Log;
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: Metrics;
  readonly health: Health;
}

export interface Daemon {
  readonly catalog: Catalog;
  readonly queries: Queries;
  readonly commands: Commands;
  readonly listening: Listening;
  /** One line for `systemctl status`. */
  status(): string;
  /** False when the core has not finished a round of its own for long, whatever timers still do. */
  alive(): boolean;
  /** Parks work at a step, closes listeners and catalog. Sandboxes go on. */
  stop(): Promise<void>;
}

type Closers = (() => Promise<void>)[];

/** The core's own heartbeat: the node's fact goes through the catalog's writer. */
const ROUND_MS = 15_000;

const DIRECTORIES = [
  "catalog",
  "artifacts",
  "templates",
  "snapshots",
  "sandboxes",
  "work",
] as const;
type Directories = Readonly<Record<(typeof DIRECTORIES)[number], string>>;

async function makeDirectories(dataDir: string): Promise<Directories> {
  const made = DIRECTORIES.map(async (name) => {
    const path = join(dataDir, name);
    await mkdir(path, { recursive: true, mode: 0o750 }).catch((cause: unknown) => {
      throw new AppError("config_invalid", `data_dir = ${dataDir}: ${path} cannot be made`, {
        cause,
      });
    });
    return [name, path] as const;
  });
  return Object.fromEntries(await Promise.all(made)) as Directories;
}

/**
 * What a dead daemon left in its scratch folder; only after the catalog's lock is ours. A guest
 * that was on trial there is ended first: later the driver could not tell it from its own trial.
 */
async function emptyWork(dir: string, clock: Clock): Promise<void> {
  for (const { id } of await findVms([dir])) await endProcess(id, clock);
  for (const name of await readdir(dir))
    await rm(join(dir, name), { recursive: true, force: true });
}

/** The first address of this host that others could reach, else loopback. */
function ownAddress(): string {
  for (const addresses of Object.values(networkInterfaces())) {
    for (const address of addresses ?? []) {
      if (!address.internal && address.family === "IPv4") return address.address;
    }
  }
  return "127.0.0.1";
}

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", arm64: "arm64" };

export const hostPlatform = (arch: string): Platform => ({
  os: "linux",
  architecture: ARCHITECTURES[arch] ?? arch,
});

/** Starts everything in order; what was opened is closed again when a later step fails. */
export async function startDaemon(parts: DaemonParts): Promise<Daemon> {
  const opened: Closers = [];
  try {
    return await start(parts, opened);
  } catch (error) {
    for (const close of opened.reverse()) await close().catch(() => undefined);
    throw error;
  }
}

async function openState(parts: DaemonParts, opened: Closers) {
  const { config, log, clock, random } = parts;
  const dirs = await makeDirectories(config.data_dir);
  const catalog = await openCatalog({ dir: dirs.catalog, log, clock });
  opened.push(() => catalog.close());
  await emptyWork(dirs.work, clock);
  const store = await openArtifactStore({ dir: dirs.artifacts, workDir: dirs.work, log });
  const hub = createEventHub(clock, random);
  const unsubscribe = publishEntries(catalog, hub);
  opened.push(async () => unsubscribe());
  const records = createRecords(catalog);
  const facts = createFacts(catalog, config.node_id);
  const jobLog = createJobLog(catalog, hub, clock, log);
  opened.push(() => jobLog.flush());
  return { dirs, catalog, store, hub, records, facts, jobLog };
}

type State = Awaited<ReturnType<typeof openState>>;

async function openRuntime(parts: DaemonParts, state: State, opened: Closers) {
  const { config, log, clock, random, metrics } = parts;
  const { driver, detail } = await createDriver({
    requested: config.driver,
    guestDir: config.guest_dir,
    stateDir: config.data_dir,
    sandboxesDir: state.dirs.sandboxes,
    templatesDir: state.dirs.templates,
    clock,
    random,
    log: log.child({ module: "runtime" }),
  });
  opened.push(() => driver.close({ keepSandboxes: true }));
  const sandboxes = createSandboxes({
    catalog: state.catalog,
    driver,
    hub: state.hub,
    clock,
    random,
    log: log.child({ module: "sandboxes" }),
    nodeId: config.node_id,
    dir: state.dirs.sandboxes,
    poolSize: config.sandbox_pool_size,
    isolateGuests: isolatesGuests(config),
    onStarted: (milliseconds) => metrics.sandboxStarted(milliseconds),
  });
  const replicas = new ReplicasWorker({
    ...state,
    driver,
    clock,
    log: log.child({ module: "replicas" }),
    nodeIp: ownAddress(),
    templatesDir: state.dirs.templates,
    concurrency: config.concurrent_boots,
    isolateGuests: isolatesGuests(config),
    inUse: (templateId) => sandboxes.usedTemplates().has(templateId),
  });
  return { driver, detail, sandboxes, replicas };
}

async function createBuilds(parts: DaemonParts, state: State) {
  const { config, log, clock, random, metrics } = parts;
  const source = createImageSource({
    clock,
    random,
    log: log.child({ module: "source" }),
    options: await sourceOptions(config),
  });
  const builder = createRootfsBuilder({ clock });
  const artifacts = createArtifacts({
    ...state,
    builder,
    clock,
    random,
    log: log.child({ module: "artifacts" }),
    assertSpace: (image) => assertDiskSpace(state.dirs.work, image),
  });
  const scratch = (jobId: string) => join(state.dirs.work, `job-${jobId}`);
  const builds = new BuildsWorker({
    ...state,
    source,
    artifacts,
    clock,
    log: log.child({ module: "builds" }),
    platform: hostPlatform(process.arch),
    concurrency: config.concurrent_builds,
    scratchDir: async (jobId) => {
      await mkdir(scratch(jobId), { recursive: true, mode: 0o700 });
      return scratch(jobId);
    },
    dropScratch: (jobId) => rm(scratch(jobId), { recursive: true, force: true }),
    bakePlan: (request) =>
      readBakePlan(request, { caFile: config.ca_file, envdPath: config.envd_path }),
    onJobEnd: (job) => metrics.jobEnded(job),
  });
  return { artifacts, builds };
}

/** Work that nothing else triggers: a slow timer per activity, ended with the daemon. */
function every({ clock, log }: DaemonParts, milliseconds: number, work: () => unknown) {
  let stopped = false;
  let timer: { cancel(): void };
  const next = () => {
    timer = clock.after(milliseconds, () => {
      void Promise.resolve()
        .then(work)
        .catch((error: unknown) => log.warn("a periodic activity failed", { err: error }))
        .finally(() => {
          if (!stopped) next();
        });
    });
  };
  next();
  return () => {
    stopped = true;
    timer.cancel();
  };
}

/** The page and the API on their listeners; streams end before connections do. */
async function openDoor(
  parts: DaemonParts,
  core: { catalog: Catalog; queries: Queries; commands: Commands },
  opened: Closers,
): Promise<Listening> {
  const { config, log, clock, random, health, metrics, version } = parts;
  const { catalog, queries, commands } = core;
  const closing = new AbortController();
  const ui = createUi({
    queries,
    commands,
    version,
    clock,
    random,
    log: log.child({ module: "ui" }),
    signal: closing.signal,
  });
  const app = createApp({
    queries,
    commands,
    idempotency: createIdempotencyStore(catalog, clock),
    audit: createAudit(catalog.table("audit"), clock),
    health,
    metrics: metrics.registry,
    ui,
    auth: { tokens: await readTokens(config) },
    log: log.child({ module: "http" }),
    clock,
    random,
    version,
    allowedHosts: config.allowed_hosts,
  });
  const { host, port } = config.listen;
  const listening = await listen({
    app,
    host,
    port,
    socketPath: join(config.data_dir, "templatecenter.sock"),
    log,
    clock,
  });
  opened.push(() => {
    closing.abort();
    return listening.close(LIMITS.shutdownGraceMs / 2);
  });
  return listening;
}

async function start(parts: DaemonParts, opened: Closers): Promise<Daemon> {
  const { config, log, clock, random, health, metrics, version } = parts;
  const state = await openState(parts, opened);
  const runtime = await openRuntime(parts, state, opened);
  const { artifacts, builds } = await createBuilds(parts, state);
  const { catalog, records } = state;
  let draining = false;
  const queries = createQueries({ ...state, ...runtime, nodeId: config.node_id, random });
  const commands = createCommands({
    ...state,
    ...runtime,
    artifacts,
    builds,
    queries,
    clock,
    random,
    jobDeadlineMs: config.job_deadline_ms,
    checkReference: (reference) => void parseReference(reference),
    isDraining: () => draining,
    onResolveStage: (stage, milliseconds) => metrics.resolveStage(stage, milliseconds),
  });
  const door: { listening?: Listening } = {};
  const publishNode = createNodeFact({
    facts: state.facts,
    driver: runtime.driver,
    driverDetail: runtime.detail,
    clock,
    log,
    dataDir: config.data_dir,
    version,
    nodeIp: ownAddress(),
    address: () => door.listening?.url ?? "",
    cpuCount: Math.max(1, cpus().length),
    memoryBytes: totalmem(),
  });
  await artifacts.recover();
  await runtime.sandboxes.recover();
  await publishNode();
  health.opened(catalog);
  metrics.watch({ catalog, queries });
  await runtime.replicas.start();
  opened.push(() => runtime.replicas.stop());
  const unsubscribe = catalog.subscribe((entry) => {
    if (entry.kind === "job") builds.reconcile();
  });
  builds.reconcile();
  opened.push(async () => {
    unsubscribe();
    await builds.stop();
  });

  const listening = await openDoor(parts, { catalog, queries, commands }, opened);
  door.listening = listening;
  await publishNode();
  await writeDaemonFile(config.data_dir, {
    url: listening.url,
    address: listening.address,
    port: listening.port,
    pid: process.pid,
    version,
    node_id: config.node_id,
  });
  const status = () => {
    const active = builds.activeCount + runtime.replicas.activeCount;
    const templates = [...catalog.list("template")].length;
    return `${templates} templates, ${active} at work, ${runtime.sandboxes.list().length} sandboxes`;
  };
  let lastRound = clock.monotonic();
  const round = async () => {
    // A round that fails has ended as well; one that hangs in the catalog's queue has not.
    await publishNode().finally(() => (lastRound = clock.monotonic()));
  };
  const timers = [
    every(parts, ROUND_MS, round),
    every(parts, 5_000, () => runtime.sandboxes.refresh()),
    every(parts, 30_000, () => {
      builds.reconcile();
      runtime.replicas.reconcile();
    }),
    every(parts, 60_000, () => trimJobs(records, state.jobLog)),
  ];
  opened.push(async () => timers.forEach((stop) => stop()));
  return {
    catalog,
    queries,
    commands,
    listening,
    status,
    alive: () => clock.monotonic() - lastRound < 4 * ROUND_MS,
    async stop() {
      draining = true;
      health.drain();
      for (const close of opened.reverse()) await close();
    },
  };
}

/** `<data>/daemon.json`: the ports in use, for clients and scripts; complete or not there. */
async function writeDaemonFile(dataDir: string, content: Record<string, unknown>): Promise<void> {
  const path = join(dataDir, "daemon.json");
  await writeFile(`${path}.new`, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o640 });
  await rename(`${path}.new`, path);
}
