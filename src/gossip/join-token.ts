/**
 * A join token as people copy it: `tcj1.` + base64url of JSON + `.` + eight hex digits of a
 * checksum, so that a token that was cut while pasting is told from one that is wrong.
 */
import { z } from "zod";
import { AppError } from "../domain/index.ts";

const PREFIX = "tcj1.";

/** Hex SHA-256 of UTF-8 text. */
export type Sha256Hex = (text: string) => string;

const contentSchema = z.looseObject({
  cluster_id: z.string().min(1).max(256),
  /** The network's pre-shared key: 32 bytes in base64url. */
  psk: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
  token_id: z.string().min(1).max(256),
  secret: z.string().min(16).max(256),
  /** Multiaddrs that end in /p2p/<peer id>. */
  addresses: z
    .array(
      z
        .string()
        .max(1_024)
        .regex(/\/p2p\/[A-Za-z0-9]+$/),
    )
    .min(1)
    .max(32),
  expires_at: z.iso.datetime(),
});
export type JoinToken = z.infer<typeof contentSchema>;

const invalid = (message: string, cause?: unknown) =>
  new AppError("join_token_invalid", message, cause === undefined ? {} : { cause });

export function encodeJoinToken(token: JoinToken, sha256Hex: Sha256Hex): string {
  const body = Buffer.from(JSON.stringify(contentSchema.parse(token))).toString("base64url");
  return `${PREFIX}${body}.${sha256Hex(body).slice(0, 8)}`;
}

/** @throws AppError join_token_invalid saying what is wrong: cut, no token, of a newer version */
export function decodeJoinToken(text: string, sha256Hex: Sha256Hex): JoinToken {
  const trimmed = text.trim();
  const version = /^tcj(\d+)\./.exec(trimmed)?.[1];
  if (version === undefined) throw invalid("this is not a join token: one starts with tcj1.");
  if (version !== "1") {
    throw invalid(`the join token is of a newer version (${version}): update this node first`);
  }
  const [body = "", checksum = ""] = trimmed.slice(PREFIX.length).split(".");
  if (checksum !== sha256Hex(body).slice(0, 8)) {
    throw invalid("the join token is cut or mistyped: copy the whole of it");
  }
  try {
    return contentSchema.parse(JSON.parse(Buffer.from(body, "base64url").toString()));
  } catch (error) {
    throw invalid("the join token's content is not valid", error);
  }
}
