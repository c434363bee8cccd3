// Cold boot against restore, with and without waiting processes, and what 20 sandboxes share.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { assembleDemoImage } from "../lib/demo-image.mjs";
import { makeDemoTemplate, startDaemon } from "./daemon-process.mjs";
import { median, printRow } from "./table.mjs";

const RUNS = 20;

async function firstAnswer(sandbox, began) {
  const { host, port } = sandbox.ports["8080"];
  for (;;) {
    const answer = await fetch(`http://${host}:${port}/`).catch(() => undefined);
    if (answer?.ok) return performance.now() - began;
    await sleep(1);
  }
}

async function restores(daemon, template, pauseMs) {
  const running = [];
  const answered = [];
  for (let run = 0; run < RUNS; run++) {
    const began = performance.now();
    const sandbox = await daemon.call("POST", "/v1/sandboxes", {
      template_id: template.template_id,
    });
    // The first one fills the pool and is not one of the pool's.
    if (run > 0) running.push(sandbox.timings.running_ms);
    const after = await firstAnswer(sandbox, began);
    if (run > 0) answered.push(after);
    await daemon.call("DELETE", `/v1/sandboxes/${sandbox.sandbox_id}`);
    await sleep(pauseMs);
  }
  return { running: median(running), answered: median(answered) };
}

/** Resident and proportional size of the mappings of one memory file, over all sandboxes. */
function shared(sandboxes) {
  const files = new Set();
  let resident = 0;
  let proportional = 0;
  for (const { pid } of sandboxes) {
    const blocks = readFileSync(`/proc/${pid}/smaps`, "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
    for (const block of blocks) {
      const path = /\s(\/\S*\/memory)$/m.exec(block.split("\n")[0])?.[1];
      if (path === undefined) continue;
      files.add(path);
      resident += Number(/^Rss:\s+(\d+)/m.exec(block)[1]);
      proportional += Number(/^Pss:\s+(\d+)/m.exec(block)[1]);
    }
  }
  return { files: files.size, resident, proportional };
}

export async function benchSandboxes() {
  const work = mkdtempSync(join(tmpdir(), "templatecenter-bench-"));
  const { reference } = await assembleDemoImage(join(work, "image"));
  const rows = [];
  const plain = await startDaemon();
  try {
    const template = await makeDemoTemplate(plain, reference);
    const cold = template.replicas[0].timings.first_answer_ms;
    const { running, answered } = await restores(plain, template, 0);
    rows.push(
      printRow({
        name: "Sandbox restored from its snapshot: guest running, median",
        ours: `${running.toFixed(1)} ms`,
        ratio: `${running.toFixed(1)} ms`,
        target: "at most 60 ms",
        met: running <= 60,
      }),
      printRow({
        name: "First HTTP answer: cold boot against restore, median",
        ours: `${answered.toFixed(0)} ms`,
        reference: `${cold} ms`,
        ratio: (cold / answered).toFixed(1),
        target: "at least 20 times faster",
        met: cold / answered >= 20,
      }),
    );
    const sandboxes = [];
    for (let i = 0; i < 20; i++) {
      sandboxes.push(
        await plain.call("POST", "/v1/sandboxes", { template_id: template.template_id }),
      );
    }
    await Promise.all(sandboxes.map((sandbox) => firstAnswer(sandbox, performance.now())));
    const { files, resident, proportional } = shared(sandboxes);
    rows.push(
      printRow({
        name: "20 sandboxes of one snapshot: guest memory they hold, against as if each had its own",
        ours: `${Math.round(proportional / 1024)} MiB in ${files} file`,
        reference: `${Math.round(resident / 1024)} MiB`,
        ratio: (resident / proportional).toFixed(1),
        target: "one memory file",
        met: files === 1,
      }),
    );
    for (const { sandbox_id } of sandboxes)
      await plain.call("DELETE", `/v1/sandboxes/${sandbox_id}`);
  } finally {
    await plain.stop();
  }
  const pooled = await startDaemon(["--sandbox-pool-size", "2"]);
  try {
    const template = await makeDemoTemplate(pooled, reference);
    const { running } = await restores(pooled, template, 150);
    rows.push(
      printRow({
        name: "The same from a pool of two waiting processes",
        ours: `${running.toFixed(1)} ms`,
        ratio: `${running.toFixed(1)} ms`,
        target: "at most 15 ms",
        met: running <= 15,
      }),
    );
  } finally {
    await pooled.stop();
    rmSync(work, { recursive: true, force: true });
  }
  return rows;
}
