/**
 * A "newc" cpio archive, as the kernel unpacks for its initial root (kernel documentation,
 * driver-api/early-userspace/buffer-format). Equal entries give equal bytes: no times, owner 0.
 */
export interface CpioEntry {
  /** Relative, without a leading slash; parents come before their children. */
  readonly path: string;
  /** File type and permission bits. */
  readonly mode: number;
  /** A file's bytes, or a symlink's target. */
  readonly content?: Uint8Array;
  readonly device?: { readonly major: number; readonly minor: number };
}

/** File type bits of `CpioEntry.mode`. */
export const FILE_TYPE = {
  folder: 0o040000,
  character: 0o020000,
  file: 0o100000,
  symlink: 0o120000,
} as const;

const hex = (value: number): string => value.toString(16).padStart(8, "0").toUpperCase();
const padding = (length: number): Buffer => Buffer.alloc((4 - (length % 4)) % 4);

function record(entry: CpioEntry, inode: number): Buffer[] {
  const content = Buffer.from(entry.content ?? new Uint8Array());
  const name = Buffer.from(`${entry.path}\0`);
  const device = entry.device ?? { major: 0, minor: 0 };
  const fields = [inode, entry.mode, 0, 0, 1, 0, content.length, 0, 0];
  const header = Buffer.from(
    `070701${[...fields, device.major, device.minor, name.length, 0].map(hex).join("")}`,
  );
  return [header, name, padding(header.length + name.length), content, padding(content.length)];
}

/** The archive of entries in order; its length is a multiple of 4, so archives can be joined. */
export function makeCpio(entries: readonly CpioEntry[]): Buffer {
  const parts = entries.flatMap((entry, index) => record(entry, index + 1));
  parts.push(...record({ path: "TRAILER!!!", mode: 0 }, 0));
  return Buffer.concat(parts);
}
