/** The real daemon in a process of its own, its API, and what it leaves on the disk. */
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, readFile, readdir, readlink, rm } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, fetch } from "undici";
import { buildExecutable } from "./build.ts";

export type Row = Record<string, unknown>;

export interface Job extends Row {
  readonly job_id: string;
  readonly template_id: string;
  readonly status: string;
  readonly phase: string;
  readonly error_code?: string;
  readonly error_message?: string;
  readonly artifact_id?: string;
}

export interface Answer {
  readonly status: number;
  readonly body: Row;
}

const cacheDir = process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache");
export const guestDir =
  process.env["TEMPLATECENTER_GUEST_DIR"] ?? join(cacheDir, "templatecenter/guest");

/** Resolves with the first value that is not undefined or false. */
export async function waitFor<T>(
  what: string,
  check: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = 30_000,
): Promise<T> {
  const until = performance.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > until) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await sleep(20);
  }
}

/** Processes whose working directory is `dir` or below it. */
export async function processesBelow(dir: string): Promise<number[]> {
  const found: number[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const cwd = await readlink(`/proc/${name}/cwd`).catch(() => "");
    if (cwd.startsWith(`${dir}/`)) found.push(Number(name));
  }
  return found;
}

export const isActive = (job: Job): boolean => !["READY", "FAILED"].includes(job.status);

export interface Surroundings {
  readonly namespace?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** An existing folder, which stays. */
  readonly dataDir?: string;
  /** Where the daemon sees its data folder, in a mount namespace of its own. */
  readonly seenAt?: string;
}

export class TestDaemon {
  readonly dataDir: string;
  readonly #flags: readonly string[];
  readonly #main: string;
  #child: ChildProcess | undefined;
  #ended: Promise<number | string> = Promise.resolve(0);
  readonly #namespace: string | undefined;
  readonly #around: Surroundings;
  #agent: Agent | undefined;
  #output = "";
  url = "";

  private constructor(
    dataDir: string,
    main: string,
    flags: readonly string[],
    around: Surroundings,
  ) {
    this.dataDir = dataDir;
    this.#main = main;
    this.#flags = flags;
    this.#namespace = around.namespace;
    this.#around = around;
  }

  /** A fresh data folder; not started yet. */
  /** @param around with a network namespace the API is asked through its socket */
  static async make(
    driver: "rootfs" | "qemu" | "exec",
    flags: readonly string[] = [],
    around: Surroundings = {},
  ) {
    const dataDir = around.dataDir ?? (await mkdtemp(join(tmpdir(), "tc-e2e-")));
    const all = ["--driver", driver, "--guest-dir", guestDir, "--log-level", "info"];
    // Most tests look whether everything has gone.
    all.push("--artifact-grace", "0s");
    // Whatever the disk of the host that runs them.
    all.push("--storage-thresholds", "100,100,100", ...flags);
    return new TestDaemon(dataDir, await buildExecutable(), all, around);
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error("the daemon does not run");
    return pid;
  }

  /** What the process has written to stderr in all its lives. */
  get output(): string {
    return this.#output;
  }

  /** Resolves when it is ready. @returns milliseconds that took */
  async start(): Promise<number> {
    const began = performance.now();
    const { seenAt = this.dataDir, env = {} } = this.#around;
    const args = ["daemon", "--data-dir", seenAt, "--listen", "127.0.0.1:0"];
    const own = [process.execPath, this.#main, ...args, ...this.#flags];
    const bind = ["sh", "-ec", 'mount --bind "$0" "$1"; shift; exec "$@"', this.dataDir, seenAt];
    const command = seenAt === this.dataDir ? own : [...bind, ...own];
    const inside = this.#namespace === undefined ? [] : ["ip", "netns", "exec", this.#namespace];
    const [program = "", ...rest] = [...inside, ...command];
    const child = spawn(program, rest, {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, ...env },
    });
    this.#child = child;
    // Node's own agent would keep a connection of the life before.
    await this.#agent?.destroy();
    const socketPath = join(this.dataDir, "templatecenter.sock");
    this.#agent =
      this.#namespace === undefined ? new Agent() : new Agent({ connect: { socketPath } });
    child.stderr.on("data", (bytes: Buffer) => (this.#output += bytes.toString()));
    this.#ended = new Promise((resolve) =>
      child.once("exit", (code, signal) => resolve(code ?? signal ?? "?")),
    );
    this.url = await waitFor("the daemon", async () => {
      if (child.exitCode !== null) throw new Error(`the daemon ended: ${this.#output}`);
      const text = await readFile(join(this.dataDir, "daemon.json"), "utf8").catch(() => "{}");
      const { url, pid } = JSON.parse(text) as { url?: string; pid?: number };
      if (url === undefined || pid !== child.pid) return undefined;
      const ready = await this.fetch(url, "/readyz").catch(() => undefined);
      return ready?.ok === true ? url : undefined;
    });
    return performance.now() - began;
  }

  fetch(url: string, path: string, options: Parameters<typeof fetch>[1] = {}) {
    const dispatcher = this.#agent;
    return fetch(`${url}${path}`, dispatcher === undefined ? options : { ...options, dispatcher });
  }

  /** Exit code or signal, when the process has ended. */
  get exited(): Promise<number | string> {
    return this.#ended;
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name);
  }

  /** SIGKILL; resolves when the process is gone. */
  async kill(): Promise<void> {
    this.#child?.kill("SIGKILL");
    await this.#ended;
  }

  /** SIGTERM. @returns exit code and milliseconds */
  async stop(): Promise<{ code: number | string; milliseconds: number }> {
    const began = performance.now();
    this.#child?.kill("SIGTERM");
    const code = await Promise.race([this.#ended, sleep(30_000, "timeout", { ref: false })]);
    return { code, milliseconds: performance.now() - began };
  }

  /** Ends the daemon and every guest below its folder, and removes the folder. */
  async remove(): Promise<void> {
    await this.kill();
    await this.#agent?.destroy();
    await waitFor("guests to end", async () => {
      const pids = await processesBelow(this.dataDir);
      for (const pid of pids) {
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          // Gone in between.
        }
      }
      return pids.length === 0;
    });
    if (this.#around.dataDir === undefined) {
      await rm(this.dataDir, { recursive: true, force: true });
    }
  }

  async ask(method: string, path: string, body?: unknown): Promise<Answer> {
    const response = await this.fetch(this.url, path, {
      method,
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
    const text = await response.text();
    return { status: response.status, body: text === "" ? {} : (JSON.parse(text) as Row) };
  }

  async get(path: string): Promise<Row> {
    const { status, body } = await this.ask("GET", path);
    if (status !== 200) throw new Error(`GET ${path}: ${status} ${JSON.stringify(body)}`);
    return body;
  }

  async items(path: string): Promise<Row[]> {
    return (await this.get(path))["items"] as Row[];
  }

  async submit(request: Row): Promise<Job> {
    const { status, body } = await this.ask("POST", "/v1/templates/from-image", request);
    if (status !== 202) throw new Error(`submit: ${status} ${JSON.stringify(body)}`);
    return body as Job;
  }

  async job(jobId: string): Promise<Job> {
    return (await this.get(`/v1/jobs/${jobId}`)) as Job;
  }

  async log(jobId: string): Promise<string[]> {
    const lines = await this.items(`/v1/jobs/${jobId}/log`);
    return lines.map((line) => String(line["message"]));
  }

  /** The job when it has ended. */
  ended(jobId: string, timeoutMs = 60_000): Promise<Job> {
    return waitFor(
      `the end of job ${jobId}`,
      async () => {
        // Another member may not have heard of it yet.
        const { status, body } = await this.ask("GET", `/v1/jobs/${jobId}`);
        return status !== 200 || isActive(body as Job) ? undefined : (body as Job);
      },
      timeoutMs,
    );
  }

  /** The command-line client. */
  cli(args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    return runCli(this.#main, [...args, "--data-dir", this.dataDir]);
  }

  /** Names in a folder of the data folder; none when it is not there. */
  async names(folder: string): Promise<string[]> {
    return (await readdir(join(this.dataDir, folder)).catch(() => [])).sort();
  }
}

export function runCli(
  main: string,
  args: readonly string[],
  node = process.execPath,
): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(node, [main, ...args], (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
      resolve({ code, stdout, stderr });
    });
  });
}

export interface Frame {
  readonly event: string;
  readonly data: Row;
}

/** Server-sent events until the stream ends or `signal` fires. */
export async function* frames(url: string, signal: AbortSignal): AsyncGenerator<Frame> {
  const response = await fetch(url, { signal });
  if (response.body === null) throw new Error("no body");
  let buffer = "";
  const decoder = new TextDecoder();
  for await (const bytes of response.body) {
    buffer += decoder.decode(bytes as Uint8Array, { stream: true });
    for (let at = buffer.indexOf("\n\n"); at >= 0; at = buffer.indexOf("\n\n")) {
      const lines = buffer.slice(0, at).split("\n");
      buffer = buffer.slice(at + 2);
      const field = (name: string) =>
        lines
          .filter((line) => line.startsWith(`${name}:`))
          .map((line) => line.slice(name.length + 1).trimStart())
          .join("\n");
      if (field("data") !== "") {
        yield { event: field("event"), data: JSON.parse(field("data")) as Row };
      }
    }
  }
}
