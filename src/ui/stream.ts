/**
 * The event streams of open pages. Changes are collected per reader and region, newest wins, and
 * sent every 250 ms; a region is rendered once per flush for all readers of its topic. A reader
 * that comes back continues after its last message id, which also holds how far its log went.
 */
import { LIMITS } from "../domain/index.ts";
import type { ChangeEvent, Clock, Log, Queries } from "../domain/index.ts";
import { html, type Html } from "./html.ts";
import { logLines } from "./fragments/log-view.ts";
import { topicOf } from "./regions.ts";
import type { Region, Topic } from "./topic.ts";

const FLUSH_MS = 250;
const PING_MS = 15_000;
const AGE_MS = 300_000;
const SPEAK_MS = 5_000;
const REFETCH_MS = 1_000;
const FLUSH_BYTES = 64 * 1024;
const BUFFER_BYTES = 1024 * 1024;
const PER_SESSION = 4;
const LOG_LINES = 500;

interface Reader {
  readonly name: string;
  readonly topic: Topic;
  readonly session: string;
  readonly dirty: Map<string, Region>;
  readonly events: Set<string>;
  logSequence: number;
  logDirty: boolean;
  said: string;
  saidAt: number;
  refetchedAt: number;
  send(text: string): void;
  end(): void;
}

interface StreamRequest {
  readonly topic: string;
  readonly session: string;
  /** `Last-Event-ID`, or what the page was rendered at: `event~log sequence`. */
  readonly since: string;
  /** Asked again by the client itself, so the page may be old. */
  readonly signal: AbortSignal;
}

export interface StreamHub {
  /** A body of server-sent events; undefined when the topic is unknown or all places are taken. */
  open(request: StreamRequest): ReadableStream<Uint8Array> | "unknown" | "full";
  readonly readers: number;
  close(): void;
}

/** One message; `data` may have several lines. */
const message = (id: string, data: string, event = ""): string =>
  `${event === "" ? "" : `event: ${event}\n`}id: ${id}\n${data
    .split("\n")
    .map((line) => `data: ${line}\n`)
    .join("")}\n`;

/** Splits a message id into the event's id and the log's sequence. */
export function parsePosition(text: string): { event: string; log: number } {
  const [event = "", log = "0"] = text.split("~");
  return { event, log: /^\d{1,15}$/.test(log) ? Number(log) : 0 };
}

export function createStreamHub(deps: { queries: Queries; clock: Clock; log: Log }): StreamHub {
  const { queries, clock, log } = deps;
  const readers = new Set<Reader>();
  let flushing = false;
  let timer: { cancel(): void } | undefined;

  const mark = (reader: Reader, event: ChangeEvent): void => {
    for (const region of reader.topic.touched(event)) reader.dirty.set(region.id, region);
    const name = reader.topic.refetch(event);
    if (name !== undefined) reader.events.add(name);
    if (event.type === "job-log" && event.subject === reader.topic.logJob) reader.logDirty = true;
  };
  const isDirty = (reader: Reader): boolean =>
    reader.dirty.size > 0 || reader.logDirty || reader.events.size > 0;
  const schedule = (): void => {
    timer ??= clock.after(FLUSH_MS, () => {
      timer = undefined;
      void flush();
    });
  };
  const flush = async (): Promise<void> => {
    if (flushing) return schedule();
    flushing = true;
    const rendered = new Map<string, Promise<string>>();
    for (const reader of [...readers].filter(isDirty)) {
      try {
        await flushReader(deps, reader, rendered);
      } catch (error) {
        log.warn("page stream: a region could not be rendered", { topic: reader.name, error });
        reader.end();
      }
    }
    flushing = false;
    if ([...readers].some(isDirty)) schedule();
  };
  const unsubscribe = queries.subscribe((event) => {
    for (const reader of readers) mark(reader, event);
    if ([...readers].some(isDirty)) schedule();
  });
  const resume = (reader: Reader, since: string): void => {
    const missed = queries.eventsSince(parsePosition(since).event);
    if (missed === undefined) {
      reader.send(message(`${queries.lastEventId()}~${reader.logSequence}`, "", "reload-needed"));
    } else for (const event of missed) mark(reader, event);
    reader.logDirty = reader.topic.logJob !== undefined;
    if (isDirty(reader)) schedule();
  };
  return {
    get readers() {
      return readers.size;
    },
    open(request) {
      const topic = topicOf(queries, request.topic);
      if (topic === undefined) return "unknown";
      if (readers.size >= LIMITS.eventStreams) return "full";
      const mine = [...readers].filter((reader) => reader.session === request.session);
      for (const oldest of mine.slice(0, Math.max(0, mine.length - PER_SESSION + 1))) {
        oldest.send(message(queries.lastEventId(), "", "stream-full"));
        oldest.end();
      }
      return openReader(clock, readers, topic, request, (reader) => resume(reader, request.since));
    },
    close() {
      unsubscribe();
      timer?.cancel();
      for (const reader of [...readers]) reader.end();
    },
  };
}

/** The body of one reader, which leaves the set when it ends, is cut or grows too old. */
function openReader(
  clock: Clock,
  readers: Set<Reader>,
  topic: Topic,
  request: StreamRequest,
  opened: (reader: Reader) => void,
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  const timers: { cancel(): void }[] = [];
  let leave = (): void => undefined;
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        const end = (): void => {
          if (!readers.delete(reader)) return;
          for (const timer of timers) timer.cancel();
          request.signal.removeEventListener("abort", end);
          controller.close();
        };
        const reader: Reader = {
          name: request.topic,
          topic,
          session: request.session,
          dirty: new Map(),
          events: new Set(),
          logSequence: parsePosition(request.since).log,
          logDirty: false,
          said: topic.sentence(clock.now()),
          saidAt: clock.monotonic(),
          refetchedAt: -REFETCH_MS,
          send(text) {
            if (!readers.has(reader)) return;
            if ((controller.desiredSize ?? 0) < -BUFFER_BYTES) return end();
            controller.enqueue(encoder.encode(text));
          },
          end,
        };
        readers.add(reader);
        leave = end;
        const ping = (): void => {
          reader.send(": ping\n\n");
          timers[0] = clock.after(PING_MS, ping);
        };
        timers[0] = clock.after(PING_MS, ping);
        timers[1] = clock.after(AGE_MS, end);
        request.signal.addEventListener("abort", end);
        reader.send(": hello\nretry: 500\n\n");
        opened(reader);
      },
      cancel: () => leave(),
    },
    new ByteLengthQueuingStrategy({ highWaterMark: FLUSH_BYTES }),
  );
}

/** Sends what one reader has waiting, at most about 64 kB; the rest waits for the next flush. */
async function flushReader(
  deps: { queries: Queries; clock: Clock },
  reader: Reader,
  rendered: Map<string, Promise<string>>,
): Promise<void> {
  const { queries, clock } = deps;
  const lastEvent = queries.lastEventId();
  let body = "";
  for (const [id, region] of reader.dirty) {
    if (body.length > FLUSH_BYTES) break;
    reader.dirty.delete(id);
    const key = `${reader.name} ${id}`;
    const text = rendered.get(key) ?? renderRegion(region, clock.now());
    rendered.set(key, text);
    body += await text;
  }
  if (reader.logDirty) body += await newLog(queries, reader);
  body += await speech(clock, reader);
  const id = `${lastEvent}~${reader.logSequence}`;
  if (body !== "") reader.send(message(id, body));
  const now = clock.monotonic();
  if (reader.events.size > 0 && now - reader.refetchedAt >= REFETCH_MS) {
    for (const name of reader.events) reader.send(message(id, "", name));
    reader.events.clear();
    reader.refetchedAt = now;
  }
}

/**
 * One piece for one place of the page. Written as plain text: htmx knows the closing tag only
 * without a blank in it, and a formatter breaks templates there.
 */
async function partial(id: string, swap: string, content: Html): Promise<string> {
  const target = `[id='${id.replaceAll(/[^\w.:-]/g, "")}']`;
  return `<hx-partial hx-target="${target}" hx-swap="${swap}">${String(await content)}</hx-partial>`;
}

async function renderRegion(region: Region, now: number): Promise<string> {
  const content = region.render(now);
  if (content === undefined) return "";
  return partial(region.id, "outerMorph", content);
}

/** Lines the reader has not seen; they are added, not replaced. */
async function newLog(queries: Queries, reader: Reader): Promise<string> {
  reader.logDirty = false;
  const job = reader.topic.logJob;
  if (job === undefined) return "";
  const lines = await queries.jobLog(job, { after: reader.logSequence, limit: LOG_LINES });
  const last = lines.at(-1);
  if (last === undefined) return "";
  reader.logSequence = last.sequence;
  return partial("log", "beforeend", logLines(lines));
}

/** One sentence per five seconds, and only when it is another one. */
async function speech(clock: Clock, reader: Reader): Promise<string> {
  const sentence = reader.topic.sentence(clock.now());
  const at = clock.monotonic();
  if (sentence === reader.said || at - reader.saidAt < SPEAK_MS) return "";
  reader.said = sentence;
  reader.saidAt = at;
  return partial("announce", "innerHTML", html`${sentence}`);
}
