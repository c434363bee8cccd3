/** Bundles for tests: a small sparse file, real container, a signature that anybody can check. */
import { mkdtemp, open, rm, truncate, type FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHash, randomBytes } from "node:crypto";
import {
  CHUNK_SIZE_BYTES,
  artifactIdOf,
  type BundleManifest,
  type ChunkManifest,
} from "../../src/domain/index.ts";
import { storedBytes } from "../../src/daemon/bundle/format.ts";
import { writeBundle } from "../../src/daemon/bundle/write.ts";
import { readManifest } from "../../src/daemon/runtime/file-manifest.ts";

export const fakeSignature = (text: Uint8Array): Buffer =>
  createHash("sha512").update(text).digest();

export interface TestFile {
  readonly dir: string;
  readonly path: string;
  readonly digest: string;
  readonly manifest: ChunkManifest;
  readonly handle: FileHandle;
  close(): Promise<void>;
}

/** 70 chunks: text, noise, holes in the middle and a short chunk at the end. */
export async function sparseFile(): Promise<TestFile> {
  const dir = await mkdtemp(join(tmpdir(), "tc-bundle-"));
  const path = join(dir, "file");
  const made = await open(path, "wx");
  await made.write(Buffer.alloc(6 * CHUNK_SIZE_BYTES, "words "), 0, undefined, 0);
  await made.write(randomBytes(35 * CHUNK_SIZE_BYTES), 0, undefined, 8 * CHUNK_SIZE_BYTES);
  await made.write(Buffer.alloc(1_000, 7), 0, undefined, 69 * CHUNK_SIZE_BYTES);
  await made.close();
  await truncate(path, 69 * CHUNK_SIZE_BYTES + 1_000);
  const handle = await open(path, "r");
  const close = async () => {
    await handle.close();
    await rm(dir, { recursive: true, force: true });
  };
  return { dir, path, ...(await readManifest(path)), handle, close };
}

export function aManifest(
  file: Pick<TestFile, "digest" | "manifest">,
  over: Partial<BundleManifest> = {},
): BundleManifest {
  const fingerprint = "ab".repeat(32);
  const artifact_id = artifactIdOf(fingerprint);
  const at = "2026-11-21T12:00:00.000Z";
  const { digest, manifest } = file;
  return {
    format: "templatecenter-bundle",
    version: 1,
    kind: "template",
    created_at: at,
    creator: { node_id: "node-a", cluster_id: "", key: "key", program: "test" },
    template: {
      template_id: "tpl-0123456789abcdef01234567",
      instance_type: "cubebox",
      version: "v2",
      kind: "template",
      labels: {},
      request: { template_id: "tpl-0123456789abcdef01234567" },
      created_at: at,
    },
    artifact: {
      artifact_id,
      template_spec_fingerprint: fingerprint,
      build_key: "key",
      source_image_ref: "example.com/one:1",
      source_image_digest: `sha256:${"1".repeat(64)}`,
      digest,
      ext4_size_bytes: manifest.sizeBytes,
      data_bytes: 1,
      entries: 1,
      writable_layer_size: "64Mi",
      image_config: {
        architecture: "amd64",
        os: "linux",
        entrypoint: [],
        cmd: ["sh"],
        env: [],
        working_dir: "/",
        user: "",
        exposed_ports: [],
        labels: {},
      },
      cube_egress_ca_baked: false,
      cube_egress_ca_fingerprint: "",
      cube_egress_ca_targets_written: 0,
      created_at: at,
    },
    compat: {},
    files: [
      {
        name: "rootfs",
        digest,
        size_bytes: manifest.sizeBytes,
        stored_bytes: storedBytes(manifest),
      },
    ],
    ...over,
  };
}

export async function bundleOf(file: TestFile, manifest = aManifest(file)): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  const contents = [{ file: file.handle, manifest: file.manifest }];
  const sign = async (text: Uint8Array) => fakeSignature(text);
  for await (const part of writeBundle({ manifest, contents, sign })) parts.push(part);
  return Buffer.concat(parts);
}
