/**
 * Extended headers waiting for the entry they describe: GNU long name and link (L, K), PAX (x) and
 * PAX global (g). Where two of them contradict each other readers differ, so that is refused
 * (CVE-2025-62518 and its like live from such differences).
 */
import type { TarEntry, TarEntryKind } from "./tar-entry.ts";
import type { LayerLimits } from "./limits.ts";
import type { PaxHeader } from "./pax-header.ts";
import type { SparseRegion } from "./sparse-map.ts";
import type { TarHeader } from "./tar-header.ts";
import { refusal } from "./refusal.ts";
import { parsePaxHeader, parsePaxNumber, parsePaxTime } from "./pax-header.ts";
import { pairSparse } from "./sparse-map.ts";

/** The most the 11 octal digits of the plain size field can say. */
const OCTAL_SIZE_MAX = 0o77777777777;
const ID_MAX = 0xfffffffe;

/** An entry with what the reader needs to walk over its data. */
export interface ResolvedEntry {
  readonly entry: TarEntry;
  /** Bytes in the archive, without padding. */
  readonly archivedBytes: number;
  /** PAX sparse regions, or "in-data" when the map (1.0) precedes the data. */
  readonly sparse: SparseRegion[] | "in-data" | undefined;
}

const KINDS: Readonly<Record<string, TarEntryKind>> = {
  "0": "file",
  "\0": "file",
  "7": "file",
  S: "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "chardev",
  "4": "blockdev",
  "5": "directory",
  "6": "fifo",
};

/** What the PAX records say, later ones over earlier. */
interface PaxFields {
  path?: string;
  linkpath?: string;
  size?: number;
  uid?: number;
  gid?: number;
  mtime?: { seconds: number; nanoseconds: number };
  xattrs?: Map<string, Uint8Array>;
  sparseVersion?: string;
  sparseName?: string;
  sparseSize?: number;
  sparseNumbers?: string[];
}

export class TarExtensions {
  private longName: string | undefined;
  private longLink: string | undefined;
  private local: PaxHeader | undefined;
  private readonly global = new Map<string, string>();
  private readonly limits: LayerLimits;

  constructor(limits: LayerLimits) {
    this.limits = limits;
  }

  /** True while an extended header waits for its entry. */
  get pending(): boolean {
    return [this.longName, this.longLink, this.local].some((part) => part !== undefined);
  }

  static isExtension(type: string): boolean {
    return type === "x" || type === "g" || type === "L" || type === "K";
  }

  /** Takes the complete content of an extended header. */
  take(type: string, content: Buffer): void {
    if (type === "x") {
      if (this.local !== undefined) throw twice();
      this.local = parsePaxHeader(content);
    } else if (type === "g") this.takeGlobal(parsePaxHeader(content));
    else if (type === "L") {
      if (this.longName !== undefined) throw twice();
      this.longName = this.longText(content);
    } else {
      if (this.longLink !== undefined) throw twice();
      this.longLink = this.longText(content);
    }
  }

  private takeGlobal(header: PaxHeader): void {
    for (const [key, value] of header.records) {
      // A name or size for every entry that follows has no honest use.
      if (/^(path|linkpath|size|GNU\.sparse\..*)$/.test(key)) {
        throw refusal("bad_pax_record", `a global extended header sets ${key}`);
      }
      if (value === "") this.global.delete(key);
      else this.global.set(key, value);
    }
  }

  private longText(content: Buffer): string {
    const nul = content.indexOf(0);
    const text = content.toString("latin1", 0, nul < 0 ? content.length : nul);
    if (nul >= 0 && content.subarray(nul).some((byte) => byte !== 0)) {
      throw refusal("nul_in_name", "a name in the layer goes on after a NUL byte", { path: text });
    }
    return text;
  }

  /** The entry of a header with what waited for it; clears what waited. */
  resolve(header: TarHeader): ResolvedEntry {
    const pax = this.paxFields(header.name);
    const name = pax.sparseName ?? this.chosen(pax.path, this.longName, header.name);
    const linkName = this.chosen(pax.linkpath, this.longLink, header.linkName);
    this.longName = this.longLink = this.local = undefined;
    let kind = KINDS[header.type];
    if (kind === undefined) {
      throw refusal(
        "unsupported_entry_type",
        `the layer has an entry of the unknown type ${JSON.stringify(header.type)}`,
        { path: name },
      );
    }
    // Only the V7 form marks directories by a slash alone.
    if (header.type === "\0" && name.endsWith("/")) kind = "directory";
    const archivedBytes = archivedSize(header, pax.size, kind, name);
    const sparse = sparseOf(pax, kind, name);
    const sizeBytes = sparse === undefined ? archivedBytes : pax.sparseSize;
    if (sizeBytes === undefined || sizeBytes > this.limits.fileBytes) {
      throw refusal("bad_sparse_map", "a sparse layer entry has no usable size", { path: name });
    }
    const entry: TarEntry = {
      kind,
      name,
      linkName: kind === "hardlink" || kind === "symlink" ? linkName : "",
      mode: header.mode & 0o7777,
      uid: checkId(pax.uid ?? header.uid, "uid", name),
      gid: checkId(pax.gid ?? header.gid, "gid", name),
      mtimeSeconds: pax.mtime?.seconds ?? header.mtime,
      mtimeNanoseconds: pax.mtime?.nanoseconds ?? 0,
      sizeBytes: kind === "file" ? sizeBytes : 0,
      deviceMajor: header.deviceMajor,
      deviceMinor: header.deviceMinor,
      xattrs: pax.xattrs ?? NO_XATTRS,
    };
    checkDevice(entry);
    return { entry, archivedBytes, sparse };
  }

  private chosen(pax: string | undefined, gnu: string | undefined, plain: string): string {
    if (pax !== undefined && gnu !== undefined && pax !== gnu) throw twice();
    return pax ?? gnu ?? plain;
  }

  private paxFields(path: string): PaxFields {
    const fields: PaxFields = {};
    for (const [key, value] of this.global) this.applyRecord(fields, key, value, path);
    for (const [key, value] of this.local?.records ?? []) {
      this.applyRecord(fields, key, value, path);
    }
    return fields;
  }

  private applyRecord(fields: PaxFields, key: string, value: string, path: string): void {
    const number = (): number => {
      const parsed = parsePaxNumber(value);
      if (parsed === undefined) throw badRecord(key, path);
      return parsed;
    };
    switch (key) {
      case "path":
      case "linkpath":
        // An empty value takes the record back (POSIX pax).
        fields[key] = value === "" ? undefined : value;
        return;
      case "size":
      case "uid":
      case "gid":
        fields[key] = value === "" ? undefined : number();
        return;
      case "mtime":
        fields.mtime = value === "" ? undefined : parsePaxTime(value);
        if (value !== "" && fields.mtime === undefined) throw badRecord(key, path);
        return;
      case "GNU.sparse.major":
        fields.sparseVersion = `${value}.`;
        return;
      case "GNU.sparse.minor":
        fields.sparseVersion = `${fields.sparseVersion ?? ""}${value}`;
        return;
      case "GNU.sparse.name":
        fields.sparseName = value;
        return;
      case "GNU.sparse.size":
      case "GNU.sparse.realsize":
        fields.sparseSize = number();
        return;
      case "GNU.sparse.offset":
      case "GNU.sparse.numbytes":
        (fields.sparseNumbers ??= []).push(value);
        return;
      case "GNU.sparse.map":
        fields.sparseNumbers = value === "" ? [] : value.split(",");
        return;
      default:
        if (key.startsWith("SCHILY.xattr.")) {
          const bytes = Buffer.from(value, "latin1");
          this.addXattr(fields, key.slice(13), bytes, path);
        } else if (key.startsWith("LIBARCHIVE.xattr.")) {
          const bytes = Buffer.from(value, "base64");
          this.addXattr(fields, percentDecoded(key.slice(17)), bytes, path);
        }
    }
  }

  private addXattr(fields: PaxFields, name: string, value: Buffer, path: string): void {
    // The host's own labels; no image should carry them, and umoci leaves them out as well.
    if (name === "security.selinux" || name === "system.nfs4_acl") return;
    const known =
      /^(?:(?:user|trusted|security)\.[^]{1,255}|system\.posix_acl_(?:access|default))$/;
    if (!known.test(name) || value.length > this.limits.xattrValueBytes) {
      throw refusal("xattr_invalid", "a layer entry has an attribute that cannot be stored", {
        path,
      });
    }
    (fields.xattrs ??= new Map()).set(name, value);
  }
}

const NO_XATTRS: ReadonlyMap<string, Uint8Array> = new Map();

const twice = () =>
  refusal("bad_pax_record", "a layer entry has two extended headers that contradict each other");

const badRecord = (key: string, path: string) =>
  refusal("bad_pax_record", `the extended header ${key} of a layer entry is malformed`, { path });

function percentDecoded(text: string): string {
  return text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

/**
 * How many data bytes follow the header. The PAX size counts, as POSIX says, but it must be the
 * plain field's own unless that field cannot hold it: an archive in which the two differ reads as
 * one tree here and as another elsewhere (CVE-2025-62518). A kind without data must not claim any.
 */
function archivedSize(
  header: TarHeader,
  paxSize: number | undefined,
  kind: TarEntryKind,
  path: string,
): number {
  if (header.size < 0) {
    throw refusal("bad_number", "a layer entry has a negative size", { path });
  }
  if (paxSize !== undefined && paxSize !== header.size && paxSize <= OCTAL_SIZE_MAX) {
    throw refusal("pax_size_smuggling", "a layer entry gives two different sizes", { path });
  }
  const size = paxSize ?? header.size;
  if (kind !== "file" && size !== 0) {
    throw refusal("ambiguous_size", `a ${kind} in the layer claims to have data`, { path });
  }
  return size;
}

function sparseOf(
  pax: PaxFields,
  kind: TarEntryKind,
  path: string,
): SparseRegion[] | "in-data" | undefined {
  if (kind !== "file") return undefined;
  if (pax.sparseVersion === "1.0") return "in-data";
  if (pax.sparseVersion !== undefined && !/^0\.[01]$/.test(pax.sparseVersion)) {
    throw refusal("bad_sparse_map", "a sparse layer entry has an unknown version", { path });
  }
  return pax.sparseNumbers === undefined ? undefined : pairSparse(pax.sparseNumbers, path);
}

function checkId(id: number, field: string, path: string): number {
  if (id >= 0 && id <= ID_MAX) return id;
  throw refusal("bad_number", `the ${field} of a layer entry is out of range`, { path });
}

/** Linux has 12 bits for the major and 20 for the minor number. */
function checkDevice({ deviceMajor, deviceMinor, name }: TarEntry): void {
  const fits = deviceMajor >= 0 && deviceMajor < 1 << 12;
  if (fits && deviceMinor >= 0 && deviceMinor < 1 << 20) return;
  throw refusal("bad_number", "a device number of the layer is out of range", { path: name });
}
