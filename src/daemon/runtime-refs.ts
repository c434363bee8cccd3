/**
 * The runtime refs of this node (design §10): taken in its own catalog, in one step with the look
 * whether the snapshot is being deleted, and freed only by who holds them or has seen them gone.
 */
import {
  AppError,
  CLUSTER,
  LIMITS,
  RELEASE_REASONS,
  acquireRows,
  errorText,
  nextGeneration,
  refreshRows,
  releaseRef,
  type AcquireRefRequest,
  type Catalog,
  type Clock,
  type LocalWrite,
  type Log,
  type ObservedRef,
  type RuntimeRef,
} from "../domain/index.ts";
import type { Facts, Records } from "./records.ts";

export interface RuntimeRefParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly facts: Facts;
  readonly clock: Clock;
  readonly log: Log;
  readonly nodeIp: string;
}

interface WriteOptions {
  /** Written in the same batch. */
  readonly local?: readonly LocalWrite[];
}

export interface RuntimeRefs {
  /**
   * Takes a ref; one that the sandbox has of the same binding is released.
   * @throws AppError snapshot_not_found, snapshot_deleting, catalog_degraded
   */
  acquire(
    request: AcquireRefRequest,
    source: RuntimeRef["source"],
    options?: WriteOptions,
  ): Promise<RuntimeRef>;
  /** How many were released; none is no error. */
  releaseBySandbox(sandboxId: string, reason: string, options?: WriteOptions): Promise<number>;
  /** ACTIVE ones, oldest first. */
  active(filter?: { snapshotId?: string; sandboxId?: string }): readonly RuntimeRef[];
  count(snapshotId: string): number;
  usedSnapshots(): ReadonlySet<string>;
  /** What a runtime has seen running here: the rest of its refs is released. */
  refresh(observed: readonly ObservedRef[], source: RuntimeRef["source"]): Promise<void>;
  /** The runtime could not be asked: its refs stay, and say why. */
  fail(message: string, source: RuntimeRef["source"]): Promise<void>;
  /** The generation of the sandbox's next rollback. */
  nextGeneration(sandboxId: string): number;
  /**
   * From now on no ref of it is given; answers those that there are. Also after a restart.
   * @param version of the DELETING record: the fence ends by itself when a later one is not
   */
  fence(snapshotId: string, version?: number): Promise<readonly RuntimeRef[]>;
  /** @param version ends no fence of a later one */
  unfence(snapshotId: string, version?: number): Promise<void>;
}

const SANDBOXES_TOLD = 5;
const FENCE = "ref-fence/";

const keyOf = (id: number): string => String(id).padStart(16, "0");

export async function openRuntimeRefs(parts: RuntimeRefParts): Promise<RuntimeRefs> {
  const refs = new NodeRefs(parts);
  await refs.load();
  return refs;
}

class NodeRefs implements RuntimeRefs {
  readonly #parts: RuntimeRefParts;
  readonly #active = new Map<number, RuntimeRef>();
  readonly #bySnapshot = new Map<string, Set<number>>();
  readonly #bySandbox = new Map<string, Set<number>>();
  /** Highest generation that each sandbox had, released refs included. */
  readonly #generations = new Map<string, number>();
  /** Snapshot id → version of the record that fenced it; Infinity: until it is lifted. */
  readonly #fences = new Map<string, number>();
  /** Snapshot id → when a ref of it was last taken or released, since the start. */
  readonly #lastUsed = new Map<string, string>();
  /** Released ones that are kept to be looked at, oldest first. */
  #released: number[] = [];
  #lastId = 0;

  constructor(parts: RuntimeRefParts) {
    this.#parts = parts;
  }

  async load(): Promise<void> {
    const { catalog, facts } = this.#parts;
    for await (const [key, row] of catalog.table("runtime-ref").range()) {
      const ref = row as RuntimeRef;
      this.#lastId = Math.max(this.#lastId, Number(key));
      this.#sawGeneration(ref);
      if (ref.status === "ACTIVE") this.#index(ref);
      else this.#released.push(ref.id);
    }
    for await (const [key, row] of catalog.table("setting").range({ prefix: FENCE })) {
      this.#fences.set(key.slice(FENCE.length), typeof row === "number" ? row : Infinity);
    }
    for (const id of this.#fences.keys()) this.#dropIfOver(id);
    catalog.subscribe(({ kind, id, value }) => {
      if (kind !== "template") return;
      if (this.#fences.has(id)) this.#dropIfOver(id);
      // When it was last used is of no use any more.
      if (value === undefined && facts.get("refs", id) !== undefined) this.#tell(id);
    });
    // What was told before a crash may differ from what is on the disk.
    const told = [...catalog.list("refs", { owner: facts.nodeId })].map(({ id }) => id);
    for (const id of new Set([...told, ...this.#bySnapshot.keys()])) this.#tell(id);
  }

  async acquire(
    request: AcquireRefRequest,
    source: RuntimeRef["source"],
    options: WriteOptions = {},
  ): Promise<RuntimeRef> {
    this.#assertUsable(request.snapshot_id);
    const active = this.active({ sandboxId: request.sandbox_id });
    const { made, released } = acquireRows(active, request, this.#context(source));
    await this.#write([...released, made], options);
    return made;
  }

  async releaseBySandbox(
    sandboxId: string,
    reason: string,
    options: WriteOptions = {},
  ): Promise<number> {
    const now = this.#now();
    const rows = this.active({ sandboxId }).map((ref) => releaseRef(ref, reason, now));
    await this.#write(rows, options);
    return rows.length;
  }

  active(filter: { snapshotId?: string; sandboxId?: string } = {}): readonly RuntimeRef[] {
    const { snapshotId, sandboxId } = filter;
    const ids =
      sandboxId !== undefined
        ? (this.#bySandbox.get(sandboxId) ?? [])
        : snapshotId !== undefined
          ? (this.#bySnapshot.get(snapshotId) ?? [])
          : this.#active.keys();
    return [...ids]
      .sort((a, b) => a - b)
      .flatMap((id) => this.#active.get(id) ?? [])
      .filter((ref) => snapshotId === undefined || ref.snapshot_id === snapshotId);
  }

  count(snapshotId: string): number {
    return this.#bySnapshot.get(snapshotId)?.size ?? 0;
  }

  usedSnapshots(): ReadonlySet<string> {
    return new Set(this.#bySnapshot.keys());
  }

  async refresh(observed: readonly ObservedRef[], source: RuntimeRef["source"]): Promise<void> {
    // A running sandbox has its ref, also of a snapshot that is being deleted.
    const rows = refreshRows([...this.#active.values()], observed, this.#context(source));
    await this.#write(rows.filter((row) => this.#isNews(row)));
  }

  async fail(message: string, source: RuntimeRef["source"]): Promise<void> {
    const rows = [...this.#active.values()]
      .filter((ref) => ref.source === source && ref.last_error !== message)
      .map((ref) => ({ ...ref, last_error: message }));
    await this.#write(rows);
  }

  nextGeneration(sandboxId: string): number {
    return nextGeneration([this.#generations.get(sandboxId) ?? 0]);
  }

  async fence(snapshotId: string, version = Infinity): Promise<readonly RuntimeRef[]> {
    const until = Math.max(version, this.#fences.get(snapshotId) ?? 0);
    // First in memory: whoever takes a ref from here on is refused, whoever has one is seen.
    this.#fences.set(snapshotId, until);
    const row = until === Infinity ? "lifted" : until;
    await this.#parts.catalog.table("setting").put(`${FENCE}${snapshotId}`, row);
    return this.active({ snapshotId });
  }

  async unfence(snapshotId: string, version = Infinity): Promise<void> {
    if ((this.#fences.get(snapshotId) ?? Infinity) > version) return;
    if (!this.#fences.delete(snapshotId)) return;
    await this.#parts.catalog.table("setting").delete(`${FENCE}${snapshotId}`);
  }

  /** The record has gone on since it was fenced: it is deleted, or is not to be any more. */
  #isFenced(snapshotId: string): boolean {
    const fence = this.#fences.get(snapshotId);
    if (fence === undefined) return false;
    const entry = this.#parts.catalog.get(CLUSTER, "template", snapshotId);
    return entry === undefined || entry.version <= fence || entry.value?.status === "DELETING";
  }

  #dropIfOver(snapshotId: string): void {
    if (this.#isFenced(snapshotId)) return;
    this.unfence(snapshotId).catch((error: unknown) => {
      const reason = errorText(error);
      this.#parts.log.warn("a fence is not dropped", { snapshot_id: snapshotId, reason });
    });
  }

  #assertUsable(snapshotId: string): void {
    const record = this.#parts.records.get("template", snapshotId);
    if (record === undefined) {
      throw new AppError("snapshot_not_found", `there is no snapshot or template ${snapshotId}`);
    }
    if (record.status === "DELETING" || this.#isFenced(snapshotId)) {
      throw new AppError("snapshot_deleting", `${snapshotId} is being deleted`);
    }
  }

  #context(source: RuntimeRef["source"]) {
    const { facts, nodeIp } = this.#parts;
    const nextId = () => ++this.#lastId;
    return { nodeId: facts.nodeId, nodeIp, source, now: this.#now(), nextId };
  }

  #now(): string {
    return new Date(this.#parts.clock.now()).toISOString();
  }

  /** Being seen again is written down only when something else has changed with it. */
  #isNews(row: RuntimeRef): boolean {
    const known = this.#active.get(row.id);
    if (known === undefined || row.status !== "ACTIVE") return true;
    if (known.sandbox_gen !== row.sandbox_gen || known.last_error !== row.last_error) return true;
    this.#active.set(row.id, row);
    return false;
  }

  /** In memory before it is on the disk, so that a fence of the same moment sees it. */
  async #write(rows: readonly RuntimeRef[], options: WriteOptions = {}): Promise<void> {
    const local = rows.map((row): LocalWrite => ({
      table: "runtime-ref",
      key: keyOf(row.id),
      value: row,
    }));
    const all = [...local, ...this.#forgotten(rows), ...(options.local ?? [])];
    if (all.length === 0) return;
    const before = rows.map((row) => this.#active.get(row.id));
    for (const row of rows) if (row.status === "ACTIVE") this.#index(row);
    try {
      await this.#parts.catalog.merge([], { local: all, sync: true });
    } catch (error) {
      rows.forEach((row, index) => {
        const known = before[index];
        if (known !== undefined) this.#index(known);
        else if (row.status === "ACTIVE") this.#unindex(row);
      });
      throw error;
    }
    for (const row of rows) {
      this.#sawGeneration(row);
      if (row.status !== "ACTIVE") this.#unindex(row);
    }
    for (const id of new Set(rows.map((row) => row.snapshot_id))) {
      this.#lastUsed.set(id, this.#now());
      this.#tell(id);
    }
  }

  /** Rows of released refs that go because there are newer ones. */
  #forgotten(rows: readonly RuntimeRef[]): LocalWrite[] {
    const released = rows.filter(({ status }) => status === "RELEASED").map(({ id }) => id);
    this.#released.push(...released);
    const gone = this.#released.splice(0, this.#released.length - LIMITS.releasedRefsKept);
    return gone.map((id) => ({ table: "runtime-ref", key: keyOf(id) }));
  }

  #sawGeneration({ sandbox_id, sandbox_gen }: RuntimeRef): void {
    const known = this.#generations.get(sandbox_id) ?? 0;
    if (sandbox_gen > known) this.#generations.set(sandbox_id, sandbox_gen);
  }

  #index(ref: RuntimeRef): void {
    this.#active.set(ref.id, ref);
    put(this.#bySnapshot, ref.snapshot_id, ref.id);
    put(this.#bySandbox, ref.sandbox_id, ref.id);
  }

  #unindex(ref: RuntimeRef): void {
    this.#active.delete(ref.id);
    take(this.#bySnapshot, ref.snapshot_id, ref.id);
    take(this.#bySandbox, ref.sandbox_id, ref.id);
    if (!this.#bySandbox.has(ref.sandbox_id) && ref.release_reason === RELEASE_REASONS.destroyed) {
      this.#generations.delete(ref.sandbox_id);
    }
  }

  /** What other nodes must know before they let it go. No start waits for it: see `fence`. */
  #tell(snapshotId: string): void {
    const { facts, log, records } = this.#parts;
    const refs = this.active({ snapshotId });
    const isGone = refs.length === 0 && records.get("template", snapshotId) === undefined;
    if (isGone) this.#lastUsed.delete(snapshotId);
    const told = facts.get("refs", snapshotId)?.last_used_at;
    const sandboxes = [...new Set(refs.map((ref) => ref.sandbox_id))].sort();
    const value = {
      template_id: snapshotId,
      count: refs.length,
      sandboxes: sandboxes.slice(0, SANDBOXES_TOLD),
      last_used_at: this.#lastUsed.get(snapshotId) ?? told ?? this.#now(),
    };
    facts
      .put("refs", snapshotId, isGone ? undefined : value, { sync: false })
      .catch((error: unknown) => log.warn("refs are not told", { reason: errorText(error) }));
  }
}

function put(index: Map<string, Set<number>>, key: string, id: number): void {
  const ids = index.get(key) ?? new Set();
  ids.add(id);
  index.set(key, ids);
}

function take(index: Map<string, Set<number>>, key: string, id: number): void {
  const ids = index.get(key);
  ids?.delete(id);
  if (ids?.size === 0) index.delete(key);
}
