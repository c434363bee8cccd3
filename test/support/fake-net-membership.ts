/** A clock, a network and settings in memory, for tests of gossip: 5 ms each way, no chance. */
import { AppError, type Catalog, type Clock, type ClusterConfig } from "../../src/domain/index.ts";
import type { Members, Parts, PeerId, Registers, Transport } from "../../src/gossip/ports.ts";

export class Timeline {
  at = 0;
  #due: { at: number; order: number; run: () => void }[] = [];
  #order = 0;
  /** What was begun at one moment has its consequences before the next moment. */
  settle = async (): Promise<void> => {
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  };
  after(ms: number, run: () => void) {
    const item = { at: this.at + Math.max(0, ms), order: this.#order++, run };
    this.#due.push(item);
    return { cancel: () => void (this.#due = this.#due.filter((other) => other !== item)) };
  }
  async run(ms: number): Promise<void> {
    const end = this.at + ms;
    for (;;) {
      await this.settle();
      const [next] = this.#due.sort((a, b) => a.at - b.at || a.order - b.order);
      if (next === undefined || next.at > end) break;
      this.#due.shift();
      this.at = next.at;
      next.run();
    }
    this.at = end;
  }
}

/** A host's clock: while it is frozen nothing runs there, and everything due runs on waking. */
export class HostClock implements Clock {
  frozen = false;
  skewMs = 0;
  waiting: (() => void)[] = [];
  line: Timeline;
  constructor(line: Timeline) {
    this.line = line;
  }
  now = () => 1_800_000_000_000 + this.line.at + this.skewMs;
  monotonic = () => this.line.at;
  sleep = (ms: number) => new Promise<void>((done) => void this.after(ms, done));
  after = (ms: number, run: () => void) =>
    this.line.after(ms, () => (this.frozen ? void this.waiting.push(run) : run()));
  thaw() {
    this.frozen = false;
    for (const run of this.waiting.splice(0)) run();
  }
}

type Handler = (from: PeerId, body: Uint8Array) => Promise<Uint8Array>;

export class Net {
  readonly line = new Timeline();
  readonly hosts = new Map<
    PeerId,
    { handlers: Map<string, Handler>; news: Map<string, Handler> }
  >();
  readonly down = new Set<PeerId>();
  /** Peers that no published message reaches; requests do. */
  readonly deaf = new Set<PeerId>();
  /** `from>to` */
  readonly cut = new Set<string>();
  messages = 0;
  lost = (from: PeerId, to: PeerId) =>
    this.down.has(from) || this.down.has(to) || this.cut.has(`${from}>${to}`);

  transport(peerId: PeerId, clock: HostClock): Transport {
    const host = { handlers: new Map<string, Handler>(), news: new Map<string, Handler>() };
    this.hosts.set(peerId, host);
    const send = (from: PeerId, to: PeerId, run: () => void) => {
      this.messages++;
      this.line.after(5, () => {
        if (!this.lost(from, to)) run();
      });
    };
    const request: Transport["request"] = (to, protocol, body, { timeoutMs }) =>
      new Promise((resolve, reject) => {
        const gone = new AppError("peer_unreachable");
        const timer = clock.after(timeoutMs, () => reject(gone));
        const finish = (run: () => void) => {
          timer.cancel();
          run();
        };
        send(peerId, to, () => {
          const handler = this.hosts.get(to)?.handlers.get(protocol);
          if (handler === undefined) return;
          handler(peerId, body).then(
            (answer) => send(to, peerId, () => finish(() => resolve(answer))),
            (error: unknown) =>
              send(to, peerId, () => finish(() => reject(Object(error) as Error))),
          );
        });
      });
    return {
      peerId,
      addresses: () => [`/ip4/127.0.0.1/tcp/1`],
      publish: async (topic, body) => {
        for (const to of this.hosts.keys()) {
          if (to === peerId) continue;
          send(peerId, to, () => {
            if (!this.deaf.has(to)) void this.hosts.get(to)?.news.get(topic)?.(peerId, body);
          });
        }
      },
      subscribe: (topic, handler) =>
        void host.news.set(topic, async (from, body) => {
          handler(from, body);
          return body;
        }),
      request,
      handle: (protocol, handler) => void host.handlers.set(protocol, handler),
      setMembers: () => undefined,
      dial: async (addresses) => addresses[0]!.split("/p2p/")[1]!,
      connections: () => [...this.hosts.keys()].filter((peer) => peer !== peerId),
      onConnection: () => () => undefined,
      counters: () => ({}),
      traffic: () => [],
      close: async () => undefined,
    };
  }
}

export function memorySettings(): Catalog {
  const rows = new Map<string, unknown>();
  return {
    table: () => ({ get: async (key: string) => rows.get(key) }),
    merge: async (_: unknown, options: { local?: { key: string; value?: unknown }[] }) => {
      for (const { key, value } of options.local ?? []) rows.set(key, value);
      return [];
    },
  } as unknown as Catalog;
}

const silent = { debug: () => 0, info: () => 0, warn: () => 0, error: () => 0 };

/** A host's parts; node `n1` has the peer id `pn1`. */
export function hostParts(
  net: Net,
  self: string,
  nodes: readonly string[],
  config: () => ClusterConfig | undefined = () => undefined,
  catalog = memorySettings(),
): Parts & { clock: HostClock } {
  const clock = new HostClock(net.line);
  let seed = Buffer.from(self).reduce((sum, byte) => sum * 31 + byte, 7);
  const bytes = (length: number) =>
    Uint8Array.from({ length }, () => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff;
      return seed >> 16;
    });
  const members: Members = {
    self,
    config,
    nodes: () => nodes,
    others: () => nodes.filter((node) => node !== self),
    has: (node) => nodes.includes(node),
    peerOf: (node) => `p${node}`,
    nodeOf: (peer) => nodes.find((node) => `p${node}` === peer),
    isDrained: () => false,
    voters: () => undefined,
    onChange: () => () => undefined,
  };
  const random = { bytes, uuid: () => Buffer.from(bytes(8)).toString("hex") };
  const log = { ...silent, child: () => log } as unknown as Parts["log"];
  return { transport: net.transport(`p${self}`, clock), members, catalog, clock, random, log };
}

/** One record for all hosts, changed one after the other as a quorum would. */
export function sharedRegisters() {
  let version = 0;
  let value: ClusterConfig | undefined;
  const registers = {
    update: async (_: string, id: string, change: (now: unknown) => unknown) => {
      const next = change(value) as ClusterConfig | undefined;
      if (next !== undefined) [value, version] = [next, version + 1];
      return { owner: "@cluster", kind: "cluster", id, version, value };
    },
  } as unknown as Registers;
  return { registers, config: () => value };
}
