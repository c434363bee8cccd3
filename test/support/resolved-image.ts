import type { LayerDescriptor, ResolvedImage } from "../../src/domain/index.ts";
import { piecesOf, sha256 } from "./layers.ts";

export interface ImageLayer {
  blob: Buffer | (() => AsyncIterable<Uint8Array>);
  compression?: LayerDescriptor["compression"];
  diffId?: string;
  sizeBytes?: number;
}

/** An image as a source would have resolved it, its layers given; diff ids unchecked if absent. */
export function imageOf(layers: readonly ImageLayer[], digest = sha256(Buffer.from("image"))) {
  const opened: number[] = [];
  const image: ResolvedImage = {
    digest,
    reference: "test",
    config: {
      architecture: "amd64",
      os: "linux",
      entrypoint: [],
      cmd: [],
      env: [],
      working_dir: "",
      user: "",
      exposed_ports: [],
      labels: {},
    },
    layers: layers.map(({ blob, compression = "none", diffId = "", sizeBytes }) => ({
      digest: Buffer.isBuffer(blob) ? sha256(blob) : digest,
      sizeBytes: sizeBytes ?? (Buffer.isBuffer(blob) ? blob.length : 0),
      mediaType: "application/vnd.oci.image.layer.v1.tar",
      compression,
      diffId,
    })),
    async *openLayer(index, options) {
      opened.push(index);
      const blob = layers[index]!.blob;
      for await (const bytes of Buffer.isBuffer(blob) ? piecesOf(blob) : blob()) {
        options?.signal?.throwIfAborted();
        options?.onBytes?.(bytes.length);
        yield bytes;
      }
    },
    close: async () => undefined,
  };
  return { image, opened };
}
