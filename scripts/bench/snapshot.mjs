// Snapshots of a running sandbox of 256 MiB and rollbacks to them: on ext4, and on XFS with
// reflinks, each an image on a loop device (as root).
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { median, printRow } from "./table.mjs";
import { runTypeScript } from "./typescript.mjs";

const CYCLES = 50;
const IMAGE_BYTES = 4 * 2 ** 30;
const run = (program, ...args) => execFileSync(program, args, { stdio: ["ignore", 2, 2] });

/** Calls `use` with a folder on a filesystem of its own. */
function onImage(work, name, makeFilesystem, use) {
  const image = join(work, `${name}.img`);
  const folder = join(work, name);
  mkdirSync(folder);
  run("truncate", "-s", String(IMAGE_BYTES), image);
  run(...makeFilesystem, image);
  run("mount", "-o", "loop", image, folder);
  try {
    return use(folder);
  } finally {
    // It goes with its last user: a scanner or another namespace may look at it at this moment.
    run("umount", "--lazy", folder);
  }
}

function rows(name, figures, limits) {
  const pause = median(figures.pauses);
  const answer = median(figures.answers);
  const { before, after } = figures;
  const grown = Object.keys(after).filter((key) => after[key] > before[key]);
  // Guests write and touch memory as they like, but not more from cycle to cycle.
  const leaked = grown.filter((key) => key !== "memoryMib" || after[key] > before[key] + 32);
  const told = (counts) =>
    `${counts.processes} process, ${counts.files} files, ${counts.descriptors} descriptors, ` +
    `${counts.memoryMib} MiB`;
  return [
    printRow({
      name: `Pause of a sandbox of 256 MiB that is snapshotted, ${name}, median of ${CYCLES}`,
      ours: `${pause.toFixed(1)} ms (most ${Math.max(...figures.pauses).toFixed(1)} ms)`,
      ratio: `${pause.toFixed(1)} ms`,
      target: `at most ${limits.pauseMs} ms`,
      met: pause <= limits.pauseMs,
    }),
    printRow({
      name: `Rollback to the first HTTP answer, ${name}, median of ${CYCLES}`,
      ours: `${answer.toFixed(0)} ms (most ${Math.max(...figures.answers).toFixed(0)} ms)`,
      ratio: `${answer.toFixed(0)} ms`,
      target: "at most 400 ms",
      met: answer <= 400,
    }),
    printRow({
      name: `What there is after ${CYCLES} snapshots and rollbacks, ${name}`,
      ours: told(after),
      reference: told(before),
      ratio: leaked.length === 0 ? "nothing more" : `more ${leaked.join(", ")}`,
      target: "nothing leaks",
      met: leaked.length === 0,
    }),
  ];
}

export function benchSnapshot() {
  if (process.getuid() !== 0) throw new Error("the snapshot bench mounts images: run it as root");
  const work = mkdtempSync(join(tmpdir(), "templatecenter-bench-"));
  const measure = (folder) => runTypeScript("snapshot.ts", [folder, CYCLES]);
  try {
    const ext4 = onImage(work, "ext4", ["mke2fs", "-q", "-F", "-t", "ext4"], measure);
    const xfs = onImage(work, "xfs", ["mkfs.xfs", "-q", "-m", "reflink=1"], measure);
    return [
      ...rows("ext4", ext4, { pauseMs: 250 }),
      ...rows("XFS with reflinks", xfs, { pauseMs: 60 }),
    ];
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
