/** The registers of a node: its side as a voter, its side as a proposer, and the road between. */
import {
  AppError,
  CLUSTER,
  CONFIG_ID,
  LIMITS,
  errorText,
  isAppError,
  majorityOf,
  type ClusterConfig,
  type Entry,
  type EntryKind,
  type RecordKind,
  type VoterConfig,
} from "../domain/index.ts";
import { Acceptor } from "./acceptor.ts";
import { Counts } from "./counts.ts";
import type { Change, Liveness, Parts, RegisterCounts, Registers } from "./ports.ts";
import { Proposer, type RegisterChange } from "./proposer.ts";
import {
  answerSchema,
  decodeMessage,
  encodeMessage,
  requestSchema,
  type RegisterAnswer,
  type RegisterRequest,
  type WireOperation,
  type WireResult,
} from "./register-messages.ts";
import { Outbox } from "./outbox.ts";
import type { SettledRegisters } from "./sync/purge.ts";
import { Voters } from "./voters.ts";

export interface OpenedRegisters extends Registers, SettledRegisters {
  start(): Promise<void>;
  stop(): Promise<void>;
}

const CONFIG_KEY = `cluster/${CONFIG_ID}`;

interface UpdateOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

interface SettleOptions extends UpdateOptions {
  /** See Proposer.update. */
  readonly isNew?: boolean;
  /** See Proposer.update. */
  readonly everywhere?: boolean;
}

export type RegisterParts = Parts & { readonly liveness: Pick<Liveness, "isUp"> };

export function createRegisters(parts: RegisterParts): OpenedRegisters {
  return new NodeRegisters(parts);
}

class NodeRegisters implements OpenedRegisters {
  readonly #parts: RegisterParts;
  readonly #acceptor: Acceptor;
  readonly #voters: Voters;
  readonly #proposer: Proposer;
  readonly #outboxes = new Map<string, Outbox>();
  readonly #updates = new Counts();
  readonly #served = new Counts();
  /** The end of the latest update of each register here: one at a time. */
  readonly #tails = new Map<string, Promise<unknown>>();
  /** Registers that a proposer may have written and then died, with the time to look. */
  readonly #unlearned = new Map<string, number>();
  #learning: { cancel(): void } | undefined;
  #stopped = false;
  #unsubscribe: () => void = () => undefined;
  /** What the disk holds is known: nothing is promised before that. */
  readonly #loaded: Promise<void>;
  #load: () => void = () => undefined;

  constructor(parts: RegisterParts) {
    const { catalog, clock, random, log, members, transport } = parts;
    this.#parts = parts;
    this.#acceptor = new Acceptor(catalog, clock);
    this.#loaded = new Promise((resolve) => (this.#load = resolve));
    this.#voters = new Voters({
      nodeId: members.self,
      acceptor: this.#acceptor,
      clock,
      log,
      askDump: (voter, voters, after) =>
        this.#send(voter, { v: 1, voters, dump: { after } }, LIMITS.registerDumpTimeoutMs),
    });
    this.#proposer = new Proposer({
      nodeId: members.self,
      clock,
      random,
      voters: () => this.#newest(),
      votersIn: (key, value) =>
        key === CONFIG_KEY ? (value as ClusterConfig | undefined)?.voters : undefined,
      learn: (voters) => this.#voters.hear(voters),
      ask: (voter, voters, operation) => this.#outbox(voter).ask(voters, operation),
    });
    this.#acceptor.onAccepted = (key) => this.#learnLater(key);
    transport.handle("register", async (from, body) => {
      const request = decodeMessage(requestSchema, body);
      return encodeMessage(await this.#serve(members.nodeOf(from) ?? from, request));
    });
  }

  async start(): Promise<void> {
    const { members, log } = this.#parts;
    await this.#acceptor.load();
    this.#load();
    const hear = () => {
      const voters = members.voters();
      if (voters === undefined) return;
      this.#voters.hear(voters).catch((error: unknown) => {
        log.warn("a configuration of voters could not be installed", { reason: errorText(error) });
      });
    };
    this.#unsubscribe = members.onChange(hear);
    hear();
    this.#voters.resume();
    if (members.voters() === undefined) return;
    for (const key of this.#acceptor.unlearned()) this.#learnLater(key);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#learning?.cancel();
    this.#unsubscribe();
    for (const outbox of this.#outboxes.values()) outbox.close();
    await this.#voters.stop();
  }

  update<K extends RecordKind>(
    kind: K,
    id: string,
    change: Change<K>,
    options: SettleOptions = {},
  ): Promise<Entry<K> | undefined> {
    const key = `${kind}/${id}`;
    const before = this.#tails.get(key) ?? Promise.resolve();
    // Waiting for its turn counts: whoever asks is answered in the time that it gave.
    const untilMs = this.#parts.clock.monotonic() + (options.timeoutMs ?? LIMITS.registerTimeoutMs);
    const result = before.then(() => this.#update(kind, id, change, untilMs, options));
    const settled = result.catch((error: unknown) => {
      this.#updates.add(isAppError(error, "no_quorum") ? "no_quorum" : "refused");
    });
    this.#tails.set(key, settled);
    void settled.then(() => {
      if (this.#tails.get(key) === settled) this.#tails.delete(key);
    });
    return result;
  }

  read<K extends RecordKind>(
    kind: K,
    id: string,
    options: UpdateOptions = {},
  ): Promise<Entry<K> | undefined> {
    return this.update(kind, id, () => undefined, options);
  }

  counts(): RegisterCounts {
    return { updates: this.#updates.all(), served: this.#served.all() };
  }

  status(): { readonly number: number; readonly active: boolean } {
    const number = this.#acceptor.installed?.number ?? 0;
    return { number, active: this.#acceptor.isActive(number) };
  }

  isSettled(kind: EntryKind, id: string, version: number): boolean {
    return this.#acceptor.isSettled(`${kind}/${id}`, version);
  }

  purge(tombstones: readonly Entry[], times: { quietMs: number; ageMs: number }): Promise<number> {
    return this.#acceptor.purge(tombstones, times);
  }

  async #update<K extends RecordKind>(
    kind: K,
    id: string,
    change: Change<K>,
    untilMs: number,
    { signal, everywhere = false, isNew = false }: SettleOptions,
  ): Promise<Entry<K> | undefined> {
    const { catalog, members } = this.#parts;
    signal?.throwIfAborted();
    if (members.voters() === undefined) return this.#updateAlone(kind, id, change);
    await this.#loaded;
    // What a minority accepts unasked is refused now, and done when the others are back.
    const isUnasked = isNew && this.#isMajorityUp();
    const decided = await this.#proposer.update(`${kind}/${id}`, change as RegisterChange, {
      untilMs,
      everywhere,
      isNew: isUnasked,
      ...(signal === undefined ? {} : { signal }),
    });
    this.#updates.add(decided.changed ? "written" : "unchanged");
    if (decided.version === 0) return undefined;
    const entry = entryOf(kind, id, decided.version, decided.value);
    const held = catalog.get(CLUSTER, kind, id);
    // Readers of this node see what was agreed before whoever asked for it is answered.
    if ((held?.version ?? 0) < entry.version) await catalog.merge([entry]);
    return entry;
  }

  #isMajorityUp(): boolean {
    const { members, liveness } = this.#parts;
    const voters = members.voters()?.nodes ?? [];
    return voters.filter((node) => liveness.isUp(node)).length >= majorityOf(voters.length);
  }

  /** A node that is alone is its own quorum. */
  async #updateAlone<K extends RecordKind>(
    kind: K,
    id: string,
    change: Change<K>,
  ): Promise<Entry<K> | undefined> {
    const { catalog, clock } = this.#parts;
    const current = catalog.get(CLUSTER, kind, id);
    const next = change(current?.value);
    if (next === undefined || (next === null && current?.value === undefined)) {
      this.#updates.add("unchanged");
      return current;
    }
    const version = (current?.version ?? Math.max(0, Math.floor(clock.now()))) + 1;
    const entry = entryOf(kind, id, version, next ?? undefined);
    await catalog.merge([entry]);
    this.#updates.add("written");
    return entry;
  }

  /**
   * What was accepted here is usually learned at once, from its proposer. When that died right
   * after a majority had accepted, no catalog has the record, though whoever asked for it may have
   * been told that it is written: so a voter that hears nothing reads the register itself.
   */
  #learnLater(key: string): void {
    const { clock, random } = this.#parts;
    const [byte = 0] = random.bytes(1);
    this.#unlearned.set(key, clock.monotonic() + LIMITS.registerLearnMs * (1 + byte / 256));
    this.#learning ??= clock.after(LIMITS.registerLearnMs, () => {
      this.#learning = undefined;
      void this.#learn();
    });
  }

  async #learn(): Promise<void> {
    const { clock, log } = this.#parts;
    const nowMs = clock.monotonic();
    for (const [key, dueMs] of [...this.#unlearned]) {
      if (this.#stopped) return;
      if (!this.#acceptor.isUnlearned(key)) {
        this.#unlearned.delete(key);
        continue;
      }
      if (dueMs > nowMs) continue;
      this.#unlearned.delete(key);
      const at = key.indexOf("/");
      try {
        const [kind, id] = [key.slice(0, at) as RecordKind, key.slice(at + 1)];
        await this.update(kind, id, () => undefined, { everywhere: true });
      } catch (error) {
        log.debug("a register could not be learned yet", { key, reason: errorText(error) });
        if (!this.#stopped) this.#learnLater(key);
      }
    }
    if (this.#unlearned.size === 0 || this.#stopped) return;
    this.#learning ??= clock.after(LIMITS.registerLearnMs, () => {
      this.#learning = undefined;
      void this.#learn();
    });
  }

  /** The newest configuration of voters that this node has heard of. */
  #newest(): VoterConfig {
    const known = this.#parts.members.voters();
    const { installed } = this.#acceptor;
    const newest =
      (installed?.number ?? 0) > (known?.number ?? 0) ? installed : (known ?? installed);
    if (newest !== undefined) return newest;
    throw new AppError("no_quorum", "this node knows of no voters");
  }

  #outbox(voter: string): Outbox {
    const known = this.#outboxes.get(voter);
    if (known !== undefined) return known;
    const outbox = new Outbox(async (voters, operations) => {
      const request: RegisterRequest = { v: 1, voters, ops: [...operations] };
      const answer = await this.#send(voter, request, LIMITS.registerRequestTimeoutMs);
      if (answer.voters !== undefined && answer.voters.number > voters.number) {
        await this.#voters.hear(answer.voters);
      }
      return answer.served ? answer.results : undefined;
    });
    this.#outboxes.set(voter, outbox);
    return outbox;
  }

  async #send(voter: string, request: RegisterRequest, timeoutMs: number): Promise<RegisterAnswer> {
    const { members, transport } = this.#parts;
    if (voter === members.self) return this.#serve(voter, request);
    const peer = members.peerOf(voter);
    if (peer === undefined) throw new AppError("peer_unreachable", `${voter} is no member`);
    const body = encodeMessage(request);
    return decodeMessage(
      answerSchema,
      await transport.request(peer, "register", body, { timeoutMs }),
    );
  }

  async #serve(from: string, request: RegisterRequest): Promise<RegisterAnswer> {
    await this.#loaded;
    const acceptor = this.#acceptor;
    const { number } = request.voters;
    // Also waits for a configuration that is on its way to the disk.
    if (request.dump !== undefined || number > (acceptor.installed?.number ?? 0)) {
      await this.#voters.hear(request.voters);
    }
    const newest = acceptor.installed;
    const known = newest === undefined ? {} : { voters: newest };
    if (request.dump !== undefined) {
      const page = acceptor.dump(from, number, request.dump.after);
      return { v: 1, served: page !== undefined, ...known, ...page };
    }
    const operations = request.ops ?? [];
    const results = await acceptor.perform(number, operations);
    this.#countServed(operations, results);
    if (results === undefined) return { v: 1, served: false, ...known };
    return { v: 1, served: true, ...known, results };
  }

  #countServed(
    operations: readonly WireOperation[],
    results: readonly WireResult[] | undefined,
  ): void {
    operations.forEach(({ a }, index) => {
      const outcome = results === undefined ? "not_served" : results[index]?.ok ? "ok" : "refused";
      this.#served.add(`${a === undefined ? "prepare" : "accept"}:${outcome}`);
    });
  }
}

/** The kind and its value belong together at every call site; the union type cannot say so. */
const entryOf = <K extends RecordKind>(
  kind: K,
  id: string,
  version: number,
  value: unknown,
): Entry<K> =>
  ({ owner: CLUSTER, kind, id, version, ...(value === undefined ? {} : { value }) }) as Entry<K>;
