import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { createAdmission } from "../../../src/gossip/admission.ts";
import { hostParts, Net, sharedRegisters } from "../../support/fake-net-membership.ts";

const sha256Hex = (text: string) => createHash("sha256").update(text).digest("hex");

async function setUp(uses = 1) {
  const net = new Net();
  const { registers, config } = sharedRegisters();
  const host = (name: string) => {
    const parts = hostParts(net, name, [name], config);
    const psk = () => "A".repeat(43);
    const admission = createAdmission({ ...parts, registers, sha256Hex, bootId: name, psk });
    const self = { nodeId: name, peerId: `p${name}`, addresses: [] };
    return { ...parts, admission, self };
  };
  const first = host("a");
  await first.admission.bootstrap({ ...first.self, clusterId: "c1" });
  const { token, token_id } = await first.admission.createToken({ ttlSeconds: 60, uses });
  const run = async <T>(work: Promise<T>) => {
    const settled = work.then(
      (value) => ({ value }),
      (error: unknown) => ({ error }),
    );
    await net.line.run(100);
    return settled as Promise<{ value?: T; error?: { code: string } }>;
  };
  return { net, host, first, token, token_id, config, run };
}

test("of two joins with a single-use token exactly one wins, and again costs nothing", async () => {
  const { host, token, config, run } = await setUp();
  const [b, c] = [host("b"), host("c")];
  const joins = [b.admission.join(token, b.self), c.admission.join(token, c.self)];
  const [won] = await Promise.all([run(joins[0]!), run(joins[1]!)]);
  expect(won?.value?.value?.members).toHaveProperty("b");
  await expect(joins[1]).rejects.toMatchObject({ code: "join_token_used" });
  expect((await run(b.admission.join(token, b.self))).error).toBeUndefined();
  expect(Object.keys(config()?.members ?? {})).toEqual(["a", "b"]);
});

test("expired, revoked, taken name and skewed clock are refused by name", async () => {
  const { net, host, first, token, token_id, run } = await setUp(5);
  const b = host("b");
  const join = async (nodeId = "b") =>
    (await run(b.admission.join(token, { ...b.self, nodeId }))).error?.code;
  expect(await join("a")).toBe("node_name_taken");
  b.clock.skewMs = 3_600_000;
  expect(await join()).toBe("clock_skew");
  b.clock.skewMs = 0;
  await net.line.run(61_000);
  expect(await join()).toBe("join_token_expired");
  await first.admission.revokeToken(token_id);
  expect(await join()).toBe("join_token_revoked");
});

test("a removed node learns it by hello, and joins again with a token", async () => {
  const { host, first, token, config, run } = await setUp(2);
  const b = host("b");
  await run(b.admission.join(token, b.self));
  await first.admission.removeMember("b");
  expect((await run(b.admission.hello("pa"))).error?.code).toBe("node_removed");
  await run(b.admission.join(token, b.self));
  expect(config()?.removed).toEqual({});
});
