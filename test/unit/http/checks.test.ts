import { describe, expect, it } from "vitest";
import { z } from "zod";
import { invalidFields, pointerOf, problem, toAppError } from "../../../src/daemon/http/answer.ts";
import { equalSecrets } from "../../../src/daemon/http/middleware/auth.ts";
import { createHostCheck, hostName } from "../../../src/daemon/http/middleware/host.ts";
import { waitSeconds } from "../../../src/daemon/http/middleware/prefer-wait.ts";
import { requestIdOf } from "../../../src/daemon/http/middleware/request-id.ts";
import { isResolve } from "../../../src/daemon/http/routes/resolve.ts";
import { encodeFrame } from "../../../src/daemon/http/streams.ts";
import { AppError } from "../../../src/domain/index.ts";

describe("the Host header", () => {
  it.each([
    ["LOCALHOST:7330", "localhost"],
    ["example.com.", "example.com"],
    ["[::1]:80", "::1"],
    ["10.0.0.1", "10.0.0.1"],
    ["", ""],
  ])("%s names %s", (header, name) => expect(hostName(header)).toBe(name));

  it("is refused when missing or foreign over TCP, and not looked at on the socket", () => {
    const check = createHostCheck(["Cp1.example:7330"]);
    expect(() => check("tcp", "cp1.example")).not.toThrow();
    expect(() => check("tcp", undefined)).toThrow(AppError);
    expect(() => check("tcp", "evil.example")).toThrow("is not a name of this daemon");
    expect(() => check("unix", "evil.example")).not.toThrow();
  });
});

describe("Prefer: wait", () => {
  it.each([
    ["wait=30", 30],
    ['respond-async, wait="5"', 5],
    ["WAIT = 7; x", 7],
    ["wait=99999", 900],
    ["await=5", undefined],
    ["wait=-1", undefined],
    [undefined, undefined],
  ])("%s is %s seconds", (text, seconds) => expect(waitSeconds(text)).toBe(seconds));
});

describe("a request id", () => {
  const random = { bytes: () => new Uint8Array(), uuid: () => "made" };
  it.each([
    ["req-1.a:b_c", "req-1.a:b_c"],
    ["", "made"],
    ["a b", "made"],
    ["-x", "made"],
    ["a".repeat(129), "made"],
    [undefined, "made"],
  ])("given as %s becomes %s", (given, id) => expect(requestIdOf(given, random)).toBe(id));
});

describe("problems", () => {
  it("point at fields as RFC 6901 says", () => {
    expect(pointerOf(["a/b", "m~n", 0])).toBe("/a~1b/m~0n/0");
    expect(pointerOf([])).toBe("");
  });

  it("name each unknown field on its own, and missing ones as required", () => {
    const schema = z.strictObject({ inner: z.strictObject({ a: z.string() }) });
    const { error } = schema.safeParse({ inner: { b: 1, c: 2 } });
    expect(invalidFields(error!, "it").meta.errors).toEqual([
      { pointer: "/inner/a", detail: "is required (string)" },
      { pointer: "/inner/b", detail: "is not a known field" },
      { pointer: "/inner/c", detail: "is not a known field" },
    ]);
  });

  it("say nothing of what was not expected", async () => {
    const answer = problem(new AppError("internal", "row 17 of /secret"), "r1");
    expect(await answer.json()).toMatchObject({ code: "internal", detail: "internal error" });
    expect(toAppError("text").code).toBe("internal");
  });

  it("carry Retry-After when trying again can help", () => {
    expect(problem(new AppError("daemon_draining"), "r").headers.get("retry-after")).toBe("1");
    expect(problem(new AppError("template_in_use"), "r").headers.has("retry-after")).toBe(false);
  });
});

describe("resolve's own door", () => {
  it.each([
    ["POST", "http://a/v1/resolve", true],
    ["POST", "https://a:1/v1/resolve?x=/v1/resolve", true],
    ["GET", "http://a/v1/resolve", false],
    ["POST", "http://a/v1/resolver", false],
    ["POST", "http://a/x/v1/resolve", false],
    ["POST", "http://a/?/v1/resolve", false],
  ])("%s %s: %s", (method, url, expected) =>
    expect(isResolve(new Request(url, { method }))).toBe(expected),
  );
});

describe("event frames", () => {
  it("cannot be broken out of by their id or data", () => {
    const frame = encodeFrame({ event: "log", id: "1\ndata: x", data: { m: "a\n\nevent: end" } });
    expect(frame).toBe('id: 1data: x\nevent: log\ndata: {"m":"a\\n\\nevent: end"}\n\n');
  });
});

describe("secrets", () => {
  it("are equal only as a whole, of any length", () => {
    expect(equalSecrets("abc", "abc")).toBe(true);
    expect(equalSecrets("abc", "abcd")).toBe(false);
    expect(equalSecrets("", "abc")).toBe(false);
  });
});
