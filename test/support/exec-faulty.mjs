// The reference, with one rule of the contract broken: `exec-faulty.mjs FAULT VERB`.
import { spawn } from "node:child_process";
import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import {
  CAPABILITIES,
  Failure,
  VERBS,
  end,
  guestPortsOf,
  main,
  noteOf,
  read,
  recordOf,
  start,
  stateOf,
  write,
} from "./exec-reference.mjs";

const REFERENCE = fileURLToPath(new URL("exec-reference.mjs", import.meta.url));
/** The check cuts at half of it, when even a busy host has begun with the call. */
const CUT_MS = 5_000;
const startWith = (options) => async (request) => ({
  instance: await start(request.instance, request.generation, guestPortsOf(request), options),
});
/** The reference's verb, after which something is changed in its answer. */
const after = (verb, change) => async (request) => {
  const answer = await VERBS[verb](request);
  return (await change(answer, request)) ?? answer;
};
const statePath = ({ snapshot }) => join(snapshot.dir, "state.json");
const unlessRefused = async (request, verb) => {
  try {
    return await VERBS[verb](request);
  } catch (error) {
    if (error.code !== "snapshot_unusable") throw error;
    writeFileSync(statePath(request), JSON.stringify({ note: "made up" }));
    return VERBS[verb](request);
  }
};

/** Fault → the check that is to notice it, and verbs that differ from the reference's. */
export const FAULTS = {
  "talks on standard output": ["capabilities", { capabilities: "talk" }],
  "does whatever it is asked": ["unknown-verb", { "no-such-verb": () => ({}) }],
  "takes any schema version": ["unknown-schema", { list: () => ({ instances: [] }) }, "any schema"],
  "takes what is no JSON": ["bad-input", { list: () => ({ instances: [] }) }, "any input"],
  "refuses unknown members": [
    "later-members",
    {
      list(request) {
        if (Object.keys(request).length > 2) throw new Failure("failed", "an unknown member");
        return VERBS.list(request);
      },
    },
  ],
  "cannot be used": ["probe", { probe: () => ({ available: false, detail: "no hypervisor" }) }],
  "makes versions up": [
    "versions",
    { versions: after("versions", (told) => ({ ...told, agent_version: String(process.pid) })) },
  ],
  "tells no port": ["boot", { boot: after("boot", ({ instance }) => void (instance.ports = {})) }],
  "has its guest hold the output": ["boot", { boot: startWith({ stderr: "inherit" }) }],
  "leaves its guest in its group": ["boot-runs-on", { boot: startWith({ detached: false }) }],
  "lists nothing": ["list", { list: () => ({ instances: [] }) }],
  "lists all it is asked about": [
    "list",
    {
      list: ({ instances }) => ({
        instances: instances.map(({ id }) => ({ id, generation: 1, ports: {} })),
      }),
    },
  ],
  "forgets the generation": [
    "list",
    { list: after("list", ({ instances }) => instances.forEach((one) => (one.generation = 7))) },
  ],
  "counts nothing": ["usage", { usage: () => ({ processes: 0, memory_bytes: 0 }) }],
  "leaves a file that it does not tell": [
    "snapshot",
    {
      snapshot: after("snapshot", (_told, request) =>
        writeFileSync(join(request.snapshot.dir, "more"), ""),
      ),
    },
  ],
  "tells a file that is not there": [
    "snapshot",
    { snapshot: after("snapshot", ({ files }) => void files.push("memory")) },
  ],
  "does not stop": ["stop", { stop: () => ({}) }],
  "stops only once": [
    "stop-again",
    {
      async stop({ instance }) {
        const ended = await end(instance.dir);
        if (ended.length === 0) throw new Failure("not_running", "it does not run");
        return { ended };
      },
    },
  ],
  "freezes what does not run": [
    "not-running",
    {
      snapshot(request) {
        write(statePath(request), { note: read(noteOf(request.instance.dir)) ?? "" });
        return { files: ["state.json"] };
      },
    },
  ],
  "starts every guest afresh": [
    "restore",
    {
      async restore(request) {
        write(noteOf(request.instance.dir), "as built");
        return startWith({})(request);
      },
    },
  ],
  "keeps the path of the snapshot": [
    "restore",
    {
      snapshot: after("snapshot", (_told, request) => {
        write(statePath(request), { ...read(statePath(request)), dir: request.snapshot.dir });
      }),
      restore(request) {
        const { dir } = read(statePath(request));
        return VERBS.restore({ ...request, snapshot: { dir } });
      },
    },
  ],
  "starts one at a time": [
    "side-by-side",
    {
      async restore(request) {
        const lock = join(request.instance.dir, "../../lock");
        if (existsSync(lock)) throw new Failure("failed", "another is being started");
        const others = () => read(join(request.instance.dir, "../../order")) ?? 0;
        write(join(request.instance.dir, "../../order"), others() + 1);
        if (others() > 1) throw new Failure("failed", "another was started");
        return VERBS.restore(request);
      },
    },
  ],
  "writes to the snapshot": [
    "snapshot-unchanged",
    { restore: after("restore", (_told, request) => appendFileSync(statePath(request), "\n")) },
  ],
  "lists from memory": [
    "killed",
    {
      list: ({ instances }) => ({
        instances: instances.flatMap(({ id, dir }) => {
          const record = read(recordOf(dir));
          return record === undefined ? [] : [{ id, ...record }];
        }),
      }),
    },
  ],
  "starts from damaged files": [
    "unusable",
    { restore: (request) => unlessRefused(request, "restore") },
  ],
  "leaves a guest when it refuses": [
    "unusable",
    {
      async restore(request) {
        write(noteOf(request.instance.dir), "early");
        await startWith({})(request);
        return VERBS.restore(request);
      },
    },
  ],
  "ignores SIGTERM": [
    "terminate",
    {
      async boot(request) {
        process.on("SIGTERM", () => undefined);
        const answer = await VERBS.boot(request);
        await sleep(request.instance.id === "check-1" ? CUT_MS : 60_000);
        return answer;
      },
    },
  ],
  "finds only what it has noted": [
    "cut-off",
    {
      async boot(request) {
        write(noteOf(request.instance.dir), "as built");
        const args = [REFERENCE, "serve", request.instance.dir, "0", "end"];
        const options = { cwd: request.instance.dir, detached: true, stdio: "ignore" };
        const child = spawn(process.execPath, args, options);
        child.unref();
        await sleep(request.instance.id === "check-1" ? CUT_MS : 60_000);
        const port = read(join(request.instance.dir, "port"));
        const ports = Object.fromEntries(
          guestPortsOf(request).map((one) => [one, { host: "127.0.0.1", port }]),
        );
        const instance = { generation: 1, pid: child.pid, ports };
        write(recordOf(request.instance.dir), instance);
        return { instance };
      },
      async stop({ instance }) {
        return { ended: read(recordOf(instance.dir)) === undefined ? [] : await end(instance.dir) };
      },
    },
  ],
  "ends what it freezes": [
    "live-runs-on",
    {
      snapshot: after("snapshot", (_told, { instance }) => end(instance.dir).then(() => undefined)),
    },
  ],
  "freezes what was at the start": [
    "live-state",
    {
      snapshot: after("snapshot", (_told, request) => {
        if (request.live) write(statePath(request), { note: "as built" });
      }),
    },
  ],
  "takes all for cut off": ["recover-idle", { recover: () => ({ instance: null }) }],
  "puts nothing back": [
    "rollback",
    {
      rollback({ instance, generation }) {
        const record = { ...read(recordOf(instance.dir)), generation };
        write(recordOf(instance.dir), record);
        return { instance: record };
      },
    },
  ],
  "moves to another port": [
    "rollback",
    {
      async rollback(request) {
        const { note } = read(statePath(request));
        await end(request.instance.dir);
        write(noteOf(request.instance.dir), note);
        return startWith({})(request);
      },
    },
  ],
  "ends what runs before it looks": [
    "rollback-unusable",
    {
      async rollback(request) {
        await end(request.instance.dir);
        stateOf(request.snapshot);
        throw new Failure("failed", "nothing else is asked of it");
      },
    },
  ],
  "cannot recover": [
    "rollback-cut",
    {
      async rollback(request) {
        const { note } = JSON.parse(readFileSync(statePath(request), "utf8"));
        const { ports } = read(recordOf(request.instance.dir));
        await end(request.instance.dir);
        await sleep(CUT_MS);
        write(noteOf(request.instance.dir), note);
        return startWith({ port: ports[guestPortsOf(request)[0]].port })(request);
      },
    },
  ],
  "exports what is not there": [
    "transfer",
    {
      export: () => ({ files: ["state.json", "memory"] }),
      import: after("import", (_told, { snapshot }) => {
        for (const name of snapshot.files) readFileSync(join(snapshot.dir, name));
      }),
    },
  ],
  "imports anything": [
    "import-unusable",
    { import: (request) => unlessRefused(request, "import") },
  ],
  "removes only once": [
    "remove",
    {
      remove({ snapshot }) {
        const mark = join(snapshot.dir, "removed");
        if (existsSync(mark)) throw new Failure("failed", "it is gone");
        writeFileSync(mark, "");
        return {};
      },
    },
  ],
  "leaves helpers behind": [
    "nothing-left",
    {
      boot: after("boot", (_told, { instance }) => {
        const options = { cwd: join(instance.dir, "../.."), detached: true, stdio: "ignore" };
        const env = { ...process.env, TEMPLATECENTER_INSTANCE_DIR: "" };
        spawn("sleep", ["600"], { ...options, env }).unref();
      }),
    },
  ],
  "writes to the root filesystem": [
    "rootfs-unchanged",
    { boot: after("boot", (_told, { rootfs_path }) => appendFileSync(rootfs_path, "x")) },
  ],
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [fault = "", verb = ""] = process.argv.slice(2);
  const [, overrides, lenience = ""] = FAULTS[fault];
  const verbs = { ...VERBS, ...overrides };
  if (verbs.capabilities === "talk") {
    process.stdout.write("hello\n");
    verbs.capabilities = VERBS.capabilities;
  }
  await main(verb, verbs, CAPABILITIES, lenience);
}
