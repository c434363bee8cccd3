// The cluster against serf and etcd, Debian's packages, in the same run.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startDaemon } from "./daemon-process.mjs";
import { etcdTakeover } from "./etcd.mjs";
import { serfEventTimes } from "./serf.mjs";
import { median, printRow } from "./table.mjs";

const CHANGES = 30;
const TAKEOVERS = 3;
const IDLE_MS = 60_000;

async function until(what, check, timeoutMs = 120_000) {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (performance.now() > end) throw new Error(`waited in vain for ${what}`);
    await sleep(20);
  }
}

/** Daemons on loopback that are one cluster and in sync. */
export async function startCluster(count, flags = []) {
  const daemons = [];
  const stop = () => Promise.all(daemons.map((daemon) => daemon.stop()));
  try {
    for (let index = 0; index < count; index++) {
      const own = ["--node-id", `n${index}`, "--p2p-listen", "/ip4/127.0.0.1/tcp/0"];
      const daemon = await startDaemon([
        "--driver",
        "rootfs",
        ...own,
        "--log-level",
        "error",
        ...flags,
      ]);
      daemons.push(daemon);
      if (index === 0) continue;
      const { token } = await daemons[0].call("POST", "/v1/cluster/join-tokens", {});
      await daemon.call("POST", "/v1/cluster/join", { token });
    }
    await until("the daemons to agree", async () => {
      const states = await Promise.all(
        daemons.map((daemon) => daemon.call("GET", "/v1/cluster").catch(() => undefined)),
      );
      const isWhole = (state) =>
        state?.members.filter((member) => member.liveness === "alive").length === count;
      return (
        states.every(isWhole) && new Set(states.map(({ state_hash }) => state_hash)).size === 1
      );
    });
    return { daemons, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Calls back with every event of the daemon, from when it resolves. */
async function follow(daemon, types, onEvent, signal) {
  const answer = await fetch(`${daemon.url}/v1/events?types=${types}`, { signal });
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let buffer = "";
  const pump = async () => {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      buffer += decoder.decode(value, { stream: true });
      for (let at = buffer.indexOf("\n\n"); at >= 0; at = buffer.indexOf("\n\n")) {
        const lines = buffer.slice(0, at).split("\n");
        buffer = buffer.slice(at + 2);
        const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5));
        if (data.length > 0) onEvent(JSON.parse(data.join("\n")));
      }
    }
  };
  pump().catch((error) => {
    if (!signal.aborted) console.error("the event stream ended:", error.message);
  });
}

/** From the request of a change at one daemon to its event at the last of all. */
async function changeTimes(cluster, changes) {
  const { daemons } = cluster;
  const abort = new AbortController();
  const seen = new Map();
  await Promise.all(
    daemons.map((daemon, index) =>
      follow(
        daemon,
        "job",
        ({ subject }) => {
          const nodes = seen.get(subject) ?? new Map();
          seen.set(subject, nodes);
          if (!nodes.has(index)) nodes.set(index, performance.now());
        },
        abort.signal,
      ),
    ),
  );
  const times = [];
  for (let change = 0; change < changes; change++) {
    const began = performance.now();
    // An image that is not there: the job's record is the change, and it ends at once.
    const job = await daemons[change % daemons.length].call("POST", "/v1/templates/from-image", {
      source_image_ref: "oci:/nonexistent:none",
      writable_layer_size: "64Mi",
    });
    const nodes = await until("the last to see it", () => {
      const found = seen.get(job.job_id);
      return found?.size === daemons.length ? found : undefined;
    });
    times.push(Math.max(...nodes.values()) - began);
    // The job that the record stands for is taken up, fails, and its leadership is given up: that is
    // not what is measured.
    await sleep(2_000);
  }
  abort.abort();
  return times;
}

async function benchChange() {
  const reference = await serfEventTimes(12, 10);
  const cluster = await startCluster(12);
  try {
    const times = (await changeTimes(cluster, CHANGES)).sort((a, b) => a - b);
    const p50 = median(times);
    const p99 = times[Math.ceil(times.length * 0.99) - 1];
    const serf = median(reference);
    return [
      printRow({
        name: "A record written at one node, seen at the last of 12 (quorum write included), median",
        ours: `${p50.toFixed(0)} ms`,
        reference: `serf's user event at the last of 12 handlers ${serf.toFixed(0)} ms`,
        ratio: `${(serf / p50).toFixed(1)} times faster`,
        target: "20 times",
        met: serf / p50 >= 20,
      }),
      printRow({
        name: "The same, p99 of ours against serf's median",
        ours: `${p99.toFixed(0)} ms`,
        reference: `${serf.toFixed(0)} ms`,
        ratio: `${(p99 / serf).toFixed(2)}`,
        target: "below 1",
        met: p99 < serf,
      }),
    ];
  } finally {
    await cluster.stop();
  }
}

/** Milliseconds from kill -9 of a job's leader to the first record that another wrote of it. */
async function takeover(term, image) {
  const cluster = await startCluster(3, ["--session-term", String(term)]);
  try {
    const [first] = cluster.daemons;
    await until("three voters", async () => {
      const { quorum } = await first.call("GET", "/v1/cluster");
      return quorum.voters.length === 3 && !quorum.changing;
    });
    const job = await first.call("POST", "/v1/templates/from-image", {
      source_image_ref: image,
      writable_layer_size: "64Mi",
      container_overrides: { envs: [{ key: "AT", value: String(performance.now()) }] },
    });
    const running = await until("a leader", async () => {
      const found = await first.call("GET", `/v1/jobs/${job.job_id}`);
      return found.worked_by ? found : undefined;
    });
    const leader = cluster.daemons.findIndex((_, index) => running.worked_by === `n${index}`);
    const survivors = cluster.daemons.filter((_, index) => index !== leader);
    const abort = new AbortController();
    const taken = new Promise((resolve) => {
      for (const daemon of survivors) {
        void follow(
          daemon,
          "job",
          ({ subject, data }) => {
            const isOther = data?.worked_by && data.worked_by !== `n${leader}`;
            if (subject === job.job_id && isOther) resolve(performance.now());
          },
          abort.signal,
        );
      }
    });
    await sleep(200);
    const began = performance.now();
    process.kill(cluster.daemons[leader].pid, "SIGKILL");
    const milliseconds = (await taken) - began;
    abort.abort();
    return milliseconds;
  } finally {
    await cluster.stop();
  }
}

async function benchTakeover() {
  const work = mkdtempSync(join(tmpdir(), "templatecenter-bench-"));
  try {
    const { largeImage } = await import("./cluster-image.mjs");
    const image = await largeImage(join(work, "image"));
    const quick = [];
    const etcd = [];
    for (let turn = 0; turn < TAKEOVERS; turn++) {
      quick.push(await takeover(1, image));
      etcd.push(await etcdTakeover());
    }
    const long = [];
    for (let turn = 0; turn < TAKEOVERS; turn++) long.push(await takeover(8, image));
    const [ours, theirs, slow] = [median(quick), median(etcd), median(long)];
    return [
      printRow({
        name: "Leader killed with -9, term 1 s: until its successor's first accepted record, median",
        ours: `${ours.toFixed(0)} ms`,
        reference: `etcd, leader killed until the first accepted write, ${theirs.toFixed(0)} ms`,
        ratio: `${(ours / theirs).toFixed(2)}`,
        target: "at most 1",
        met: ours <= theirs,
      }),
      printRow({
        name: "The same with the default term of 8 s, median",
        ours: `${slow.toFixed(0)} ms`,
        ratio: `${slow.toFixed(0)} ms`,
        target: "at most 10 000 ms",
        met: slow <= 10_000,
      }),
    ];
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Processor time of a process so far, milliseconds. */
function processorTime(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** Bytes received over loopback by all, from the kernel's counter. */
function loopbackBytes() {
  const line = readFileSync("/proc/net/dev", "utf8")
    .split("\n")
    .find((row) => row.trim().startsWith("lo:"));
  return Number(line.trim().split(/[\s:]+/)[1]);
}

async function idleCost(count) {
  const cluster = await startCluster(count);
  try {
    await sleep(20_000);
    const before = cluster.daemons.map((daemon) => processorTime(daemon.pid));
    const bytes = loopbackBytes();
    const began = performance.now();
    await sleep(IDLE_MS);
    const seconds = (performance.now() - began) / 1_000;
    const used = cluster.daemons.map((d, index) => processorTime(d.pid) - before[index]);
    return {
      cpuPct: used.reduce((sum, one) => sum + one, 0) / count / seconds / 10,
      bytesPerSecond: (loopbackBytes() - bytes) / count / seconds,
    };
  } finally {
    await cluster.stop();
  }
}

async function benchIdle() {
  const rows = [];
  for (const count of [10, 30, 60]) {
    const { cpuPct, bytesPerSecond } = await idleCost(count);
    rows.push(
      printRow({
        name: `Idle daemon in a cluster of ${count}, a node: processor and bytes received`,
        ours: `${cpuPct.toFixed(2)} % of a core, ${(bytesPerSecond / 1_024).toFixed(2)} KiB/s`,
        ratio: `${cpuPct.toFixed(2)} %`,
        target: "0.5 % and 2 KB/s",
        met: cpuPct <= 0.5 && bytesPerSecond <= 2_000,
      }),
    );
  }
  return rows;
}

export { benchChange as benchCluster, benchIdle, benchTakeover };
