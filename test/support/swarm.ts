/** Nodes of a swarm on a network in memory, with real stores on the disk and real bytes. */
import { randomBytes, randomUUID } from "node:crypto";
import { join } from "node:path";
import {
  AppError,
  type ArtifactRecord,
  type Catalog,
  type Clock,
  type Entry,
  type Holding,
} from "../../src/domain/index.ts";
import type { Liveness, Members, Transport } from "../../src/gossip/ports.ts";
import { createSwarm, type RunningSwarm, type SwarmParts } from "../../src/gossip/swarm.ts";
import { openArtifactStore } from "../../src/storage/index.ts";
import { manifestOf, recordedLog, sidecarOf, writeSparse } from "./storage.ts";
import { realClock } from "./real-clock.ts";

type Handler = (from: string, body: Uint8Array) => Promise<Uint8Array>;

/** What may happen to an answer of a node: it is changed, or it never comes. */
export type Tamper = (from: string, to: string, answer: Uint8Array) => Uint8Array | undefined;

export interface SwarmNode {
  readonly id: string;
  readonly swarm: RunningSwarm;
  readonly store: Awaited<ReturnType<typeof openArtifactStore>>;
  readonly log: ReturnType<typeof recordedLog>;
  sentBytes: number;
  /** Cuts it off and stops its work. */
  kill(): Promise<void>;
}

export class SwarmNet {
  readonly root: string;
  readonly clock: Clock;
  /** Artifact id → node → its holding; the same for all, as if gossip took no time. */
  readonly holdings = new Map<string, Map<string, Holding>>();
  readonly nodes = new Map<string, SwarmNode>();
  readonly #handlers = new Map<string, Handler>();
  tamper: Tamper = (_from, _to, answer) => answer;
  /** False: a request whose answer never comes is waited for without end. */
  timeouts = true;

  constructor(root: string, clock: Clock = realClock) {
    this.root = root;
    this.clock = clock;
  }

  async open(
    id: string,
    options: Partial<Pick<SwarmParts, "uploadLimitBps" | "downloadLimitBps" | "compress">> = {},
  ): Promise<SwarmNode> {
    const log = recordedLog();
    const dir = join(this.root, id);
    const store = await openArtifactStore({
      dir: join(dir, "artifacts"),
      workDir: join(dir, "work"),
      log,
    });
    const swarm = createSwarm({
      transport: this.#transport(id),
      members: this.#members(id),
      catalog: this.catalog(),
      clock: this.clock,
      random: { bytes: (length) => randomBytes(length), uuid: () => randomUUID() },
      log,
      liveness: this.#liveness(),
      store,
      uploadLimitBps: 0,
      publishHolding: async (artifactId, holding) => this.hold(id, artifactId, holding),
      ...options,
    });
    const kill = async () => {
      this.#handlers.delete(id);
      await swarm.stop();
      this.nodes.delete(id);
    };
    const node: SwarmNode = { id, swarm, store, log, sentBytes: 0, kill };
    this.nodes.set(id, node);
    swarm.start();
    return node;
  }

  hold(id: string, artifactId: string, holding: Holding | undefined): void {
    const known = this.holdings.get(artifactId) ?? new Map<string, Holding>();
    this.holdings.set(artifactId, known);
    if (holding === undefined) known.delete(id);
    else known.set(id, holding);
  }

  /** Puts an artifact into a node's store, and says so. */
  async seed(node: SwarmNode, artifactId: string, bytes: Uint8Array): Promise<ArtifactRecord> {
    const manifest = manifestOf(bytes);
    const path = node.store.scratchPath(`${artifactId}-build`);
    await writeSparse(path, bytes);
    const sidecar = sidecarOf(artifactId, manifest);
    await node.store.publish(path, manifest, sidecar);
    const { digest, ext4_size_bytes: size_bytes } = sidecar.artifact;
    this.hold(node.id, artifactId, { artifact_id: artifactId, digest, size_bytes, complete: true });
    return sidecar.artifact;
  }

  async close(): Promise<void> {
    for (const node of [...this.nodes.values()]) await node.kill();
  }

  #transport(id: string): Transport {
    const transport: Pick<Transport, "peerId" | "request" | "handle" | "onConnection"> = {
      peerId: `peer-${id}`,
      onConnection: () => () => undefined,
      handle: (_protocol, handler) => this.#handlers.set(id, handler),
      request: async (to, _protocol, body, { timeoutMs, signal }) => {
        const target = to.slice("peer-".length);
        const answer = await this.#deliver(
          id,
          target,
          body,
          AbortSignal.any([
            ...(this.timeouts ? [AbortSignal.timeout(timeoutMs)] : []),
            ...(signal === undefined ? [] : [signal]),
          ]),
        );
        const node = this.nodes.get(target);
        if (node !== undefined) node.sentBytes += answer.length;
        return answer;
      },
    };
    return transport as Transport;
  }

  async #deliver(
    from: string,
    to: string,
    body: Uint8Array,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const unreachable = (cause?: unknown) =>
      new AppError("peer_unreachable", `${to} does not answer`, { cause });
    return new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => reject(unreachable(signal.reason)), { once: true });
      setImmediate(() => {
        const handler = this.#handlers.get(to);
        if (handler === undefined || !this.#handlers.has(from)) return reject(unreachable());
        handler(`peer-${from}`, body).then((answer) => {
          if (!this.#handlers.has(to)) return reject(unreachable());
          const tampered = this.tamper(to, from, answer);
          if (tampered !== undefined) resolve(tampered);
        }, reject);
      });
    });
  }

  /** As if the failure detector took no time. */
  #liveness(): Liveness {
    const liveness: Pick<Liveness, "onChange" | "isUp"> = {
      onChange: () => () => undefined,
      isUp: (nodeId) => this.nodes.has(nodeId),
    };
    return liveness as Liveness;
  }

  #members(self: string): Members {
    const members: Pick<Members, "self" | "peerOf" | "nodeOf"> = {
      self,
      peerOf: (nodeId) => `peer-${nodeId}`,
      nodeOf: (peer) => peer.slice("peer-".length),
    };
    return members as Members;
  }

  catalog(): Catalog {
    const list = (kind: string, options: { id?: string } = {}) => {
      const entries: Entry<"holding">[] = [];
      if (kind !== "holding") return entries;
      for (const [id, owners] of this.holdings) {
        if (options.id !== undefined && options.id !== id) continue;
        for (const [owner, value] of owners) {
          entries.push({ owner, kind: "holding", id, version: 1, value });
        }
      }
      return entries;
    };
    return { list } as unknown as Catalog;
  }
}
