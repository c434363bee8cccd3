/**
 * Writes an OCI image layout from a list of layers, with nothing but Node: the same input gives the
 * same bytes (times are 0, gzip heads carry no time or system).
 *
 * @typedef {object} LayerEntry
 * @property {string} path as stored, without a leading slash: `etc/hostname`
 * @property {"file"|"directory"|"symlink"|"link"|"chardev"|"blockdev"|"fifo"} type
 * @property {number} [mode] permission bits; 0755 for directories and 0644 otherwise
 * @property {number} [uid]
 * @property {number} [gid]
 * @property {number} [mtime] seconds since the epoch, may have a fraction
 * @property {string|Uint8Array} [content] of a file
 * @property {string} [sourceFile] a file whose content is read, instead of `content`
 * @property {string} [target] of a symlink or hard link
 * @property {number} [major]
 * @property {number} [minor]
 * @property {Record<string, string|Uint8Array>} [xattrs]
 *
 * @typedef {object} Layer
 * @property {LayerEntry[]} [entries]
 * @property {Uint8Array} [tar] a finished tar file, instead of `entries`
 * @property {"gzip"|"zstd"|"none"} [compression] gzip; `blob` is needed for zstd
 * @property {number} [level] of gzip, 6
 * @property {Uint8Array} [blob] the compressed tar, where it is not made here
 * @property {string} [mediaType] instead of the one that goes with the compression
 *
 * @typedef {object} Image
 * @property {Layer[]} layers lowest first
 * @property {object} [config] `Entrypoint`, `Cmd`, `Env`, `WorkingDir`, `ExposedPorts`, …
 * @property {string} [architecture] of the OCI's names; this machine's
 * @property {string} [variant]
 * @property {string} [tag] latest
 * @property {"oci"|"docker"} [types] media types
 *
 * @typedef {{mediaType: string, digest: string, size: number}} Descriptor
 */
import { createHash } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const ARCHITECTURES = { x64: "amd64", ia32: "386" };
const TYPE_FLAGS = {
  file: "0",
  link: "1",
  symlink: "2",
  chardev: "3",
  blockdev: "4",
  directory: "5",
  fifo: "6",
};
const MEDIA = {
  oci: {
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: {
      none: "application/vnd.oci.image.layer.v1.tar",
      gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
      zstd: "application/vnd.oci.image.layer.v1.tar+zstd",
    },
  },
  docker: {
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: {
      none: "application/vnd.docker.image.rootfs.diff.tar",
      gzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
      zstd: "application/vnd.docker.image.rootfs.diff.tar.zstd",
    },
  },
};

export const ociArchitecture = (arch = process.arch) => ARCHITECTURES[arch] ?? arch;

/** @param {Uint8Array} bytes */
export const digestOf = (bytes) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** @param {string} key @param {Buffer} value */
function paxRecord(key, value) {
  const body = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from("\n")]);
  let length = body.length + 1;
  while (String(length).length + body.length !== length)
    length = String(length).length + body.length;
  return Buffer.concat([Buffer.from(String(length)), body]);
}

const pad = (bytes) => {
  const rest = bytes.length % 512;
  return rest === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(512 - rest)]);
};

function header({ name, type, mode, uid, gid, mtime, size, target, major, minor }) {
  const block = Buffer.alloc(512);
  const octal = (value, at, length) => block.write(value.toString(8).padStart(length - 1, "0"), at);
  block.write(name.subarray(0, 100).toString("latin1"), 0, "latin1");
  octal(mode, 100, 8);
  octal(Math.min(uid, 0o7777777), 108, 8);
  octal(Math.min(gid, 0o7777777), 116, 8);
  octal(Math.min(size, 0o77777777777), 124, 12);
  octal(Math.max(0, Math.floor(mtime)), 136, 12);
  block.write("        ", 148);
  block.write(type, 156);
  block.write(target.subarray(0, 100).toString("latin1"), 157, "latin1");
  block.write("ustar\u000000", 257);
  octal(major, 329, 8);
  octal(minor, 337, 8);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

/**
 * A tar file of the entries, in their order; PAX headers where ustar has no room.
 * @param {LayerEntry[]} entries
 * @returns {Promise<Buffer>}
 */
export async function makeTar(entries) {
  const parts = [];
  for (const entry of entries) {
    const isDirectory = entry.type === "directory";
    const name = Buffer.from(isDirectory ? `${entry.path.replace(/\/$/, "")}/` : entry.path);
    const target = Buffer.from(entry.target ?? "");
    const { uid = 0, gid = 0, mtime = 0, major = 0, minor = 0 } = entry;
    let content = Buffer.alloc(0);
    if (entry.type === "file") {
      content = entry.sourceFile
        ? await readFile(entry.sourceFile)
        : Buffer.from(entry.content ?? "");
    }
    const pax = [];
    if (name.length > 100) pax.push(["path", name]);
    if (target.length > 100) pax.push(["linkpath", target]);
    if (uid > 0o7777777) pax.push(["uid", Buffer.from(String(uid))]);
    if (gid > 0o7777777) pax.push(["gid", Buffer.from(String(gid))]);
    if (mtime < 0 || !Number.isInteger(mtime)) pax.push(["mtime", Buffer.from(String(mtime))]);
    for (const [key, value] of Object.entries(entry.xattrs ?? {})) {
      pax.push([`SCHILY.xattr.${key}`, Buffer.from(value)]);
    }
    const mode = entry.mode ?? (isDirectory ? 0o755 : 0o644);
    const common = { uid, gid, mtime, target, major, minor, mode };
    if (pax.length > 0) {
      const records = Buffer.concat(pax.map(([key, value]) => paxRecord(key, value)));
      const paxName = Buffer.from("PaxHeaders/entry");
      const plain = { ...common, target: Buffer.alloc(0), mode: 0o644, uid: 0, gid: 0, mtime: 0 };
      parts.push(
        header({ ...plain, name: paxName, type: "x", size: records.length }),
        pad(records),
      );
    }
    parts.push(header({ ...common, name, type: TYPE_FLAGS[entry.type], size: content.length }));
    parts.push(pad(content));
  }
  parts.push(Buffer.alloc(1024));
  return Buffer.concat(parts);
}

/** @param {string} dir */
async function writeBlob(dir, bytes, mediaType) {
  const digest = digestOf(bytes);
  await writeFile(join(dir, "blobs", "sha256", digest.slice(7)), bytes);
  return { mediaType, digest, size: bytes.length };
}

/** @param {unknown} value */
const json = (value) => Buffer.from(JSON.stringify(value));

/**
 * Adds an image's blobs to a layout folder, without naming it in the index.
 * @param {string} dir @param {Image} image
 * @returns {Promise<{manifest: Descriptor & {platform: object}, config: Descriptor,
 *   layers: Descriptor[], diffIds: string[]}>}
 */
export async function writeImage(dir, image) {
  await mkdir(join(dir, "blobs", "sha256"), { recursive: true });
  const media = MEDIA[image.types ?? "oci"];
  const layers = [];
  const diffIds = [];
  for (const layer of image.layers) {
    const tar = layer.tar ?? (await makeTar(layer.entries ?? []));
    const compression = layer.compression ?? "gzip";
    const packed = () => (compression === "gzip" ? gzip(tar, layer.level ?? 6) : tar);
    if (compression === "zstd" && !layer.blob) throw new Error("a zstd layer needs its blob");
    const mediaType = layer.mediaType ?? media.layer[compression];
    layers.push(await writeBlob(dir, layer.blob ?? packed(), mediaType));
    diffIds.push(digestOf(tar));
  }
  const architecture = image.architecture ?? ociArchitecture();
  const variant = image.variant === undefined ? {} : { variant: image.variant };
  const platform = { architecture, os: "linux", ...variant };
  const configDocument = {
    created: "1970-01-01T00:00:00Z",
    ...platform,
    config: image.config ?? {},
    rootfs: { type: "layers", diff_ids: diffIds },
  };
  const config = await writeBlob(dir, json(configDocument), media.config);
  const document = { schemaVersion: 2, mediaType: media.manifest, config, layers };
  const manifest = await writeBlob(dir, json(document), media.manifest);
  return { manifest: { ...manifest, platform }, config, layers, diffIds };
}

function gzip(bytes, level) {
  const packed = gzipSync(bytes, { level });
  // Byte 9 names the system that compressed; 255 is "unknown".
  packed[9] = 255;
  return packed;
}

/**
 * Writes `index.json` and `oci-layout`.
 * @param {string} dir @param {object[]} manifests descriptors
 */
export async function writeIndex(dir, manifests) {
  const mediaType = "application/vnd.oci.image.index.v1+json";
  await writeFile(join(dir, "index.json"), json({ schemaVersion: 2, mediaType, manifests }));
  await writeFile(join(dir, "oci-layout"), json({ imageLayoutVersion: "1.0.0" }));
}

/**
 * A whole layout with one image.
 * @param {string} dir made when it is not there @param {Image} image
 */
export async function assembleOciLayout(dir, image) {
  const written = await writeImage(dir, image);
  const annotations = { "org.opencontainers.image.ref.name": image.tag ?? "latest" };
  await writeIndex(dir, [{ ...written.manifest, annotations }]);
  return { ...written, digest: written.manifest.digest };
}
