/**
 * The answering side: manifests, have-maps and chunks of what is here, be it whole or just being
 * fetched, within the upload limit and fairly between those who ask.
 */
import {
  AppError,
  Bitfield,
  FreshPool,
  chunkCount,
  encodeChunkManifest,
  holesOf,
  type ChunkManifest,
} from "../../domain/index.ts";
import type { Clock } from "../../domain/index.ts";
import type { Members, PeerId } from "../ports.ts";
import { Deflater, type Compressor } from "./compression.ts";
import type { FetchTask } from "./fetcher.ts";
import type { Limiter } from "./limiter.ts";
import {
  FETCHERS_MAX,
  HAVES_MAX,
  MANIFEST_PART_BYTES,
  decodeMessage,
  encodeMessage,
  swarmRequestSchema,
  type ChunksAnswer,
  type HaveAnswer,
  type HavesPart,
  type SwarmRequest,
} from "./messages.ts";
import type { SwarmStore } from "./store.ts";

/** What is known of an artifact served is dropped when nobody has asked for so long. */
const IDLE_MS = 30_000;
/** Requests of one peer that wait for the limiter. */
const WAITING_PER_PEER = 64;
const COMPLETE_LOG = "complete";

interface Served {
  askedAt: number;
  /** Node id → when it last asked. */
  readonly askers: Map<string, number>;
  readonly deflater: Deflater;
  manifest: ChunkManifest | undefined;
  encoded: Uint8Array | undefined;
  fresh: FreshPool | undefined;
}

interface ServerParts {
  readonly store: SwarmStore;
  readonly members: Members;
  readonly clock: Clock;
  readonly limiter: Limiter;
  readonly random: () => number;
  readonly compress: Compressor | undefined;
  readonly task: (digest: string) => FetchTask | undefined;
  readonly onSent: (digest: string, nodeId: string, bytes: number) => void;
  readonly onChunksKnown: (digest: string, chunks: number) => void;
}

interface Sent {
  readonly chunks: ChunksAnswer["chunks"];
  readonly bytes: Uint8Array[];
}

/** Where the bytes of a digest come from now. */
interface Source {
  readonly complete: boolean;
  readonly read: (indexes: readonly number[]) => Promise<readonly Uint8Array[]>;
  readonly has: (index: number) => boolean;
}

export class SwarmServer {
  readonly #parts: ServerParts;
  readonly #served = new Map<string, Served>();

  constructor(parts: ServerParts) {
    this.#parts = parts;
  }

  /** @throws AppError wire_invalid, artifact_source_missing, too_many_requests */
  async answer(from: PeerId, bytes: Uint8Array): Promise<Uint8Array> {
    const { head, body } = decodeMessage(swarmRequestSchema, bytes);
    const nodeId = this.#parts.members.nodeOf(from) ?? from;
    const served = this.#touch(head.digest, nodeId);
    switch (head.kind) {
      case "manifest":
        return this.#manifestPart(served, head.digest, head.offset);
      case "have":
        return this.#have(served, head, nodeId);
      case "chunks":
        return this.#chunks(served, head, nodeId);
      case "fresh":
        return this.#fresh(served, head, nodeId, body);
    }
  }

  /** Drops what nobody asks for any more. */
  sweep(): void {
    const now = this.#parts.clock.monotonic();
    for (const [digest, served] of this.#served) {
      if (now - served.askedAt > IDLE_MS) this.#served.delete(digest);
    }
  }

  #touch(digest: string, nodeId: string): Served {
    const now = this.#parts.clock.monotonic();
    let served = this.#served.get(digest);
    if (served === undefined) {
      served = {
        askedAt: now,
        askers: new Map(),
        deflater: new Deflater(this.#parts.compress),
        manifest: undefined,
        encoded: undefined,
        fresh: undefined,
      };
      // Asking for what is not here leaves no trace.
      if (this.#isKnown(digest)) this.#served.set(digest, served);
    }
    served.askedAt = now;
    served.askers.delete(nodeId);
    served.askers.set(nodeId, now);
    return served;
  }

  #isKnown(digest: string): boolean {
    return this.#isComplete(digest) || this.#parts.task(digest) !== undefined;
  }

  #isComplete(digest: string): boolean {
    const { store } = this.#parts;
    return store.findDigest(digest) !== undefined && !store.isSuspect(digest);
  }

  async #manifest(served: Served, digest: string): Promise<ChunkManifest> {
    if (served.manifest === undefined) {
      const { store, task, onChunksKnown } = this.#parts;
      const manifest = task(digest)?.manifest ?? (await store.manifest(digest));
      served.manifest = manifest;
      onChunksKnown(digest, chunkCount(manifest) - holesOf(manifest).count);
    }
    return served.manifest;
  }

  #source(digest: string): Source {
    const { store, task } = this.#parts;
    if (this.#isComplete(digest)) {
      const read = (indexes: readonly number[]) => store.readChunks(digest, indexes);
      return { complete: true, read, has: () => true };
    }
    const partial = task(digest)?.partial;
    if (partial === undefined) {
      throw new AppError("artifact_source_missing", `nothing of ${digest} is here`);
    }
    return {
      complete: false,
      read: (indexes) => partial.readChunks(indexes),
      has: (index) => partial.have.has(index),
    };
  }

  async #manifestPart(served: Served, digest: string, offset: number): Promise<Uint8Array> {
    served.encoded ??= encodeChunkManifest(await this.#manifest(served, digest));
    const part = served.encoded.subarray(offset, offset + MANIFEST_PART_BYTES);
    return encodeMessage({ v: 1, total: served.encoded.length }, [part]);
  }

  #haves(digest: string, position: { log?: string; cursor?: number }): HavesPart {
    const task = this.#parts.task(digest);
    if (task?.partial === undefined || this.#isComplete(digest)) {
      return { complete: true, log: COMPLETE_LOG, cursor: 0, haves: [] };
    }
    const { logId: log, order } = task;
    if (position.log !== log || position.cursor === undefined || position.cursor > order.length) {
      return { complete: false, log, cursor: order.length };
    }
    const haves = order.slice(position.cursor, position.cursor + HAVES_MAX);
    return { complete: false, log, cursor: position.cursor + haves.length, haves };
  }

  async #have(
    served: Served,
    request: Extract<SwarmRequest, { kind: "have" }>,
    nodeId: string,
  ): Promise<Uint8Array> {
    this.#source(request.digest);
    const part = this.#haves(request.digest, request);
    const now = this.#parts.clock.monotonic();
    const fetchers = [...served.askers]
      .filter(([id, at]) => id !== nodeId && now - at < IDLE_MS)
      .slice(-FETCHERS_MAX)
      .map(([id]) => id);
    const head: HaveAnswer = { v: 1, ...part, fetchers };
    const whole = this.#parts.task(request.digest)?.partial?.have.bytes;
    return encodeMessage(head, part.haves === undefined && whole !== undefined ? [whole] : []);
  }

  async #chunks(
    served: Served,
    request: Extract<SwarmRequest, { kind: "chunks" }>,
    nodeId: string,
  ): Promise<Uint8Array> {
    const manifest = await this.#manifest(served, request.digest);
    const count = chunkCount(manifest);
    const { has } = this.#source(request.digest);
    const there = request.indexes.filter((index) => index < count && has(index));
    const missing = request.indexes.filter((index) => !there.includes(index));
    const sent = await this.#send(served, request.digest, nodeId, () => there, there.length);
    const part = this.#haves(request.digest, request);
    const head: ChunksAnswer = { v: 1, ...part, chunks: sent.chunks, missing, exhausted: false };
    return encodeMessage(head, sent.bytes);
  }

  async #fresh(
    served: Served,
    request: Extract<SwarmRequest, { kind: "fresh" }>,
    nodeId: string,
    body: Uint8Array,
  ): Promise<Uint8Array> {
    const { digest, limit } = request;
    const manifest = await this.#manifest(served, digest);
    let exclude: Bitfield;
    try {
      exclude = new Bitfield(chunkCount(manifest), body);
    } catch (cause) {
      throw new AppError("wire_invalid", "a bitfield has the wrong length", { cause });
    }
    let wanted = 0;
    let sent: Sent = { chunks: [], bytes: [] };
    if (this.#source(digest).complete) {
      served.fresh ??= new FreshPool(holesOf(manifest), this.#parts.random);
      const pool = served.fresh;
      if (pool.size > 0) {
        // Chosen when it is this peer's turn, not when it asked.
        const choose = () => pool.take(limit, exclude);
        sent = await this.#send(served, digest, nodeId, choose, limit);
      }
      wanted = limit;
    }
    const part = this.#haves(digest, {});
    const exhausted = sent.chunks.length < wanted || wanted === 0;
    return encodeMessage(
      { v: 1, ...part, chunks: sent.chunks, missing: [], exhausted },
      sent.bytes,
    );
  }

  async #send(
    served: Served,
    digest: string,
    nodeId: string,
    choose: () => readonly number[],
    limit: number,
  ): Promise<Sent> {
    const { limiter, onSent } = this.#parts;
    const chunks: ChunksAnswer["chunks"] = [];
    const bytes: Uint8Array[] = [];
    if (limit === 0) return { chunks, bytes };
    if (limiter.waitingOf(nodeId) >= WAITING_PER_PEER) {
      throw new AppError("too_many_requests", `${nodeId} asks for too much at once`);
    }
    const manifest = await this.#manifest(served, digest);
    const taken = limit * manifest.chunkSizeBytes;
    await limiter.take(nodeId, taken);
    let total = 0;
    try {
      const indexes = choose();
      const read = await this.#source(digest).read(indexes);
      const packed = await Promise.all(read.map((chunk) => served.deflater.deflate(chunk)));
      for (const [i, { bytes: part, deflated }] of packed.entries()) {
        chunks.push([indexes[i] as number, part.length, deflated]);
        bytes.push(part);
        total += part.length;
      }
    } finally {
      limiter.giveBack(taken - total);
    }
    onSent(digest, nodeId, total);
    return { chunks, bytes };
  }
}
