import { chmod, mkdir, open, readdir, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CHUNK_SIZE_BYTES, encodeChunkManifest } from "../../src/domain/index.ts";
import { openArtifactStore } from "../../src/storage/index.ts";
import {
  imageBytes,
  manifestOf,
  recordedLog,
  sidecarOf,
  withFolder,
  writeSparse,
} from "../support/storage.ts";

async function withStore<T>(work: (tools: Tools) => Promise<T>): Promise<T> {
  return withFolder(async (root) => work(await openTools(root)));
}

type Tools = Awaited<ReturnType<typeof openTools>>;

async function openTools(root: string) {
  const log = recordedLog();
  const options = { dir: join(root, "artifacts"), workDir: join(root, "work"), log };
  const store = await openArtifactStore(options);
  const publish = async (id: string, bytes: Uint8Array, updatedAt?: string) => {
    const manifest = manifestOf(bytes);
    const path = store.scratchPath(`${id}-build`);
    await writeSparse(path, bytes);
    return store.publish(path, manifest, sidecarOf(id, manifest, updatedAt));
  };
  const scratch = () => readdir(join(root, "work", "artifacts"));
  const reopen = () => openTools(root);
  return { root, store, log, publish, scratch, reopen };
}

async function contentOf(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}

async function overwrite(path: string, at: number, byte: number): Promise<void> {
  const file = await open(path, "r+");
  await file.write(Buffer.from([byte]), 0, 1, at);
  await file.close();
}

describe("the artifact store", () => {
  it("publishes a file under its digest, and knows it when it is opened again", () =>
    withStore(async ({ store, publish, scratch, reopen }) => {
      const bytes = imageBytes(1, 20);
      const stored = await publish("rfs-1", bytes);
      expect(stored).toEqual(store.find("rfs-1"));
      expect(await contentOf(await store.read("rfs-1"))).toEqual(Buffer.from(bytes));
      expect(await scratch()).toEqual([]);
      expect((await stat(stored.path)).mode & 0o777).toBe(0o640);
      const again = await reopen();
      expect(again.store.find("rfs-1")).toEqual(stored);
      expect(again.store.inventory()).toEqual([sidecarOf("rfs-1", manifestOf(bytes))]);
      expect(await again.store.manifest(stored.digest)).toEqual(manifestOf(bytes));
      await again.store.verify(stored.digest);
    }));

  it("reads a range, both ends included", () =>
    withStore(async ({ store, publish }) => {
      const bytes = imageBytes(1, 40);
      await publish("rfs-1", bytes);
      for (const [start, end] of [
        [0, 0],
        [65_535, 1_200_000],
        [bytes.length - 1, bytes.length - 1],
      ] as const) {
        const part = await contentOf(await store.read("rfs-1", { start, end }));
        expect(part.equals(bytes.subarray(start, end + 1))).toBe(true);
      }
    }));

  it("keeps equal bytes once, until the last id that names them goes", () =>
    withStore(async ({ store, publish, scratch, reopen }) => {
      const bytes = imageBytes(1, 3);
      const { digest, path } = await publish("rfs-1", bytes);
      await publish("rfs-2", bytes);
      await store.addSidecar(digest, sidecarOf("rfs-3", manifestOf(bytes)));
      expect(await scratch()).toEqual([]);
      await store.remove("rfs-1");
      await store.remove("rfs-3");
      await store.remove("rfs-unknown");
      expect(store.find("rfs-1")).toBeUndefined();
      expect(store.find("rfs-2")?.path).toBe(path);
      expect((await reopen()).store.inventory()).toHaveLength(1);
      await store.remove("rfs-2");
      expect(store.findDigest(digest)).toBeUndefined();
      await expect(stat(path)).rejects.toMatchObject({ code: "ENOENT" });
      await expect(store.read("rfs-2")).rejects.toMatchObject({ code: "artifact_source_missing" });
      await expect(
        store.addSidecar(digest, sidecarOf("rfs-2", manifestOf(bytes))),
      ).rejects.toMatchObject({ code: "artifact_source_missing" });
    }));

  it("goes on reading a file that is removed meanwhile", () =>
    withStore(async ({ store, publish }) => {
      const bytes = imageBytes(4, 30);
      await publish("rfs-1", bytes);
      const stream = await store.read("rfs-1");
      await store.remove("rfs-1");
      expect((await contentOf(stream)).equals(bytes)).toBe(true);
    }));

  it("lets an id name other bytes, and drops the ones before", () =>
    withStore(async ({ store, publish, reopen }) => {
      const first = await publish("rfs-1", imageBytes(1, 3));
      const second = await publish("rfs-1", imageBytes(2, 3));
      expect(store.find("rfs-1")?.digest).toBe(second.digest);
      expect(store.findDigest(first.digest)).toBeUndefined();
      expect((await reopen()).store.find("rfs-1")?.digest).toBe(second.digest);
    }));

  it("refuses a file that is not what its manifest and sidecar say", () =>
    withStore(async ({ store }) => {
      const bytes = imageBytes(1, 3);
      const manifest = manifestOf(bytes);
      const path = store.scratchPath("build");
      await writeFile(path, bytes.subarray(1));
      const sidecar = sidecarOf("rfs-1", manifest);
      const corrupt = { code: "artifact_corrupt" };
      await expect(store.publish(path, manifest, sidecar)).rejects.toMatchObject(corrupt);
      await writeFile(path, bytes);
      const other = sidecarOf("rfs-1", manifestOf(imageBytes(2, 3)));
      await expect(store.publish(path, manifest, other)).rejects.toMatchObject(corrupt);
      expect(store.inventory()).toEqual([]);
      await store.publish(path, manifest, sidecar);
    }));

  it.each(["", "..", "a/b", "../x", ".hidden", "a\0b"])("refuses the name %j", (name) =>
    withStore(async ({ store, publish }) => {
      expect(() => store.scratchPath(name)).toThrow(/not valid/);
      const manifest = manifestOf(imageBytes(1, 1));
      const { digest } = await publish("rfs-1", imageBytes(1, 1));
      await expect(async () =>
        store.addSidecar(digest, sidecarOf(name, manifest)),
      ).rejects.toMatchObject({ code: "invalid_request" });
    }),
  );

  it("names the damaged chunks, in data and in holes, and a rebuild heals them", () =>
    withStore(async ({ store, publish }) => {
      const bytes = imageBytes(1, 40);
      const { digest, path } = await publish("rfs-1", bytes);
      await overwrite(path, 0, 255);
      await overwrite(path, 4 * CHUNK_SIZE_BYTES + 9, 1);
      await overwrite(path, bytes.length - 1, 255);
      await expect(store.verify(digest)).rejects.toMatchObject({
        code: "artifact_corrupt",
        meta: { chunks: [0, 4, 40], corrupt_chunks: 3 },
      });
      await publish("rfs-1", bytes);
      await store.verify(digest);
    }));

  it("reads whole chunks of what it holds, the short last one too", () =>
    withStore(async ({ store, publish }) => {
      const bytes = imageBytes(1, 5, 300);
      const { digest } = await publish("rfs-1", bytes);
      const chunks = await store.readChunks(digest, [5, 0]);
      expect(chunks.map(({ length }) => length)).toEqual([300, CHUNK_SIZE_BYTES]);
      expect(Buffer.from(chunks[1] ?? []).equals(bytes.subarray(0, CHUNK_SIZE_BYTES))).toBe(true);
      const gone = { code: "artifact_source_missing" };
      await expect(store.readChunks(digest, [6])).rejects.toMatchObject(gone);
      const other = `sha256:${"0".repeat(64)}`;
      await expect(store.readChunks(other, [0])).rejects.toMatchObject(gone);
    }));

  it("suspects bytes from a failed check to their replacement, and reads at the pace told", () =>
    withStore(async ({ store, publish }) => {
      const bytes = imageBytes(1, 20);
      const { digest, path } = await publish("rfs-1", bytes);
      expect(store.isSuspect(digest)).toBe(false);
      await overwrite(path, 0, 255);
      let paced = 0;
      const pace = async (read: number) => void (paced += read);
      await expect(store.verify(digest, { pace })).rejects.toMatchObject({
        code: "artifact_corrupt",
      });
      expect(paced).toBe(bytes.length);
      expect(store.isSuspect(digest)).toBe(true);
      const manifest = manifestOf(bytes);
      const partial = await store.openPartial(sidecarOf("rfs-1", manifest).artifact, manifest);
      for (let i = 0; i < partial.have.length; i++) {
        const at = i * CHUNK_SIZE_BYTES;
        if (partial.have.has(i)) continue;
        await partial.writeChunk(i, bytes.subarray(at, at + CHUNK_SIZE_BYTES));
      }
      await partial.finish();
      expect(store.isSuspect(digest)).toBe(false);
      await store.verify(digest);
    }));

  it("stops verifying when it is told to", () =>
    withStore(async ({ store, publish }) => {
      const { digest } = await publish("rfs-1", imageBytes(1, 40));
      const signal = AbortSignal.abort(new Error("enough"));
      await expect(store.verify(digest, { signal })).rejects.toThrow("enough");
    }));

  it("does not find a file that was cut or taken away, and takes a new one for it", () =>
    withStore(async ({ store, publish }) => {
      const bytes = imageBytes(1, 4);
      const { digest, path } = await publish("rfs-1", bytes);
      await truncate(path, 1_000);
      expect(store.find("rfs-1")).toBeUndefined();
      await expect(store.verify(digest)).rejects.toMatchObject({
        code: "artifact_source_missing",
      });
      await publish("rfs-1", bytes);
      await store.verify(digest);
      await rm(path);
      expect(store.findDigest(digest)).toBeUndefined();
    }));

  it("takes a new file where a folder is, or where its own folder is gone", () =>
    withStore(async ({ root, store, publish }) => {
      const bytes = imageBytes(1, 4);
      const { digest, path } = await publish("rfs-1", bytes);
      const folder = join(root, "artifacts", "sha256", digest.slice(7));
      for (const name of [path, join(folder, "chunks.bin")]) {
        await rm(path, { recursive: true });
        await rm(name, { force: true });
        await mkdir(join(name, "below"), { recursive: true });
        expect(store.find("rfs-1")).toBeUndefined();
        await publish("rfs-1", bytes);
        await store.verify(digest);
      }
      await rm(folder, { recursive: true });
      await publish("rfs-1", bytes);
      await store.verify(digest);
    }));

  it("refuses a damaged manifest, and a rebuild heals it", () =>
    withStore(async ({ root, store, publish }) => {
      const bytes = imageBytes(1, 4);
      const { digest } = await publish("rfs-1", bytes);
      const hex = digest.slice(7);
      const chunks = encodeChunkManifest(manifestOf(bytes));
      chunks[30] = (chunks[30] ?? 0) ^ 1;
      await writeFile(join(root, "artifacts", "sha256", hex, "chunks.bin"), chunks);
      await expect(store.manifest(digest)).rejects.toMatchObject({ code: "artifact_corrupt" });
      await publish("rfs-1", bytes);
      await store.verify(digest);
    }));

  it("sets aside what is not right when it opens, says so, and keeps the rest", () =>
    withStore(async ({ root, publish, reopen }) => {
      const good = await publish("rfs-good", imageBytes(1, 2));
      const cut = await publish("rfs-cut", imageBytes(2, 2));
      await truncate(cut.path, 5);
      const bad = await publish("rfs-bad", imageBytes(3, 2));
      const side = join(root, "artifacts", "sha256", bad.digest.slice(7), "rfs-bad.json");
      await writeFile(side, "1:{}");
      await mkdir(join(root, "artifacts", "sha256", "stray"));
      await writeFile(join(root, "work", "artifacts", "half"), "x");
      await mkdir(join(root, "artifacts", "staging", "9"));
      await chmod(side, 0o600);

      const { store, log, scratch } = await reopen();
      expect(store.inventory().map(({ artifact }) => artifact.artifact_id)).toEqual(["rfs-good"]);
      expect(store.find("rfs-good")).toEqual(good);
      expect(log.lines.map(({ level }) => level)).toEqual(["error", "error", "error"]);
      expect((await readdir(join(root, "artifacts", "damaged"))).sort()).toEqual(
        [cut.digest.slice(7), "stray"].sort(),
      );
      expect(await scratch()).toEqual([]);
      expect(await readdir(join(root, "artifacts", "staging"))).toEqual([]);
      // The bytes whose only sidecar was bad are still there for whoever builds them again.
      expect(store.findDigest(bad.digest)).toBeDefined();
      expect((await reopen()).log.lines).toEqual([]);
    }));
});
