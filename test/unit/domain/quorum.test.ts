import { describe, expect, test } from "vitest";
import {
  EMPTY_ROW,
  SESSION_MARGIN,
  acceptStep,
  firstBallot,
  candidateOrder,
  endWatched,
  isOver,
  latestAccepted,
  majorityOf,
  nextVoters,
  prepareStep,
  sessionValidityMs,
  voterTarget,
  watchLeftMs,
  watchSession,
  type VoterCandidate,
} from "../../../src/domain/index.ts";

const ballot = (counter: number, node = "a") => ({ counter, node });
const member = (nodeId: string, more: Partial<VoterCandidate> = {}): VoterCandidate => ({
  nodeId,
  isUp: true,
  isLost: false,
  isDrained: false,
  ...more,
});

describe("a voter", () => {
  test("promises only upwards, and refuses what is below its promise", () => {
    const first = prepareStep(EMPTY_ROW, ballot(3));
    expect(first.ok).toBe(true);
    if (!first.ok) return;
    expect(prepareStep(first.row, ballot(3)).ok).toBe(false);
    expect(acceptStep(first.row, { ballot: ballot(2), version: 1 }, ballot(3), 1).ok).toBe(false);
    expect(prepareStep(first.row, ballot(3, "b")).ok).toBe(true);
  });

  test("accepts once: the late double of an acceptance is refused by the promise that came with it", () => {
    const accepted = { ballot: ballot(5), version: 1, value: "x" };
    const first = acceptStep(EMPTY_ROW, accepted, ballot(6), 1);
    expect(first.ok).toBe(true);
    if (first.ok) expect(acceptStep(first.row, accepted, ballot(6), 1).ok).toBe(false);
  });

  test("accepts what nobody was asked about only while it holds and has promised nothing", () => {
    const first = { ballot: firstBallot("a"), version: 1, value: "x" };
    expect(acceptStep(EMPTY_ROW, first, ballot(2), 1).ok).toBe(true);
    const asked = prepareStep(EMPTY_ROW, ballot(2, "b"));
    if (asked.ok) expect(acceptStep(asked.row, first, ballot(2), 1).ok).toBe(false);
    const lone = { promised: ballot(0, ""), accepted: { ballot: ballot(0, ""), version: 7 } };
    expect(acceptStep(lone, first, ballot(2), 1).ok).toBe(false);
    const other = acceptStep(EMPTY_ROW, first, firstBallot("a"), 1);
    const late = { ...first, ballot: firstBallot("b") };
    if (other.ok) expect(acceptStep(other.row, late, ballot(2), 1).ok).toBe(false);
  });
});

test("the value of the highest ballot counts; among those of lone times the newest", () => {
  const low = { ballot: ballot(1), version: 9, value: "low" };
  const high = { ballot: ballot(2), version: 2, value: "high" };
  expect(latestAccepted([low, high])).toBe(high);
  const lone = { ballot: ballot(0, ""), version: 7, value: "lone" };
  expect(latestAccepted([EMPTY_ROW.accepted, lone])).toBe(lone);
  expect(latestAccepted([lone, low])).toBe(low);
});

test("majorities of the same voters share one of them", () => {
  for (let voters = 1; voters <= 7; voters++) {
    expect(2 * majorityOf(voters)).toBeGreaterThan(voters);
  }
});

describe("voters", () => {
  test("are all up to three, then odd numbers up to seven", () => {
    expect([1, 2, 3, 4, 5, 8, 9, 60].map(voterTarget)).toEqual([1, 2, 3, 3, 5, 5, 7, 7]);
  });

  test("are changed by one, and a lost one only once its successor votes", () => {
    const all = ["a", "b", "c", "d"].map((id) => member(id));
    expect(nextVoters(all, ["a"])).toHaveLength(2);
    const lost = all.map((one) =>
      one.nodeId === "b" ? { ...one, isUp: false, isLost: true } : one,
    );
    const added = nextVoters(lost, ["a", "b", "c"]);
    expect(added).toEqual(["a", "b", "c", "d"]);
    expect(nextVoters(lost, added ?? [])).toEqual(["a", "c", "d"]);
    expect(nextVoters(lost, ["a", "c", "d"])).toBeUndefined();
  });

  test("that are no members any more go first", () => {
    expect(nextVoters([member("a"), member("c")], ["a", "b", "c"])).toEqual(["a", "c"]);
  });
});

describe("a session", () => {
  const session = { node_id: "a", incarnation: 2, beat: 5, term_ms: 1_000, ended: false };

  test("is believed in for less than anybody has to watch it, at any rate within 10 %", () => {
    const term = 1_000;
    expect(sessionValidityMs(term) / 0.9).toBeLessThan(term / 1.1);
    expect(1 - SESSION_MARGIN).toBeLessThan(0.9 / 1.1);
  });

  test("is watched anew with each beat, and ended only if none came", () => {
    const first = watchSession(undefined, session, 100);
    expect(watchSession(first, session, 900)).toBe(first);
    expect(watchLeftMs(first, 1_000, 1_099)).toBe(1);
    const moved = watchSession(first, { ...session, beat: 6 }, 900);
    expect(moved.sinceMs).toBe(900);
    expect(endWatched({ ...session, beat: 6 }, first)).toBeUndefined();
    expect(endWatched(session, first)).toMatchObject({ incarnation: 3, ended: true });
  });

  test("that has ended frees what was claimed under it", () => {
    const leader = {
      template_id: "t",
      node_id: "a",
      incarnation: 2,
      epoch: 1,
      released: false,
      since: "",
    };
    expect(isOver(leader, session)).toBe(false);
    expect(isOver(leader, undefined)).toBe(false);
    expect(isOver(leader, { ...session, ended: true })).toBe(true);
    expect(isOver(leader, { ...session, incarnation: 3 })).toBe(true);
  });
});

describe("candidates", () => {
  test("spread evenly, and only the keys of a node that goes get another first", () => {
    const nodes = ["a", "b", "c", "d", "e"];
    const keys = Array.from({ length: 5_000 }, (_, index) => `tpl-${index}`);
    const first = (key: string, of: readonly string[]) => candidateOrder(key, of)[0];
    for (const node of nodes) {
      const share = keys.filter((key) => first(key, nodes) === node).length / keys.length;
      expect(share).toBeGreaterThan(0.17);
      expect(share).toBeLessThan(0.23);
    }
    const left = nodes.slice(0, 4);
    for (const key of keys) {
      if (first(key, nodes) !== "e") expect(first(key, left)).toBe(first(key, nodes));
    }
  });
});
