/**
 * One call of an exec driver's executable: a process group of its own, JSON in and out, bounded in
 * time and in bytes. When a call is over, so is everything that it has left in its group.
 */
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { basename, isAbsolute } from "node:path";
import { execa, type Options } from "execa";
import { AppError, LIMITS, type Clock, type Log } from "../../../domain/index.ts";
import { endLeftCall, forgetCall, keepCall, signalGroup } from "./call-record.ts";
import {
  ANSWER_BYTES,
  CLOSE_GRACE_MS,
  EXIT,
  LOG_LINES,
  SCHEMA_VERSION,
  TERMINATE_GRACE_MS,
  VERBS,
  errorAnswerSchema,
  type Answer,
  type Verb,
} from "./contract.ts";

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Each line of standard error. */
  readonly onLine?: (line: string) => void;
  /**
   * The folder of the instance that the call is about: its processes inherit the name of it, and
   * a call for it that a former life of this process has left is ended first.
   */
  readonly dir?: string;
  /** Instead of the verb's own limit: for the conformance checks, which provoke a time-out. */
  readonly limitMs?: number;
}

/** What a call came to, before it is judged. */
export interface Outcome {
  readonly verb: string;
  readonly exitCode: number | undefined;
  readonly signal: string | undefined;
  readonly output: string;
  /** The last lines of standard error. */
  readonly said: readonly string[];
  /** Why the call was ended, or is no good whatever it answered. */
  readonly ended?: string;
}

/** Lines of standard error that an error carries. */
const SAID_LINES = 20;
const WORLD_WRITABLE = 0o002;
const ENVIRONMENT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** @throws AppError driver_unavailable when it is no file that this process may execute */
export async function assertExecutable(path: string): Promise<void> {
  const refuse = (why: string, cause?: unknown) =>
    new AppError("driver_unavailable", `the exec driver ${path} ${why}`, { cause });
  if (!isAbsolute(path)) throw refuse("is not an absolute path");
  const found = await stat(path).catch((cause: unknown) => {
    throw refuse("is not there", cause);
  });
  if (!found.isFile()) throw refuse("is not a file");
  if ((found.mode & WORLD_WRITABLE) !== 0) throw refuse("can be changed by everybody");
  await access(path, constants.X_OK).catch((cause: unknown) => {
    throw refuse("may not be executed", cause);
  });
}

export class Executable {
  readonly path: string;
  readonly #clock: Clock;
  readonly #log: Log;

  constructor(path: string, clock: Clock, log: Log) {
    this.path = path;
    this.#clock = clock;
    this.#log = log;
  }

  /**
   * @throws AppError driver_failed with what the executable said (`driver_error` is its code of
   *   it), driver_unavailable when it cannot be started, or the signal's reason
   */
  async call<V extends Verb>(
    verb: V,
    request: Readonly<Record<string, unknown>>,
    options: CallOptions = {},
  ): Promise<Answer<V>> {
    options.signal?.throwIfAborted();
    const { dir } = options;
    if (dir !== undefined) await endLeftCall(dir, this.#clock);
    const began = this.#clock.monotonic();
    const outcome = await this.run(verb, { schema_version: SCHEMA_VERSION, ...request }, options);
    if (dir !== undefined) await forgetCall(dir);
    const ms = Math.round(this.#clock.monotonic() - began);
    this.#log.debug("exec driver called", { verb, ms, exit_code: outcome.exitCode });
    options.signal?.throwIfAborted();
    return this.judge(verb, outcome);
  }

  /** @throws AppError driver_failed unless it is an answer of that verb */
  judge<V extends Verb>(verb: V, outcome: Outcome): Answer<V> {
    if (outcome.ended !== undefined) throw this.failure(outcome, outcome.ended);
    if (outcome.exitCode !== EXIT.done) throw this.#refusal(outcome);
    const parsed = VERBS[verb].answer.safeParse(readJson(outcome.output));
    if (parsed.success) return parsed.data as Answer<V>;
    const [issue] = parsed.error.issues;
    const where = issue?.path.join(".") ?? "";
    const what = `its answer is not one of ${verb}: ${where === "" ? "" : `${where}: `}`;
    throw this.failure(outcome, `${what}${issue?.message ?? "not JSON"}`);
  }

  #refusal(outcome: Outcome): AppError {
    const { exitCode, signal } = outcome;
    const how = signal === undefined ? `exit code ${exitCode ?? "?"}` : `ended by ${signal}`;
    const parsed = errorAnswerSchema.safeParse(readJson(outcome.output));
    if (!parsed.success) return this.failure(outcome, `${how}, without an error answer`);
    const { code, message } = parsed.data.error;
    return this.failure(outcome, `${message} (${code}, ${how})`, code);
  }

  failure(outcome: Outcome, what: string, driver_error?: string): AppError {
    const { verb, said } = outcome;
    const last = said.at(-1);
    const tail = driver_error !== undefined || last === undefined ? "" : `; it said: ${last}`;
    return new AppError("driver_failed", `${basename(this.path)} ${verb}: ${what}${tail}`, {
      meta: { verb, said, ...(driver_error === undefined ? {} : { driver_error }) },
    });
  }

  /**
   * Runs it once; what it answers is not looked at.
   * @param text what it gets on standard input: a value as JSON, or a string as it is
   * @throws AppError driver_unavailable when it cannot be started
   */
  async run(verb: string, text: unknown, options: CallOptions = {}): Promise<Outcome> {
    const { dir, onLine = () => undefined } = options;
    const child = execa(this.path, [verb], settingsFor(dir));
    child.catch(() => undefined);
    const { pid } = child;
    if (pid === undefined) {
      const what = `the exec driver ${this.path} cannot be started`;
      throw new AppError("driver_unavailable", what, { cause: (await child).cause });
    }
    const exit = new Promise<Pick<Outcome, "exitCode" | "signal">>((resolve) => {
      child.once("exit", (code, signal) =>
        resolve({ exitCode: code ?? undefined, signal: signal ?? undefined }),
      );
    });
    const closed = new Promise<true>((resolve) => child.once("close", () => resolve(true)));
    child.stdin.on("error", () => undefined);
    const end = new Ending(pid, this.#clock);
    const said = readLines(child.stderr, onLine);
    const output = readAll(child.stdout, () => end.now("its answer is longer than 1 MiB"));
    const limitMs = options.limitMs ?? VERBS[verb as Verb]?.limitMs ?? TERMINATE_GRACE_MS;
    const timer = this.#clock.after(limitMs, () => end.now(`it took longer than ${limitMs} ms`));
    const abort = () => end.now("the call was given up");
    options.signal?.addEventListener("abort", abort);
    if (options.signal?.aborted === true) abort();
    if (dir !== undefined) await keepCall(dir, pid);
    child.stdin.end(typeof text === "string" ? text : JSON.stringify(text));
    const left = await Promise.race([exit, end.inVain]);
    timer.cancel();
    options.signal?.removeEventListener("abort", abort);
    // What was to stay has a session of its own.
    signalGroup(pid, "SIGKILL");
    const isClosed = await Promise.race([closed, end.pause(CLOSE_GRACE_MS)]);
    if (!isClosed) end.because("what it has left running holds its output open");
    for (const stream of [child.stdout, child.stderr]) stream.destroy();
    end.cancel();
    const { reason } = end;
    const ended = reason === undefined ? {} : { ended: reason };
    return { verb, ...left, output: output(), said: said(), ...ended };
  }
}

/** A session of its own, and nothing of this process's environment. */
const settingsFor = (dir: string | undefined) =>
  ({
    cwd: "/",
    detached: true,
    cleanup: false,
    reject: false,
    buffer: false,
    extendEnv: false,
    env: {
      PATH: ENVIRONMENT_PATH,
      LANG: "C.UTF-8",
      ...(dir === undefined ? {} : { TEMPLATECENTER_INSTANCE_DIR: dir }),
    },
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  }) as const satisfies Options;

/** The end of a call that does not end by itself: politely first, then surely. */
class Ending {
  reason: string | undefined;
  /** Resolves when even the sure signal has not ended it. */
  readonly inVain: Promise<{ exitCode: undefined; signal: undefined }>;
  readonly #pid: number;
  readonly #clock: Clock;
  readonly #timers: { cancel(): void }[] = [];
  #giveUp: () => void = () => undefined;

  constructor(pid: number, clock: Clock) {
    this.#pid = pid;
    this.#clock = clock;
    this.inVain = new Promise((resolve) => {
      this.#giveUp = () => resolve({ exitCode: undefined, signal: undefined });
    });
  }

  because(reason: string): void {
    this.reason ??= reason;
  }

  now(reason: string): void {
    if (this.reason !== undefined) return;
    this.reason = reason;
    signalGroup(this.#pid, "SIGTERM");
    this.#after(TERMINATE_GRACE_MS, () => {
      signalGroup(this.#pid, "SIGKILL");
      this.#after(TERMINATE_GRACE_MS, this.#giveUp);
    });
  }

  pause(ms: number): Promise<false> {
    return new Promise((resolve) => this.#after(ms, () => resolve(false)));
  }

  #after(ms: number, then: () => void): void {
    this.#timers.push(this.#clock.after(ms, then));
  }

  cancel(): void {
    for (const timer of this.#timers) timer.cancel();
  }
}

function readAll(stream: NodeJS.ReadableStream, onTooMuch: () => void): () => string {
  const parts: Buffer[] = [];
  let bytes = 0;
  stream.on("error", () => undefined);
  stream.on("data", (part: Buffer) => {
    bytes += part.length;
    if (bytes > ANSWER_BYTES) onTooMuch();
    else parts.push(part);
  });
  return () => Buffer.concat(parts).toString();
}

/** Lines as they come; what is longer than a log line is cut, and never kept whole. */
function readLines(
  stream: NodeJS.ReadableStream,
  onLine: (line: string) => void,
): () => readonly string[] {
  const last: string[] = [];
  let count = 0;
  let rest = "";
  const take = (line: string) => {
    if (line === "" || ++count > LOG_LINES) return;
    last.push(line);
    if (last.length > SAID_LINES) last.shift();
    onLine(line);
  };
  stream.on("error", () => undefined);
  stream.on("data", (part: Buffer) => {
    const lines = `${rest}${part.toString()}`.split("\n");
    rest = (lines.pop() ?? "").slice(0, LIMITS.jobLogLineBytes);
    for (const line of lines) take(line.slice(0, LIMITS.jobLogLineBytes));
  });
  stream.on("end", () => take(rest));
  return () => [...last];
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
