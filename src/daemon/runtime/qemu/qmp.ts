/**
 * QEMU's machine protocol (QEMU docs/interop/qmp-spec): one client on a stream, commands by id.
 * Every command and every wait is bounded in time.
 */
import { open } from "node:fs/promises";
import { connect } from "node:net";
import { dirname, basename } from "node:path";
import type { Duplex } from "node:stream";
import { AppError, type Clock } from "../../../domain/index.ts";

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** When QEMU saw it, in milliseconds since the epoch, to the microsecond. */
  readonly at: number;
}

interface QmpTime {
  readonly seconds?: number;
  readonly microseconds?: number;
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

const COMMAND_TIMEOUT_MS = 10_000;
/** Longer than any line QEMU writes; more without a line end is not QMP. */
const LINE_LIMIT = 4 * 1_048_576;

/** A failure of the control channel: the process ended, or it did not answer in time. */
const failed = (message: string, cause?: unknown): AppError =>
  new AppError("driver_unavailable", message, { cause });

export class Qmp {
  readonly #stream: Duplex;
  readonly #clock: Clock;
  readonly #waiting = new Map<number, Waiting>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #closed = new AbortController();
  #buffer = "";
  #next = 1;

  constructor(stream: Duplex, clock: Clock) {
    this.#stream = stream;
    this.#clock = clock;
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => this.#read(text));
    stream.on("error", (error) => this.#end(error));
    stream.on("close", () => this.#end());
    stream.on("end", () => this.#end());
  }

  /** Connects to a control socket, however long its path is, and leaves negotiation mode. */
  static async open(path: string, clock: Clock, options: { signal?: AbortSignal } = {}) {
    const qmp = new Qmp(await connectUnix(path), clock);
    try {
      await qmp.execute("qmp_capabilities", {}, options);
      return qmp;
    } catch (error) {
      qmp.close();
      throw error;
    }
  }

  /** @throws AppError driver_unavailable with QEMU's own words in its cause */
  execute(
    command: string,
    args: Record<string, unknown> = {},
    options: { timeoutMs?: number; signal?: AbortSignal } = {},
  ): Promise<unknown> {
    const id = this.#next++;
    const answer = this.#bounded(`QEMU did not answer ${command}`, options, (settle) => {
      this.#waiting.set(id, {
        resolve: settle.resolve,
        reject: (cause) => settle.reject(failed(`QEMU refused ${command}`, cause)),
      });
      this.#stream.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
      return () => this.#waiting.delete(id);
    });
    return answer;
  }

  /** The human monitor's answer; blank when it had nothing to say. */
  async monitor(line: string, options: { signal?: AbortSignal } = {}): Promise<string> {
    const args = { "command-line": line };
    const answer = await this.execute("human-monitor-command", args, options);
    return typeof answer === "string" ? answer.trim() : "";
  }

  /** Resolves with the first event that matches. Call it before what causes the event. */
  waitFor(
    matches: (event: QmpEvent) => boolean,
    options: { timeoutMs?: number; signal?: AbortSignal } = {},
  ): Promise<QmpEvent> {
    return this.#bounded("QEMU did not report", options, (settle) => {
      const listener = (event: QmpEvent) => {
        if (matches(event)) settle.resolve(event);
      };
      this.#listeners.add(listener);
      return () => this.#listeners.delete(listener);
    }) as Promise<QmpEvent>;
  }

  /** Calls back with every event until the answer is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#stream.destroy();
    this.#end();
  }

  /** A wait that ends with an answer, the channel's end, the caller's abort, or the time. */
  #bounded(
    what: string,
    options: { timeoutMs?: number; signal?: AbortSignal },
    begin: (settle: Waiting) => () => void,
  ): Promise<unknown> {
    const timeoutMs = options.timeoutMs ?? COMMAND_TIMEOUT_MS;
    return new Promise((resolve, reject) => {
      const signals = [this.#closed.signal, options.signal].filter((one) => one !== undefined);
      const ended = signals.find((one) => one.aborted);
      if (ended !== undefined) return reject(ended.reason as Error);
      const clean = () => {
        timer.cancel();
        for (const one of signals) one.removeEventListener("abort", onAbort);
        undo();
      };
      const settle: Waiting = {
        resolve: (value) => {
          clean();
          resolve(value);
        },
        reject: (error) => {
          clean();
          reject(error);
        },
      };
      const onAbort = (event: Event) =>
        settle.reject((event.target as AbortSignal).reason as Error);
      for (const one of signals) one.addEventListener("abort", onAbort);
      const timer = this.#clock.after(timeoutMs, () =>
        settle.reject(failed(`${what} within ${timeoutMs} ms`)),
      );
      const undo = begin(settle);
    });
  }

  #read(text: string): void {
    this.#buffer += text;
    let end: number;
    while ((end = this.#buffer.indexOf("\n")) >= 0) {
      const line = this.#buffer.slice(0, end).trim();
      this.#buffer = this.#buffer.slice(end + 1);
      if (line !== "") this.#line(line);
    }
    if (this.#buffer.length > LINE_LIMIT) this.#end(new Error("a line has no end"));
  }

  #line(line: string): void {
    let message: Record<string, unknown>;
    try {
      message = JSON.parse(line) as Record<string, unknown>;
    } catch (error) {
      return this.#end(error);
    }
    if (typeof message["event"] === "string") {
      const data = (message["data"] ?? {}) as Record<string, unknown>;
      const { seconds = 0, microseconds = 0 } = (message["timestamp"] ?? {}) as QmpTime;
      const event = { event: message["event"], data, at: seconds * 1_000 + microseconds / 1_000 };
      for (const listener of [...this.#listeners]) listener(event);
      return;
    }
    const waiting = this.#waiting.get(Number(message["id"]));
    if (message["error"] === undefined) return waiting?.resolve(message["return"]);
    const { desc } = message["error"] as { desc?: string };
    waiting?.reject(new Error(desc ?? "unknown error"));
  }

  #end(cause?: unknown): void {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort(failed("QEMU's control channel has ended", cause));
    this.#stream.destroy();
  }
}

/**
 * A socket's path is limited to 108 bytes; the folder's descriptor gives every socket in it a short
 * one.
 */
export async function connectUnix(path: string): Promise<Duplex> {
  const folder = await open(dirname(path));
  try {
    return await new Promise((resolve, reject) => {
      const socket = connect({ path: `/proc/self/fd/${folder.fd}/${basename(path)}` });
      socket.once("connect", () => {
        socket.off("error", reject);
        resolve(socket);
      });
      socket.once("error", reject);
    });
  } finally {
    await folder.close();
  }
}
