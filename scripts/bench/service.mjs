// Start of the daemon, and resolve against a bare Hono route that returns the same bytes.
import { execFileSync, fork } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { assembleDemoImage } from "../lib/demo-image.mjs";
import { makeDemoTemplate, startDaemon } from "./daemon-process.mjs";
import { median, printRow } from "./table.mjs";

const ROUNDS = 5;

function wrk(script, url) {
  const output = execFileSync("wrk", ["-t1", "-c16", "-d3s", "-s", script, url]).toString();
  return Number(/Requests\/sec:\s+([\d.]+)/.exec(output)[1]);
}

export async function benchService() {
  const rows = [];
  const starts = [];
  for (let run = 0; run < ROUNDS; run++) {
    const daemon = await startDaemon(["--driver", "rootfs"]);
    starts.push(daemon.readyMs);
    await daemon.stop();
  }
  const ready = median(starts);
  rows.push(
    printRow({
      name: "Daemon ready with an empty catalog, from exec to /readyz, median",
      ours: `${ready.toFixed(0)} ms`,
      ratio: `${ready.toFixed(0)} ms`,
      target: "under 1000 ms",
      met: ready < 1000,
    }),
  );
  const work = mkdtempSync(join(tmpdir(), "templatecenter-bench-"));
  const daemon = await startDaemon(["--driver", "rootfs"]);
  let bare;
  try {
    const { reference } = await assembleDemoImage(join(work, "image"));
    const template = await makeDemoTemplate(daemon, reference);
    const body = JSON.stringify({ template_id: template.template_id });
    const answer = await fetch(`${daemon.url}/v1/resolve`, {
      method: "POST",
      body,
      headers: { "content-type": "application/json" },
    });
    const bytes = await answer.text();
    const script = join(work, "post.lua");
    writeFileSync(
      script,
      `wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\nwrk.body = '${body}'\n`,
    );
    bare = fork(fileURLToPath(new URL("bare-hono.mjs", import.meta.url)));
    const port = await new Promise((resolve) => {
      bare.once("message", resolve);
      bare.send(bytes);
    });
    const rates = { ours: [], bare: [] };
    for (let run = 0; run < ROUNDS; run++) {
      rates.bare.push(wrk(script, `http://127.0.0.1:${port}/`));
      rates.ours.push(wrk(script, `${daemon.url}/v1/resolve`));
    }
    const ratio = median(rates.ours) / median(rates.bare);
    rows.push(
      printRow({
        name: `Resolve over HTTP, ${bytes.length} bytes, requests a second, median`,
        ours: median(rates.ours).toFixed(0),
        reference: `${median(rates.bare).toFixed(0)} of a bare Hono route`,
        ratio: ratio.toFixed(2),
        target: "at least 0.60",
        met: ratio >= 0.6,
      }),
    );
  } finally {
    bare?.kill();
    await daemon.stop();
    rmSync(work, { recursive: true, force: true });
  }
  return rows;
}
