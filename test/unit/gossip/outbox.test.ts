import { expect, test } from "vitest";
import { Outbox } from "../../../src/gossip/outbox.ts";
import type { WireOperation } from "../../../src/gossip/register-messages.ts";

const voters = { number: 1, nodes: ["n0"], previous: [] };
const MOST_WAITING = 10_000;
/** Four messages of one operation each are under way before the rest has to wait. */
const operation = (index: number): WireOperation => ({ k: `template/${index}`, p: [1, "n1"] });

/** An outbox whose voter answers once `answer` is called, and what was sent to it. */
function heldOutbox() {
  const sent: (readonly WireOperation[])[] = [];
  let answer: () => void = () => undefined;
  const held = new Promise<void>((resolve) => (answer = resolve));
  const outbox = new Outbox(async (_, operations) => {
    sent.push(operations);
    await held;
    return operations.map(() => ({ ok: true }));
  });
  return { outbox, sent, answer };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

test("operations of one moment go in one message, and each gets its own result", async () => {
  const outbox = new Outbox(async (_, operations) =>
    operations.map(({ k }) => ({ ok: k === "template/1" })),
  );
  const results = await Promise.all([0, 1, 2].map((index) => outbox.ask(voters, operation(index))));
  expect(results).toEqual([{ ok: false }, { ok: true }, { ok: false }]);
});

test("what waits for a voter that does not answer is bounded: the oldest is refused", async () => {
  const { outbox, sent, answer } = heldOutbox();
  const underWay: Promise<unknown>[] = [];
  for (let index = 0; index < 4; index++) {
    underWay.push(outbox.ask(voters, operation(index)));
    await settle();
  }
  expect(sent.map((operations) => operations.length)).toEqual([1, 1, 1, 1]);

  const refused: number[] = [];
  const codes = new Set<unknown>();
  const extra = 3;
  const waiting = Array.from({ length: MOST_WAITING + extra }, (_, index) =>
    outbox.ask(voters, operation(4 + index)).catch((error: unknown) => {
      refused.push(index);
      codes.add((error as { code?: unknown }).code);
      return undefined;
    }),
  );
  await settle();
  expect(refused).toEqual([0, 1, 2]);
  expect([...codes]).toEqual(["peer_unreachable"]);

  answer();
  await Promise.all(underWay);
  const results = await Promise.all(waiting);
  expect(results.filter((result) => result?.ok === true)).toHaveLength(MOST_WAITING);
  expect(sent.slice(4).every((operations) => operations.length <= 500)).toBe(true);
});

test("what waits is refused when the node stops", async () => {
  const { outbox, answer } = heldOutbox();
  const underWay: Promise<unknown>[] = [];
  for (let index = 0; index < 4; index++) {
    underWay.push(outbox.ask(voters, operation(index)));
    await settle();
  }
  const waiting = outbox.ask(voters, operation(4));
  outbox.close();
  await expect(waiting).rejects.toMatchObject({ code: "peer_unreachable" });
  answer();
  await Promise.all(underWay);
});
