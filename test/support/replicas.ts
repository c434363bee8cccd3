/** Nodes that replicate: the real catalog over a store in memory, on a test's network and clock. */
import type { ClusterConfig, Entry, Log } from "../../src/domain/index.ts";
import type { Liveness, Parts, ProbeLoad, Verdict } from "../../src/gossip/ports.ts";
import { createRegisters } from "../../src/gossip/registers.ts";
import { createReplication } from "../../src/gossip/sync/index.ts";
import {
  batchSchema,
  decode,
  encode,
  questionSchema,
  type Question,
  type WireEntry,
} from "../../src/gossip/sync/messages.ts";
import type { PurgeTimes } from "../../src/gossip/sync/purge.ts";
import { openCatalog } from "../../src/storage/index.ts";
import { Net, hostParts } from "./fake-net-membership.ts";
import {
  memoryDatabase,
  recordedLog,
  replicaEntry,
  templateEntry,
  templateValue,
} from "./storage.ts";

export interface Batch {
  readonly h: string;
  readonly e: readonly WireEntry[];
}

interface ReplicaOptions {
  /** What it had on its disk before. */
  readonly database?: ReturnType<typeof memoryDatabase>;
  readonly purge?: PurgeTimes;
  /** False: it compares when it is told to, never by itself. */
  readonly rounds?: boolean;
}

/** The virtual milliseconds in which all that runs by itself has run several times. */
export const AWHILE = 30_000;

export class ReplicaNet extends Net {
  /** Names of the members, the same for all. */
  readonly members: string[] = [];
  readonly #listeners = new Set<() => void>();
  #uuids = 0;

  constructor() {
    super();
    // The catalog's writer needs turns of the event loop.
    this.line.settle = async () => {
      for (let turn = 0; turn < 12; turn++) await new Promise((next) => setImmediate(next));
    };
  }

  setMembers(names: readonly string[]): void {
    this.members.splice(0, Infinity, ...names);
    for (const listener of this.#listeners) listener();
  }

  /** A node that has started; it is a member from now on, when it was none. */
  async open(name: string, options: ReplicaOptions = {}): Promise<Replica> {
    if (!this.members.includes(name)) this.setMembers([...this.members, name]);
    const database = options.database ?? memoryDatabase();
    const log = recordedLog();
    const base = hostParts(this, name, this.members);
    const catalog = await openCatalog({
      dir: "unused",
      log,
      clock: base.clock,
      openDatabase: async () => database,
    });
    const members: Parts["members"] = {
      ...base.members,
      config: () => ({}) as ClusterConfig,
      onChange: (listener) => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
    };
    // No two lives of a node draw the same.
    const random = { ...base.random, uuid: () => `uuid-${++this.#uuids}` };
    return new Replica(this, { ...base, members, catalog, random, log }, { ...options, database });
  }

  /** A message as `signer` would publish it; answers what the node makes of it. */
  tell(to: Replica, signer: string, body: unknown): Verdict {
    return to.hear(`p${signer}`, typeof body === "string" ? Buffer.from(body) : encode(body));
  }
}

export class Replica {
  readonly name: string;
  readonly catalog: Parts["catalog"];
  readonly replication: ReturnType<typeof createReplication>;
  readonly database: ReturnType<typeof memoryDatabase>;
  readonly log: Log & { readonly lines: ReturnType<typeof recordedLog>["lines"] };
  /** What it has published, and asked others, since the last look. */
  readonly batches: Batch[] = [];
  readonly questions: { readonly to: string; readonly question: Question; atMs: number }[] = [];
  readonly #net: ReplicaNet;
  #hear: (from: string, body: Uint8Array) => Verdict = () => "ignore";
  #load: ProbeLoad | undefined;

  constructor(
    net: ReplicaNet,
    parts: Omit<Parts, "log"> & { log: Replica["log"] },
    { database, purge, rounds = true }: ReplicaOptions & Pick<Replica, "database">,
  ) {
    this.#net = net;
    this.name = parts.members.self;
    this.catalog = parts.catalog;
    this.database = database;
    this.log = parts.log;
    const transport = this.#recording(parts.transport);
    const watched = { ...parts, transport };
    const carry = (load: ProbeLoad) => (this.#load = load);
    const liveness = { isUp: () => rounds, carry } as unknown as Liveness;
    const registers = createRegisters({ ...watched, liveness });
    const own = purge === undefined ? {} : { purge };
    this.replication = createReplication({ ...watched, ...own, liveness, registers });
    this.replication.start();
  }

  hear(from: string, body: Uint8Array): Verdict {
    return this.#hear(from, body);
  }

  /** A probe of the other and its answer: each hears of the other's catalog. */
  probe(other: Replica): void {
    const mark = this.#load?.tell();
    if (mark !== undefined) other.#load?.hear(`p${this.name}`, mark);
    const answer = other.#load?.tell();
    if (answer !== undefined) this.#load?.hear(`p${other.name}`, answer);
  }

  /** Questions of one kind, asked since the last look. */
  asked<Q extends Question["q"]>(kind: Q): Extract<Question, { q: Q }>[] {
    return this.questions.flatMap(({ question }) =>
      question.q === kind ? [question as Extract<Question, { q: Q }>] : [],
    );
  }

  forgetQuestions(): void {
    this.questions.length = 0;
  }

  async write(...entries: Entry[]): Promise<void> {
    await this.catalog.merge(entries);
  }

  /** Everything that the peer has is here when it resolves. */
  async syncWith(peer: string): Promise<void> {
    let isOver = false;
    const done = this.replication.syncWith(peer, { timeoutMs: 3_000 });
    done.finally(() => (isOver = true)).catch(() => undefined);
    for (let turn = 0; turn < 200 && !isOver; turn++) await this.#net.line.run(20);
    if (!isOver) throw new Error(`${this.name} was not done with ${peer} after 4 s`);
    await done;
  }

  /** What stays is on its disk. */
  async stop(): Promise<void> {
    this.#net.hosts.delete(`p${this.name}`);
    await this.replication.stop();
    await this.#net.line.settle();
    await this.catalog.close();
  }

  #recording(transport: Parts["transport"]): Parts["transport"] {
    return {
      ...transport,
      publish: (topic, body) => {
        if (topic === "changes") this.batches.push(decode(batchSchema, body));
        return transport.publish(topic, body);
      },
      request: (to, protocol, body, options) => {
        if (protocol === "feed") {
          const question = decode(questionSchema, body);
          this.questions.push({ to, question, atMs: this.#net.line.at });
        }
        return transport.request(to, protocol, body, options);
      },
      subscribe: (topic, handler) => {
        if (topic === "changes") this.#hear = handler;
        transport.subscribe(topic, handler);
      },
    };
  }
}

/** Live ids of a kind, sorted. */
export const idsOf = (node: Replica, kind: "template" | "replica"): string[] =>
  [...node.catalog.list(kind)].map(({ id }) => id).sort();

export const tombstone = ({ owner, kind, id, version }: Entry): Entry => ({
  owner,
  kind,
  id,
  version: version + 1,
});

export const templates = (count: number, from = 0): Entry[] =>
  Array.from({ length: count }, (_, at) =>
    templateEntry(`t${String(from + at).padStart(5, "0")}`, 1),
  );

/** A template whose value takes about so many characters. */
export function bulky(id: string, characters: number): Entry {
  const entry = templateEntry(id, 1);
  return { ...entry, value: { ...templateValue(id), last_error: "x".repeat(characters) } };
}

export { replicaEntry, templateEntry };
