// Debian's etcd, 3 members on loopback: how long without a leader after kill -9, and synced writes
// a second through its own HTTP gateway.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { Agent, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePorts } from "./ports.mjs";

const base64 = (text) => Buffer.from(text).toString("base64");

function post(agent, port, path, body, timeoutMs = 2_000) {
  return new Promise((resolve, reject) => {
    const call = request(
      { agent, host: "127.0.0.1", port, path, method: "POST", timeout: timeoutMs },
      (answer) => {
        let text = "";
        answer.on("data", (bytes) => (text += bytes));
        answer.on("end", () =>
          answer.statusCode === 200 ? resolve(JSON.parse(text)) : reject(new Error(text)),
        );
      },
    );
    call.on("timeout", () => call.destroy(new Error("timeout")));
    call.on("error", reject);
    call.end(JSON.stringify(body));
  });
}

export async function startEtcd() {
  const dir = mkdtempSync(join(tmpdir(), "templatecenter-bench-"));
  const ports = await freePorts(6);
  const clients = ports.slice(0, 3);
  const peers = ports.slice(3);
  const initial = peers.map((port, index) => `e${index}=http://127.0.0.1:${port}`).join(",");
  const members = clients.map((port, index) => {
    const url = `http://127.0.0.1:${port}`;
    const peer = `http://127.0.0.1:${peers[index]}`;
    const args = ["--name", `e${index}`, "--data-dir", join(dir, `e${index}`)];
    args.push("--listen-client-urls", url, "--advertise-client-urls", url);
    args.push("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer);
    args.push("--initial-cluster", initial, "--initial-cluster-state", "new");
    return spawn("etcd", args, { stdio: "ignore" });
  });
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const put = (index, key, value, timeoutMs) =>
    post(
      agent,
      clients[index],
      "/v3/kv/put",
      { key: base64(key), value: base64(value) },
      timeoutMs,
    );
  const leaderOf = async (index) => {
    const status = await post(agent, clients[index], "/v3/maintenance/status", {});
    return status.leader === undefined
      ? undefined
      : { leader: status.leader, id: status.header.member_id };
  };
  for (;;) {
    if (await put(0, "ready", "1").catch(() => undefined)) break;
    await sleep(50);
  }
  return {
    put,
    /** Index of the member that leads. */
    async leader() {
      for (let index = 0; index < 3; index++) {
        const found = await leaderOf(index).catch(() => undefined);
        if (found !== undefined && found.leader === found.id) return index;
      }
      throw new Error("etcd has no leader");
    },
    kill: (index) => members[index].kill("SIGKILL"),
    stop() {
      agent.destroy();
      for (const member of members) member.kill("SIGKILL");
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Milliseconds from kill -9 of the leader to the first write that a survivor accepts. */
export async function etcdTakeover() {
  const etcd = await startEtcd();
  try {
    const leader = await etcd.leader();
    const survivor = (leader + 1) % 3;
    const began = performance.now();
    etcd.kill(leader);
    for (;;) {
      const done = await etcd.put(survivor, "after", "1", 200).catch(() => undefined);
      if (done !== undefined) return performance.now() - began;
      await sleep(5);
    }
  } finally {
    etcd.stop();
  }
}

/** Synced writes a second with so many clients at once. */
export async function etcdWriteRate(clients, milliseconds) {
  const etcd = await startEtcd();
  try {
    const value = "x".repeat(500);
    let written = 0;
    const until = performance.now() + milliseconds;
    const began = performance.now();
    await Promise.all(
      Array.from({ length: clients }, async (_, client) => {
        for (let turn = 0; performance.now() < until; turn++) {
          await etcd.put(turn % 3, `k${client}`, value);
          written++;
        }
      }),
    );
    return (written * 1_000) / (performance.now() - began);
  } finally {
    etcd.stop();
  }
}
