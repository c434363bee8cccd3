import { createHash } from "node:crypto";
import type { LayerLimits } from "../../src/daemon/build/layers/limits.ts";
import type { LayerFacts } from "../../src/daemon/build/layers/layer-stream.ts";
import { applyLayer } from "../../src/daemon/build/layers/layer-stream.ts";
import { LAYER_LIMITS } from "../../src/daemon/build/layers/limits.ts";
import { isAppError } from "../../src/domain/index.ts";
import { MemoryTree } from "./memory-tree.ts";
import { Overlay } from "../../src/daemon/build/layers/overlay.ts";

export interface TestLayer extends Partial<LayerFacts> {
  blob: Buffer;
  /** Bytes per piece the source gives. */
  pieceBytes?: number;
}

export async function* piecesOf(blob: Buffer, size = 65_536): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < blob.length; at += size) yield blob.subarray(at, at + size);
}

export const sha256 = (bytes: Uint8Array): string =>
  `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** The tree that the layers make; plain tars unless a layer says otherwise. */
export async function applyLayers(
  layers: readonly (Buffer | TestLayer)[],
  limits: Partial<LayerLimits> = {},
): Promise<MemoryTree> {
  const tree = new MemoryTree();
  const all = { ...LAYER_LIMITS, ...limits };
  const run = { tree, limits: all, overlay: new Overlay(tree, all), expandedBytes: 0 };
  for (const [index, layer] of layers.entries()) {
    const test: TestLayer = Buffer.isBuffer(layer) ? { blob: layer } : layer;
    const facts: LayerFacts = {
      compression: test.compression ?? "none",
      diffId: test.diffId ?? "",
      sizeBytes: test.blob.length,
    };
    await applyLayer(run, index, facts, piecesOf(test.blob, test.pieceBytes));
  }
  return tree;
}

/** The reason by which the layers are refused, or "accepted"; anything else is thrown. */
export async function refusalOf(
  layers: readonly (Buffer | TestLayer)[],
  limits: Partial<LayerLimits> = {},
): Promise<unknown> {
  try {
    await applyLayers(layers, limits);
    return "accepted";
  } catch (error) {
    if (!isAppError(error)) throw error;
    return error.meta["reason"] ?? error.code;
  }
}
