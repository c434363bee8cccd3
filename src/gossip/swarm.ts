/**
 * The swarm: an artifact's chunks between nodes, each from whoever has it, each served on as soon
 * as it is here (design §6).
 *
 * Chunks travel as requests of the transport, on the streams that members keep to each other: these
 * are authenticated by the members' own keys, and one way is less to secure and to watch than two.
 * The reason is figures: such a stream carries 300 to 590 MiB/s on this class of machine, and a
 * 1 Gb/s link 119. HTTP would save CPU (1.2 s a GiB against 4 to 6) where links are faster.
 */
import {
  AppError,
  chunkCount,
  holesOf,
  isAppError,
  seededRandom,
  untilTick,
  type ArtifactRecord,
  type Holding,
  type SwarmView,
} from "../domain/index.ts";
import type { Liveness, Parts, PeerId, Swarm } from "./ports.ts";
import type { Compressor } from "./swarm/compression.ts";
import { FetchTask } from "./swarm/fetcher.ts";
import { Limiter } from "./swarm/limiter.ts";
import { SwarmServer } from "./swarm/server.ts";
import { Tallies } from "./swarm/tally.ts";
import type { SwarmStore } from "./swarm/store.ts";

export type { SwarmStore } from "./swarm/store.ts";
export { zlibCompressor, type Compressor } from "./swarm/compression.ts";

/** A node's own holding fact is written at most this often while it fetches. */
const HOLDING_MS = 2_000;
const SWEEP_MS = 10_000;
const COMPLAIN_MS = 60_000;

export interface SwarmParts extends Parts {
  readonly liveness: Liveness;
  readonly store: SwarmStore;
  /** Bytes a second; 0: no limit. */
  readonly uploadLimitBps: number;
  readonly downloadLimitBps?: number;
  /** Absent: chunks are sent as they are. */
  readonly compress?: Compressor;
  /** Writes this node's holding fact, or takes it back. */
  readonly publishHolding: (artifactId: string, holding: Holding | undefined) => Promise<void>;
}

interface Running {
  readonly task: FetchTask;
  readonly done: Promise<void>;
  readonly listeners: Set<() => void>;
  /** Callers that wait for it: it ends with the last. */
  waiting: number;
}

export interface RunningSwarm extends Swarm {
  start(): void;
  stop(): Promise<void>;
}

/** @throws AppError artifact_not_ready with what the record lacks, before anybody is asked */
function assertFetchable({ artifact_id: id, digest, ext4_size_bytes }: ArtifactRecord): void {
  const missing = [
    ...(digest === "" ? ["a digest"] : []),
    ...(ext4_size_bytes > 0 ? [] : ["a size"]),
  ];
  if (missing.length === 0) return;
  throw new AppError("artifact_not_ready", `artifact ${id} lacks ${missing.join(" and ")}`);
}

const limitOf = (bps: number | undefined): number =>
  bps === undefined || bps <= 0 ? Infinity : bps;

export const createSwarm = (parts: SwarmParts): RunningSwarm => new NodeSwarm(parts);

class NodeSwarm implements RunningSwarm {
  readonly #parts: SwarmParts;
  readonly #running = new Map<string, Running>();
  readonly #published = new Map<string, number>();
  readonly #upload: Limiter;
  readonly #download: Limiter;
  readonly #server: SwarmServer;
  readonly #tallies: Tallies;
  readonly #rng: () => number;
  readonly #complained = new Map<PeerId, number>();
  readonly #undo: (() => void)[] = [];
  #sweep: { cancel(): void } | undefined;
  #stopped = false;

  constructor(parts: SwarmParts) {
    this.#parts = parts;
    const { clock, store, members } = parts;
    const seed = new DataView(Uint8Array.from(parts.random.bytes(4)).buffer).getUint32(0);
    const random = seededRandom(seed);
    this.#rng = random;
    this.#upload = new Limiter(clock, limitOf(parts.uploadLimitBps));
    this.#download = new Limiter(clock, limitOf(parts.downloadLimitBps));
    this.#tallies = new Tallies(clock);
    this.#server = new SwarmServer({
      store,
      members,
      clock,
      random,
      limiter: this.#upload,
      compress: parts.compress,
      task: (digest) => this.#running.get(digest)?.task,
      onSent: (digest, _nodeId, bytes) => this.#tallies.sent(digest, bytes),
      onChunksKnown: (digest, chunks) => this.#tallies.chunks(digest, chunks),
    });
  }

  start(): void {
    const { transport, liveness, members, clock } = this.#parts;
    transport.handle("swarm", (from, body) => {
      if (this.#stopped) throw new AppError("daemon_draining", "the swarm is stopping");
      return this.#server.answer(from, body).catch((error: unknown) => {
        if (isAppError(error, "wire_invalid")) this.#onInvalid(from);
        throw error;
      });
    });
    const wake = (nodeId: string) => {
      for (const { task } of this.#running.values()) task.wake(nodeId);
    };
    this.#undo.push(
      liveness.onChange((nodeId, state) => {
        if (state === "alive") wake(nodeId);
      }),
      transport.onConnection((peer, connected) => {
        if (connected) wake(members.nodeOf(peer) ?? "");
      }),
    );
    const sweep = () => {
      this.#server.sweep();
      this.#sweep = clock.after(untilTick(clock, SWEEP_MS), sweep);
    };
    sweep();
  }

  /** Counted always, said once a minute and peer. */
  #onInvalid(from: PeerId): void {
    const { clock, log } = this.#parts;
    this.#tallies.invalid();
    const now = clock.monotonic();
    if (now - (this.#complained.get(from) ?? -Infinity) < COMPLAIN_MS) return;
    this.#complained.set(from, now);
    log.warn("a peer asks the swarm for what makes no sense", { peer: from });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    for (const undo of this.#undo) undo();
    this.#sweep?.cancel();
    const running = [...this.#running.values()];
    for (const { task } of running) {
      task.cancel(new AppError("daemon_draining", "the daemon is stopping"));
    }
    this.#upload.close();
    this.#download.close();
    await Promise.allSettled(running.map(({ done }) => done));
  }

  async fetch(
    artifact: ArtifactRecord,
    options: { signal: AbortSignal; onProgress?: (done: number, total: number) => void },
  ): Promise<void> {
    const { store } = this.#parts;
    const { digest } = artifact;
    options.signal.throwIfAborted();
    assertFetchable(artifact);
    if (this.#stopped) throw new AppError("daemon_draining", "the daemon is stopping");
    if (store.findDigest(digest) !== undefined && !store.isSuspect(digest)) {
      if (store.find(artifact.artifact_id)?.digest !== digest) {
        await store.addSidecar(digest, { artifact });
      }
      return;
    }
    const running = this.#running.get(digest) ?? this.#begin(artifact);
    await this.#wait(running, options);
    // Another artifact id of the same bytes may have been fetched.
    if (running.task.artifact.artifact_id !== artifact.artifact_id) {
      await store.addSidecar(digest, { artifact });
    }
  }

  async #wait(
    running: Running,
    options: { signal: AbortSignal; onProgress?: (done: number, total: number) => void },
  ): Promise<void> {
    const { signal, onProgress } = options;
    const { task } = running;
    const tell = () => {
      const size = task.manifest?.chunkSizeBytes ?? 0;
      onProgress?.(task.chunksHere * size, task.chunkTotal * size);
    };
    running.listeners.add(tell);
    running.waiting++;
    let onAbort: () => void = () => undefined;
    const aborted = new Promise<never>((_, reject) => {
      onAbort = () => {
        running.waiting--;
        if (running.waiting === 0) task.cancel(signal.reason);
        reject(signal.reason as Error);
      };
      signal.addEventListener("abort", onAbort, { once: true });
    });
    try {
      await Promise.race([running.done, aborted]);
    } catch (error) {
      // The last one that leaves waits until what is here is safe and may be opened again.
      if (running.waiting === 0) await running.done.catch(() => undefined);
      throw error;
    } finally {
      signal.removeEventListener("abort", onAbort);
      running.listeners.delete(tell);
    }
  }

  #begin(artifact: ArtifactRecord): Running {
    const { digest } = artifact;
    const listeners = new Set<() => void>();
    const task = new FetchTask(artifact, {
      ...this.#parts,
      compress: this.#parts.compress,
      rng: this.#rng,
      download: this.#download,
      onReceived: (_digest, nodeId, bytes) => this.#tallies.received(digest, nodeId, bytes),
      onReused: (_digest, chunks) => this.#tallies.reused(digest, chunks),
      onMismatch: () => this.#tallies.mismatch(),
      onProgress: (running) => {
        this.#tallies.chunks(digest, running.chunkTotal);
        this.#publish(running);
        for (const listener of listeners) listener();
      },
    });
    const done = task.run().finally(() => {
      this.#running.delete(digest);
      this.#published.delete(digest);
    });
    const running = { task, done: this.#concluded(done, artifact), listeners, waiting: 0 };
    running.done.catch(() => undefined);
    this.#running.set(digest, running);
    return running;
  }

  /** The whole artifact is here: says so at once. */
  async #concluded(done: Promise<void>, artifact: ArtifactRecord): Promise<void> {
    await done;
    const { artifact_id, digest, ext4_size_bytes: size_bytes } = artifact;
    const verified_at = new Date(this.#parts.clock.now()).toISOString();
    await this.#parts.publishHolding(artifact_id, {
      artifact_id,
      digest,
      size_bytes,
      complete: true,
      verified_at,
    });
  }

  #publish(task: FetchTask): void {
    const { clock, publishHolding, log } = this.#parts;
    const { artifact_id, digest, ext4_size_bytes: size_bytes } = task.artifact;
    const now = clock.monotonic();
    if (now - (this.#published.get(digest) ?? -Infinity) < HOLDING_MS) return;
    if (task.chunksHere === task.chunkTotal) return;
    this.#published.set(digest, now);
    const have_chunks = task.chunksHere;
    const holding = { artifact_id, digest, size_bytes, complete: false, have_chunks };
    publishHolding(artifact_id, holding).catch((err: unknown) => {
      log.warn("a holding could not be published", { artifact_id, err });
    });
  }

  counters(): Readonly<Record<string, number>> {
    return this.#tallies.totals();
  }

  views(): readonly SwarmView[] {
    const { catalog, members } = this.#parts;
    const byArtifact = new Map<string, SwarmView>();
    for (const { id, owner, value } of catalog.list("holding")) {
      if (value === undefined) continue;
      const { digest, size_bytes } = value;
      const chunk_count = this.#chunkCount(digest, size_bytes);
      let view = byArtifact.get(id);
      if (view === undefined) {
        view = { artifact_id: id, digest, size_bytes, chunk_count, nodes: [] };
        byArtifact.set(id, view);
      }
      const task = this.#running.get(digest)?.task;
      const told = [...(task?.known() ?? [])].find(([nodeId]) => nodeId === owner);
      const isSelf = owner === members.self;
      const own = isSelf ? this.#tallies.view(digest) : undefined;
      const here = isSelf && task !== undefined ? task.chunksHere : told?.[1];
      const complete = value.complete || told?.[2] === true;
      view.nodes.push({
        node_id: owner,
        have_chunks: complete ? chunk_count : Math.max(here ?? 0, value.have_chunks ?? 0),
        complete,
        reused_chunks: own?.reused_chunks ?? 0,
        sources: own?.sources ?? {},
        sent_bytes: own?.sent_bytes ?? 0,
        down_bps: own?.down_bps ?? 0,
        up_bps: own?.up_bps ?? 0,
      });
    }
    return [...byArtifact.values()];
  }

  /** Without holes when the manifest has been seen since start. */
  #chunkCount(digest: string, sizeBytes: number): number {
    const known = this.#tallies.chunkCountOf(digest);
    if (known !== undefined) return known;
    const manifest = this.#running.get(digest)?.task.manifest;
    if (manifest !== undefined) return chunkCount(manifest) - holesOf(manifest).count;
    return chunkCount({ sizeBytes, chunkSizeBytes: 65_536 });
  }
}
