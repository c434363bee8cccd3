import { closeSync, fstatSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { chooseFormat, createLog, type LogFormat } from "../../../src/daemon/log.ts";
import { AppError, type Clock, type Log } from "../../../src/domain/index.ts";

const NOW = Date.UTC(2026, 0, 2, 3, 4, 5, 678);
const clock = { now: () => NOW } as Clock;

function logged(
  format: Exclude<LogFormat, "auto">,
  write: (log: Log) => void,
  level: "debug" | "warn" = "debug",
): string[] {
  const lines: string[] = [];
  write(createLog({ level, format, clock, write: (line) => lines.push(line) }));
  return lines;
}
const json = (write: (log: Log) => void) =>
  logged("json", write).map((line) => JSON.parse(line) as Record<string, unknown>);

describe("forms", () => {
  test("JSON: one object a line, with time, level and fields", () => {
    expect(json((log) => log.info("ready", { url: "http://x", n: 3 }))).toEqual([
      { level: "info", time: "2026-01-02T03:04:05.678Z", msg: "ready", url: "http://x", n: 3 },
    ]);
  });

  test("journal: syslog's priority in front, then text and key=value", () => {
    const lines = logged("journal", (log) => {
      log.debug("d");
      log.info("job ended", { job_id: "j1", phase: "PULLING", took_ms: 12 });
      log.warn("w", { why: "two words" });
      log.error("e", { blank: "" });
    });
    expect(lines).toEqual([
      "<7>d\n",
      "<6>job ended job_id=j1 phase=PULLING took_ms=12\n",
      '<4>w why="two words"\n',
      '<3>e blank=""\n',
    ]);
  });

  test("pretty: time of day, level and text in colours", () => {
    expect(logged("pretty", (log) => log.warn("slow", { ms: 5 }))).toEqual([
      "\x1b[90m03:04:05.678\x1b[0m \x1b[33mwarn \x1b[0m slow ms=5\n",
    ]);
  });

  test.each(["journal", "pretty"] as const)(
    "%s: what an image or a client sent cannot break a line or command a terminal",
    (format) => {
      const evil = "a\n<0>forged\x1b[2J\x9b";
      const [line, ...more] = logged(format, (log) => log.info(evil, { evil }));
      expect(more).toEqual([]);
      const body = (line ?? "").replaceAll(/\x1b\[(?:\d+)m/g, "");
      expect(body.slice(0, -1)).not.toMatch(/[\x00-\x1f\x7f-\x9f]/);
      expect(body).toContain("a\\x0a<0>forged\\x1b[2J\\x9b");
    },
  );

  test("nothing below the level is written", () => {
    const write = (log: Log) => (log.info("no"), log.warn("yes"));
    expect(logged("journal", write, "warn")).toEqual(["<4>yes\n"]);
  });

  test("the level can change, for children that are there already too", () => {
    const lines: string[] = [];
    const write = (line: string) => lines.push(line);
    const log = createLog({ level: "warn", format: "journal", clock, write });
    const child = log.child({});
    child.info("before");
    log.setLevel("info");
    child.info("after");
    child.debug("still not");
    expect(lines).toEqual(["<6>after\n"]);
  });

  test("a child carries its fields along", () => {
    const [line] = json((log) => log.child({ module: "http" }).child({ job_id: "j" }).info("x"));
    expect(line).toMatchObject({ module: "http", job_id: "j", msg: "x" });
  });
});

describe("secrets", () => {
  test.each([
    "password",
    "registry_password",
    "token",
    "accessToken",
    "Authorization",
    "set-cookie",
    "client_secret",
    "credentials",
  ])("the value of %s is never printed, at any depth", (key) => {
    const secret = "hunter2-hunter2";
    const lines = logged("json", (log) => {
      log.info("flat", { [key]: secret });
      log.info("nested", { request: { headers: [{ [key]: secret }] } });
      log.info("object", { [key]: { value: secret } });
      log.child({ [key]: secret }).info("child");
    });
    expect(lines).toHaveLength(4);
    expect(lines.join("")).not.toContain(secret);
    expect(lines[0]).toContain('"[hidden]"');
  });

  test("other fields come through as they are", () => {
    const fields = { a: [1, { b: null }], ok: true, when: new Date(0) };
    const [line] = json((log) => log.info("x", fields));
    expect(line).toMatchObject({ a: [1, { b: null }], ok: true, when: "1970-01-01T00:00:00.000Z" });
  });

  test("circles, big numbers and bytes do not break the line", () => {
    const circle: Record<string, unknown> = { name: "c", big: 10n, bytes: new Uint8Array(3) };
    circle["self"] = circle;
    const [line] = json((log) => log.info("x", { circle }));
    expect(line?.["circle"]).toMatchObject({ name: "c", big: "10", bytes: "[3 bytes]" });
  });
});

describe("errors", () => {
  test("an expected failure: its chain of causes and its code, no stack", () => {
    const cause = new Error("read ECONNRESET");
    const error = new AppError("registry_unavailable", "the registry hung up", { cause });
    const [line] = json((log) => log.warn("pull failed", { err: error }));
    expect(line).toMatchObject({
      err: "the registry hung up: read ECONNRESET",
      code: "registry_unavailable",
    });
    expect(line).not.toHaveProperty("stack");
  });

  test("a bug: with its stack", () => {
    const [line] = json((log) => log.error("bug", { err: new TypeError("x is not y") }));
    expect(line).toMatchObject({ err: "x is not y" });
    expect(line?.["stack"]).toContain("log.test.ts");
  });
});

describe("format auto", () => {
  const dir = mkdtempSync(join(tmpdir(), "tc-log-"));
  const fd = openSync(join(dir, "out"), "w");
  const { dev, ino } = fstatSync(fd);
  test.each([
    ["journal", `${dev}:${ino}`, false],
    ["json", `${dev}:${ino + 1}`, false],
    ["pretty", undefined, true],
    ["json", undefined, false],
  ])("is %s when JOURNAL_STREAM is %s and a terminal is %s", (expected, stream, isTTY) => {
    expect(chooseFormat("auto", { fd, isTTY }, stream)).toBe(expected);
  });
  test("gives way to a chosen one", () => {
    expect(chooseFormat("json", { fd, isTTY: true }, `${dev}:${ino}`)).toBe("json");
    closeSync(fd);
    rmSync(dir, { recursive: true });
  });
});
