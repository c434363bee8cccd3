/**
 * Prints everything there is to know about the tree at argv[2], one JSON line per entry, in order:
 * for comparing an unpacked image with a mounted one. Names are byte strings.
 */
import { createHash } from "node:crypto";
import { execFileSync } from "node:child_process";
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";

const root = process.argv[2] ?? ".";
const bytes = (text) => Buffer.from(text, "latin1");
const links = new Map();

function visit(path) {
  const full = bytes(path === "" ? root : `${root}/${path}`);
  const stat = lstatSync(full, { bigint: true });
  const regular = stat.isFile();
  const key = String(stat.ino);
  if (!stat.isDirectory() && !links.has(key)) links.set(key, path);
  const entry = {
    path,
    mode: stat.mode.toString(8),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    mtime: String(stat.mtimeNs),
    links: stat.isDirectory() && path === "" ? 0 : Number(stat.nlink),
    device: String(stat.rdev),
    size: regular || stat.isSymbolicLink() ? String(stat.size) : "0",
    first: stat.isDirectory() ? path : links.get(key),
    target: stat.isSymbolicLink() ? readlinkSync(full, "latin1") : "",
    sha256: regular ? createHash("sha256").update(readFileSync(full)).digest("hex") : "",
  };
  process.stdout.write(`${JSON.stringify(entry)}\n`);
  if (!stat.isDirectory()) return;
  for (const name of readdirSync(full, { encoding: "latin1" }).sort()) {
    if (path === "" && name === "lost+found") continue;
    visit(path === "" ? name : `${path}/${name}`);
  }
}

visit("");
const args = ["-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "."];
const dump = execFileSync("getfattr", args, { cwd: root, encoding: "latin1", maxBuffer: 1e9 });
const blocks = dump.split("\n\n").filter((block) => block !== "");
process.stdout.write(`${blocks.sort().join("\n\n")}\n`);
