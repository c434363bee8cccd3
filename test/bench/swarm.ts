/**
 * One builder and seven receivers, each with 8 MiB/s of upload: how long the last receiver takes,
 * and how much the builder sends; then a second version with 4 % of its chunks changed. The network
 * is in memory and takes no time, so what is measured is the order in which chunks are asked for.
 * Run by scripts/bench/swarm.mjs; prints one line of JSON.
 */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CHUNK_SIZE_BYTES } from "../../src/domain/index.ts";
import { SwarmNet } from "../support/swarm.ts";

const MIB = 1024 * 1024;
const [mib = 128, receivers = 7, limitMib = 8] = process.argv.slice(2).map(Number);

const root = await mkdtemp(join(tmpdir(), "templatecenter-swarm-"));
const net = new SwarmNet(root);
// Timers of the clock keep no process alive.
const alive = setInterval(() => undefined, 1_000);
try {
  const uploadLimitBps = limitMib * MIB;
  const builder = await net.open("builder", { uploadLimitBps });
  const others = await Promise.all(
    Array.from({ length: receivers }, (_, n) => net.open(`receiver-${n}`, { uploadLimitBps })),
  );
  const bytes = randomBytes(mib * MIB);
  const signal = new AbortController().signal;
  const run = async (artifactId: string, content: Uint8Array) => {
    const sentOf = () => builder.swarm.counters()["sent_bytes"] ?? 0;
    const receivedOf = () =>
      Math.max(...others.map(({ swarm }) => swarm.counters()["received_bytes"] ?? 0));
    const artifact = await net.seed(builder, artifactId, content);
    const [sent, received, cpu, start] = [
      sentOf(),
      receivedOf(),
      process.cpuUsage(),
      performance.now(),
    ];
    const seconds = await Promise.all(
      others.map(async ({ swarm }) => {
        await swarm.fetch(artifact, { signal });
        return (performance.now() - start) / 1_000;
      }),
    );
    const { user, system } = process.cpuUsage(cpu);
    return {
      first_s: Math.min(...seconds),
      last_s: Math.max(...seconds),
      builder_copies: (sentOf() - sent) / content.length,
      receiver_share: (receivedOf() - received) / content.length,
      cpu_s: (user + system) / 1e6,
    };
  };
  const first = await run("first", bytes);
  const next = Uint8Array.from(bytes);
  const chunks = bytes.length / CHUNK_SIZE_BYTES;
  for (let i = 0; i < Math.round(chunks * 0.04); i++) {
    const at = (i * 25 + 3) * CHUNK_SIZE_BYTES;
    next[at] = 1 ^ (next[at] ?? 0);
  }
  const second = await run("second", next);
  console.log(JSON.stringify({ mib, receivers, limit_mib: limitMib, first, second }));
} finally {
  clearInterval(alive);
  await net.close();
  await rm(root, { recursive: true, force: true });
}
