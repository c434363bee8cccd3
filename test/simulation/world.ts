/**
 * The simulated world: one heap of events in true time, a seeded source of chance, hosts whose
 * clocks run at their own rate and that stop, crash and wake, a network that loses, doubles, delays
 * and cuts. After each event all microtasks have run, so that a seed gives the same run each time.
 */
import { AppError, type Clock, type Log, type Random } from "../../src/domain/index.ts";
import type { PeerId, Protocol, Topic, Transport, Verdict } from "../../src/gossip/ports.ts";

/** sfc32: small, quick, good enough for schedules. */
export class Chance {
  #a: number;
  #b = 0x9e3779b9;
  #c = 0x243f6a88;
  #d = 1;

  constructor(seed: number) {
    this.#a = seed >>> 0;
    for (let turn = 0; turn < 12; turn++) this.next();
  }

  /** 0 ≤ x < 1. */
  next(): number {
    const t = (this.#a + this.#b + this.#d) >>> 0;
    this.#d = (this.#d + 1) >>> 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) >>> 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) >>> 0;
    this.#c = (this.#c + t) >>> 0;
    return t / 2 ** 32;
  }

  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  between(low: number, high: number): number {
    return low + this.next() * (high - low);
  }

  happens(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }
}

/** Far more than one event takes. */
const MOST_TURNS = 2_000_000;

interface Event {
  readonly at: number;
  readonly order: number;
  run(): void;
  cancelled: boolean;
}

/**
 * Which faults a seed draws, and how often: some runs are calm in one respect and wild in others.
 */
export interface Faults {
  readonly loss: number;
  readonly doubling: number;
  /** Share of messages that are late, and by how much at most. */
  readonly late: number;
  readonly lateMs: number;
  readonly latencyMs: number;
  /** Mean milliseconds between two of each; 0: none. */
  readonly crashEveryMs: number;
  readonly pauseEveryMs: number;
  readonly cutEveryMs: number;
  readonly diskFullEveryMs: number;
  /** Rate of a host's clock is drawn from 1 ± this. */
  /** How far wall clocks are off at most. */
  readonly skewMs: number;
  readonly drift: number;
  readonly syncMs: number;
}

export class World {
  readonly chance: Chance;
  readonly faults: Faults;
  readonly counts: Record<string, number> = {};
  readonly trace: string[] = [];
  /** True milliseconds. */
  now = 0;
  #heap: Event[] = [];
  #order = 0;
  #hash = 0;
  #turns = 0;

  constructor(seed: number, faults: Faults) {
    this.chance = new Chance(seed);
    this.faults = faults;
  }

  count(name: string): void {
    this.counts[name] = (this.counts[name] ?? 0) + 1;
  }

  note(line: string): void {
    const text = `${this.now.toFixed(1)} ${line}`;
    this.trace.push(text);
    if (this.trace.length > 400) this.trace.shift();
    for (let index = 0; index < text.length; index++) {
      this.#hash = (Math.imul(this.#hash, 31) + text.charCodeAt(index)) | 0;
    }
  }

  /** Equal for two runs of a seed, or the simulation is not deterministic. */
  get traceHash(): number {
    return this.#hash >>> 0;
  }

  /** Called by what work does again and again: one event that never ends would stop the world. */
  turn(): void {
    if (++this.#turns < MOST_TURNS) return;
    this.#turns = 0;
    const { stack } = new Error("something spins without waiting");
    console.error(`${this.trace.slice(-20).join("\n")}\n${String(stack)}`);
    process.exit(3);
  }

  after(milliseconds: number, run: () => void): Event {
    const event = {
      at: this.now + Math.max(0, milliseconds),
      order: this.#order++,
      run,
      cancelled: false,
    };
    push(this.#heap, event);
    return event;
  }

  /** Runs until true time `end`; `check` after each event. */
  async runUntil(end: number, check: () => void): Promise<void> {
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined || next.at > end) break;
      pop(this.#heap);
      if (next.cancelled) continue;
      this.now = next.at;
      this.#turns = 0;
      next.run();
      await settle();
      check();
    }
    this.now = end;
  }
}

/** All microtasks have run when a macrotask does. */
export const settle = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

const isBefore = (a: Event, b: Event): boolean =>
  a.at < b.at || (a.at === b.at && a.order < b.order);

function push(heap: Event[], event: Event): void {
  heap.push(event);
  let at = heap.length - 1;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!isBefore(event, heap[parent] as Event)) break;
    heap[at] = heap[parent] as Event;
    at = parent;
  }
  heap[at] = event;
}

function pop(heap: Event[]): void {
  const last = heap.pop();
  if (last === undefined || heap.length === 0) return;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && isBefore(heap[child + 1] as Event, heap[child] as Event)) {
      child++;
    }
    if (!isBefore(heap[child] as Event, last)) break;
    heap[at] = heap[child] as Event;
    at = child;
  }
  heap[at] = last;
}

/** A machine: its clock, and whether it runs. A life ends with a crash; its callbacks never run. */
export class Host {
  readonly world: World;
  readonly name: string;
  readonly rate: number;
  readonly wallOffset: number;
  life = 0;
  up = true;
  pausedUntil = 0;

  constructor(world: World, name: string) {
    this.world = world;
    this.name = name;
    this.rate = 1 + world.chance.between(-world.faults.drift, world.faults.drift);
    this.wallOffset = world.chance.between(-1, 1) * world.faults.skewMs;
  }

  /** Runs in this life, when the host is not stopped; held back while it is. */
  later(trueMs: number, run: () => void): { cancel(): void } {
    const { life } = this;
    const fire = () => {
      if (this.life !== life || !this.up) return;
      if (this.world.now < this.pausedUntil) {
        event = this.world.after(this.pausedUntil - this.world.now, fire);
      } else run();
    };
    let event = this.world.after(trueMs, fire);
    return { cancel: () => void (event.cancelled = true) };
  }

  monotonic(): number {
    return this.world.now * this.rate;
  }

  clock(): Clock {
    return {
      now: () => 1_800_000_000_000 + this.wallOffset + this.monotonic(),
      monotonic: () => this.monotonic(),
      after: (ms, callback) => this.later(ms / this.rate, callback),
      sleep: (ms, options) =>
        new Promise((resolve, reject) => {
          const { signal } = options ?? {};
          const onAbort = () => {
            timer.cancel();
            reject(signal?.reason as Error);
          };
          const timer = this.later(ms / this.rate, () => {
            signal?.removeEventListener("abort", onAbort);
            resolve();
          });
          if (signal?.aborted === true) onAbort();
          else signal?.addEventListener("abort", onAbort);
        }),
    };
  }

  random(): Random {
    const { chance } = this.world;
    const bytes = (length: number) => Uint8Array.from({ length }, () => chance.below(256));
    return { bytes, uuid: () => Buffer.from(bytes(16)).toString("hex") };
  }

  log(): Log {
    const shown = (_key: string, value: unknown) =>
      value instanceof Error ? String(value) : value;
    const note = (level: string) => (message: string, fields?: Record<string, unknown>) =>
      this.world.note(`${this.name} ${level} ${message} ${JSON.stringify(fields ?? {}, shown)}`);
    const log: Log = {
      debug: () => undefined,
      info: note("info"),
      warn: note("warn"),
      error: note("error"),
      child: () => log,
    };
    return log;
  }

  crash(): void {
    this.life++;
    this.up = false;
    this.world.count("crashes");
    this.world.note(`${this.name} crashes`);
  }
}

type Handler = (from: PeerId, body: Uint8Array) => Promise<Uint8Array>;

interface Port {
  readonly host: Host;
  readonly life: number;
  readonly handlers: Map<Protocol, Handler>;
  readonly topics: Map<Topic, (from: PeerId, body: Uint8Array) => Verdict>;
}

/** Peer ids are `p:` and the node's name. */
export const peerOf = (node: string): PeerId => `p:${node}`;

export class Network {
  readonly #world: World;
  readonly #ports = new Map<PeerId, Port>();
  /** `from>to` */
  readonly #cut = new Set<string>();
  calm = false;

  constructor(world: World) {
    this.#world = world;
  }

  cut(from: string, to: string): void {
    this.#cut.add(`${peerOf(from)}>${peerOf(to)}`);
  }

  heal(): void {
    this.#cut.clear();
  }

  /** Delivers `run` at `to` after a while, perhaps twice, perhaps never. */
  #carry(from: PeerId, to: PeerId, run: (port: Port) => void): void {
    const { chance, faults } = this.#world;
    const copies = !this.calm && chance.happens(faults.doubling) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      if (!this.calm && chance.happens(faults.loss)) continue;
      const isLate = !this.calm && chance.happens(faults.late);
      const delay =
        chance.between(0.2, faults.latencyMs) + (isLate ? chance.between(0, faults.lateMs) : 0);
      this.#world.after(delay, () => {
        if (this.#cut.has(`${from}>${to}`)) return;
        const port = this.#ports.get(to);
        if (port?.life !== port?.host.life || port === undefined || !port.host.up) return;
        port.host.later(0, () => run(port));
      });
    }
  }

  transport(host: Host): Transport {
    const self = peerOf(host.name);
    const port: Port = { host, life: host.life, handlers: new Map(), topics: new Map() };
    this.#ports.set(self, port);
    const request: Transport["request"] = (to, protocol, body, { timeoutMs }) =>
      new Promise((resolve, reject) => {
        const timer = host.later(timeoutMs / host.rate, () => {
          reject(new AppError("peer_unreachable", `${to} does not answer`));
        });
        const { life } = host;
        const finish = (settleIt: () => void) => {
          timer.cancel();
          // Whoever asked may be dead; nobody of a former life hears the answer.
          if (host.life === life) settleIt();
        };
        this.#carry(self, to, (there) => {
          const handler = there.handlers.get(protocol);
          if (handler === undefined) return;
          handler(self, body).then(
            (answer) => this.#carry(to, self, () => finish(() => resolve(answer))),
            (error: unknown) =>
              this.#carry(to, self, () => finish(() => reject(Object(error) as Error))),
          );
        });
      });
    return {
      peerId: self,
      addresses: () => [],
      publish: async (topic, body) => {
        for (const to of this.#ports.keys()) {
          if (to !== self) this.#carry(self, to, (there) => there.topics.get(topic)?.(self, body));
        }
      },
      subscribe: (topic, handler) => void port.topics.set(topic, handler),
      request,
      handle: (protocol, handler) => void port.handlers.set(protocol, handler),
      setMembers: () => undefined,
      dial: async () => self,
      connections: () => [...this.#ports.keys()].filter((peer) => peer !== self),
      onConnection: () => () => undefined,
      counters: () => ({}),
      traffic: () => [],
      close: async () => undefined,
    };
  }
}
