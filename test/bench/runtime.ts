/**
 * The runtime's figures, from one run on this machine: a cold boot against restores by a new
 * process and by a waiting one, and what sandboxes of one snapshot share.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ask, guestAssets, makeGuestRootfs, openDriver, webGuest } from "../support/guest.ts";

export interface RuntimeFigures {
  readonly accelerator: string;
  /** From the start of QEMU to the first good HTTP answer, probed every 10 ms. */
  readonly coldFirstAnswerMs: number;
  readonly snapshotMs: number;
  readonly flushMs: number;
  /** Medians of `runs` restores: request to running guest, request to first HTTP answer. */
  readonly restoreRunningMs: number;
  readonly restoreFirstAnswerMs: number;
  readonly pooledRunningMs: number;
  readonly pooledFirstAnswerMs: number;
  /** `sandboxes` at once: memory file mappings, summed, and what of it is this process's own. */
  readonly shared: {
    readonly sandboxes: number;
    readonly files: number;
    readonly mappedMib: number;
    readonly proportionalMib: number;
    readonly copiedMib: number;
    /** All memory of all processes, shared pages counted once. */
    readonly totalMib: number;
  };
}

const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return Math.round((sorted[Math.floor(sorted.length / 2)] ?? 0) * 10) / 10;
};

/** Sums over the mappings of memory files in a process, KiB. */
function memoryMappings(pid: number) {
  const sums = { files: new Set<string>(), rss: 0, pss: 0, dirty: 0 };
  const blocks = readFileSync(`/proc/${pid}/smaps`, "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  for (const block of blocks) {
    const path = /\s(\/\S*\/memory)$/m.exec(block.split("\n")[0] ?? "")?.[1];
    if (path === undefined) continue;
    const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(block)?.[1]);
    sums.files.add(path);
    sums.rss += kib("Rss");
    sums.pss += kib("Pss");
    sums.dirty += kib("Private_Dirty");
  }
  return sums;
}

/** @param options.runs restores of each kind; their medians are told */
export async function benchRuntime(
  options: { runs?: number; sandboxes?: number; say?: (line: string) => void } = {},
): Promise<RuntimeFigures> {
  const { runs = 15, sandboxes = 20, say = () => undefined } = options;
  await guestAssets();
  const work = mkdtempSync(join(tmpdir(), "tc-bench-"));
  mkdirSync(join(work, "data"));
  const rootfsPath = makeGuestRootfs(work);
  const { driver } = await openDriver(join(work, "data"));
  const probe = { ...webGuest().probe, periodMs: 10, failureThreshold: 10_000 };
  const guest = webGuest({ memoryMib: 256, probe: { ...webGuest().probe!, ...probe } });
  try {
    const { accelerator = "" } = await driver.probe();
    const dir = join(work, "data/templates/bench");
    const boot = { templateId: "bench", rootfsPath, guest, dir };
    const snapshot = await driver.makeSnapshot(boot);
    say(`cold boot ${JSON.stringify(snapshot.timings)}`);
    let number = 0;
    const restoreOne = () => {
      const sandboxId = `s${++number}`;
      const sandboxDir = join(work, "data/sandboxes", sandboxId);
      return driver.restore({ sandboxId, snapshot, guest, dir: sandboxDir });
    };
    const measure = async (before: () => Promise<unknown>) => {
      const running: number[] = [];
      const answered: number[] = [];
      for (let run = 0; run < runs; run++) {
        await before();
        const began = performance.now();
        const sandbox = await restoreOne();
        await ask(sandbox, "/note");
        answered.push(performance.now() - began);
        running.push(sandbox.timings["running_ms"] ?? Number.NaN);
        await driver.stop(sandbox.sandboxId);
      }
      say(`running ${running.join(" ")}; answered ${answered.map(Math.round).join(" ")}`);
      return [median(running), median(answered)] as const;
    };
    const [restoreRunningMs, restoreFirstAnswerMs] = await measure(() => Promise.resolve());
    const refill = () => driver.warm(snapshot, guest, 2);
    const [pooledRunningMs, pooledFirstAnswerMs] = await measure(refill);
    await driver.warm(snapshot, guest, 0);

    const all = [];
    for (let one = 0; one < sandboxes; one++) all.push(await restoreOne());
    for (const sandbox of all) await ask(sandbox, "/note");
    const mappings = all.map(({ pid }) => memoryMappings(pid ?? 0));
    const mib = (kib: number) => Math.round(kib / 102.4) / 10;
    const sum = (of: "rss" | "pss" | "dirty") =>
      mib(mappings.reduce((total, mapping) => total + mapping[of], 0));
    const { memoryBytes } = await driver.usage();
    return {
      accelerator,
      coldFirstAnswerMs: snapshot.timings["first_answer_ms"] ?? Number.NaN,
      snapshotMs: snapshot.timings["snapshot_ms"] ?? Number.NaN,
      flushMs: snapshot.timings["flush_ms"] ?? Number.NaN,
      ...{ restoreRunningMs, restoreFirstAnswerMs, pooledRunningMs, pooledFirstAnswerMs },
      shared: {
        sandboxes,
        files: new Set(mappings.flatMap(({ files }) => [...files])).size,
        mappedMib: sum("rss"),
        proportionalMib: sum("pss"),
        copiedMib: sum("dirty"),
        totalMib: mib(memoryBytes / 1_024),
      },
    };
  } finally {
    await driver.close({ keepSandboxes: false });
    rmSync(work, { recursive: true });
  }
}
