/** Images by name, and their root filesystems: bytes that follow from the image alone. */
import { createHash } from "node:crypto";
import {
  AppError,
  CHUNK_SIZE_BYTES,
  type ChunkManifest,
  type DriverSnapshot,
  type ImageSource,
  type ResolvedImage,
  type RootfsBuilder,
} from "../../../src/domain/index.ts";
import type { Machine } from "./machine.ts";
import { digestOf } from "./store.ts";

const sha256 = (data: string | Uint8Array) => createHash("sha256").update(data).digest();
/** A whole chunk, a hole, and a bit more. */
const SIZE_BYTES = 2 * CHUNK_SIZE_BYTES + 512;

interface Content {
  readonly bytes: Uint8Array;
  readonly manifest: ChunkManifest;
}
const contents = new Map<string, Content>();

/** Equal for equal images: nobody can tell where it was built. */
function contentOf(imageDigest: string): Content {
  const known = contents.get(imageDigest);
  if (known !== undefined) return known;
  const bytes = new Uint8Array(SIZE_BYTES);
  bytes.set(sha256(imageDigest), 0);
  bytes.set(sha256(`${imageDigest} end`), 2 * CHUNK_SIZE_BYTES);
  const hashes = new Uint8Array(3 * 32);
  hashes.set(sha256(bytes.subarray(0, CHUNK_SIZE_BYTES)), 0);
  hashes.set(sha256(bytes.subarray(2 * CHUNK_SIZE_BYTES)), 64);
  const content = {
    bytes,
    manifest: { sizeBytes: SIZE_BYTES, chunkSizeBytes: CHUNK_SIZE_BYTES, hashes },
  };
  contents.set(imageDigest, content);
  return content;
}

/** What a sandbox has written, or its memory: of this snapshot and no other. */
export function frozenContent(
  { templateId, snapshotId = "" }: DriverSnapshot,
  file: string,
): Content {
  const bytes = new Uint8Array(sha256(`${templateId} ${snapshotId} ${file}`));
  const manifest = {
    sizeBytes: bytes.length,
    chunkSizeBytes: CHUNK_SIZE_BYTES,
    hashes: new Uint8Array(sha256(bytes)),
  };
  return { bytes, manifest };
}

/** A build under way; ended when its signal says so, its daemon dies, or it is done. */
export interface BuildUnderWay {
  readonly machine: Machine;
  readonly life: number;
  readonly imageDigest: string;
  readonly since: number;
}

export function simSource(machine: Machine): ImageSource {
  return {
    async resolve(reference, { signal }) {
      try {
        await machine.takes(5, 60, signal === undefined ? {} : { signal });
      } catch (cause) {
        signal?.throwIfAborted();
        throw new AppError("registry_unavailable", `${reference} cannot be had now`, { cause });
      }
      const image: ResolvedImage = {
        digest: `sha256:${sha256(reference).toString("hex")}`,
        reference,
        config: {
          architecture: "amd64",
          os: "linux",
          entrypoint: ["/bin/server"],
          cmd: [],
          env: [],
          working_dir: "/",
          user: "",
          exposed_ports: [],
          labels: {},
        },
        layers: [],
        openLayer: () => {
          throw new Error("the builder of the simulation reads no layer");
        },
        close: async () => undefined,
      };
      return image;
    },
  };
}

export function simBuilder(machine: Machine, underWay: Set<BuildUnderWay>): RootfsBuilder {
  return {
    async build(image, path, { signal, onProgress }) {
      const { host } = machine;
      const content = contentOf(image.digest);
      const imageDigest = image.digest;
      const build = { machine, life: host.life, imageDigest, since: host.world.now };
      underWay.add(build);
      const end = () => underWay.delete(build);
      signal?.addEventListener("abort", end);
      try {
        for (const phase of ["PULLING", "UNPACKING", "BUILDING_EXT4"] as const) {
          onProgress?.({
            ...{ downloadedBytes: 0, totalBytes: 0, completedLayers: 0, totalLayers: 0 },
            ...{ entries: 1, writtenBytes: 0, phase },
          });
          await machine.takes(10, 150, signal === undefined ? {} : { signal });
        }
      } finally {
        end();
        signal?.removeEventListener("abort", end);
      }
      machine.scratch.set(path, content.bytes);
      return {
        digest: digestOf(content.manifest),
        manifest: content.manifest,
        sizeBytes: SIZE_BYTES,
        dataBytes: SIZE_BYTES,
        entries: 1,
        bake: { ca_baked: false, ca_seeded: false, ca_targets_written: 0, envd_installed: false },
        timings: {},
      };
    },
  };
}
