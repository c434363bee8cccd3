/**
 * A form with a file, read as it comes: the fields before the file are small and kept, the file is
 * a stream that nobody holds. (RFC 7578; the parser of the platform keeps all of it in memory.)
 */
import { AppError } from "../domain/index.ts";

/** All fields together; the longest is a list of keys. */
const FIELD_BYTES = 64 * 1024;
const HEADER_BYTES = 8 * 1024;

export interface UploadForm {
  readonly fields: Readonly<Record<string, string>>;
  /** Undefined: none was chosen. To be read to its end or returned. */
  readonly file: AsyncGenerator<Uint8Array> | undefined;
  /** Reads what is left, so that the sender is ready for the answer. */
  readonly close: () => Promise<void>;
}

const malformed = (why: string): AppError =>
  new AppError("invalid_request", `the form cannot be read: ${why}`);

/** Bytes up to a mark, whatever the pieces are that they come in. */
class MarkedInput {
  readonly #source: AsyncIterator<Uint8Array>;
  #held: Buffer;

  constructor(source: AsyncIterator<Uint8Array>, first: string) {
    this.#source = source;
    this.#held = Buffer.from(first);
  }

  /** What is before the mark, which is taken too. @throws AppError when it never comes */
  async *until(mark: Buffer): AsyncGenerator<Buffer> {
    for (;;) {
      const at = this.#held.indexOf(mark);
      const end = at < 0 ? Math.max(0, this.#held.length - mark.length + 1) : at;
      const before = this.#held.subarray(0, end);
      this.#held = this.#held.subarray(at < 0 ? end : end + mark.length);
      if (before.length > 0) yield before;
      if (at >= 0) return;
      await this.#more();
    }
  }

  async text(mark: Buffer, most: number): Promise<string> {
    const parts: Buffer[] = [];
    let size = 0;
    for await (const part of this.until(mark)) {
      size += part.length;
      if (size > most) throw malformed("a field is too long");
      parts.push(part);
    }
    return Buffer.concat(parts).toString("utf8");
  }

  /** The next bytes, as text. */
  async take(length: number): Promise<string> {
    while (this.#held.length < length) await this.#more();
    const taken = this.#held.subarray(0, length).toString("latin1");
    this.#held = this.#held.subarray(length);
    return taken;
  }

  async #more(): Promise<void> {
    const next = await this.#source.next();
    if (next.done === true) throw malformed("it is cut off");
    this.#held =
      this.#held.length === 0
        ? Buffer.from(next.value.buffer, next.value.byteOffset, next.value.byteLength)
        : Buffer.concat([this.#held, next.value]);
  }
}

const boundaryOf = (contentType: string): string => {
  const [, quoted, plain] =
    /;\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))/i.exec(contentType) ?? [];
  const boundary = quoted ?? plain;
  if (!/^multipart\/form-data\b/i.test(contentType) || boundary === undefined) {
    throw malformed("it is no form with a file");
  }
  return boundary;
};

const attribute = (headers: string, name: string): string | undefined => {
  const line = /^content-disposition:.*$/im.exec(headers)?.[0] ?? "";
  return new RegExp(`;\\s*${name}="([^"]*)"`, "i").exec(line)?.[1];
};

/**
 * The fields up to the first file, and the file.
 * @throws AppError invalid_request
 */
export async function openUpload(
  source: AsyncGenerator<Uint8Array>,
  contentType: string,
): Promise<UploadForm> {
  const close = async (): Promise<void> => {
    await source.return(undefined);
  };
  try {
    const delimiter = Buffer.from(`\r\n--${boundaryOf(contentType)}`);
    // The first delimiter has no line before it.
    const input = new MarkedInput(source, "\r\n");
    const fields: Record<string, string> = {};
    await input.text(delimiter, HEADER_BYTES);
    let left = FIELD_BYTES;
    while ((await input.take(2)) !== "--") {
      const headers = await input.text(Buffer.from("\r\n\r\n"), HEADER_BYTES);
      const fileName = attribute(headers, "filename");
      if (fileName !== undefined && fileName !== "") {
        return { fields, file: input.until(delimiter), close };
      }
      const value = await input.text(delimiter, left);
      left -= value.length;
      const name = attribute(headers, "name") ?? "";
      if (fileName === undefined && name !== "") fields[name] = value;
    }
    return { fields, file: undefined, close };
  } catch (error) {
    await close();
    throw error;
  }
}
