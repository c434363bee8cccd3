import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { decodeJoinToken, encodeJoinToken } from "../../../src/gossip/join-token.ts";

const hash = (text: string) => createHash("sha256").update(text).digest("hex");
const token = {
  cluster_id: "c1",
  psk: "A".repeat(43),
  token_id: "t1",
  secret: "s".repeat(32),
  addresses: ["/ip4/10.0.0.1/tcp/7331/p2p/12D3KooW"],
  expires_at: "2027-01-15T08:00:00.000Z",
};

test("a token reads back, and each way of being wrong is named", () => {
  const text = encodeJoinToken(token, hash);
  expect(decodeJoinToken(` ${text}\n`, hash)).toEqual(token);
  expect(() => decodeJoinToken(text.slice(0, -9), hash)).toThrow(/cut/);
  expect(() => decodeJoinToken("hello", hash)).toThrow(/not a join token/);
  expect(() => decodeJoinToken(text.replace("tcj1.", "tcj2."), hash)).toThrow(/newer version/);
});
