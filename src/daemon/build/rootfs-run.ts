/**
 * One image's way into one filesystem file: all layers in manifest order, then what is baked, then
 * the filesystem's own structures. Runs in the build thread (rootfs-thread.ts), or on the caller's
 * thread where TypeScript cannot be loaded into one (tests).
 */
import { createHash } from "node:crypto";
import type {
  BakeInputs,
  BakeResult,
  ChunkManifest,
  RootfsBuildProgress,
} from "../../domain/index.ts";
import type { LayerFacts, LayerRun } from "./layers/layer-stream.ts";
import type { LayerLimits } from "./layers/limits.ts";
import { bake } from "./layers/bake.ts";
import { parseCa } from "./layers/ca.ts";
import { applyLayer } from "./layers/layer-stream.ts";
import { Overlay } from "./layers/overlay.ts";
import { Ext4Writer } from "./ext4/writer.ts";

/** Everything a build depends on but the layers' bytes. Goes to the thread as it is. */
export interface RunRequest {
  readonly outputPath: string;
  /** Bare digest of the image, `sha256:<hex>`. */
  readonly imageDigest: string;
  readonly layers: readonly LayerFacts[];
  readonly bake: BakeInputs;
  readonly extraFreeBytes: number;
  readonly sync: boolean;
  readonly limits: LayerLimits;
}

export interface RunResult {
  readonly digest: string;
  readonly manifest: ChunkManifest;
  readonly sizeBytes: number;
  readonly dataBytes: number;
  readonly entries: number;
  readonly bake: BakeResult;
}

export type RunProgress = Pick<
  RootfsBuildProgress,
  "completedLayers" | "entries" | "writtenBytes" | "phase"
>;

export interface RunHooks {
  /** The blob of a layer, opened when its turn comes. */
  openLayer(index: number): AsyncIterable<Uint8Array>;
  /** Called for every piece; must be cheap. */
  onProgress(progress: RunProgress): void;
  readonly signal?: AbortSignal;
}

/** Part of every filesystem's identity: raise it when the bytes made from the same image change. */
const FORMAT_VERSION = 1;

/**
 * Builds the file. On failure nothing is left of it.
 * @throws AppError image_refused, image_too_large, image_digest_mismatch, ca_invalid, and whatever
 *   the layers' sources throw
 */
export async function runBuild(request: RunRequest, hooks: RunHooks): Promise<RunResult> {
  // Before anything is made: a bad certificate must not cost a build.
  if (request.bake.caPem !== undefined) parseCa(request.bake.caPem);
  const tree = await Ext4Writer.create(request.outputPath, {
    uuid: filesystemUuid(request),
    extraFreeBytes: request.extraFreeBytes,
    sync: request.sync,
  });
  try {
    const overlay = new Overlay(tree, request.limits);
    let completedLayers = 0;
    const report = (phase: RunProgress["phase"]): void => {
      const { entries, bytes } = overlay.counts;
      hooks.onProgress({ completedLayers, entries, writtenBytes: bytes, phase });
    };
    const { limits } = request;
    const onPiece = () => {
      report("UNPACKING");
    };
    const run: LayerRun = {
      tree,
      overlay,
      limits,
      expandedBytes: 0,
      signal: hooks.signal,
      onPiece,
    };
    for (const [index, layer] of request.layers.entries()) {
      await applyLayer(run, index, layer, hooks.openLayer(index));
      completedLayers++;
      report("UNPACKING");
    }
    hooks.signal?.throwIfAborted();
    report("BUILDING_EXT4");
    const baked = await bake(tree, request.bake, limits);
    const made = await tree.finish();
    hooks.signal?.throwIfAborted();
    return { ...made, entries: overlay.counts.entries, bake: baked };
  } catch (error) {
    await tree.abort();
    throw error;
  }
}

/**
 * The filesystem's UUID follows from what goes into it, so that the same inputs give the same bytes
 * (RFC 9562 version 8: the bits are ours).
 */
export function filesystemUuid(request: Pick<RunRequest, "imageDigest" | "bake">): Buffer {
  const hash = createHash("sha256");
  hash.update(`templatecenter rootfs ${FORMAT_VERSION}\0${request.imageDigest}\0`);
  for (const [name, bytes] of [
    ["ca", request.bake.caPem],
    ["envd", request.bake.envd],
  ] as const) {
    if (bytes === undefined) continue;
    hash.update(`${name} ${createHash("sha256").update(bytes).digest("hex")}\0`);
  }
  const uuid = hash.digest().subarray(0, 16);
  uuid[6] = ((uuid[6] as number) & 0x0f) | 0x80;
  uuid[8] = ((uuid[8] as number) & 0x3f) | 0x80;
  return uuid;
}
