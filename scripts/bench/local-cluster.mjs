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

/** So many daemons are started at once: more would only wait for each other. */
const STARTED_AT_ONCE = 4;
const JOIN_MS = 120_000;
/** A cluster whose voters are busy says these, and takes the node a moment later. */
const PASSING = new Set(["no_quorum", "peer_unreachable", "not_ready", undefined]);

/** Has the daemon join; again when the voters did not answer in time. */
async function join(daemon, member, name) {
  const attempt = async () => {
    try {
      const { token } = await member.call("POST", "/v1/cluster/join-tokens", {});
      await daemon.call("POST", "/v1/cluster/join", { token });
    } catch (error) {
      if (error.code === "already_clustered") return true;
      // An attempt that was not answered took the name after all, under an identity now forgotten.
      if (error.code === "node_name_taken") await member.call("DELETE", `/v1/nodes/${name}`);
      else if (!PASSING.has(error.code)) throw error;
      await sleep(500);
      return false;
    }
    return true;
  };
  await until(`${name} to be let in`, attempt, JOIN_MS);
}

/** Every daemon sees all others alive, holds the same, and no change of voters is under way. */
async function untilInSync(daemons, timeoutMs) {
  const isWhole = (state) =>
    state?.members.filter((member) => member.liveness === "alive").length === daemons.length &&
    !state.quorum.changing;
  let next = 0;
  await until(
    `${daemons.length} daemons to agree`,
    async () => {
      // One after the other: to ask all at once, again and again, keeps them from it.
      const state = await daemons[next].call("GET", "/v1/cluster").catch(() => undefined);
      if (!isWhole(state)) return false;
      if (++next < daemons.length) return false;
      next = 0;
      const hashes = await Promise.all(
        daemons.map((daemon) => daemon.call("GET", "/v1/cluster").then((one) => one.state_hash)),
      );
      return new Set(hashes).size === 1;
    },
    timeoutMs,
  );
}

/**
 * Daemons that are one cluster and in sync.
 * @param {string[]} flags of each daemon
 * @param {{name: string, address: string}[]} [hosts] of a network of namespaces; loopback without
 */
export async function startCluster(count, flags = [], hosts = undefined) {
  const daemons = [];
  const stop = () => Promise.all(daemons.map((daemon) => daemon?.stop()));
  const start = async (index) => {
    const listen =
      hosts === undefined ? "/ip4/127.0.0.1/tcp/0" : `/ip4/${hosts[index].address}/tcp/7331`;
    const own = ["--node-id", `n${index}`, "--p2p-listen", listen, "--driver", "rootfs"];
    const all = [...own, "--log-level", "error", ...flags];
    daemons[index] = await startDaemon(all, hosts?.[index].name);
  };
  /** Brings the cluster to so many daemons. */
  const grow = async (size) => {
    for (let first = daemons.length; first < size; first += STARTED_AT_ONCE) {
      const last = Math.min(size, first + STARTED_AT_ONCE);
      const indexes = Array.from({ length: last - first }, (_, n) => first + n);
      const started = await Promise.allSettled(indexes.map(start));
      const failed = started.find(({ status }) => status === "rejected");
      if (failed !== undefined) throw failed.reason;
      for (const index of indexes) {
        if (index > 0) await join(daemons[index], daemons[0], `n${index}`);
      }
    }
    await untilInSync(daemons, 60_000 + size * 2_000);
  };
  try {
    await grow(count);
    return { daemons, grow, stop };
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
