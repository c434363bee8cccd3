// Daemons of dist/ on loopback that are one cluster, and what they tell.
import { setTimeout as sleep } from "node:timers/promises";
import { startDaemon } from "./daemon-process.mjs";

/** What `check` answers once that is something. @throws when it takes too long */
export async function until(what, check, timeoutMs = 120_000) {
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
export async function follow(daemon, types, onEvent, signal) {
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
