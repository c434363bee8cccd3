import { describe, expect, test } from "vitest";
import { clusterFindings, orphansFinding } from "../../../src/daemon/cli/doctor.ts";
import { aCluster, aLoneNode } from "../../support/fake-http-service.ts";

describe("what doctor says of a cluster", () => {
  test("a lone node is well", () => {
    expect(clusterFindings(aLoneNode()).map(({ result }) => result)).toEqual(["ok"]);
  });

  test("names what is suspected, filled and disagreed on", () => {
    const found = clusterFindings(aCluster());
    const of = (check: string) => found.find((finding) => finding.check === check);
    expect(of("quorum")).toMatchObject({ result: "warn" });
    expect(of("members")?.detail).toContain("node-4 is suspect");
    expect(of("agreement")?.detail).toContain("node-2");
    expect(of("peers")?.detail).toMatch(/node-4: the clocks are .*clock_skew/);
    expect(of("coverage")?.detail).toContain("62 %");
  });

  test("fails without a quorum, and for a dead member", () => {
    const view = aCluster();
    const quorum = { ...view.quorum, available: false, note: "2 of 5 voters are up" };
    const members = view.members.map((one) => ({ ...one, liveness: "dead" as const }));
    const found = clusterFindings({ ...view, quorum, members });
    expect(found.filter(({ result }) => result === "fail").map(({ check }) => check)).toEqual([
      "quorum",
      "members",
      "peers",
    ]);
  });
});

describe("what doctor says of orphan files", () => {
  const orphan = {
    node_id: "node-b",
    folder: "templates",
    name: "snap-1",
    bytes: 4_096,
    changed_at: "2026-01-01T00:00:00.000Z",
    due_at: "2026-01-01T01:00:00.000Z",
    removed: false,
  };

  test("nothing, where there are none or only such as can be had again", () => {
    expect(orphansFinding({ orphans: [] }).result).toBe("ok");
    expect(orphansFinding({ orphans: [{ ...orphan, name: "tpl-1.g2" }] })).toMatchObject({
      result: "ok",
      detail: expect.stringMatching(/^1 /),
    });
  });

  test("names a sandbox's snapshot that has lost its record, and when it goes", () => {
    const { result, detail } = orphansFinding({ orphans: [orphan] });
    expect(result).toBe("warn");
    expect(detail).toContain("templates/snap-1 on node-b until 2026-01-01T01:00:00.000Z");
  });
});
