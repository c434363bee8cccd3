/** Tar archives byte by byte, illegal ones included. */
export interface HeaderFields {
  name: string;
  type?: string;
  size?: number;
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: number;
  linkName?: string;
  major?: number;
  minor?: number;
  prefix?: string;
  magic?: string;
  /** Raw bytes put over the finished header, before the checksum is taken. */
  raw?: readonly { at: number; bytes: string }[];
  /** Raw bytes put over the header after the checksum was taken. */
  after?: readonly { at: number; bytes: string }[];
}

const BLOCK = 512;

const octal = (value: number, length: number): string =>
  value >= 0 && value < 8 ** (length - 1)
    ? `${value.toString(8).padStart(length - 1, "0")}\0`
    : base256(value, length);

export function base256(value: number, length: number): string {
  const bytes = Buffer.alloc(length, value < 0 ? 0xff : 0);
  let rest = BigInt(value);
  for (let i = length - 1; i > 0; i--) {
    bytes[i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  bytes[0] = value < 0 ? 0xff : 0x80;
  return bytes.toString("latin1");
}

/** One header block; the checksum is right unless `after` breaks it. */
export function tarHeader(fields: HeaderFields): Buffer {
  const block = Buffer.alloc(BLOCK);
  const put = (at: number, text: string) => block.write(text, at, "latin1");
  put(0, fields.name);
  put(100, octal(fields.mode ?? 0o644, 8));
  put(108, octal(fields.uid ?? 0, 8));
  put(116, octal(fields.gid ?? 0, 8));
  put(124, octal(fields.size ?? 0, 12));
  put(136, octal(fields.mtime ?? 0, 12));
  put(156, fields.type ?? "0");
  put(157, fields.linkName ?? "");
  put(257, fields.magic ?? "ustar\x0000");
  if (fields.major !== undefined) put(329, octal(fields.major, 8));
  if (fields.minor !== undefined) put(337, octal(fields.minor, 8));
  put(345, fields.prefix ?? "");
  for (const { at, bytes } of fields.raw ?? []) put(at, bytes);
  put(148, "        ");
  put(
    148,
    `${block
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, "0")}\0 `,
  );
  for (const { at, bytes } of fields.after ?? []) put(at, bytes);
  return block;
}

export const padded = (data: Buffer): Buffer =>
  Buffer.concat([data, Buffer.alloc(-data.length & (BLOCK - 1))]);

export const paxRecord = (key: string, value: string): string => {
  const body = ` ${key}=${value}\n`;
  let length = body.length;
  while (`${length}`.length + body.length !== length) length = `${length}`.length + body.length;
  return `${length}${body}`;
};

export class TarBuilder {
  private readonly parts: Buffer[] = [];

  raw(bytes: Buffer): this {
    this.parts.push(bytes);
    return this;
  }

  header(fields: HeaderFields): this {
    return this.raw(tarHeader(fields));
  }

  file(name: string, content: string | Buffer = "", fields: Partial<HeaderFields> = {}): this {
    const data = Buffer.isBuffer(content) ? content : Buffer.from(content, "latin1");
    this.header({ name, size: data.length, ...fields });
    return this.raw(padded(data));
  }

  directory(name: string, fields: Partial<HeaderFields> = {}): this {
    return this.header({ name, type: "5", mode: 0o755, ...fields });
  }

  symlink(name: string, linkName: string, fields: Partial<HeaderFields> = {}): this {
    return this.header({ name, type: "2", linkName, mode: 0o777, ...fields });
  }

  hardlink(name: string, linkName: string, fields: Partial<HeaderFields> = {}): this {
    return this.header({ name, type: "1", linkName, ...fields });
  }

  /** A PAX header for the next entry (`x`) or all that follow (`g`). */
  pax(records: Readonly<Record<string, string>>, type: "x" | "g" = "x"): this {
    const text = Object.entries(records)
      .map(([key, value]) => paxRecord(key, value))
      .join("");
    return this.paxText(text, type);
  }

  paxText(text: string, type: "x" | "g" = "x"): this {
    return this.file("./PaxHeaders/x", text, { type });
  }

  longName(name: string, type: "L" | "K" = "L"): this {
    return this.file("././@LongLink", `${name}\0`, { type, magic: "ustar  \0" });
  }

  /** The archive; with the two zero blocks that end it unless told otherwise. */
  build(options: { end?: boolean } = {}): Buffer {
    const end = options.end === false ? 0 : 2 * BLOCK;
    return Buffer.concat([...this.parts, Buffer.alloc(end)]);
  }
}
