/**
 * One layer's way from its blob into the tree: decompress, hash, read, overlay. Everything that can
 * be wrong with it is named with the layer's number.
 */
import { createHash } from "node:crypto";
import type { LayerDescriptor } from "../../../domain/index.ts";
import type { LayerLimits } from "./limits.ts";
import type { Overlay } from "./overlay.ts";
import type { RootfsTree } from "../rootfs-tree.ts";
import { AppError } from "../../../domain/core.ts";
import { decompress } from "./decompress.ts";
import { refusal } from "./refusal.ts";
import { TarReader } from "./tar-reader.ts";

/** The parts of a layer's descriptor that matter here; an empty diffId is not checked. */
export type LayerFacts = Pick<LayerDescriptor, "compression" | "diffId" | "sizeBytes">;

export interface LayerRun {
  readonly tree: RootfsTree;
  readonly overlay: Overlay;
  readonly limits: LayerLimits;
  /** Archive bytes of all layers so far; counts against `limits.expandedBytes`. */
  expandedBytes: number;
  readonly signal?: AbortSignal;
  /** Called after each piece; must be cheap. */
  readonly onPiece?: () => void;
}

/**
 * Applies the layer's blob on top of what is in the tree.
 * @throws AppError image_refused, image_too_large, image_digest_mismatch; errors of the source
 */
export async function applyLayer(
  run: LayerRun,
  index: number,
  facts: LayerFacts,
  source: AsyncIterable<Uint8Array>,
): Promise<void> {
  let compressed = 0;
  async function* counted(): AsyncGenerator<Uint8Array> {
    for await (const bytes of source) {
      run.signal?.throwIfAborted();
      compressed += bytes.length;
      yield bytes;
    }
  }
  const hash = facts.diffId === "" ? undefined : createHash("sha256");
  const reader = new TarReader(run.overlay, run.limits);
  let expanded = 0;
  run.overlay.startLayer();
  try {
    for await (const bytes of decompress(counted(), facts.compression)) {
      run.signal?.throwIfAborted();
      expanded += bytes.length;
      run.expandedBytes += bytes.length;
      checkSize(run, expanded, compressed);
      hash?.update(bytes);
      reader.write(bytes);
      await run.tree.pressure();
      run.onPiece?.();
    }
    reader.end();
  } catch (error) {
    throw inLayer(error, index);
  }
  const found = hash === undefined ? facts.diffId : `sha256:${hash.digest("hex")}`;
  if (found !== facts.diffId) {
    throw new AppError("image_digest_mismatch", "a layer's content does not match its diff id", {
      meta: { layer: index, expected: facts.diffId, found },
    });
  }
}

function checkSize({ limits, expandedBytes }: LayerRun, layerBytes: number, blob: number): void {
  if (expandedBytes > limits.expandedBytes) {
    throw refusal(
      "decompression_bomb",
      `the image's layers expand to more than ${limits.expandedBytes} bytes`,
    );
  }
  if (layerBytes > limits.ratioFloorBytes && layerBytes > blob * limits.ratio) {
    throw refusal("decompression_bomb", `the layer expands more than ${limits.ratio} times`);
  }
}

function inLayer(error: unknown, layer: number): unknown {
  if (!(error instanceof AppError) || error.meta["reason"] === undefined) return error;
  const meta = { ...error.meta, layer };
  return new AppError(error.code, error.message, { meta, cause: error.cause });
}
