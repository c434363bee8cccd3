// aria2's BitTorrent, Debian's package: one seeder and so many receivers, each on a host of its own
// with the same limit of upload, and a tracker of their own.
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { inside, makeNetwork } from "./namespaces.mjs";

const MIB = 1024 * 1024;
const PIECE_BYTES = 256 * 1024;
const LIMIT_MS = 180_000;
const TRACKER = fileURLToPath(new URL("bittorrent-tracker.mjs", import.meta.url));
const QUIET = ["--no-conf", "--quiet", "--disable-ipv6", "--file-allocation=none"];
/** Peers come from the tracker and from each other only. */
const ALONE = ["--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false"];

const text = (value) => Buffer.concat([Buffer.from(`${Buffer.byteLength(value)}:`), value]);
const word = (value) => text(Buffer.from(value));

/** A torrent file; keys are in order, as the format asks for. */
function torrentOf(bytes, name, announce) {
  const digests = [];
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
    digests.push(
      createHash("sha1")
        .update(bytes.subarray(at, at + PIECE_BYTES))
        .digest(),
    );
  }
  const info = Buffer.concat([
    Buffer.from(`d6:lengthi${bytes.length}e`),
    ...[word("name"), word(name), word("piece length"), Buffer.from(`i${PIECE_BYTES}e`)],
    ...[word("pieces"), text(Buffer.concat(digests)), Buffer.from("e")],
  ]);
  const outer = [word("announce"), word(announce), word("info"), info];
  return Buffer.concat([Buffer.from("d"), ...outer, Buffer.from("e")]);
}

/**
 * Seconds from the receivers' start until the last has everything, and the copies that the seeder's
 * cable carried.
 */
export async function bittorrentTimes(mebibytes, receivers, limitMib) {
  const work = mkdtempSync(join(tmpdir(), "templatecenter-bench-"));
  const network = makeNetwork(receivers + 1);
  const children = [];
  const run = (host, command) => {
    const [program, ...args] = inside(host.name, command);
    const child = spawn(program, args, { stdio: "ignore" });
    children.push({ child, ended: new Promise((resolve) => child.once("exit", resolve)) });
  };
  const kill = () => children.forEach(({ child }) => child.kill("SIGKILL"));
  process.once("exit", kill);
  try {
    const done = join(work, "done");
    const hook = join(work, "hook.sh");
    writeFileSync(done, "");
    writeFileSync(hook, `#!/bin/sh\ndate +%s%N >> ${done}\n`);
    chmodSync(hook, 0o755);
    const bytes = randomBytes(mebibytes * MIB);
    const torrent = join(work, "artifact.torrent");
    const announce = `http://${network.hub.address}:6969/announce`;
    writeFileSync(torrent, torrentOf(bytes, "artifact", announce));
    const start = (host, index, more) => {
      const dir = join(work, String(index));
      mkdirSync(dir);
      if (index === 0) writeFileSync(join(dir, "artifact"), bytes);
      const limit = [`--max-overall-upload-limit=${limitMib}M`, "--seed-ratio=0.0"];
      run(host, ["aria2c", ...QUIET, ...ALONE, ...limit, `--dir=${dir}`, ...more, torrent]);
    };
    run(network.hub, [process.execPath, TRACKER, network.hub.address]);
    const [seeder, ...others] = network.hosts;
    await sleep(500);
    start(seeder, 0, ["--check-integrity=true"]);
    // The seeder has read its file and announced itself.
    await sleep(3_000);
    const before = seeder.traffic().sent;
    const began = BigInt(Date.now()) * 1_000_000n;
    others.forEach((host, index) => start(host, index + 1, [`--on-bt-download-complete=${hook}`]));
    const end = performance.now() + LIMIT_MS;
    for (;;) {
      const times = readFileSync(done, "utf8").trim().split("\n").filter(Boolean).map(BigInt);
      if (times.length === receivers) {
        const last = times.reduce((a, b) => (a > b ? a : b));
        const sent = seeder.traffic().sent - before;
        return { seconds: Number(last - began) / 1e9, copies: sent / bytes.length };
      }
      if (performance.now() > end) throw new Error(`aria2: ${times.length} have it after 180 s`);
      await sleep(50);
    }
  } finally {
    kill();
    process.off("exit", kill);
    await Promise.all(children.map(({ ended }) => ended));
    network.remove();
    rmSync(work, { recursive: true, force: true });
  }
}
