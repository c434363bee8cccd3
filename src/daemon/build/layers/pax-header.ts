/**
 * PAX extended headers (POSIX.1-2001 pax, "extended header file format"): records of the form
 * `LENGTH KEY=VALUE\n`, the length counting all of it. Keys and values are byte strings here.
 */
import { refusal } from "./refusal.ts";

export interface PaxHeader {
  /** In the order they came; GNU sparse 0.0 repeats its keys, so this is not a map. */
  readonly records: readonly (readonly [key: string, value: string])[];
}

const nulForbidden = new Set(["path", "linkpath", "uname", "gname", "GNU.sparse.name"]);

/** @throws AppError image_refused (bad_pax_record, nul_in_name) */
export function parsePaxHeader(buffer: Buffer): PaxHeader {
  const records: (readonly [string, string])[] = [];
  let at = 0;
  while (at < buffer.length) {
    const space = buffer.indexOf(32, at);
    const digits = space < 0 ? "" : buffer.toString("latin1", at, Math.min(space, at + 20));
    const length = /^[0-9]{1,10}$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    const equals = buffer.indexOf(61, space + 1);
    const complete = length > 0 && end <= buffer.length && equals > space + 1 && equals < end;
    if (!complete || buffer[end - 1] !== 10) {
      throw refusal("bad_pax_record", "an extended header of the layer is malformed");
    }
    const key = buffer.toString("latin1", space + 1, equals);
    const value = buffer.toString("latin1", equals + 1, end - 1);
    if (key.includes("\0")) {
      throw refusal("bad_pax_record", "an extended header of the layer has a NUL in a key");
    }
    if (nulForbidden.has(key) && value.includes("\0")) {
      throw refusal("nul_in_name", "a name in the layer has a NUL byte", { path: value });
    }
    records.push([key, value]);
    at = end;
  }
  return { records };
}

/**
 * A PAX time: decimal seconds, maybe negative, maybe with a fraction; what is finer than a
 * nanosecond is cut off.
 */
export function parsePaxTime(value: string): { seconds: number; nanoseconds: number } | undefined {
  const match = /^(-?)([0-9]{1,15})(?:\.([0-9]*))?$/.exec(value);
  if (match === null) return undefined;
  const whole = Number(match[2]);
  const fraction = Number((match[3] ?? "").slice(0, 9).padEnd(9, "0"));
  if (match[1] !== "-") return { seconds: whole, nanoseconds: fraction };
  return fraction === 0
    ? { seconds: whole === 0 ? 0 : -whole, nanoseconds: 0 }
    : { seconds: -whole - 1, nanoseconds: 1_000_000_000 - fraction };
}

/** A PAX number: decimal digits only. */
export function parsePaxNumber(value: string): number | undefined {
  if (!/^[0-9]{1,16}$/.test(value)) return undefined;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : undefined;
}
