/** Calls of an exec driver's executable: what it may do wrong, and what is left of it then. */
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { realClock } from "../../../src/daemon/effects/clock.ts";
import { assertExecutable, Executable } from "../../../src/daemon/runtime/exec/call.ts";
import { endLeftCall, keepCall } from "../../../src/daemon/runtime/exec/call-record.ts";
import { waitFor } from "../../support/daemon.ts";
import { recordingLog } from "../../support/source-ports.ts";

const dir = mkdtempSync(join(tmpdir(), "tc-call-"));
afterAll(() => rmSync(dir, { recursive: true }));

let scripts = 0;
/** A shell script as the executable. */
function executable(body: string): Executable {
  const path = join(dir, `script-${++scripts}`);
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
  return new Executable(path, realClock, recordingLog());
}
const answers = (json: string) => executable(`cat >/dev/null; echo '${json}'`);
const usage = '{"schema_version":1,"processes":2,"memory_bytes":3,"later":true}';
const failure = (said: string) => ({
  code: "driver_failed",
  message: expect.stringContaining(said),
});
const isGone = (pid: number) => {
  try {
    process.kill(pid, 0);
    return readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
  } catch {
    return true;
  }
};
const pidIn = (name: string) =>
  waitFor("the process", () => {
    const path = join(dir, name);
    const text = existsSync(path) ? readFileSync(path, "utf8").trim() : "";
    return text === "" ? undefined : Number(text);
  });

describe("an executable that answers", () => {
  test("is called with the verb and the request, and members it adds are ignored", async () => {
    const script = executable(`cat >${dir}/request; echo "$1" >${dir}/verb; echo '${usage}'`);
    const answer = await script.call("usage", { instances: [] });
    expect(answer).toMatchObject({ processes: 2, memory_bytes: 3 });
    expect(readFileSync(join(dir, "verb"), "utf8")).toBe("usage\n");
    expect(JSON.parse(readFileSync(join(dir, "request"), "utf8"))).toEqual({
      schema_version: 1,
      instances: [],
    });
  });

  test("gets no variable of this process, and tells its log lines one by one", async () => {
    process.env["TC_SECRET_OF_TEST"] = "secret";
    const script = executable(`cat >/dev/null; env >&2; pwd >&2; echo '${usage}'`);
    const lines: string[] = [];
    await script.call("usage", {}, { dir: "/nowhere/x", onLine: (line) => lines.push(line) });
    expect(lines).toContain("TEMPLATECENTER_INSTANCE_DIR=/nowhere/x");
    expect(lines.at(-1)).toBe("/");
    expect(lines.join()).not.toContain("secret");
  });

  test.each([
    ["no JSON", "done", "its answer is not one of usage"],
    ["another version", '{"schema_version":2,"processes":2,"memory_bytes":3}', "schema_version"],
    ["no number", '{"schema_version":1,"processes":"x","memory_bytes":3}', "processes"],
  ])("with %s has failed", async (_what, json, said) => {
    await expect(answers(json).call("usage", {})).rejects.toMatchObject(failure(said));
  });
});

describe("an executable that fails", () => {
  test("is quoted with its code and message", async () => {
    const error = '{"schema_version":1,"error":{"code":"no_space","message":"disk 7 is full"}}';
    const script = executable(`cat >/dev/null; echo '${error}'; exit 1`);
    await expect(script.call("usage", {})).rejects.toMatchObject({
      ...failure("usage: disk 7 is full (no_space, exit code 1)"),
      meta: { verb: "usage", driver_error: "no_space" },
    });
  });

  test("without an error answer is quoted with its last log line", async () => {
    const script = executable("echo first >&2; echo out of luck >&2; exit 7");
    await expect(script.call("usage", {})).rejects.toMatchObject({
      ...failure("exit code 7, without an error answer; it said: out of luck"),
      meta: { said: ["first", "out of luck"] },
    });
    await expect(executable("kill -9 $$").call("usage", {})).rejects.toMatchObject(
      failure("ended by SIGKILL"),
    );
  });

  test("by taking too long is ended with all of its process group", async () => {
    const script = executable(`sleep 600 & echo $! >${dir}/child; wait`);
    const calling = script.call("usage", {}, { limitMs: 1_000 });
    await expect(calling).rejects.toMatchObject(failure("it took longer than 1000 ms"));
    const child = await pidIn("child");
    await waitFor("its child to end", () => isGone(child));
  });

  test("by answering without end is ended", async () => {
    const script = executable("cat >/dev/null; yes");
    await expect(script.call("usage", {})).rejects.toMatchObject(failure("longer than 1 MiB"));
  });

  test("by holding its output open from another session is told so", async () => {
    const holding = `setsid sh -c 'echo $$ >${dir}/holder; exec sleep 20' &`;
    // Its group is ended with the call: in a session of its own it must be before.
    const held = `until [ -s ${dir}/holder ]; do sleep 0.01; done`;
    const script = executable(`${holding} ${held}; echo '${usage}'`);
    await expect(script.call("usage", {})).rejects.toMatchObject(failure("output open"));
    const holder = await pidIn("holder");
    if (!isGone(holder)) process.kill(holder, "SIGKILL");
  });
});

describe("a call", () => {
  test("that is given up ends with the reason", async () => {
    const abort = new AbortController();
    const script = executable(`echo $$ >${dir}/given-up; exec sleep 600`);
    const calling = script.call("usage", {}, { signal: abort.signal });
    const pid = await pidIn("given-up");
    abort.abort(new Error("no longer wanted"));
    await expect(calling).rejects.toThrow("no longer wanted");
    expect(isGone(pid)).toBe(true);
  });

  test("leaves nothing in its group when it has answered", async () => {
    const script = executable(`sleep 600 & echo $! >${dir}/left; echo '${usage}'`);
    await script.call("usage", {});
    const left = await pidIn("left");
    await waitFor("what it left to end", () => isGone(left));
  });

  test("of a daemon that has died is ended before the next about the instance", async () => {
    const folder = mkdtempSync(join(dir, "instance-"));
    const instance = join(folder, "instance");
    const running = executable("exec sleep 600").run("usage", {}, { limitMs: 600_000 });
    const pid = await waitFor("the call", () => childOf(process.pid));
    await keepCall(instance, pid);
    await endLeftCall(instance, realClock);
    expect(await running).toMatchObject({ signal: "SIGKILL" });
    expect(existsSync(join(folder, "call.json"))).toBe(false);
  });
});

/** The pid of this process's `sleep 600`, when it has one. */
function childOf(parent: number): number | undefined {
  const children = readFileSync(`/proc/${parent}/task/${parent}/children`, "utf8").split(" ");
  return children
    .filter(Boolean)
    .map(Number)
    .find((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8") === "sleep\u0000600\u0000";
      } catch {
        return false;
      }
    });
}

describe("a path", () => {
  test.each([
    ["relative/path", "is not an absolute path"],
    [join(dir, "nothing"), "is not there"],
    [dir, "is not a file"],
  ])("%s is refused", async (path, said) => {
    await expect(assertExecutable(path)).rejects.toMatchObject({
      code: "driver_unavailable",
      message: expect.stringContaining(said),
    });
  });

  test("that everybody may change, or nobody may execute, is refused", async () => {
    const path = join(dir, "modes");
    writeFileSync(path, "#!/bin/sh\n");
    chmodSync(path, 0o777);
    await expect(assertExecutable(path)).rejects.toThrow("changed by everybody");
    chmodSync(path, 0o644);
    await expect(assertExecutable(path)).rejects.toThrow("may not be executed");
  });

  test("of a script whose interpreter is missing cannot be started", async () => {
    const path = join(dir, "no-interpreter");
    writeFileSync(path, "#!/no/such/shell\n");
    chmodSync(path, 0o755);
    const script = new Executable(path, realClock, recordingLog());
    await expect(script.call("usage", {})).rejects.toMatchObject({ code: "driver_unavailable" });
  });
});
