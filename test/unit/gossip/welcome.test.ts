import { expect, test } from "vitest";
import { AppError } from "../../../src/domain/index.ts";
import { createWarnings } from "../../../src/gossip/warnings.ts";
import { createWelcome, type WelcomeParts } from "../../../src/gossip/welcome.ts";
import { HostClock, Timeline } from "../../support/fake-net-membership.ts";
import { quietLog } from "../../support/p2p.ts";

const ROUND_MS = 20_000;

function setUp(peers: readonly string[]) {
  const line = new Timeline();
  const clock = new HostClock(line);
  const warnings = createWarnings({ clock, log: quietLog });
  const answers = new Map<string, AppError>();
  const asked: string[] = [];
  const welcome = createWelcome({
    clock,
    log: quietLog,
    // Chance always falls on the first of them.
    random: { bytes: (count: number) => new Uint8Array(count) },
    members: { self: "me", nodeOf: (peer: string) => `node-${peer}`, config: () => undefined },
    transport: {
      peerId: "self",
      addresses: () => [],
      connections: () => peers,
      onConnection: () => () => undefined,
    },
    admission: {
      onHello: () => () => undefined,
      hello: async (peer: string) => {
        asked.push(peer);
        const error = answers.get(peer);
        if (error !== undefined) throw error;
      },
    },
    warnings,
    onCopy: () => undefined,
  } as unknown as WelcomeParts);
  welcome.start();
  return { line, warnings, answers, asked, welcome };
}

test("each round asks one peer by chance", async () => {
  const { line, asked, welcome } = setUp(["a", "b", "c"]);
  await line.run(2 * ROUND_MS + 2_000);
  expect(asked).toEqual(["a", "a"]);
  welcome.stop();
});

test("with whom something is wrong is asked in each round, until it is over", async () => {
  const { line, warnings, answers, asked, welcome } = setUp(["a", "b", "c"]);
  const skew = { code: "clock_skew", node_id: "node-c", detail: "", advice: "" } as const;
  warnings.raise("asked node-c", skew);
  answers.set("c", new AppError("clock_skew", "the clocks are 7200 s apart"));
  await line.run(ROUND_MS + 2_000);
  expect(asked).toEqual(["c", "a"]);
  expect(warnings.list()).toMatchObject([{ code: "clock_skew", node_id: "node-c" }]);
  answers.clear();
  await line.run(ROUND_MS);
  expect(warnings.list()).toEqual([]);
  await line.run(ROUND_MS);
  expect(asked).toEqual(["c", "a", "c", "a", "a"]);
  welcome.stop();
});
