import { expect, test } from "vitest";
import { createHello } from "../../../src/gossip/hello.ts";
import { createWarnings } from "../../../src/gossip/warnings.ts";
import { hostParts, Net } from "../../support/fake-net-membership.ts";

/** Two members; `say` is a hello of b with that boot id, `runs` is which life of b answers. */
function setUp() {
  const net = new Net();
  const config = () => ({ cluster_id: "c1", removed: {} }) as never;
  const host = (name: string, bootId: () => string) => {
    const parts = hostParts(net, name, ["a", "b"], config);
    const hello = createHello({
      ...parts,
      get bootId() {
        return bootId();
      },
    });
    parts.transport.handle("join", async (from, bytes) =>
      hello.answer(from, JSON.parse(new TextDecoder().decode(bytes)) as never),
    );
    return { hello, parts };
  };
  let life = "b1";
  const a = host("a", () => "a1");
  const b = host("b", () => life);
  const heard: (string | undefined)[] = [];
  a.hello.onHeard = (_peer, problem) => heard.push(problem?.code);
  const say = async (bootId: string) => {
    const body = { v: 1, type: "hello", cluster_id: "c1", boot_id: bootId } as const;
    const answer = a.hello.answer("pb", body);
    await net.line.run(5_000);
    const { conflict, newcomer } = JSON.parse(new TextDecoder().decode(await answer)) as {
      conflict: boolean;
      newcomer: boolean;
    };
    return conflict ? (newcomer ? "newcomer" : "conflict") : "well";
  };
  return { net, a, b, heard, say, runs: (next: string) => (life = next) };
}

test("a daemon that restarts is no copy of itself", async () => {
  const { say, runs, heard } = setUp();
  expect(await say("b1")).toBe("well");
  runs("b2");
  expect(await say("b2")).toBe("well");
  expect(await say("b2")).toBe("well");
  expect(heard).toEqual([undefined, undefined, undefined]);
});

test("a second daemon is told at its first word that another was there before", async () => {
  const { say, heard } = setUp();
  expect(await say("b1")).toBe("well");
  expect(await say("copy")).toBe("newcomer");
  // The one that was there before learns it as well, once: the copy is gone then.
  expect(await say("b1")).toBe("conflict");
  expect(await say("b1")).toBe("well");
  expect(heard).toEqual([undefined, "identity_copied", "identity_copied", undefined]);
});

test("a member that is dead cannot be taken for a copy of its next life", async () => {
  const { net, say } = setUp();
  expect(await say("b1")).toBe("well");
  net.down.add("pb");
  expect(await say("b2")).toBe("well");
});

test("clocks an hour apart are noticed by the one that asks and the one that is asked", async () => {
  const { net, a, b, heard } = setUp();
  b.parts.clock.skewMs = 3_600_000;
  const asked = b.hello.ask("pa", { timeoutMs: 1_000 }).then(
    () => undefined,
    (error: unknown) => error,
  );
  await net.line.run(1_000);
  expect(await asked).toMatchObject({ code: "clock_skew", meta: { difference_ms: -3_600_005 } });
  expect(heard).toEqual(["clock_skew"]);
  b.parts.clock.skewMs = 0;
  const again = b.hello.ask("pa", { timeoutMs: 1_000 });
  await net.line.run(1_000);
  expect((await again).status).toBe("member");
  expect(heard).toEqual(["clock_skew", undefined]);
  expect(a.parts.members.nodeOf("pb")).toBe("b");
});

test("a warning stands until it is over, and is logged at most once a minute", async () => {
  const { net, a } = setUp();
  const lines: string[] = [];
  const log = {
    ...a.parts.log,
    error: (text: string) => lines.push(text),
    info: (text: string) => lines.push(text),
  };
  const warnings = createWarnings({ clock: a.parts.clock, log: log });
  const warning = { code: "clock_skew", node_id: "b", detail: "", advice: "" } as const;
  warnings.raise("asked b", warning);
  warnings.raise("heard b", warning);
  const [standing] = warnings.list();
  expect(warnings.list()).toHaveLength(1);
  await net.line.run(30_000);
  warnings.raise("asked b", warning);
  expect(warnings.list()[0]?.since).toBe(standing?.since);
  expect(lines).toHaveLength(1);
  await net.line.run(40_000);
  warnings.raise("asked b", warning);
  expect(lines).toHaveLength(2);
  warnings.clear("asked b");
  warnings.clear("heard b");
  expect(warnings.list()).toEqual([]);
});
