import { readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CHUNK_SIZE_BYTES } from "../../../src/domain/index.ts";
import { openArtifactStore } from "../../../src/storage/index.ts";
import { startTypeScript } from "../../support/ts-process.ts";
import {
  imageBytes,
  manifestOf,
  recordedLog,
  sidecarOf,
  withFolder,
} from "../../support/storage.ts";

const openStore = (root: string) =>
  openArtifactStore({
    dir: join(root, "artifacts"),
    workDir: join(root, "work"),
    log: recordedLog(),
  });

const bytes = imageBytes(7, 40);
const manifest = manifestOf(bytes);
const { artifact } = sidecarOf("rfs-1", manifest);
const chunkOf = (index: number) =>
  bytes.subarray(index * CHUNK_SIZE_BYTES, (index + 1) * CHUNK_SIZE_BYTES);

describe("a partial artifact", () => {
  it("serves what is written, keeps holes sparse, and becomes an ordinary artifact", () =>
    withFolder(async (root) => {
      const store = await openStore(root);
      const partial = await store.openPartial(artifact, manifest);
      expect(partial.have.count).toBe(14);
      await expect(store.openPartial(artifact, manifest)).rejects.toMatchObject({
        code: "wrong_status",
      });
      await partial.writeChunk(39, chunkOf(39));
      expect(await partial.readChunks([39])).toEqual([Uint8Array.from(chunkOf(39))]);
      await expect(partial.readChunks([0])).rejects.toMatchObject({
        code: "artifact_source_missing",
      });
      await expect(partial.writeChunk(0, chunkOf(40))).rejects.toMatchObject({
        code: "chunk_mismatch",
      });
      await expect(partial.finish()).rejects.toMatchObject({ code: "artifact_corrupt" });
      for (let i = 0; i < 40; i++)
        if (!partial.have.has(i)) await partial.writeChunk(i, chunkOf(i));
      const stored = await partial.finish();
      await partial.close();
      expect((await readFile(stored.path)).equals(bytes)).toBe(true);
      expect((await stat(stored.path)).blocks * 512).toBeLessThan(30 * CHUNK_SIZE_BYTES);
      expect(await store.partials()).toEqual([]);
      await store.verify(stored.digest);
    }));

  it("goes on where it was closed, and does not believe a map that the bytes do not bear out", () =>
    withFolder(async (root) => {
      const first = await (await openStore(root)).openPartial(artifact, manifest);
      for (const i of [0, 2, 3]) await first.writeChunk(i, chunkOf(i));
      await first.close();
      const store = await openStore(root);
      expect(await store.partials()).toEqual([artifact.digest]);
      expect(await store.partialManifest(artifact.digest)).toEqual(manifest);
      const second = await store.openPartial(artifact, manifest);
      expect([0, 2, 3, 5].map((i) => second.have.has(i))).toEqual([true, true, true, false]);
      await second.close();
      const dir = join(root, "artifacts", "partial", artifact.digest.slice(7));
      await writeFile(join(dir, "have.bin"), new Uint8Array(6).fill(0xff));
      const third = await store.openPartial(artifact, manifest);
      expect(third.have.count).toBe(17);
      await third.close();
      await rm(join(dir, "have.bin"));
      const fourth = await store.openPartial(artifact, manifest);
      expect(fourth.have.count).toBe(14);
      await fourth.close();
      await store.discardPartial(artifact.digest);
      expect(await readdir(join(root, "artifacts", "partial"))).toEqual([]);
    }));

  it("has what a checkpoint confirmed after the process was killed", () =>
    withFolder(async (root) => {
      const child = startTypeScript("integration/storage/partial-writer.ts", [root]);
      let output = "";
      for await (const part of child.stdout ?? []) {
        output += String(part);
        if (output.includes("saved 20")) child.kill("SIGKILL");
      }
      expect(output).toContain("saved 20");
      const partial = await (await openStore(root)).openPartial(artifact, manifest);
      for (let i = 0; i <= 20; i++) expect(partial.have.has(i)).toBe(true);
      for (let i = 0; i < 41; i++) {
        if (partial.have.has(i) && i % 3 !== 1) {
          expect(await partial.readChunks([i])).toEqual([Uint8Array.from(chunkOf(i))]);
        }
      }
      await partial.close();
    }));
});
