/**
 * A voter's side of the registers: promises and accepted values, durable before they are answered.
 * It serves one configuration of voters, the newest it knows, and that only once it is active in it
 * (see voters.ts).
 */
import {
  CLUSTER,
  EMPTY_ROW,
  NO_BALLOT,
  RECORD_KINDS,
  acceptStep,
  isHigher,
  isRecordKind,
  latestAccepted,
  prepareStep,
  type Accepted,
  type Ballot,
  type Catalog,
  type Clock,
  type Entry,
  type LocalWrite,
  type RegisterRow,
  type VoterConfig,
} from "../domain/index.ts";
import type {
  RegisterAnswer,
  WireAccepted,
  WireBallot,
  WireOperation,
  WireResult,
} from "./register-messages.ts";

const VOTERS_ROW = "@voters";
/** Rows of one page of a dump: bounded by their text, so that a page fits a frame. */
const PAGE_CHARACTERS = 400_000;

export const toBallot = ([counter, node]: WireBallot): Ballot => ({ counter, node });
export const fromBallot = ({ counter, node }: Ballot): WireBallot => [counter, node];
export const toAccepted = ({ b, n, x }: WireAccepted): Accepted => ({
  ballot: toBallot(b),
  version: n,
  ...(x === undefined ? {} : { value: x }),
});
export const fromAccepted = ({ ballot, version, value }: Accepted): WireAccepted => ({
  b: fromBallot(ballot),
  n: version,
  ...(value === undefined ? {} : { x: value }),
});

interface StoredRow {
  readonly p: WireBallot;
  readonly a: WireAccepted;
  readonly in?: number;
}

/** What of the voters' configurations is persisted. */
interface VoterState {
  /** The newest configuration known: nothing older is served any more. */
  readonly installed: VoterConfig | undefined;
  /** The newest configuration in which this node's registers were complete; 0: none. */
  readonly activeIn: number;
}

const splitKey = (key: string): { kind: string; id: string } => {
  const at = key.indexOf("/");
  return { kind: key.slice(0, at), id: key.slice(at + 1) };
};

export class Acceptor {
  readonly #catalog: Catalog;
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #loadedAt: number;
  /** When this process changed a row last, monotonic. */
  readonly #touched = new Map<string, number>();
  #rows = new Map<string, RegisterRow>();
  readonly #underWay = new Set<Promise<unknown>>();
  #reloading: Promise<void> | undefined;
  /** Told of each value that was accepted here, once it is durable. */
  onAccepted: (key: string) => void = () => undefined;
  /** As it is on the disk. */
  #state: VoterState = { installed: undefined, activeIn: 0 };
  /** The newest configuration heard of, on the disk or on its way there. */
  #heard: VoterConfig | undefined;
  /** State writes, one after the other. */
  #writing: Promise<void> = Promise.resolve();
  /** Sorted keys of a dump under way, by who asks. */
  readonly #dumps = new Map<
    string,
    { readonly number: number; readonly keys: readonly string[] }
  >();

  constructor(catalog: Catalog, clock: Pick<Clock, "monotonic">) {
    this.#catalog = catalog;
    this.#clock = clock;
    this.#loadedAt = clock.monotonic();
  }

  async load(): Promise<void> {
    for await (const [key, value] of this.#catalog.table("register").range()) {
      if (key === VOTERS_ROW) this.#state = value as VoterState;
      else this.#rows.set(key, fromStored(value as StoredRow));
    }
    this.#heard = this.#state.installed;
  }

  get installed(): VoterConfig | undefined {
    return this.#heard;
  }

  /** True when this node serves that configuration. */
  isActive(number: number): boolean {
    return this.#heard?.number === number && this.#state.activeIn === number;
  }

  /**
   * From when it resolves, nothing older is served, also after a crash; nothing older is served in
   * the meantime either. Resolves with true when the configuration was new.
   */
  async install(voters: VoterConfig): Promise<boolean> {
    const isNew = voters.number > (this.#heard?.number ?? 0);
    if (isNew) this.#heard = voters;
    // Also when it was heard of before: that write may have failed.
    await this.#write((state) =>
      voters.number > (state.installed?.number ?? 0) ? { ...state, installed: voters } : undefined,
    );
    return isNew;
  }

  /** Takes over what a majority of the former voters held; from now on `number` is served. */
  async activate(
    number: number,
    dumps: readonly ReadonlyMap<string, RegisterRow>[],
  ): Promise<void> {
    while (this.#reloading !== undefined) await this.#reloading;
    const keys = new Set(dumps.flatMap((dump) => [...dump.keys()]));
    const local: LocalWrite[] = [];
    for (const key of keys) {
      const held = dumps.flatMap((dump) => dump.get(key) ?? []);
      const own = this.#rows.get(key);
      const rows = own === undefined ? held : [...held, own];
      const accepted = latestAccepted(rows.map((row) => row.accepted));
      const promised = rows.reduce(
        (best, row) => (isHigher(row.promised, best) ? row.promised : best),
        accepted.ballot,
      );
      const row = { promised, accepted };
      this.#rows.set(key, row);
      local.push({ table: "register", key, value: toStored(row) });
    }
    if (local.length > 0) await this.#persist(local);
    await this.#write((state) =>
      state.installed?.number === number ? { ...state, activeIn: number } : undefined,
    );
  }

  /**
   * One result for each operation, all of them durable; undefined when this node does not serve the
   * configuration `number` (any more). @throws AppError catalog_degraded
   */
  async perform(
    number: number,
    operations: readonly WireOperation[],
  ): Promise<WireResult[] | undefined> {
    // A reload that another call brings about meanwhile is waited for as well.
    while (this.#reloading !== undefined) await this.#reloading;
    // Not before the wait: what is done after a newer configuration is known is in no dump.
    if (!this.isActive(number)) return undefined;
    const changed = new Set<string>();
    const results = operations.map((operation) => this.#step(number, operation, changed));
    const local = [...changed].map((key): LocalWrite => ({
      table: "register",
      key,
      value: toStored(this.row(key)),
    }));
    if (local.length === 0) return results;
    const nowMs = this.#clock.monotonic();
    for (const key of changed) this.#touched.set(key, nowMs);
    await this.#persist(local);
    for (const operation of operations) {
      if (operation.a !== undefined) this.onAccepted(operation.k);
    }
    return results;
  }

  /** Registers whose accepted value is newer than what the catalog has learned. */
  unlearned(): string[] {
    return [...this.#rows.keys()].filter((key) => this.isUnlearned(key));
  }

  isUnlearned(key: string): boolean {
    const row = this.#rows.get(key);
    const { kind, id } = splitKey(key);
    if (row === undefined || !isRecordKind(kind)) return false;
    const held = this.#catalog.get(CLUSTER, kind, id);
    // A deletion of what is not held needs no learning: it may have been purged here already.
    if (held === undefined && row.accepted.value === undefined) return false;
    return row.accepted.version > (held?.version ?? 0);
  }

  row(key: string): RegisterRow {
    const row = this.#rows.get(key);
    const { kind, id } = splitKey(key);
    const entry = isRecordKind(kind) ? this.#catalog.get(CLUSTER, kind, id) : undefined;
    if (entry === undefined) return row ?? EMPTY_ROW;
    const { version, value } = entry;
    // A deletion has been chosen after what was accepted here: others drop it from their registers
    // one day, and what is older must not be found then.
    const isDeleted = value === undefined && version > (row?.accepted.version ?? 0);
    if (row !== undefined && !isDeleted) return row;
    // Or agreed while the node was alone: held in its catalog, and below every ballot.
    const accepted = { ballot: NO_BALLOT, version, ...(value === undefined ? {} : { value }) };
    return { promised: row?.promised ?? NO_BALLOT, accepted };
  }

  /**
   * A page of everything this voter held when it stopped serving the configuration before `number`;
   * undefined when it cannot speak for that one.
   */
  dump(from: string, number: number, after: string): Partial<RegisterAnswer> | undefined {
    const { installed } = this.#state;
    // It may be active in `number` itself by now: its rows are then newer, never fewer. Or it never
    // was in `number` − 1: it accepted nothing under that and won't any more, which counts as well,
    // because `number` was chosen by a majority that was active, and any other meets that one.
    if (installed?.number !== number) return undefined;
    const known = this.#dumps.get(from);
    const keys = known?.number === number && after !== "" ? known.keys : this.#allKeys();
    this.#dumps.set(from, { number, keys });
    const rows: { k: string; p: WireBallot; a: WireAccepted }[] = [];
    let characters = 0;
    let at = after === "" ? 0 : keys.indexOf(after) + 1;
    for (; at < keys.length && characters < PAGE_CHARACTERS; at++) {
      const key = keys[at] as string;
      const { promised, accepted } = this.row(key);
      const row = { k: key, p: fromBallot(promised), a: fromAccepted(accepted) };
      characters += JSON.stringify(row).length;
      rows.push(row);
    }
    if (at < keys.length) return { rows, next: keys[at - 1] as string };
    this.#dumps.delete(from);
    return { rows };
  }

  /** True when nothing older than that version is accepted here, as far as others may find it. */
  isSettled(key: string, version: number): boolean {
    return (this.#rows.get(key)?.accepted.version ?? version) >= version;
  }

  /**
   * Takes tombstones that nobody can undo any more out of catalog and registers at once. Those
   * stay whose register was touched within `quietMs`, as far as this process knows: with the row
   * goes what was promised, and a proposal of an older ballot may still be under way. Registers
   * that hold nothing and were not touched for `ageMs` go as well.
   * @returns how many went
   * @throws as Catalog.purge
   */
  async purge(
    tombstones: readonly Entry[],
    { quietMs, ageMs }: { quietMs: number; ageMs: number },
  ): Promise<number> {
    while (this.#reloading !== undefined) await this.#reloading;
    const nowMs = this.#clock.monotonic();
    const isQuiet = (key: string, forMs: number) =>
      nowMs - (this.#touched.get(key) ?? this.#loadedAt) > forMs;
    const gone = tombstones.filter(({ kind, id, version }) => {
      const key = `${kind}/${id}`;
      const row = this.#rows.get(key);
      return row === undefined || (row.accepted.version <= version && isQuiet(key, quietMs));
    });
    const empty = [...this.#rows].filter(
      ([key, row]) => row.accepted.version === 0 && isQuiet(key, ageMs),
    );
    // From memory first: what is accepted while the batch is written is a row of its own.
    const keys = [...gone.map(({ kind, id }) => `${kind}/${id}`), ...empty.map(([key]) => key)];
    const dropped = keys.filter((key) => this.#rows.delete(key));
    for (const key of dropped) this.#touched.delete(key);
    const local = dropped.map((key): LocalWrite => ({ table: "register", key }));
    if (gone.length + local.length === 0) return 0;
    await this.#tracked(this.#catalog.purge(gone, { local }));
    return gone.length;
  }

  #allKeys(): string[] {
    const keys = new Set(this.#rows.keys());
    for (const { kind, id } of this.#catalogRecords()) keys.add(`${kind}/${id}`);
    return [...keys].sort();
  }

  *#catalogRecords(): Iterable<{ kind: string; id: string }> {
    for (const kind of RECORD_KINDS) {
      yield* this.#catalog.list(kind, { owner: CLUSTER });
    }
  }

  #step(number: number, operation: WireOperation, changed: Set<string>): WireResult {
    const { k: key, p, a, next } = operation;
    const row = this.row(key);
    if (a !== undefined) {
      const accepted = toAccepted(a);
      const promised = next === undefined ? accepted.ballot : toBallot(next);
      const step = acceptStep(row, accepted, promised, number);
      if (!step.ok) return { ok: false, promised: fromBallot(step.promised) };
      this.#rows.set(key, step.row);
      changed.add(key);
      return { ok: true };
    }
    const step = prepareStep(row, p === undefined ? NO_BALLOT : toBallot(p));
    if (!step.ok) return { ok: false, promised: fromBallot(step.promised) };
    this.#rows.set(key, step.row);
    changed.add(key);
    const { accepted, acceptedIn } = step.row;
    return {
      ok: true,
      accepted: fromAccepted(accepted),
      ...(acceptedIn === undefined ? {} : { in: acceptedIn }),
    };
  }

  /** What memory holds already. @throws what the write throws, once memory is as the disk again */
  #persist(local: readonly LocalWrite[]): Promise<void> {
    const written = this.#catalog.merge([], { local, sync: true });
    return this.#tracked(written);
  }

  async #tracked(written: Promise<unknown>): Promise<void> {
    this.#underWay.add(written);
    try {
      await written;
    } catch (error) {
      this.#reloading ??= this.#reload().finally(() => (this.#reloading = undefined));
      await this.#reloading;
      throw error;
    } finally {
      this.#underWay.delete(written);
    }
  }

  /** After a write that failed: memory is ahead of the disk. All is read anew, nothing between. */
  async #reload(): Promise<void> {
    await Promise.allSettled(this.#underWay);
    const rows = new Map<string, RegisterRow>();
    for await (const [key, value] of this.#catalog.table("register").range()) {
      if (key !== VOTERS_ROW) rows.set(key, fromStored(value as StoredRow));
    }
    this.#rows = rows;
  }

  /** In memory only once it is durable. */
  #write(next: (state: VoterState) => VoterState | undefined): Promise<void> {
    const written = this.#writing.then(async () => {
      const state = next(this.#state);
      if (state === undefined) return;
      await this.#catalog.merge([], {
        local: [{ table: "register", key: VOTERS_ROW, value: state }],
        sync: true,
      });
      this.#state = state;
    });
    this.#writing = written.catch(() => undefined);
    return written;
  }
}

const toStored = ({ promised, accepted, acceptedIn }: RegisterRow): StoredRow => ({
  p: fromBallot(promised),
  a: fromAccepted(accepted),
  ...(acceptedIn === undefined ? {} : { in: acceptedIn }),
});

const fromStored = ({ p, a, in: acceptedIn }: StoredRow): RegisterRow => ({
  promised: toBallot(p),
  accepted: toAccepted(a),
  ...(acceptedIn === undefined ? {} : { acceptedIn }),
});
