import { expect, it } from "vitest";
import { pendingReplicas, type ReplicaStatus } from "../../../src/domain/index.ts";
import { aReplica } from "../../support/fake-http-service.ts";
import { templateValue } from "../../support/storage.ts";

const template = { ...templateValue("tpl-1"), desired_nodes: ["a", "b", "c"] };
const nodeOf = (id: string) => (id === "c" ? undefined : { node_ip: `ip-${id}` });
const begun: ReplicaStatus[] = [aReplica({ node_id: "a" })];

it("a node that shall hold the template and has not begun is PENDING", () => {
  const asked = { ...template, generation: 2, generations: { b: 3 } };
  const pending = { status: "FAILED", phase: "PENDING", instance_type: template.instance_type };
  expect(pendingReplicas(asked, begun, nodeOf)).toEqual([
    { ...pending, node_id: "b", node_ip: "ip-b", generation: 3 },
    { ...pending, node_id: "c", node_ip: "", generation: 2 },
  ]);
});

it.each(["FAILED", "DELETING"] as const)("nobody begins one of a template that is %s", (status) => {
  expect(pendingReplicas({ ...template, status }, begun, nodeOf)).toEqual([]);
});
