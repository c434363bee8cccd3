/**
 * Server-sent events: a bounded number of streams, a comment every 15 s so that proxies and dead
 * sockets show, and an end to all of them when the server stops. A reader that is too slow is cut:
 * it comes back with Last-Event-ID and misses nothing that the event ring still holds.
 */
import { AppError, LIMITS, type Clock } from "../../domain/index.ts";
import type { EventFrame, EventSink, EventStreams } from "./ports.ts";

const PING_MS = 15_000;
/** Frames waiting for a reader's socket before the reader is cut. */
const MAX_WAITING = 2_048;

/** One event as it goes over the wire; JSON has no raw line ends. */
export function encodeFrame(frame: EventFrame): string {
  const id = frame.id === undefined ? "" : `id: ${frame.id.replaceAll(/[\r\n\0]/g, "")}\n`;
  return `${id}event: ${frame.event}\ndata: ${JSON.stringify(frame.data)}\n\n`;
}

const STREAM_HEADERS: Readonly<Record<string, string>> = {
  "content-type": "text/event-stream",
  "cache-control": "no-store, no-transform",
  "x-accel-buffering": "no",
};

export function createEventStreams(options: { clock: Clock; limit?: number }): EventStreams {
  const limit = options.limit ?? LIMITS.eventStreams;
  const closers = new Set<() => void>();
  const stop = new AbortController();

  const body = (start: (sink: EventSink) => () => void): ReadableStream<Uint8Array> => {
    let finish: () => void = () => undefined;
    return new ReadableStream<Uint8Array>(
      {
        start(controller) {
          finish = run(controller, start);
        },
        cancel: () => finish(),
      },
      { highWaterMark: MAX_WAITING },
    );
  };

  const run = (
    controller: ReadableStreamDefaultController<Uint8Array>,
    start: (sink: EventSink) => () => void,
  ): (() => void) => {
    const encoder = new TextEncoder();
    let open = true;
    let ping: { cancel(): void } | undefined;
    let leave: () => void = () => undefined;
    const finish = (): void => {
      if (!open) return;
      open = false;
      ping?.cancel();
      leave();
      closers.delete(end);
    };
    const end = (): void => {
      if (!open) return;
      finish();
      controller.close();
    };
    const write = (text: string): void => {
      if (!open) return;
      if ((controller.desiredSize ?? 0) <= 0) return end();
      controller.enqueue(encoder.encode(text));
    };
    const beat = (): void => {
      write(": ping\n\n");
      if (open) ping = options.clock.after(PING_MS, beat);
    };
    closers.add(end);
    ping = options.clock.after(PING_MS, beat);
    write("retry: 1000\n\n");
    leave = start({ send: (frame) => write(encodeFrame(frame)), end });
    if (!open) leave();
    return finish;
  };

  return {
    closing: stop.signal,
    size: () => closers.size,
    open(c, start) {
      if (stop.signal.aborted) throw new AppError("daemon_draining");
      if (closers.size >= limit) {
        throw new AppError("too_many_requests", `${limit} event streams are open already`, {
          meta: { limit },
        });
      }
      // Clients that only ask whether the stream is there must not hold a place.
      if (c.req.method === "HEAD") return new Response(null, { headers: STREAM_HEADERS });
      return new Response(body(start), { headers: { ...STREAM_HEADERS } });
    },
    closeAll() {
      stop.abort(new AppError("daemon_draining"));
      for (const close of [...closers]) close();
    },
  };
}
