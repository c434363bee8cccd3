/** The chunk manifest of an artifact from a peer, in parts, checked against the digest. */
import { hash } from "node:crypto";
import {
  AppError,
  CHUNK_SIZE_BYTES,
  decodeChunkManifest,
  type ArtifactRecord,
  type ChunkManifest,
} from "../../domain/index.ts";
import { decodeMessage, manifestAnswerSchema, type SwarmRequest } from "./messages.ts";

const TIMEOUT_MS = 10_000;
/** 64 MiB describe an artifact of 128 GiB. */
const MANIFEST_BYTES_MAX = 64 * 1024 * 1024;

export interface Asker {
  ask(
    peer: { readonly peerId: string },
    request: SwarmRequest,
    options: { timeoutMs: number },
  ): Promise<Uint8Array>;
}

/** @throws AppError artifact_corrupt when the peer's is another; what `ask` throws */
export async function fetchManifest(
  asker: Asker,
  peer: { readonly peerId: string },
  artifact: ArtifactRecord,
): Promise<ChunkManifest> {
  const { digest, artifact_id: id } = artifact;
  const parts: Uint8Array[] = [];
  for (let offset = 0; ;) {
    const request = { v: 1, kind: "manifest", digest, offset } as const;
    const answer = await asker.ask(peer, request, { timeoutMs: TIMEOUT_MS });
    const { head, body } = decodeMessage(manifestAnswerSchema, answer);
    parts.push(body);
    offset += body.length;
    if (head.total > MANIFEST_BYTES_MAX || (body.length === 0 && offset < head.total)) {
      throw new AppError("wire_invalid", `the manifest of ${id} came with a wrong length`);
    }
    if (offset >= head.total) break;
  }
  const bytes = Uint8Array.from(Buffer.concat(parts));
  if (`sha256:${hash("sha256", bytes, "hex")}` !== digest) {
    throw new AppError("artifact_corrupt", `a peer's manifest is not that of artifact ${id}`);
  }
  const manifest = decodeChunkManifest(bytes);
  const { sizeBytes, chunkSizeBytes } = manifest;
  if (sizeBytes !== artifact.ext4_size_bytes || chunkSizeBytes !== CHUNK_SIZE_BYTES) {
    throw new AppError("artifact_corrupt", `the manifest of artifact ${id} is of another size`);
  }
  return manifest;
}
