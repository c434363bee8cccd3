/**
 * Requests and answers on one kept stream each way: frames with a length, a kind and a number, many
 * under way at once. A stream carries requests in the direction in which it was opened, and their
 * answers back.
 */
import { setMaxListeners } from "node:events";
import type { Stream, StreamMessageEvent } from "@libp2p/interface";
import { AppError, ERRORS, isAppError, type Clock, type ErrorCode } from "../../domain/index.ts";

const REQUEST = 1;
const ANSWER = 2;
const FAILURE = 3;
/** Of which no answer is expected. Its number is the topic's. */
export const MESSAGE = 4;
const HEAD_BYTES = 9;
/** A page of values or a few chunks are far below. */
export const FRAME_BYTES = 8 * 1024 * 1024;
const FAILURE_BYTES = 64 * 1024;
/** What a peer that reads slowly may have waiting for it before its next requests have to wait. */
const QUEUED_BYTES = 4 * 1024 * 1024;
/** Served at once for one peer; more wait, and too many more are refused. */
const SERVED_AT_ONCE = 64;
const WAITING_MOST = 1_024;

export interface Frame {
  readonly kind: number;
  readonly number: number;
  readonly body: Uint8Array;
}

const decoder = new TextDecoder();
const encoder = new TextEncoder();

/** Puts frames together from what a stream delivers. */
class FrameReader {
  #parts: Uint8Array[] = [];
  #length = 0;

  readonly #limit: () => number;

  constructor(limit: () => number) {
    this.#limit = limit;
  }

  /** @throws AppError wire_invalid for a frame over the limit */
  *push(bytes: Uint8Array): Iterable<Frame> {
    this.#parts.push(bytes);
    this.#length += bytes.length;
    for (;;) {
      if (this.#length < HEAD_BYTES) return;
      const head = this.#peek(HEAD_BYTES);
      const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
      const size = view.getUint32(0);
      if (size > this.#limit()) {
        throw new AppError("wire_invalid", `a frame of ${size} bytes is over the limit`);
      }
      if (this.#length < HEAD_BYTES + size) return;
      const whole = this.#take(HEAD_BYTES + size);
      yield {
        kind: view.getUint8(4),
        number: view.getUint32(5),
        body: whole.subarray(HEAD_BYTES),
      };
    }
  }

  #peek(count: number): Uint8Array {
    const [first] = this.#parts;
    if (first !== undefined && first.length >= count) return first.subarray(0, count);
    const all = Buffer.concat(this.#parts);
    this.#parts = [all];
    return all.subarray(0, count);
  }

  #take(count: number): Uint8Array {
    const [first] = this.#parts;
    const all = first !== undefined && first.length >= count ? first : Buffer.concat(this.#parts);
    if (all !== first) this.#parts = [all];
    const taken = all.subarray(0, count);
    const rest = all.subarray(count);
    this.#parts[0] = rest;
    if (rest.length === 0) this.#parts.shift();
    this.#length -= count;
    return taken;
  }
}

function encodeHead(kind: number, number: number, length: number): Uint8Array {
  const head = new Uint8Array(HEAD_BYTES);
  const view = new DataView(head.buffer);
  view.setUint32(0, length);
  view.setUint8(4, kind);
  view.setUint32(5, number);
  return head;
}

/** A frame that may be offered to many streams. */
export const encodeFrame = (kind: number, number: number, body: Uint8Array): Uint8Array =>
  Buffer.concat([encodeHead(kind, number, body.length), body]);

/** Writes frames; those of one moment go out together, and no more than the stream takes. */
export class FrameWriter {
  readonly #stream: Stream;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #writing = false;
  #room: (() => void)[] = [];

  constructor(stream: Stream) {
    this.#stream = stream;
  }

  /** Resolves when so little waits that more may be made. @throws AppError wire_invalid */
  async write(kind: number, number: number, body: Uint8Array): Promise<void> {
    if (body.length > FRAME_BYTES) {
      throw new AppError("wire_invalid", `a frame of ${body.length} bytes is over the limit`);
    }
    this.#put(encodeHead(kind, number, body.length), body);
    if (this.#queuedBytes > QUEUED_BYTES) {
      await new Promise<void>((resolve) => this.#room.push(resolve));
    }
  }

  /** Leaves the frame out when more than `most` bytes wait already. */
  offer(frame: Uint8Array, most: number): void {
    if (this.#queuedBytes + frame.length <= most) this.#put(frame);
  }

  get isOpen(): boolean {
    return this.#stream.status === "open";
  }

  #put(...parts: Uint8Array[]): void {
    this.#queue.push(...parts);
    for (const { length } of parts) this.#queuedBytes += length;
    if (this.#writing) return;
    this.#writing = true;
    queueMicrotask(() => void this.#flush());
  }

  async #flush(): Promise<void> {
    try {
      while (this.#queue.length > 0) {
        const bytes = Buffer.concat(this.#queue.splice(0));
        this.#queuedBytes = 0;
        if (this.#stream.status !== "open") return;
        if (!this.#stream.send(bytes)) await this.#stream.onDrain();
        for (const resolve of this.#room.splice(0)) resolve();
      }
    } catch (error) {
      this.#stream.abort(asError(error));
    } finally {
      this.#writing = false;
      for (const resolve of this.#room.splice(0)) resolve();
    }
  }
}

/** Calls back with each frame until the stream ends, then once with the reason. */
function follow(
  stream: Stream,
  onFrame: (frame: Frame) => void,
  onEnd: (reason: unknown) => void,
  limit: () => number = () => FRAME_BYTES,
): void {
  const reader = new FrameReader(limit);
  let hasEnded = false;
  const end = (reason: unknown) => {
    if (hasEnded) return;
    hasEnded = true;
    stream.removeEventListener("message", onMessage);
    onEnd(reason);
  };
  // By its events: to iterate over the stream is a queue and several turns more for each piece.
  const onMessage = ({ data }: StreamMessageEvent) => {
    try {
      const bytes = data instanceof Uint8Array ? data : data.subarray();
      for (const frame of reader.push(bytes)) onFrame(frame);
    } catch (error) {
      stream.abort(asError(error));
      end(error);
    }
  };
  const onClosed = () => end(new Error("the stream has ended"));
  stream.addEventListener("close", ({ error }) => end(error ?? new Error("the stream has ended")));
  stream.addEventListener("remoteCloseWrite", onClosed);
  stream.addEventListener("message", onMessage);
  if (stream.readStatus !== "readable" && stream.readStatus !== "paused") queueMicrotask(onClosed);
}

export const asError = (thrown: unknown): Error =>
  thrown instanceof Error ? thrown : new Error(String(thrown));

const unreachable = (peer: string, why: string, cause?: unknown): AppError =>
  new AppError("peer_unreachable", `peer ${peer} ${why}`, cause === undefined ? {} : { cause });

interface Waiting {
  readonly resolve: (body: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
}

/** The asking side of a stream. */
export class Caller {
  readonly #peer: string;
  readonly #stream: Stream;
  readonly #writer: FrameWriter;
  readonly #clock: Clock;
  readonly #waiting = new Map<number, Waiting>();
  #next = 1;
  #ended = false;

  constructor(peer: string, stream: Stream, clock: Clock, onEnd: () => void) {
    this.#peer = peer;
    this.#stream = stream;
    this.#clock = clock;
    this.#writer = new FrameWriter(stream);
    follow(
      stream,
      (frame) => this.#hear(frame),
      (reason) => {
        this.#ended = true;
        for (const { reject } of this.#waiting.values()) {
          reject(unreachable(peer, "has cut the connection", reason));
        }
        this.#waiting.clear();
        onEnd();
      },
    );
  }

  get isOpen(): boolean {
    return !this.#ended && this.#stream.status === "open";
  }

  /** @throws AppError peer_unreachable, the signal's reason, and what the handler there threw */
  request(body: Uint8Array, timeoutMs: number, signal?: AbortSignal): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const number = this.#next++ >>> 0;
      const onAbort = () => finish(() => reject(asError(signal?.reason)));
      const finish = (settle: () => void) => {
        timer.cancel();
        signal?.removeEventListener("abort", onAbort);
        this.#waiting.delete(number);
        settle();
      };
      const timer = this.#clock.after(timeoutMs, () =>
        finish(() => reject(unreachable(this.#peer, `did not answer within ${timeoutMs} ms`))),
      );
      if (signal?.aborted === true) return onAbort();
      if (signal !== undefined) {
        // As many as there are requests under way for one piece of work.
        setMaxListeners(0, signal);
        signal.addEventListener("abort", onAbort);
      }
      this.#waiting.set(number, {
        resolve: (answer) => finish(() => resolve(answer)),
        reject: (error) => finish(() => reject(asError(error))),
      });
      if (!this.isOpen) {
        return finish(() => reject(unreachable(this.#peer, "has cut the connection")));
      }
      this.#writer
        .write(REQUEST, number, body)
        .catch((error: unknown) => finish(() => reject(asError(error))));
    });
  }

  close(): void {
    this.#stream.abort(new Error("closed"));
  }

  #hear({ kind, number, body }: Frame): void {
    const waiting = this.#waiting.get(number);
    if (kind === ANSWER) waiting?.resolve(body);
    else if (kind === FAILURE) waiting?.reject(toError(this.#peer, body));
  }
}

/** The answering side of a stream: each request is handled, in any order. */
export function serve(
  stream: Stream,
  handle: (body: Uint8Array) => Promise<Uint8Array>,
  onEnd: (reason: unknown) => void,
  limit: () => number = () => FRAME_BYTES,
): void {
  const writer = new FrameWriter(stream);
  const waiting: Frame[] = [];
  let served = 0;
  const answer = async ({ number, body }: Frame): Promise<void> => {
    try {
      await writer.write(ANSWER, number, await handle(body));
    } catch (error) {
      await writer.write(FAILURE, number, fromError(error));
    } finally {
      served--;
      const next = waiting.shift();
      if (next !== undefined) begin(next);
    }
  };
  const begin = (frame: Frame): void => {
    served++;
    void answer(frame);
  };
  follow(
    stream,
    (frame) => {
      if (frame.kind !== REQUEST) return;
      if (served < SERVED_AT_ONCE) return begin(frame);
      if (waiting.length < WAITING_MOST) return void waiting.push(frame);
      const refusal = new AppError("too_many_requests", "too many requests wait here");
      void writer.write(FAILURE, frame.number, fromError(refusal));
    },
    onEnd,
    limit,
  );
}

/** Calls back with each message of a stream on which nothing is asked. */
export function followMessages(
  stream: Stream,
  limit: () => number,
  onMessage: (number: number, body: Uint8Array) => void,
): void {
  const onFrame = ({ kind, number, body }: Frame) => {
    if (kind === MESSAGE) onMessage(number, body);
  };
  follow(stream, onFrame, () => undefined, limit);
}

/** Causes stay here: they may name what is nobody else's business. */
function fromError(error: unknown): Uint8Array {
  const known = isAppError(error) ? error : new AppError("internal", "the peer failed to answer");
  const { code, message, meta } = known;
  try {
    const text = encoder.encode(JSON.stringify({ code, message, meta }));
    if (text.length <= FAILURE_BYTES) return text;
  } catch {
    // Details that are no JSON stay here.
  }
  return encoder.encode(JSON.stringify({ code, message: message.slice(0, 1_000) }));
}

function toError(peer: string, body: Uint8Array): AppError {
  try {
    const { code, message, meta } = JSON.parse(decoder.decode(body)) as {
      code: string;
      message: string;
      meta?: Record<string, unknown>;
    };
    if (Object.hasOwn(ERRORS, code)) {
      return new AppError(code as ErrorCode, message, { meta: meta ?? {} });
    }
    return unreachable(peer, "failed to answer", new Error(message));
  } catch (error) {
    return unreachable(peer, "sent what cannot be read", error);
  }
}
