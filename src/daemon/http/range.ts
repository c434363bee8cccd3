/** Conditions and byte ranges of RFC 9110 §13 and §14, for one representation with a strong tag. */

/** First and last byte, both included, as in Content-Range. */
interface ByteRange {
  readonly start: number;
  readonly end: number;
}

export type RangeChoice =
  | { readonly kind: "whole" }
  | { readonly kind: "range"; readonly range: ByteRange }
  | { readonly kind: "unsatisfiable" }
  | { readonly kind: "unchanged" };

/** What to send; a Range that is malformed or has several ranges is ignored, as it may be. */
export function evaluateRange(
  sizeBytes: number,
  etag: string,
  header: (name: string) => string | undefined,
): RangeChoice {
  if (matchesTag(header("if-none-match"), etag)) return { kind: "unchanged" };
  const range = header("range");
  const condition = header("if-range");
  if (range === undefined || (condition !== undefined && condition.trim() !== etag)) {
    return { kind: "whole" };
  }
  return parseRange(range, sizeBytes);
}

function matchesTag(condition: string | undefined, etag: string): boolean {
  if (condition === undefined) return false;
  const tags = condition.split(",").map((tag) => tag.trim().replace(/^W\//, ""));
  return tags.includes("*") || tags.includes(etag);
}

export function parseRange(text: string, sizeBytes: number): RangeChoice {
  const match = /^bytes\s*=\s*(\d{0,15})-(\d{0,15})$/i.exec(text.trim());
  const [, first = "", last = ""] = match ?? [];
  if (match === null || (first === "" && last === "")) return { kind: "whole" };
  const end = last === "" ? sizeBytes - 1 : Number(last);
  if (first === "") {
    const suffix = Math.min(Number(last), sizeBytes);
    if (suffix === 0) return { kind: "unsatisfiable" };
    return { kind: "range", range: { start: sizeBytes - suffix, end: sizeBytes - 1 } };
  }
  const start = Number(first);
  if (last !== "" && start > end) return { kind: "whole" };
  if (start >= sizeBytes) return { kind: "unsatisfiable" };
  return { kind: "range", range: { start, end: Math.min(end, sizeBytes - 1) } };
}
