/**
 * The daemon's configuration: flags over environment (`TEMPLATECENTER_KEY`) over the TOML file over
 * defaults, one schema for all. An error names the key, the value, where it came from and what was
 * expected.
 */
import { isAbsolute, resolve } from "node:path";
import { parse, TomlError } from "smol-toml";
import { z } from "zod";
import { AppError, LIMITS, isSafeId, type StorageThresholds } from "../domain/index.ts";

export const DURATION = /^(\d+)(ms|s|m|h)$/;
const THRESHOLDS = /^\d{1,3}(,\d{1,3}){2}$/;
const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

const list = z.union([
  z.array(z.string()),
  z.string().transform((text) =>
    text
      .split(",")
      .map((part) => part.trim())
      .filter(Boolean),
  ),
]);
/** A number, or its digits as flags and environment have them; a blank is no 0. */
const count = (least: number, most: number) =>
  z
    .union([z.number(), z.string().regex(/^\d+$/).transform(Number)], `must be ${least} to ${most}`)
    .pipe(z.number().int().min(least).max(most));

function isAscending(text: string): boolean {
  const [a = 0, b = 0, c = 0] = text.split(",").map(Number);
  return 0 < a && a <= b && b <= c && c <= 100;
}

/** Milliseconds of a text that matches `DURATION`. */
export function durationMs(text: string): number {
  const [, amount, unit] = DURATION.exec(text) ?? [];
  return Number(amount) * (UNIT_MS[unit ?? ""] ?? 1);
}

export const listenSchema = z.string().transform((text, context) => {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([^:\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    context.addIssue({ code: "custom", message: "must be HOST:PORT, as 127.0.0.1:7330" });
    return z.NEVER;
  }
  return { host: match[1] ?? match[2] ?? "", port };
});

const MULTIADDR = /^\/(ip4|ip6|dns|dns4|dns6)\/[^/\s]+\/tcp\/\d{1,5}$/;
const TERM_RANGE = "must be 0.5 to 600 seconds";

export const configSchema = z.strictObject({
  data_dir: z
    .string()
    .min(1)
    .default("/var/lib/templatecenter")
    .describe("where everything is kept"),
  node_id: z
    .string()
    .refine(isSafeId, "must be letters, digits, dots and dashes")
    .describe("this node's name; default: the host name"),
  listen: listenSchema.prefault("127.0.0.1:7330").describe("HTTP address; port 0 takes a free one"),
  p2p_listen: z
    .string()
    .regex(MULTIADDR, "must be a multiaddr as /ip4/0.0.0.0/tcp/7331")
    .default("/ip4/0.0.0.0/tcp/7331")
    .describe("where a member of a cluster listens for the others; a node alone does not"),
  p2p_announce: list
    .default([])
    .describe("multiaddrs at which others reach this node, when they are not its own"),
  join: z.string().default("").describe("join token of a cluster, used at the first start only"),
  session_term: z
    .union(
      [
        z.number(),
        z
          .string()
          .regex(/^\d+(\.\d+)?$/)
          .transform(Number),
      ],
      TERM_RANGE,
    )
    .pipe(z.number().min(0.5, TERM_RANGE).max(600, TERM_RANGE))
    .default(LIMITS.sessionTermMs / 1_000)
    .describe("seconds after which a leader that is gone is succeeded"),
  upload_limit: count(0, 1_000_000)
    .default(0)
    .describe("MiB/s that this node sends of artifacts to others; 0: no limit"),
  driver: z
    .enum(["auto", "qemu", "rootfs", "exec"])
    .default("auto")
    .describe("runtime driver: auto, qemu, rootfs or exec"),
  exec_driver: z
    .string()
    .refine((path) => path === "" || isAbsolute(path), "must be an absolute path")
    .default("")
    .describe("executable of the exec driver, by its absolute path: docs/exec-driver.md"),
  guest_dir: z
    .string()
    .min(1)
    .default("/var/lib/templatecenter/guest")
    .describe("guest kernel and initramfs, as `templatecenter guest install` makes them"),
  guest_network: z
    .enum(["auto", "open", "isolated"])
    .default("auto")
    .describe("whether guests reach a network; auto: only when the API needs a token"),
  log_level: z
    .enum(["debug", "info", "warn", "error"])
    .default("info")
    .describe("what is logged at least: debug, info, warn or error; a reload changes it"),
  log_format: z
    .enum(["auto", "json", "pretty", "journal"])
    .default("auto")
    .describe("form of log lines: auto, json, pretty or journal"),
  allowed_hosts: list.default([]).describe("names besides addresses that a Host header may carry"),
  api_token_file: z.string().default("").describe("file with the API token; blank: TCP is open"),
  ca_file: z
    .string()
    .default("/etc/cube/ca/cube-root-ca.crt")
    .describe("CubeEgress root CA that is baked into root filesystems"),
  envd_path: z
    .string()
    .default("/usr/local/share/cubesandbox-envd/envd")
    .describe("in-guest agent that is injected on request"),
  insecure_registries: list.default([]).describe("registries without TLS, or with any certificate"),
  registry_ca_file: z
    .string()
    .default("")
    .describe("PEM of CAs that sign registries' certificates"),
  registry_auth_file: z.string().default("").describe("docker config.json with registry logins"),
  concurrent_builds: count(1, 64).default(LIMITS.concurrentBuilds).describe("builds at once"),
  concurrent_boots: count(1, 64).default(LIMITS.concurrentBoots).describe("guests booting at once"),
  sandbox_pool_size: count(0, 64)
    .default(LIMITS.sandboxPoolSize)
    .describe("VM processes kept waiting for a template's snapshot once a sandbox of it ran"),
  job_deadline: z
    .string()
    .regex(DURATION, "must be a duration as 30s, 15m or 2h")
    .default("1h")
    .describe("a job that runs longer fails: 30s, 15m, 2h"),
  artifact_grace: z
    .string()
    .regex(DURATION, "must be a duration as 0s, 15m or 2h")
    .default("1h")
    .describe("how long an artifact that nobody refers to can still be undeleted: 0s, 15m, 2h"),
  orphan_grace: z
    .string()
    .regex(DURATION, "must be a duration as 0s, 15m or 2h")
    .default("1h")
    .describe("files that nothing knows go when they have not changed for so long: 15m, 2h"),
  storage_thresholds: z
    .string()
    .regex(THRESHOLDS, "must be three percentages as 70,85,95")
    .refine(isAscending, "must be three percentages, ascending, at most 100")
    .default("70,85,95")
    .describe("percent of the disk in use from which on it warns, takes no snapshots, no data"),
  retention_keep_last: count(0, 1_000)
    .default(0)
    .describe("newest templates of a name or image that stay, on every node the same; 0: all"),
  retention_unused_ttl: z
    .string()
    .regex(DURATION, "must be a duration as 0s, 15m or 720h")
    .default("0s")
    .describe("templates that nobody used for so long go: 0s (never), 720h"),
  resnapshot_interval: z
    .string()
    .regex(DURATION, "must be a duration as 0s, 15m or 2h")
    .default("0s")
    .describe(
      "pause between stale replicas that are made again by themselves: 0s (never), 15m, 2h",
    ),
});

/** The modes that begin at the percentages of `storage_thresholds`. */
const thresholdsOf = (text: string): StorageThresholds => {
  const [warn = 0, reject = 0, deleteOnly = 0] = text.split(",").map(Number);
  return { warn, reject, deleteOnly };
};

export type Config = z.output<typeof configSchema> & {
  readonly storage_limits: StorageThresholds;
  readonly job_deadline_ms: number;
  readonly artifact_grace_ms: number;
  readonly orphan_grace_ms: number;
  readonly resnapshot_interval_ms: number;
  readonly retention_unused_ttl_ms: number;
};
type Source = "flag" | "environment" | "file" | "default";

export interface LoadedConfig {
  readonly config: Config;
  readonly sources: Readonly<Record<string, Source>>;
}

const KEYS = Object.keys(configSchema.shape);
const PREFIX = "TEMPLATECENTER_";
export const environmentName = (key: string): string => `${PREFIX}${key.toUpperCase()}`;

/** The key nearest to a mistyped one, when one is at most `most` letters away. */
function nearestKey(unknown: string, most: number): string | undefined {
  const near = KEYS.map((key) => ({ key, distance: editDistance(unknown, key) })).sort(
    (a, b) => a.distance - b.distance,
  )[0];
  return near !== undefined && near.distance <= most ? near.key : undefined;
}

function suggestion(unknown: string): string {
  const near = nearestKey(unknown, 3);
  return near === undefined ? "" : `; did you mean ${near}?`;
}

/** Variables with our prefix may be the client's; only what is nearly a key is a mistake. */
function mistypedVariables(environment: Readonly<Record<string, string | undefined>>): string[] {
  return Object.keys(environment).flatMap((name) => {
    const key = name.startsWith(PREFIX) ? name.slice(PREFIX.length).toLowerCase() : "";
    const near = key === "" || KEYS.includes(key) ? undefined : nearestKey(key, 2);
    if (near === undefined) return [];
    return [`${name}: unknown variable; did you mean ${environmentName(near)}?`];
  });
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}

/** `:LINE` of a top-level key, where it can be found without a parser of positions. */
function lineOf(key: string, text: string): string {
  const line = text
    .split("\n")
    .findIndex((it) => it.replaceAll(/["'\s[\]]/g, "").split("=")[0] === key);
  return line < 0 ? "" : `:${line + 1}`;
}

function parseFile(text: string, path: string): Record<string, unknown> {
  try {
    return parse(text);
  } catch (cause) {
    const where = cause instanceof TomlError ? `${path}:${cause.line}` : path;
    throw new AppError("config_invalid", `${where}: the file is not TOML`, { cause });
  }
}

/**
 * @param input.file the configuration file, when there is one
 * @throws AppError config_invalid with every problem in meta.problems
 */
export function loadConfig(input: {
  flags: Readonly<Record<string, unknown>>;
  environment: Readonly<Record<string, string | undefined>>;
  hostname: string;
  file?: { path: string; text: string };
}): LoadedConfig {
  const { file } = input;
  const fromFile = file === undefined ? {} : parseFile(file.text, file.path);
  const inFile = (key: string) => `${file?.path ?? ""}${lineOf(key, file?.text ?? "")}`;
  const problems = Object.keys(fromFile)
    .filter((key) => !KEYS.includes(key))
    .map((key) => `${inFile(key)}: unknown key ${key}${suggestion(key)}`)
    .concat(mistypedVariables(input.environment));
  const values: Record<string, unknown> = {};
  const sources: Record<string, Source> = {};
  for (const key of KEYS) {
    const variable = input.environment[environmentName(key)];
    const found: [unknown, Source] =
      input.flags[key] !== undefined
        ? [input.flags[key], "flag"]
        : variable !== undefined
          ? [variable, "environment"]
          : fromFile[key] !== undefined
            ? [fromFile[key], "file"]
            : [key === "node_id" ? input.hostname : undefined, "default"];
    values[key] = found[0];
    sources[key] = found[1];
  }
  const parsed = configSchema.safeParse(values);
  const origin = (key: string): string =>
    sources[key] === "environment"
      ? environmentName(key)
      : sources[key] === "file"
        ? inFile(key)
        : `--${key.replaceAll("_", "-")}`;
  for (const issue of parsed.error?.issues ?? []) {
    const key = String(issue.path[0]);
    problems.push(`${origin(key)}: ${key} = ${JSON.stringify(values[key])}: ${issue.message}`);
  }
  if (parsed.data?.driver === "exec" && parsed.data.exec_driver === "") {
    problems.push(`${origin("driver")}: driver = "exec" needs exec_driver, the executable's path`);
  }
  if (problems.length > 0 || parsed.data === undefined) {
    throw new AppError("config_invalid", problems.join("\n"), { meta: { problems } });
  }
  const job_deadline_ms = durationMs(parsed.data.job_deadline);
  const artifact_grace_ms = durationMs(parsed.data.artifact_grace);
  const orphan_grace_ms = durationMs(parsed.data.orphan_grace);
  const resnapshot_interval_ms = durationMs(parsed.data.resnapshot_interval);
  const retention_unused_ttl_ms = durationMs(parsed.data.retention_unused_ttl);
  const storage_limits = thresholdsOf(parsed.data.storage_thresholds);
  // QEMU works in folders of its own, from where a relative path would lead elsewhere.
  const data_dir = resolve(parsed.data.data_dir);
  const guest_dir = resolve(parsed.data.guest_dir);
  return {
    config: {
      ...parsed.data,
      data_dir,
      guest_dir,
      job_deadline_ms,
      artifact_grace_ms,
      orphan_grace_ms,
      resnapshot_interval_ms,
      retention_unused_ttl_ms,
      storage_limits,
    },
    sources,
  };
}

/** One line for each key: its value, as the file would have it, and where it comes from. */
export function describeConfig({ config, sources }: LoadedConfig): string {
  const { host, port } = config.listen;
  const listen = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  const values: Readonly<Record<string, unknown>> = { ...config, listen };
  return Object.entries(sources)
    .map(([key, source]) => `${key} = ${JSON.stringify(values[key])}  # ${source}\n`)
    .join("");
}

/** The example file: every key with its default, commented out. */
export function exampleConfig(): string {
  const lines = ["# /etc/templatecenter/config.toml: every key with its default.", ""];
  const defaults = configSchema.omit({ node_id: true }).parse({});
  for (const [key, schema] of Object.entries(configSchema.shape)) {
    const value = key === "listen" ? "127.0.0.1:7330" : (defaults as Record<string, unknown>)[key];
    lines.push(`# ${schema.description ?? ""}`);
    lines.push(`# ${key} = ${JSON.stringify(value ?? "my-host")}`, "");
  }
  return lines.join("\n");
}
