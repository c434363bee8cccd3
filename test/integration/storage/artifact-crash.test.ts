import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { openArtifactStore } from "../../../src/storage/index.ts";
import {
  imageBytes,
  manifestOf,
  recordedLog,
  sidecarOf,
  withFolder,
} from "../../support/storage.ts";
import { startTypeScript } from "../../support/ts-process.ts";

const digestOf = (seed: number): string =>
  sidecarOf("x", manifestOf(imageBytes(seed, 2))).artifact.digest;
const [first, second] = [digestOf(1), digestOf(2)];

/** What may be there once so much has been acknowledged: the state then, or the next one. */
const STATES: readonly Readonly<Record<string, string>>[] = [
  {},
  { "rfs-1": first },
  { "rfs-1": first, "rfs-2": first },
  { "rfs-1": second, "rfs-2": first },
  { "rfs-1": second },
];

async function runUntil(root: string, step: number): Promise<string[]> {
  const args = [root, String(step)];
  const child = startTypeScript("integration/storage/artifact-publisher.ts", args);
  let text = "";
  let errors = "";
  child.stdout?.on("data", (data: Buffer) => (text += data.toString()));
  child.stderr?.on("data", (data: Buffer) => (errors += data.toString()));
  const [code] = (await once(child, "close")) as [number | null];
  expect(code === null || code === 0, errors).toBe(true);
  return text.split("\n").slice(0, -1);
}

it("leaves all or nothing of a publish that is killed before any of its steps", async () => {
  let step = 0;
  for (let ended = false; !ended; step++) {
    await withFolder(async (root) => {
      const lines = await runUntil(root, step);
      ended = lines.at(-1) === "end";
      const log = recordedLog();
      const dir = join(root, "artifacts");
      const store = await openArtifactStore({ dir, workDir: join(root, "work"), log });
      const held = Object.fromEntries(
        store.inventory().map(({ artifact }) => [artifact.artifact_id, artifact.digest]),
      );
      const acknowledged = Math.min(lines.length, STATES.length - 1);
      expect([STATES[acknowledged], STATES[acknowledged + 1]]).toContainEqual(held);
      for (const digest of Object.values(held)) await store.verify(digest);
      expect(log.lines).toEqual([]);
      expect(await readdir(join(root, "work", "artifacts"))).toEqual([]);
      expect(await readdir(join(dir, "staging"))).toEqual([]);
      expect((await readdir(join(dir, "sha256"))).length).toBe(new Set(Object.values(held)).size);
    });
  }
  expect(step).toBeGreaterThan(30);
}, 500_000);
