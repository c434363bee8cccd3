// An image that takes a few seconds to build, so that its leader can be killed meanwhile.
import { randomBytes } from "node:crypto";
import { assembleOciLayout } from "../lib/oci-layout.mjs";

const MEBIBYTE = 1024 * 1024;

/** @returns its reference */
export async function largeImage(dir, mebibytes = 256) {
  const entries = Array.from({ length: mebibytes / 16 }, (_, index) => ({
    path: `data-${index}`,
    type: "file",
    content: randomBytes(16 * MEBIBYTE),
  }));
  await assembleOciLayout(dir, { layers: [{ entries }], tag: "large" });
  return `oci:${dir}:large`;
}
