// The figures of the README, as ratios from one run on this machine. `npm run bench -- image` runs
// one of: image, sandboxes, snapshot, service, scale, cluster, takeover, idle, records, swarm,
// thousand.
import { execFileSync } from "node:child_process";
import { cpus, loadavg, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
execFileSync(process.execPath, [join(root, "scripts/setup.mjs"), "bench"], { stdio: "inherit" });
const parts = {
  image: async () => (await import("./bench/image.mjs")).benchImage(),
  sandboxes: async () => (await import("./bench/sandboxes.mjs")).benchSandboxes(),
  cluster: async () => (await import("./bench/cluster.mjs")).benchCluster(),
  takeover: async () => (await import("./bench/takeover.mjs")).benchTakeover(),
  records: async () => (await import("./bench/records.mjs")).benchRecords(),
  swarm: async () => (await import("./bench/swarm.mjs")).benchSwarm(),
  thousand: async () => (await import("./bench/thousand.mjs")).benchThousand(),
  idle: async () => (await import("./bench/idle.mjs")).benchIdle(),
  snapshot: async () => (await import("./bench/snapshot.mjs")).benchSnapshot(),
  scale: async () => (await import("./bench/scale.mjs")).benchScale(),
  service: async () => (await import("./bench/service.mjs")).benchService(),
};
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !(name in parts));
if (unknown.length > 0) {
  console.error(`unknown: ${unknown.join(", ")}; one of ${Object.keys(parts).join(", ")}`);
  process.exit(2);
}
console.log(
  `${cpus().length} cores ${cpus()[0]?.model ?? ""}, ${Math.round(totalmem() / 2 ** 30)} GiB, ` +
    `Node ${process.version}, load ${loadavg()[0].toFixed(2)}`,
);
const rows = [];
for (const name of wanted.length > 0 ? wanted : Object.keys(parts)) {
  console.log(`\n# ${name}`);
  rows.push(...(await parts[name]()));
}
const missed = rows.filter((row) => !row.met);
console.log(`\n${rows.length - missed.length} of ${rows.length} targets met`);
