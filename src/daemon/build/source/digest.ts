import { createHash } from "node:crypto";
import { AppError } from "../../../domain/index.ts";

/**
 * Only SHA-256 is accepted, although OCI registers SHA-512 too: every stored digest of ours is
 * `sha256:<64 lower-case hex>`, and no registry in use serves anything else. A digest is matched
 * against this before it becomes part of a path or a URL (CVE-2024-3727 was a digest that was not).
 */
const DIGEST = /^sha256:[0-9a-f]{64}$/;

export const isDigest = (text: unknown): text is string =>
  typeof text === "string" && DIGEST.test(text);

export const digestOf = (bytes: Uint8Array): string =>
  `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** The hex part, for `blobs/sha256/<hex>`; only of digests that passed `isDigest`. */
export const digestHex = (digest: string): string => digest.slice("sha256:".length);

export interface ExpectedContent {
  readonly digest: string;
  readonly sizeBytes: number;
}

const mismatch = (message: string, meta: Record<string, unknown>): AppError =>
  new AppError("image_digest_mismatch", message, { meta });

/** @throws AppError image_digest_mismatch when the bytes are not what the descriptor says. */
export function verifyBytes(bytes: Uint8Array, expected: ExpectedContent): void {
  if (bytes.length !== expected.sizeBytes) throw wrongSize(expected, bytes.length);
  const actual = digestOf(bytes);
  if (actual !== expected.digest) throw wrongDigest(expected.digest, actual);
}

export const wrongSize = (expected: ExpectedContent, actual: number): AppError =>
  mismatch(`content ${expected.digest} has another size than its descriptor says`, {
    digest: expected.digest,
    expected_bytes: expected.sizeBytes,
    actual_bytes: actual,
  });

export const wrongDigest = (digest: string, actual: string): AppError =>
  mismatch(`content ${digest} does not match its digest`, { digest, actual_digest: actual });

/**
 * Passes the bytes on and hashes them. Errors at once when there are more than announced, and at
 * the end when there are fewer or the hash differs.
 * @throws AppError image_digest_mismatch
 */
export async function* verifyStream(
  source: AsyncIterable<Uint8Array>,
  expected: ExpectedContent,
): AsyncGenerator<Uint8Array, void, undefined> {
  const hash = createHash("sha256");
  let seen = 0;
  for await (const bytes of source) {
    seen += bytes.length;
    if (seen > expected.sizeBytes) throw wrongSize(expected, seen);
    hash.update(bytes);
    yield bytes;
  }
  if (seen !== expected.sizeBytes) throw wrongSize(expected, seen);
  const actual = `sha256:${hash.digest("hex")}`;
  if (actual !== expected.digest) throw wrongDigest(expected.digest, actual);
}
