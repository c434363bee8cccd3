// Images of random bytes, for the benches of clusters.
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { assembleOciLayout } from "../lib/oci-layout.mjs";

const MEBIBYTE = 1024 * 1024;
const FILES = 25;

const fileOf = (content, index) => ({ path: `data-${index}`, type: "file", content });

async function write(dir, contents) {
  // Random bytes do not get smaller, and to try it takes seconds.
  const layer = { entries: contents.map(fileOf), compression: "none" };
  await assembleOciLayout(dir, { layers: [layer], tag: "large" });
  return `oci:${dir}:large`;
}

/**
 * One that takes a few seconds to build, so that its leader can be killed meanwhile.
 * @returns its reference
 */
export function largeImage(dir, mebibytes = 256) {
  return write(
    dir,
    Array.from({ length: mebibytes / 16 }, () => randomBytes(16 * MEBIBYTE)),
  );
}

/** Two versions of one image; in the second an early file of 25 is replaced by a longer one. */
export async function imageVersions(dir, mebibytes) {
  const sizeBytes = Math.floor((mebibytes * MEBIBYTE) / FILES);
  const contents = Array.from({ length: FILES }, () => randomBytes(sizeBytes));
  const first = await write(join(dir, "first"), contents);
  const second = await write(join(dir, "second"), contents.with(3, randomBytes(sizeBytes + 999)));
  return { first, second };
}
