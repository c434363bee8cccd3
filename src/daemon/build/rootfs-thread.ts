/**
 * The build thread: inflating, reading, hashing and writing happen here and in the thread pool, so
 * that gossip and HTTP on the main thread never wait for a build. Layers' bytes come from the main
 * thread, which owns the network; each piece taken is answered, which bounds what is under way.
 */
import { parentPort, workerData } from "node:worker_threads";
import type { FromThread, ThreadInput, ToThread } from "./rootfs-messages.ts";
import { errorOf, errorParts } from "./rootfs-messages.ts";
import { LayerQueue } from "./layer-queue.ts";
import { runBuild, type RunHooks, type RunProgress } from "./rootfs-run.ts";

/** Progress goes out each time this much more was written: some dozens of times a second. */
const PROGRESS_BYTES = 8 * 1024 * 1024;

async function main(): Promise<void> {
  const port = parentPort;
  if (port === null) return;
  const say = (message: FromThread): void => {
    port.postMessage(message);
  };
  const queue = new LayerQueue((bytes) => {
    say({ kind: "taken", bytes });
  });
  port.on("message", (message: ToThread) => {
    if (message.kind === "bytes") queue.push(message.bytes);
    else if (message.kind === "end") queue.end();
    else queue.fail(errorOf(message.error));
  });
  let last: RunProgress | undefined;
  try {
    const hooks: RunHooks = {
      openLayer(layer) {
        say({ kind: "open", layer });
        return queue.next();
      },
      onProgress(progress) {
        const due =
          last?.phase !== progress.phase ||
          last.completedLayers !== progress.completedLayers ||
          progress.writtenBytes - last.writtenBytes >= PROGRESS_BYTES;
        if (!due) return;
        last = progress;
        say({ kind: "progress", progress });
      },
    };
    const result = await runBuild(workerData as ThreadInput, hooks);
    say({ kind: "done", result });
  } catch (error) {
    say({ kind: "failed", error: errorParts(error) });
  } finally {
    port.close();
  }
}

void main();
