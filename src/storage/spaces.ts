/**
 * The key spaces of the catalog. A key is the space's number, `!`, and the rest; so all rows of a
 * space are one range. A number is never used again: what is retired stays here as a comment.
 *
 *   00 meta        name                 → { value }
 *   01 entry       kind NUL id NUL owner → { version, sequence, value? }   (codec per kind)
 *   02 change      sequence             → [kind, id, owner]    latest change of each entry only
 *   03 quarantine  time NUL old key     → { reason, at, key, base64 }
 *   10 driver-snapshot, 11 sandbox, 12 job-log, 13 idempotency, 14 audit, 15 setting,
 *   16 register, 17 checkpoint, 18 runtime-ref: local tables
 */
import { AppError, type EntryKind, type LocalTableName } from "../domain/index.ts";

export const SPACES = {
  meta: "00",
  entry: "01",
  change: "02",
  quarantine: "03",
} as const;

export const TABLE_SPACES = {
  "driver-snapshot": "10",
  sandbox: "11",
  "job-log": "12",
  idempotency: "13",
  audit: "14",
  setting: "15",
  register: "16",
  checkpoint: "17",
  "runtime-ref": "18",
} as const satisfies Record<LocalTableName, string>;

export type Space =
  (typeof SPACES)[keyof typeof SPACES] | (typeof TABLE_SPACES)[keyof typeof TABLE_SPACES];

/** Greater than every character a key may hold. */
const AFTER_ALL = "\u{10FFFF}";
/** No control characters, no half surrogates (they do not survive UTF-8), not the end marker. */
const KEY_PART = /^[^\u0000-\u001f\u007f\p{Cs}\u{10FFFF}]{1,512}$/u;
const SEQUENCE_DIGITS = 16;

/**
 * @throws AppError invalid_request when the text cannot be part of a key: 1 to 512 characters,
 *   no control characters.
 */
export function assertKeyPart(text: string, what: string): void {
  if (KEY_PART.test(text)) return;
  throw new AppError("invalid_request", `${what} ${JSON.stringify(text)} is not valid as a key`);
}

export const spaceKey = (space: Space, rest: string): string => `${space}!${rest}`;
/** What follows the space's number. */
export const restOf = (key: string): string => key.slice(3);

/** The range of all rows of a space whose rest starts with `prefix`. */
export const spaceRange = (space: Space, prefix = ""): { gte: string; lt: string } => ({
  gte: spaceKey(space, prefix),
  lt: spaceKey(space, prefix + AFTER_ALL),
});

export interface EntryAddress {
  readonly kind: EntryKind;
  readonly id: string;
  readonly owner: string;
}

export const entryKey = ({ kind, id, owner }: EntryAddress): string =>
  spaceKey(SPACES.entry, `${kind}\0${id}\0${owner}`);

/** Kind, id and owner of an entry key; undefined when it has another shape. */
export function parseEntryKey(key: string): [string, string, string] | undefined {
  const [kind, id, owner, more] = restOf(key).split("\0");
  if (kind === undefined || id === undefined || owner === undefined) return undefined;
  return more === undefined ? [kind, id, owner] : undefined;
}

export const sequenceText = (sequence: number): string =>
  String(sequence).padStart(SEQUENCE_DIGITS, "0");

export const changeKey = (sequence: number): string =>
  spaceKey(SPACES.change, sequenceText(sequence));
