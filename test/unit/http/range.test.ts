import { describe, expect, it } from "vitest";
import { evaluateRange, parseRange } from "../../../src/daemon/http/range.ts";

const range = (start: number, end: number) => ({ kind: "range", range: { start, end } });

describe("parseRange", () => {
  it.each([
    ["bytes=0-0", range(0, 0)],
    ["bytes=5-", range(5, 9)],
    ["bytes=-3", range(7, 9)],
    ["bytes=-99", range(0, 9)],
    ["bytes=0-99", range(0, 9)],
    ["bytes=10-", { kind: "unsatisfiable" }],
    ["bytes=-0", { kind: "unsatisfiable" }],
    ["bytes=3-2", { kind: "whole" }],
    ["bytes=a-b", { kind: "whole" }],
    ["bytes=-", { kind: "whole" }],
    ["bytes=0-1,3-4", { kind: "whole" }],
    ["items=0-1", { kind: "whole" }],
  ])("reads %s of ten bytes", (text, expected) => {
    expect(parseRange(text, 10)).toEqual(expected);
  });

  it("finds nothing to send in an empty file", () => {
    expect(parseRange("bytes=0-0", 0)).toEqual({ kind: "unsatisfiable" });
    expect(parseRange("bytes=-1", 0)).toEqual({ kind: "unsatisfiable" });
  });
});

describe("evaluateRange", () => {
  const evaluate = (headers: Record<string, string>) =>
    evaluateRange(10, '"d"', (name) => headers[name]);

  it("puts If-None-Match first, weak tags and lists included", () => {
    for (const tags of ['"d"', 'W/"d"', '"x", "d"', "*"]) {
      expect(evaluate({ "if-none-match": tags, range: "bytes=0-1" }).kind).toBe("unchanged");
    }
    expect(evaluate({ "if-none-match": '"x"' }).kind).toBe("whole");
  });

  it("takes If-Range only as the same strong tag", () => {
    expect(evaluate({ range: "bytes=0-1", "if-range": '"d"' }).kind).toBe("range");
    expect(evaluate({ range: "bytes=0-1", "if-range": 'W/"d"' }).kind).toBe("whole");
  });
});
