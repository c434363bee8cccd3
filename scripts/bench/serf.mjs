// Debian's serf, 12 agents on loopback: from a user event at one to the handler of the last.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync, chmodSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePorts } from "./ports.mjs";

/** @returns milliseconds from each event to the last agent's handler */
export async function serfEventTimes(count, events) {
  const dir = mkdtempSync(join(tmpdir(), "templatecenter-bench-"));
  const log = join(dir, "handled");
  const handler = join(dir, "handler.sh");
  // The shell's own start is part of what a handler is with serf.
  writeFileSync(handler, `#!/bin/sh\necho "$SERF_USER_EVENT $(date +%s%N)" >> ${log}\n`);
  chmodSync(handler, 0o755);
  writeFileSync(log, "");
  const ports = await freePorts(count * 2);
  const agents = [];
  try {
    for (let index = 0; index < count; index++) {
      const bind = `127.0.0.1:${ports[index * 2]}`;
      const args = ["agent", `-node=n${index}`, `-bind=${bind}`];
      args.push(`-rpc-addr=127.0.0.1:${ports[index * 2 + 1]}`, "-profile=lan");
      args.push(`-event-handler=user=${handler}`);
      if (index > 0) args.push(`-join=127.0.0.1:${ports[0]}`);
      agents.push(spawn("serf", args, { stdio: "ignore" }));
      await sleep(100);
    }
    const rpc = (index) => `-rpc-addr=127.0.0.1:${ports[index * 2 + 1]}`;
    for (;;) {
      const members = execFileSync("serf", ["members", rpc(count - 1)]).toString();
      if (members.split("\n").filter((line) => line.includes("alive")).length === count) break;
      await sleep(200);
    }
    const times = [];
    for (let event = 0; event < events; event++) {
      const name = `e${event}`;
      const began = BigInt(Date.now()) * 1_000_000n;
      execFileSync("serf", ["event", rpc(event % count), name]);
      for (;;) {
        const lines = readFileSync(log, "utf8").split("\n");
        const handled = lines.filter((line) => line.startsWith(`${name} `));
        if (handled.length === count) {
          const last = handled
            .map((line) => BigInt(line.split(" ")[1]))
            .sort((a, b) => (a < b ? 1 : -1))[0];
          times.push(Number(last - began) / 1e6);
          break;
        }
        await sleep(5);
      }
    }
    return times;
  } finally {
    for (const agent of agents) agent.kill("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  }
}
