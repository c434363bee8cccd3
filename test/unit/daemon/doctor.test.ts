import { describe, expect, test } from "vitest";
import { clusterFindings } from "../../../src/daemon/cli/doctor.ts";
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
