import { describe, expect, test } from "vitest";
import { clusterAttention, removalCost } from "../../../src/domain/index.ts";
import {
  aCluster,
  aLoneNode,
  aReplica,
  aSwarms,
  aTemplate,
} from "../../support/fake-http-service.ts";

const view = () => ({ ...aCluster(), node_id: "node-1" });
const at = (...nodes: string[]) => nodes.map((node_id) => aReplica({ node_id }));

describe("what a removal costs", () => {
  test("templates that are ready there alone, and bytes that nobody else holds whole", () => {
    const templates = [
      aTemplate({ template_id: "tpl-only", replicas: at("node-2") }),
      aTemplate({ template_id: "tpl-both", replicas: at("node-2", "node-3") }),
      aTemplate({
        template_id: "tpl-half",
        replicas: [...at("node-2"), aReplica({ node_id: "node-3", status: "FAILED" })],
      }),
    ];
    const cost = removalCost("node-2", view(), templates, aSwarms());
    expect(cost.onlyReplicas.map((one) => one.template_id)).toEqual(["tpl-only", "tpl-half"]);
    expect(cost.onlyCopies).toEqual([]);
    expect(removalCost("node-5", view(), templates, aSwarms()).onlyReplicas).toEqual([]);
  });

  test("a whole copy counts only where no other is whole", () => {
    const [swarm] = aSwarms();
    expect(removalCost("node-1", view(), [], [swarm!]).onlyCopies).toEqual(["art-1"]);
    const whole = swarm!.nodes.map((node) => ({ ...node, complete: true }));
    expect(removalCost("node-1", view(), [], [{ ...swarm!, nodes: whole }]).onlyCopies).toEqual([]);
  });

  test.each([
    ["the node that is asked", "node-1", view(), "let it leave"],
    ["no member", "node-9", view(), "no member"],
    ["a lone node", "node-1", aLoneNode(), "alone"],
  ])("%s cannot be removed", (_name, id, given, why) => {
    expect(removalCost(id, given, [], []).blocked).toContain(why);
  });

  test("without a quorum nothing can be removed, and two nodes are told that both are needed", () => {
    const quorum = { ...view().quorum, available: false };
    expect(removalCost("node-2", { ...view(), quorum }, [], []).blocked).toContain("no quorum");
    const two = { ...quorum, voters: ["node-1", "node-2"] };
    expect(removalCost("node-2", { ...view(), quorum: two }, [], []).blocked).toContain(
      "need both",
    );
    expect(removalCost("node-2", view(), [], []).blocked).toBe("");
  });
});

describe("what of a cluster needs an operator", () => {
  test("nothing while it is alone", () => {
    expect(clusterAttention(aLoneNode())).toEqual([]);
  });

  test("no quorum first, then the dead, then who differs", () => {
    const members = view().members.map((one) =>
      one.node_id === "node-4" ? { ...one, liveness: "dead" as const } : one,
    );
    const quorum = { ...view().quorum, available: false, note: "2 of 5 voters are up" };
    const found = clusterAttention({ ...view(), members, quorum });
    expect(found.map((one) => one.subject)).toEqual(["no quorum", "node-4", "node-2"]);
    expect(found[0]?.why).toBe("2 of 5 voters are up");
    expect(found[2]?.why).toContain("on 1 entry");
  });
});
