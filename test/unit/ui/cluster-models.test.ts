import { describe, expect, test } from "vitest";
import {
  healthItems,
  leaderOf,
  reachWarning,
  removalEffects,
  shareViews,
  tokenState,
} from "../../../src/ui/cluster-models.ts";
import { aCluster, aSwarms, aTemplate } from "../../support/fake-http-service.ts";
import { aPair } from "../../support/ui-site.ts";

const item = (view: Parameters<typeof healthItems>[0], name: string) =>
  healthItems(view).find((one) => one.name === name);

describe("health", () => {
  test("says who is down, how many more may fail, and who differs since when", () => {
    const view = aCluster();
    expect(item(view, "Members")).toMatchObject({ state: { word: "4 of 5 up", tone: "warn" } });
    expect(item(view, "Members")?.detail).toBe("node-4 is suspect");
    expect(item(view, "Quorum")?.detail).toBe("4 of 5 voters alive, 1 more may fail");
    expect(item(view, "State")).toMatchObject({
      detail: "node-2 on 1 entry",
      since: expect.any(String),
    });
    expect(item(view, "Leaders")?.state.word).toBe("2");
  });

  test("of two nodes says that both are needed, and No when one is down", () => {
    const pair = aPair();
    const down = item(pair, "Quorum");
    expect(down?.state).toMatchObject({ word: "No", tone: "bad" });
    expect(down?.detail).toContain("changes are refused");
    const quorum = { ...pair.quorum, available: true, alive: pair.quorum.voters };
    expect(item({ ...pair, quorum }, "Quorum")?.detail).toContain("two nodes need both");
  });

  test("a node that is behind for a moment is catching up, not differing", () => {
    const view = { ...aCluster(), divergence: [] };
    expect(item(view, "State")?.state.word).toBe("Catching up");
    const members = view.members.map((one) => ({ ...one, in_sync: true }));
    expect(item({ ...view, members }, "State")?.state.word).toBe("In sync");
  });
});

describe("shares", () => {
  const [swarm] = aSwarms();

  test("name the builder, those that wait, and never 100 % before all is there", () => {
    const nearly = swarm!.nodes.map((node) =>
      node.node_id === "node-2" ? { ...node, have_chunks: 2_047 } : node,
    );
    const shares = shareViews({ ...swarm!, nodes: nearly }, ["node-4"], "node-1");
    expect(shares.map((share) => [share.nodeId, share.percent, share.isBuilder])).toEqual([
      ["node-1", 100, true],
      ["node-2", 99, false],
      ["node-3", 43, false],
      ["node-4", 0, false],
    ]);
    expect(shares[1]?.text).toContain("from 1 node · receives 9 MB/s");
    expect(shares[3]?.text).toBe("waits for its first chunk");
  });
});

describe("tokens", () => {
  const now = Date.parse("2026-11-20T12:00:00Z");
  const token = (expires_at: string, uses_left: number) => ({
    token_id: "tok",
    created_at: "2026-11-20T11:00:00Z",
    expires_at,
    uses_left,
  });
  test.each([
    ["2026-11-20T13:00:00Z", 1, "Good", "in 60 min"],
    ["2026-11-20T13:00:00Z", 0, "Used up", "in 60 min"],
    ["2026-11-20T11:59:59Z", 1, "Expired", "over"],
  ])("until %s with %i uses: %s", (expires, uses, word, left) => {
    const found = tokenState(token(expires, uses), now);
    expect([found.state.word, found.left]).toEqual([word, left]);
  });

  test("a node that listens on loopback only says that other hosts cannot join", () => {
    const reach = (...addresses: string[]) => reachWarning({ ...aCluster(), addresses });
    expect(reach("/ip4/127.0.0.1/tcp/7331")).toContain("--p2p-listen");
    expect(reach("/ip4/127.0.0.1/tcp/7331", "/ip4/10.0.0.1/tcp/7331")).toBe("");
  });
});

test("a removal says what is lost and what the quorum is then", () => {
  const [one, two, three] = aCluster().members;
  const view = { ...aCluster(), members: [one!, two!, three!] };
  const lost = { onlyReplicas: [aTemplate({ display_name: "web" })], onlyCopies: ["art-1"] };
  const effects = removalEffects("node-2", view, { ...lost, left: 2, blocked: "" }).join("\n");
  expect(effects).toContain("1 template ready nowhere else: web.");
  expect(effects).toContain("The only copy of 1 root filesystem goes: art-1.");
  expect(effects).toContain("two need both");
});

test("a leader whose session is over leads nothing", () => {
  const view = aCluster();
  const template = aTemplate({ template_id: "tpl-1" });
  expect(leaderOf(view, template)?.node_id).toBe("node-1");
  const leaders = view.leaders.map((leader) => ({ ...leader, valid: false }));
  expect(leaderOf({ ...view, leaders }, template)).toBeUndefined();
});
