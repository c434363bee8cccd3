/** Where a template shall be made (spec §3.6, §11 rows 67 and 68). */
import { describe, expect, test } from "vitest";
import { targetNodes } from "../../../src/daemon/nodes.ts";
import type { NodeFact } from "../../../src/domain/index.ts";

const node = (node_id: string, more: Partial<NodeFact> = {}): NodeFact =>
  ({ node_id, node_ip: `10.0.0.${node_id.length}`, healthy: true, ...more }) as NodeFact;

function refusal(nodes: readonly NodeFact[], scope: readonly string[]): unknown {
  try {
    return targetNodes(nodes, scope);
  } catch (error) {
    return error;
  }
}

describe("the nodes of a new template", () => {
  test("are all that are healthy and not drained", () => {
    const nodes = [node("a"), node("bb", { healthy: false }), node("ccc", { drained: true })];
    expect(targetNodes(nodes, [])).toEqual(["a"]);
  });

  test("row 67: given scope b, zz, aa with only b healthy, then the error lists aa,zz", () => {
    const nodes = [node("b"), node("aa", { healthy: false })];
    expect(refusal(nodes, ["b", "zz", "aa", "zz"])).toMatchObject({
      code: "invalid_request",
      message: "target nodes are not healthy or not found: aa,zz",
      meta: { errors: [{ pointer: "/distribution_scope" }] },
    });
  });

  test("row 68: given a scope by address, then the node with that address is meant", () => {
    expect(targetNodes([node("a"), node("bb")], ["10.0.0.2"])).toEqual(["bb"]);
  });

  test("given no node that may take one, then no_template_nodes", () => {
    for (const nodes of [[], [node("a", { healthy: false })], [node("a", { drained: true })]]) {
      expect(refusal(nodes, [])).toMatchObject({ code: "no_template_nodes" });
    }
  });
});
