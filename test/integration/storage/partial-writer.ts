/** Writes chunks of a partial artifact in order, saying which a checkpoint has confirmed. */
import { join } from "node:path";
import { CHUNK_SIZE_BYTES } from "../../../src/domain/index.ts";
import { openArtifactStore } from "../../../src/storage/index.ts";
import { imageBytes, manifestOf, recordedLog, sidecarOf } from "../../support/storage.ts";

const root = process.argv[2] ?? "";
const bytes = imageBytes(7, 40);
const manifest = manifestOf(bytes);
const { artifact } = sidecarOf("rfs-1", manifest);
const store = await openArtifactStore({
  dir: join(root, "artifacts"),
  workDir: join(root, "work"),
  log: recordedLog(),
});
const partial = await store.openPartial(artifact, manifest);
for (let i = 0; i < 41; i++) {
  if (partial.have.has(i)) continue;
  await partial.writeChunk(i, bytes.subarray(i * CHUNK_SIZE_BYTES, (i + 1) * CHUNK_SIZE_BYTES));
  await partial.checkpoint();
  process.stdout.write(`saved ${i}\n`);
  // Each line is on its way before the next chunk: the reader kills at one of them.
  await new Promise((resolve) => setTimeout(resolve, 2));
}
setInterval(() => undefined, 1_000);
