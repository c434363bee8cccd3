/**
 * One artifact being fetched: chunks that lie here already are copied, the rest is asked of several
 * neighbours at once, rarest first, each kept busy with about half a second of data.
 *
 * A neighbour that was complete from the start is first asked for *fresh* chunks, which it chooses
 * itself among those it has given to nobody; what is asked of others is chosen here. A chunk that
 * one is slow to deliver is asked of one other.
 */
import {
  AppError,
  Bitfield,
  backOffMs,
  chunkLength,
  errorText,
  holesOf,
  isAppError,
  LackingChunks,
  pickRarest,
  type ArtifactRecord,
  type ChunkManifest,
  type PartialArtifact,
} from "../../domain/index.ts";
import type { Liveness, Parts } from "../ports.ts";
import { inflateChunk, type Compressor } from "./compression.ts";
import type { Limiter } from "./limiter.ts";
import { Holders } from "./holders.ts";
import { fetchManifest, type Asker } from "./manifest.ts";
import {
  chunksAnswerSchema,
  decodeMessage,
  encodeMessage,
  haveAnswerSchema,
  type ChunksAnswer,
  type SwarmRequest,
} from "./messages.ts";
import { excludeSharesOfOthers, type Neighbour } from "./neighbour.ts";
import { Neighbours } from "./neighbours.ts";
import { hashKey, lackingByHash, matchesHash, reuseChunks } from "./reuse.ts";
import type { Room, SwarmStore } from "./store.ts";

/** Who is there is looked up, and lost work noticed, this often while a fetch runs. */
const TICK_MS = 250;
const POLL_MS = { busy: 250, idle: 1_000 } as const;
const CHECKPOINT_MS = 1_000;
const REQUEST_TIMEOUT_MS = 20_000;
const HAVE_TIMEOUT_MS = 4_000;
const LIMITED_MS = 20;
/** A chunk asked for so long ago may be asked of one other. */
const RESCUE_MS = 2_000;

export interface FetchParts extends Parts {
  readonly store: SwarmStore;
  readonly liveness: Pick<Liveness, "isUp">;
  readonly compress: Compressor | undefined;
  readonly rng: () => number;
  readonly download: Limiter;
  readonly onReceived: (digest: string, nodeId: string, bytes: number) => void;
  readonly onReused: (digest: string, chunks: number) => void;
  readonly onMismatch: (digest: string, nodeId: string) => void;
  /** Something more is here, or all of it. */
  readonly onProgress: (task: FetchTask) => void;
}

interface InFlight {
  readonly since: number;
  readonly from: Neighbour[];
}

export class FetchTask implements Asker {
  readonly artifact: ArtifactRecord;
  readonly #parts: FetchParts;
  readonly #holders: Holders;
  readonly #inFlight = new Map<number, InFlight>();
  readonly #abort = new AbortController();
  #lacking = new Map<string, number[]>();
  #missing = new LackingChunks(new Bitfield(0));
  #neighbours: Neighbours;
  #settle: { resolve: () => void; reject: (error: unknown) => void } | undefined;
  #checkpointAt = 0;
  #chunksLeft = 0;
  /** Chunks that `#chunksLeft` no longer counts. */
  #counted = new Bitfield(0);
  #limited = false;
  #room: Room | undefined;
  manifest: ChunkManifest | undefined;
  partial: PartialArtifact | undefined;
  /** Names this run's log of chunks got. */
  readonly logId: string;
  readonly order: number[] = [];
  /** Chunks that are not holes. */
  chunkTotal = 0;

  constructor(artifact: ArtifactRecord, parts: FetchParts) {
    this.artifact = artifact;
    this.#parts = parts;
    this.#holders = new Holders(artifact, parts, parts.rng);
    this.#neighbours = new Neighbours(this.#holders, parts.clock, 0);
    this.logId = Buffer.from(parts.random.bytes(6)).toString("hex");
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get chunksHere(): number {
    return this.chunkTotal - this.#chunksLeft;
  }

  /** Chunks known to be at others: node id → chunks, without holes. */
  *known(): Iterable<readonly [nodeId: string, chunks: number, complete: boolean]> {
    const holes = (this.partial?.have.length ?? 0) - this.chunkTotal;
    for (const { nodeId, have, complete } of this.#neighbours) {
      if (have !== undefined) yield [nodeId, have.count - holes, complete];
    }
  }

  cancel(reason: unknown): void {
    this.#abort.abort(reason);
    this.#settle?.reject(reason);
  }

  /** A node is reachable again: it need not wait any longer. */
  wake(nodeId: string): void {
    const neighbour = this.#neighbours.get(nodeId);
    if (neighbour !== undefined) neighbour.notBefore = 0;
    if (this.partial !== undefined) this.#pump();
  }

  /** @throws AppError fetch_failed, disk_space_low; what it was cancelled with */
  async run(): Promise<void> {
    const { store } = this.#parts;
    const known = await store.partialManifest(this.artifact.digest);
    const manifest = known ?? (await this.#fetchManifest());
    this.signal.throwIfAborted();
    this.manifest = manifest;
    const partial = await store.openPartial(this.artifact, manifest);
    try {
      const holes = holesOf(manifest);
      this.chunkTotal = holes.length - holes.count;
      this.#chunksLeft = holes.length - partial.have.count;
      this.#counted = new Bitfield(holes.length, partial.have.bytes);
      this.#neighbours = new Neighbours(this.#holders, this.#parts.clock, holes.length);
      this.#room = await store.holdSpace?.(this.#chunksLeft * manifest.chunkSizeBytes);
      this.#lacking = lackingByHash(partial);
      this.#missing = new LackingChunks(partial.have);
      this.partial = partial;
      this.#parts.onProgress(this);
      await this.#reuse(partial);
      if (!partial.have.isFull) await this.#exchange();
      await partial.finish();
    } finally {
      await partial.close();
      this.#room?.release();
    }
  }

  async #reuse(partial: PartialArtifact): Promise<void> {
    const before = this.#chunksLeft;
    const { store, log } = this.#parts;
    const put = (index: number, bytes: Uint8Array) => this.#put(index, bytes);
    await reuseChunks({ store, partial, lacking: this.#lacking, put, signal: this.signal, log });
    const reused = before - this.#chunksLeft;
    if (reused > 0) this.#parts.onReused(this.artifact.digest, reused);
  }

  /** Writes a verified chunk wherever its bytes belong. */
  async #put(index: number, bytes: Uint8Array): Promise<void> {
    const partial = this.partial;
    if (partial === undefined) return;
    const key = hashKey(partial.manifest, index);
    for (const same of this.#lacking.get(key) ?? []) {
      if (partial.have.has(same)) continue;
      await partial.writeChunk(same, bytes);
      this.#missing.delete(same);
      // May have been written by two at once.
      if (!this.#counted.set(same)) continue;
      this.order.push(same);
      this.#room?.wrote(bytes.length);
      this.#chunksLeft--;
    }
    this.#lacking.delete(key);
    this.#parts.onProgress(this);
  }

  /* ---- asking -------------------------------------------------------------------------------- */

  async ask(
    neighbour: { readonly peerId: string },
    request: SwarmRequest,
    options: { timeoutMs: number; body?: Uint8Array },
  ): Promise<Uint8Array> {
    const body = encodeMessage(request, options.body === undefined ? [] : [options.body]);
    const { timeoutMs } = options;
    const { transport } = this.#parts;
    return transport.request(neighbour.peerId, "swarm", body, { timeoutMs, signal: this.signal });
  }

  async #fetchManifest(): Promise<ChunkManifest> {
    const { clock, rng, log } = this.#parts;
    for (let round = 1; ; round++) {
      this.#holders.assertAny(() => []);
      for (const { nodeId, peerId } of this.#holders.candidates()) {
        try {
          const manifest = await fetchManifest(this, { peerId }, this.artifact);
          this.#holders.saw();
          return manifest;
        } catch (error) {
          this.signal.throwIfAborted();
          if (isAppError(error, "artifact_corrupt")) this.#ban(nodeId);
          log.debug("no manifest from a peer", { node_id: nodeId, reason: errorText(error) });
        }
      }
      await clock.sleep(Math.min(5_000, backOffMs(round, rng)), { signal: this.signal });
    }
  }

  async #exchange(): Promise<void> {
    const { clock } = this.#parts;
    let timer: { cancel(): void } | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        this.#settle = { resolve, reject };
        const tick = () => {
          timer = clock.after(TICK_MS, tick);
          try {
            this.#tick();
          } catch (error) {
            reject(error instanceof Error ? error : new Error(errorText(error)));
          }
        };
        tick();
        if (this.signal.aborted) reject(this.signal.reason as Error);
      });
    } finally {
      timer?.cancel();
      this.#settle = undefined;
      // What is still on its way is of no use.
      this.#abort.abort(new AppError("job_cancelled", "the fetch has ended"));
    }
  }

  #tick(): void {
    const missing = this.#missing;
    if (missing.size === 0 || this.#neighbours.isAnyWithin(missing)) this.#holders.saw();
    this.#holders.assertAny(() => missing.indexes());
    this.#neighbours.meet(missing);
    this.#lookAgain();
    const now = this.#parts.clock.monotonic();
    if (now - this.#checkpointAt >= CHECKPOINT_MS) {
      this.#checkpointAt = now;
      this.partial?.checkpoint().catch((error: unknown) => this.#settle?.reject(error));
    }
    this.#pump();
  }

  #pump(): void {
    const partial = this.partial;
    if (partial === undefined || this.signal.aborted || this.#settle === undefined) return;
    if (partial.have.isFull && this.#chunksLeft === 0) return this.#settle.resolve();
    const now = this.#parts.clock.monotonic();
    for (const neighbour of this.#neighbours) {
      if (neighbour.notBefore > now) continue;
      if (neighbour.have === undefined || (neighbour.requests === 0 && !neighbour.complete)) {
        this.#poll(neighbour, now);
      }
      if (neighbour.have !== undefined) this.#fill(neighbour, partial);
    }
  }

  /** Asks a neighbour for as much as it may be asked. */
  #fill(neighbour: Neighbour, partial: PartialArtifact): void {
    const { chunkSizeBytes } = partial.manifest;
    while (neighbour.room(chunkSizeBytes) > 0 && neighbour.notBefore === 0) {
      const most = neighbour.perRequest(chunkSizeBytes);
      const limit = Math.min(neighbour.room(chunkSizeBytes), most);
      // Fewer than a request's worth wait until there is room for one.
      if (limit < most && neighbour.requests > 0) return;
      let fresh = neighbour.seed && neighbour.complete && !neighbour.freshDone;
      if (fresh && this.#chunksLeft <= this.#inFlight.size + neighbour.outstanding) {
        // All that lacks is on its way: it may still help those that are slow.
        if (neighbour.outstanding > 0) return;
        fresh = false;
      }
      if (!fresh && neighbour.isResting && this.#neighbours.hasPartial) return;
      if (!fresh && neighbour.hasNothing) return;
      const indexes = fresh ? [] : this.#choose(neighbour, limit);
      neighbour.hasNothing = !fresh && indexes.length === 0;
      if (neighbour.hasNothing) return;
      const count = fresh ? limit : indexes.length;
      if (!this.#parts.download.tryTake(count * chunkSizeBytes)) return this.#pumpSoon();
      void this.#request(neighbour, { fresh, indexes, count });
    }
  }

  /** The download limit is reached: goes on in a moment. */
  #pumpSoon(): void {
    if (this.#limited) return;
    this.#limited = true;
    this.#parts.clock.after(LIMITED_MS, () => {
      this.#limited = false;
      this.#pump();
    });
  }

  #choose(neighbour: Neighbour, limit: number): number[] {
    const isLacking = (index: number) =>
      neighbour.has(index) && this.partial?.have.has(index) === false;
    const indexes = pickRarest({
      lacking: this.#missing,
      limit,
      isWanted: (index) => !this.#inFlight.has(index) && isLacking(index),
      availability: (index) => this.#neighbours.availability[index] ?? 0,
      random: this.#parts.rng,
    });
    if (indexes.length > 0) return indexes;
    const before = this.#parts.clock.monotonic() - RESCUE_MS;
    return [...this.#inFlight]
      .filter(
        ([index, { since, from }]) =>
          since < before && from.length < 2 && !from.includes(neighbour) && isLacking(index),
      )
      .slice(0, limit)
      .map(([index]) => index);
  }

  async #request(
    neighbour: Neighbour,
    plan: { fresh: boolean; indexes: readonly number[]; count: number },
  ): Promise<void> {
    const { digest } = this.artifact;
    const since = this.#parts.clock.monotonic();
    for (const index of plan.indexes) {
      const known = this.#inFlight.get(index);
      if (known === undefined) this.#inFlight.set(index, { since, from: [neighbour] });
      else known.from.push(neighbour);
    }
    neighbour.asked(plan.count);
    let bytes = 0;
    try {
      const { log, cursor } = neighbour;
      const request: SwarmRequest = plan.fresh
        ? { v: 1, kind: "fresh", digest, limit: plan.count }
        : { v: 1, kind: "chunks", digest, indexes: [...plan.indexes], log, cursor };
      const options = { timeoutMs: REQUEST_TIMEOUT_MS };
      const answer = await this.ask(
        neighbour,
        request,
        plan.fresh ? { ...options, body: this.#exclude(neighbour) } : options,
      );
      const { head, body } = decodeMessage(chunksAnswerSchema, answer);
      if (plan.fresh && head.exhausted) neighbour.exhausted();
      const asked = plan.fresh ? undefined : new Set(plan.indexes);
      bytes = await this.#take(neighbour, head, body, asked);
      neighbour.failures = 0;
      neighbour.learn(head, this.#neighbours.availability.length);
      for (const index of head.missing) neighbour.lacks(index);
    } catch (error) {
      this.#failed(neighbour, error);
    } finally {
      neighbour.answered(plan.count, bytes);
      this.#land(neighbour, plan.indexes);
      this.#pump();
    }
  }

  /** To look for something to ask for costs a walk through all that lacks. */
  #lookAgain(): void {
    for (const neighbour of this.#neighbours) neighbour.hasNothing = false;
  }

  /** They are no longer on their way from there. */
  #land(neighbour: Neighbour, indexes: readonly number[]): void {
    for (const index of indexes) {
      const from = this.#inFlight.get(index)?.from;
      if (from === undefined) continue;
      const at = from.indexOf(neighbour);
      if (at >= 0) from.splice(at, 1);
      if (from.length > 0) continue;
      this.#inFlight.delete(index);
      if (this.partial?.have.has(index) !== true) this.#lookAgain();
    }
  }

  /** What a complete holder need not send: what is here or coming, and the share of other such. */
  #exclude(neighbour: Neighbour): Uint8Array {
    const exclude = new Bitfield(this.#neighbours.availability.length, this.partial?.have.bytes);
    for (const index of this.#inFlight.keys()) exclude.set(index);
    excludeSharesOfOthers(exclude, neighbour, this.#neighbours);
    return exclude.bytes;
  }

  /** Verifies and writes what came; answers the bytes of whole chunks. */
  async #take(
    neighbour: Neighbour,
    head: ChunksAnswer,
    body: Uint8Array,
    asked: ReadonlySet<number> | undefined,
  ): Promise<number> {
    const { onReceived, compress } = this.#parts;
    const partial = this.partial;
    let at = 0;
    let bytes = 0;
    for (const [index, length, deflated] of head.chunks) {
      const sent = body.subarray(at, at + length);
      at += length;
      onReceived(this.artifact.digest, neighbour.nodeId, length);
      neighbour.receivedBytes += length;
      if (partial === undefined || this.signal.aborted) return bytes;
      if (index >= partial.have.length || asked?.has(index) === false) {
        throw new AppError("wire_invalid", `${neighbour.nodeId} sent what was not asked for`);
      }
      bytes += chunkLength(partial.manifest, index);
      if (partial.have.has(index)) continue;
      const chunk = deflated
        ? await inflateChunk(compress, sent, chunkLength(partial.manifest, index))
        : sent;
      const isRight = chunk !== undefined && matchesHash(partial.manifest, index, chunk);
      if (!isRight || chunk.length !== chunkLength(partial.manifest, index)) {
        throw new AppError("chunk_mismatch", `chunk ${index} from ${neighbour.nodeId} is wrong`);
      }
      try {
        await this.#put(index, chunk);
      } catch (error) {
        // The disk, not the peer.
        this.#settle?.reject(error);
        throw error;
      }
    }
    return bytes;
  }

  #failed(neighbour: Neighbour, error: unknown): void {
    if (this.signal.aborted) return;
    const { nodeId } = neighbour;
    const { artifact_id, digest } = this.artifact;
    const fields = { node_id: nodeId, artifact_id, reason: errorText(error) };
    if (isAppError(error, "chunk_mismatch")) {
      this.#parts.onMismatch(digest, nodeId);
      this.#parts.log.warn("a peer sent a wrong chunk and is not asked again", fields);
      return this.#ban(nodeId);
    }
    this.#parts.log.debug("a peer did not deliver", fields);
    if (isAppError(error, "artifact_source_missing")) neighbour.forget();
    neighbour.failed(this.#parts.rng);
    const wait = neighbour.notBefore - this.#parts.clock.monotonic();
    this.#parts.clock.after(wait, () => {
      neighbour.notBefore = 0;
      this.#pump();
    });
  }

  #ban(nodeId: string): void {
    this.#holders.ban(nodeId);
    this.#neighbours.drop(nodeId);
  }

  #poll(neighbour: Neighbour, now: number): void {
    if (neighbour.polling || now < neighbour.pollAt) return;
    neighbour.polling = true;
    void this.#askHave(neighbour).finally(() => {
      neighbour.polling = false;
      this.#pump();
    });
  }

  async #askHave(neighbour: Neighbour): Promise<void> {
    const { digest } = this.artifact;
    const { log, cursor } = neighbour;
    const before = neighbour.have?.count ?? 0;
    try {
      const request = { v: 1, kind: "have", digest, log, cursor } as const;
      const answer = await this.ask(neighbour, request, { timeoutMs: HAVE_TIMEOUT_MS });
      const { head, body } = decodeMessage(haveAnswerSchema, answer);
      const whole = head.haves === undefined ? body : undefined;
      if (this.#holders.isBanned(neighbour.nodeId)) return;
      neighbour.learn(head, this.#neighbours.availability.length, whole);
      neighbour.failures = 0;
      this.#holders.hearOf(head.fetchers);
      const isNew = (neighbour.have?.count ?? 0) > before;
      const pause = isNew || this.#chunksLeft > 0 ? POLL_MS.busy : POLL_MS.idle;
      neighbour.pollAt = this.#parts.clock.monotonic() + pause;
    } catch (error) {
      this.#failed(neighbour, error);
    }
  }
}
