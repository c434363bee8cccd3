import { expect, test } from "vitest";
import { AppError } from "../../../src/domain/index.ts";
import { Proposer, type ProposerParts } from "../../../src/gossip/proposer.ts";
import { hostParts, Net } from "../../support/fake-net-membership.ts";

const voters = { number: 1, nodes: ["n0", "n1", "n2"], previous: [] };
const TIMEOUT_MS = 5_000;

type Answer = ProposerParts["ask"];
const never: Answer = () => new Promise(() => undefined);
const agrees: Answer = async () => ({ ok: true });
const unreachable: Answer = async () => {
  throw new AppError("peer_unreachable", "no such host");
};
const outbid: Answer = async () => ({ ok: false, promised: [9, "n9"] });
const busy: Answer = async () => undefined;

/** An update of one register at voters that answer as `answers` says, run to its end. */
async function update(answers: Record<string, Answer>, isNew = false) {
  const net = new Net();
  const { clock, random } = hostParts(net, "n0", voters.nodes);
  const proposer = new Proposer({
    nodeId: "n0",
    clock,
    random,
    voters: () => voters,
    votersIn: () => undefined,
    learn: async () => undefined,
    ask: (voter, ...rest) => (answers[voter] ?? never)(voter, ...rest),
  });
  const untilMs = clock.monotonic() + TIMEOUT_MS;
  const result = proposer
    .update("template/one", () => ({ name: "one" }), { untilMs, isNew })
    .catch((error: unknown) => error);
  await net.line.run(2 * TIMEOUT_MS);
  return result;
}

test("two of three voters are enough", async () => {
  const decided = await update({ n0: agrees, n1: unreachable, n2: agrees });
  expect(decided).toMatchObject({ changed: true, value: { name: "one" } });
});

test("a register that is new is written without asking, and asked about once that is refused", async () => {
  const steps: string[] = [];
  const noted =
    (answer: Answer): Answer =>
    (voter, config, operation) => {
      steps.push(operation.a === undefined ? "prepare" : "accept");
      return answer(voter, config, operation);
    };
  const all = (answer: Answer) => ({ n0: answer, n1: answer, n2: answer });
  expect(await update(all(noted(agrees)), true)).toMatchObject({ value: { name: "one" } });
  expect(steps).toEqual(["accept", "accept", "accept"]);
  steps.length = 0;
  const notFirst: Answer = async (_voter, _config, { a }) => ({ ok: a?.b[0] !== 1 });
  expect(await update(all(noted(notFirst)), true)).toMatchObject({ value: { name: "one" } });
  expect(steps.slice(3)).toEqual([...Array(3).fill("prepare"), ...Array(3).fill("accept")]);
});

test.each([
  ["are unreachable", unreachable],
  ["never answer", never],
])("no_quorum names the voters that %s", async (_, silent) => {
  const error = await update({ n0: agrees, n1: silent, n2: silent });
  expect(error).toMatchObject({
    code: "no_quorum",
    meta: { voters: voters.nodes, silent: ["n1", "n2"] },
  });
  expect((error as Error).message).toContain("no answer from n1, n2");
});

test("a voter that answers but refuses is not called silent", async () => {
  const error = await update({ n0: agrees, n1: outbid, n2: unreachable });
  expect(error).toMatchObject({ code: "no_quorum", meta: { silent: ["n2"] } });
  const all = await update({ n0: agrees, n1: outbid, n2: busy });
  expect(all).toMatchObject({ code: "no_quorum", meta: { silent: [] } });
  expect((all as Error).message).not.toContain("no answer");
});

test("a voter that stopped answering in the middle of an update is named", async () => {
  let asked = 0;
  const dies: Answer = async (...rest) => (++asked > 2 ? unreachable(...rest) : outbid(...rest));
  const error = await update({ n0: agrees, n1: dies, n2: unreachable });
  expect(error).toMatchObject({ code: "no_quorum", meta: { silent: ["n1", "n2"] } });
});
