/** Numbers, sizes and times as people read them. Pure: `now` always comes in. */

const BINARY_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;
const DECIMAL_UNITS = ["B", "kB", "MB", "GB", "TB"] as const;

function scale(value: number, base: number, units: readonly string[]): string {
  let at = 0;
  let rest = value;
  while (rest >= base && at < units.length - 1) {
    rest /= base;
    at += 1;
  }
  const digits = at === 0 || rest >= 100 ? 0 : rest >= 10 ? 1 : 2;
  return `${Number(rest.toFixed(digits))} ${units[at] ?? ""}`;
}

/** Sizes at rest: powers of 1024. */
export const formatBytes = (bytes: number): string =>
  Number.isFinite(bytes) && bytes >= 0 ? scale(bytes, 1024, BINARY_UNITS) : "–";

/** Transfer rates: powers of 1000, whole numbers from 10 upwards. */
export function formatRate(bytesPerSecond: number): string {
  if (!Number.isFinite(bytesPerSecond) || bytesPerSecond <= 0) return "";
  const [number = "0", unit = "B"] = scale(bytesPerSecond, 1000, DECIMAL_UNITS).split(" ");
  const value = Number(number);
  return `${value >= 10 ? Math.round(value) : Number(value.toFixed(1))} ${unit}/s`;
}

/** `0.4 s`, `12 s`, `3 min 04 s`, `2 h 05 min`, `3 d 4 h`. */
export function formatDuration(ms: number): string {
  if (!Number.isFinite(ms) || ms < 0) return "–";
  if (ms < 1_000) return ms < 95 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(1)} s`;
  if (ms < 9_950) return `${(ms / 1_000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 60) return `${seconds} s`;
  const two = (value: number): string => String(value).padStart(2, "0");
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1_440) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  return `${Math.floor(minutes / 1_440)} d ${Math.floor((minutes % 1_440) / 60)} h`;
}

/** A remaining time is a guess: it is rounded to what a guess can say. */
export function roughDuration(ms: number): string {
  const seconds = Math.max(1, Math.round(ms / 1_000));
  if (seconds < 10) return `${seconds} s`;
  if (seconds < 90) return `${Math.round(seconds / 5) * 5} s`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3_600)} h`;
}

/** Milliseconds since the epoch, or undefined when the text is no time. */
export function parseTime(text: string | undefined): number | undefined {
  const at = Date.parse(text ?? "");
  return Number.isNaN(at) ? undefined : at;
}

/** `just now`, `12 s ago`, `3 min ago`, `5 h ago`, `2 days ago`. The script says the same words. */
export function relativeTime(now: number, at: number): string {
  const seconds = Math.floor((now - at) / 1_000);
  if (seconds < 3) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ago`;
  const days = Math.floor(seconds / 86_400);
  return days === 1 ? "1 day ago" : `${days} days ago`;
}

/** `2026-11-20 22:51:13 UTC`. */
export const absoluteTime = (at: number): string =>
  `${new Date(at).toISOString().slice(0, 19).replace("T", " ")} UTC`;

/** `22:51:13.042`, for log lines of one day. */
export const clockTime = (at: number): string => new Date(at).toISOString().slice(11, 23);

/** `1 node`, `3 nodes`. */
export const count = (number: number, one: string, many = `${one}s`): string =>
  `${number} ${number === 1 ? one : many}`;

/** The first `keep` characters of a hash, with its algorithm. */
export function shortDigest(digest: string, keep = 12): string {
  const [algorithm, hex] = digest.split(":");
  if (hex === undefined) return digest;
  return hex.length > keep ? `${algorithm ?? ""}:${hex.slice(0, keep)}…` : digest;
}

/** One word of a POSIX shell command, quoted only where it has to be. */
export const shellWord = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
