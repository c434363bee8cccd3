/** The artifact store over a simulated host. */
import { createHash } from "node:crypto";
import {
  AppError,
  Bitfield,
  chunkLength,
  encodeChunkManifest,
  holesOf,
  type ArtifactRecord,
  type ArtifactSidecar,
  type ArtifactStore,
  type ChunkManifest,
  type PartialArtifact,
  type StoredArtifact,
} from "../../../src/domain/index.ts";
import type { HeldFile, Machine } from "./machine.ts";

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest();
export const digestOf = (manifest: ChunkManifest): string =>
  `sha256:${sha256(encodeChunkManifest(manifest)).toString("hex")}`;

const WRITE = [2, 30] as const;

export class SimStore implements ArtifactStore {
  readonly #machine: Machine;
  readonly #open = new Set<string>();

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  scratchPath(name: string): string {
    return `/work/${name}`;
  }

  async publish(scratchPath: string, manifest: ChunkManifest, sidecar: ArtifactSidecar) {
    const { scratch, files } = this.#machine;
    await this.#machine.takes(...WRITE);
    const bytes = scratch.get(scratchPath);
    if (bytes === undefined) throw new Error(`ENOENT: ${scratchPath}`);
    scratch.delete(scratchPath);
    const digest = digestOf(manifest);
    if (!files.has(digest)) files.set(digest, { bytes, manifest, sidecars: new Map() });
    return this.#add(digest, sidecar);
  }

  async addSidecar(digest: string, sidecar: ArtifactSidecar): Promise<StoredArtifact> {
    await this.#machine.takes(...WRITE);
    return this.#add(digest, sidecar);
  }

  #add(digest: string, sidecar: ArtifactSidecar): StoredArtifact {
    this.#held(digest).sidecars.set(sidecar.artifact.artifact_id, structuredClone(sidecar));
    return this.find(sidecar.artifact.artifact_id) as StoredArtifact;
  }

  #held(digest: string): HeldFile {
    const held = this.#machine.files.get(digest);
    if (held !== undefined) return held;
    throw new AppError("artifact_source_missing", `${digest} is not here`);
  }

  find(artifactId: string): StoredArtifact | undefined {
    for (const [digest, { bytes, sidecars }] of this.#machine.files) {
      if (!sidecars.has(artifactId)) continue;
      return { artifactId, digest, path: `/artifacts/${digest}`, sizeBytes: bytes.length };
    }
    return undefined;
  }

  findDigest(digest: string) {
    const held = this.#machine.files.get(digest);
    return held && { path: `/artifacts/${digest}`, sizeBytes: held.bytes.length };
  }

  async manifest(digest: string): Promise<ChunkManifest> {
    return this.#held(digest).manifest;
  }

  async read(artifactId: string): Promise<AsyncIterable<Uint8Array>> {
    const { bytes } = this.#held(this.find(artifactId)?.digest ?? "");
    return (async function* () {
      yield bytes;
    })();
  }

  async verify(digest: string): Promise<void> {
    this.#held(digest);
    await this.#machine.takes(1, 5);
  }

  isSuspect(): boolean {
    return false;
  }

  async readChunks(digest: string, indexes: readonly number[]): Promise<readonly Uint8Array[]> {
    const { bytes, manifest } = this.#held(digest);
    return indexes.map((index) => slice(bytes, manifest, index));
  }

  async openPartial(artifact: ArtifactRecord, manifest: ChunkManifest): Promise<PartialArtifact> {
    const { digest } = artifact;
    if (this.#open.has(digest)) throw new Error(`${digest} is open already`);
    this.#open.add(digest);
    const { partials } = this.#machine;
    const bytes = new Uint8Array(manifest.sizeBytes);
    const known = partials.get(digest);
    if (known !== undefined) bytes.set(known.bytes);
    const have = new Bitfield(holesOf(manifest).length, known?.have ?? holesOf(manifest).bytes);
    const keep = () => {
      partials.set(digest, { manifest, bytes: bytes.slice(), have: have.bytes.slice() });
    };
    return {
      digest,
      manifest,
      have,
      writeChunk: async (index, chunk) => {
        bytes.set(chunk, index * manifest.chunkSizeBytes);
        have.set(index);
      },
      readChunks: async (indexes) => indexes.map((index) => slice(bytes, manifest, index)),
      checkpoint: async () => {
        await this.#machine.takes(...WRITE);
        keep();
      },
      finish: async () => {
        await this.#machine.takes(...WRITE);
        if (!have.isFull) throw new AppError("artifact_corrupt", `${digest} is not whole`);
        this.#machine.files.set(digest, { bytes, manifest, sidecars: new Map() });
        partials.delete(digest);
        return this.#add(digest, { artifact });
      },
      close: async () => {
        if (!this.#machine.files.has(digest)) keep();
        this.#open.delete(digest);
      },
    };
  }

  async partialManifest(digest: string): Promise<ChunkManifest | undefined> {
    return this.#machine.partials.get(digest)?.manifest;
  }

  async partials(): Promise<readonly string[]> {
    return [...this.#machine.partials.keys()];
  }

  isPartialOpen(digest: string): boolean {
    return this.#open.has(digest);
  }

  async discardPartial(digest: string): Promise<void> {
    this.#machine.partials.delete(digest);
  }

  async remove(artifactId: string): Promise<void> {
    await this.#machine.takes(...WRITE);
    const digest = this.find(artifactId)?.digest;
    if (digest === undefined) return;
    const { host, events, files } = this.#machine;
    const { sidecars } = this.#held(digest);
    events.removesBytes(host.name, digest, artifactId);
    sidecars.delete(artifactId);
    if (sidecars.size === 0) files.delete(digest);
  }

  inventory(): readonly ArtifactSidecar[] {
    return [...this.#machine.files.values()].flatMap(({ sidecars }) => [...sidecars.values()]);
  }
}

const slice = (bytes: Uint8Array, manifest: ChunkManifest, index: number): Uint8Array => {
  const start = index * manifest.chunkSizeBytes;
  return bytes.slice(start, start + chunkLength(manifest, index));
};
