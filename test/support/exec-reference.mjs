// A reference for docs/exec-driver.md: its "guest" is a process that serves HTTP and keeps a note,
// which is the whole of its memory.
import { spawn } from "node:child_process";
import { existsSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const CAPABILITIES = ["live_snapshot", "rollback", "transfer", "remove_snapshot"];
const SELF = fileURLToPath(import.meta.url);
/** A call that is to be cut has to take a while. */
const BOOT_MS = 150;

export class Failure extends Error {
  constructor(code, message, exitCode = 1) {
    super(message);
    this.code = code;
    this.exitCode = exitCode;
  }
}
const unusable = (dir) => new Failure("snapshot_unusable", `${dir} holds no state`);
const say = (text) => process.stderr.write(`${text}\n`);

export const read = (path) => {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return undefined;
  }
};
export function write(path, value) {
  writeFileSync(`${path}.new`, JSON.stringify(value));
  renameSync(`${path}.new`, path);
}

/** Processes that serve an instance, whether or not a record tells of them. */
export function serving(dir) {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`\0serve\0${dir}\0`);
      } catch {
        return false;
      }
    })
    .map(Number);
}

export async function end(dir) {
  const pids = serving(dir);
  for (const pid of pids) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // Gone in between.
    }
  }
  for (let left = 500; left > 0 && serving(dir).length > 0; left--) await sleep(10);
  return pids;
}

async function until(what, check) {
  for (let left = 3_000; left > 0; left--) {
    const found = check();
    if (found !== undefined) return found;
    await sleep(10);
  }
  throw new Failure("failed", `${what} did not come`);
}

export const noteOf = (dir) => join(dir, "note.json");
export const recordOf = (dir) => join(dir, "record.json");
const switchOf = (dir) => join(dir, "switch.json");

/** Starts the guest over its note; resolves when it listens. */
export async function start({ dir }, generation, guestPorts, options = {}) {
  const { port = 0, detached = true, stderr = "ignore" } = options;
  rmSync(join(dir, "port"), { force: true });
  const child = spawn(process.execPath, [SELF, "serve", dir, String(port), "end"], {
    cwd: dir,
    detached,
    stdio: ["ignore", "ignore", stderr],
  });
  child.unref();
  const bound = await until("the guest", () => read(join(dir, "port")));
  const address = { host: "127.0.0.1", port: bound };
  const ports = Object.fromEntries(guestPorts.map((one) => [String(one), address]));
  const instance = { generation, pid: child.pid, ports };
  write(recordOf(dir), instance);
  return instance;
}

const isAlive = (dir, pid) => serving(dir).includes(pid);

/** The state of a snapshot. */
export function stateOf(snapshot) {
  const state = read(join(snapshot.dir, "state.json"));
  if (typeof state?.note !== "string") throw unusable(snapshot.dir);
  return state;
}

export const guestPortsOf = ({ guest }) => guest.exposed_ports;

export const VERBS = {
  capabilities: () => ({ name: "reference", version: "1.0", capabilities: CAPABILITIES }),
  probe: () => ({ available: true, detail: "processes of this host" }),
  versions: () => ({
    guest_image_version: "reference-1",
    agent_version: "none",
    kernel_version: "",
    extra: { reference: "1.0" },
  }),
  async boot(request) {
    const { instance, generation, rootfs_path } = request;
    if (!existsSync(rootfs_path)) throw new Failure("failed", "the root filesystem is not there");
    say(`booting ${instance.id}`);
    write(noteOf(instance.dir), "as built");
    const running = await start(instance, generation, guestPortsOf(request));
    await sleep(BOOT_MS);
    return { instance: running };
  },
  snapshot({ instance, snapshot, live }) {
    const record = read(recordOf(instance.dir));
    if (record === undefined || !isAlive(instance.dir, record.pid)) {
      throw new Failure("not_running", `${instance.id} does not run`);
    }
    const note = read(noteOf(instance.dir));
    write(join(snapshot.dir, "state.json"), { note });
    return {
      files: ["state.json"],
      description: { format: 1 },
      timings: live ? { pause_ms: 1 } : {},
    };
  },
  async restore(request) {
    const { instance, generation, snapshot } = request;
    const { note } = stateOf(snapshot);
    write(noteOf(instance.dir), note);
    return { instance: await start(instance, generation, guestPortsOf(request)) };
  },
  async rollback(request) {
    const { instance, generation, snapshot } = request;
    const record = read(recordOf(instance.dir));
    if (record === undefined || !isAlive(instance.dir, record.pid)) {
      throw new Failure("not_running", `${instance.id} does not run`);
    }
    // From here on it goes to the new state, whoever ends this call.
    write(switchOf(instance.dir), { generation, note: stateOf(snapshot).note });
    return { instance: await finishSwitch(instance, record) };
  },
  async recover({ instance }) {
    const record = read(recordOf(instance.dir));
    if (record === undefined) return { instance: null };
    if (existsSync(switchOf(instance.dir))) {
      return { instance: await finishSwitch(instance, record) };
    }
    return { instance: isAlive(instance.dir, record.pid) ? record : null };
  },
  async stop({ instance }) {
    return { ended: await end(instance.dir) };
  },
  list({ instances }) {
    return {
      instances: instances.flatMap(({ id, dir }) => {
        const record = read(recordOf(dir));
        return record === undefined || !isAlive(dir, record.pid) ? [] : [{ id, ...record }];
      }),
    };
  },
  usage({ instances }) {
    const pids = instances.flatMap(({ dir }) => serving(dir));
    const pages = pids.map((pid) => readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]);
    const memory_bytes = pages.reduce((sum, count) => sum + Number(count) * 4_096, 0);
    return { processes: pids.length, memory_bytes };
  },
  export({ snapshot }) {
    stateOf(snapshot);
    return { files: ["state.json"], description: { format: 1 } };
  },
  import({ snapshot }) {
    stateOf(snapshot);
    return { files: ["state.json"], description: { format: 1 } };
  },
  remove: () => ({}),
};

async function finishSwitch(instance, record) {
  const { generation, note } = read(switchOf(instance.dir));
  const guestPorts = Object.keys(record.ports).map(Number);
  await end(instance.dir);
  write(noteOf(instance.dir), note);
  const port = record.ports[String(guestPorts[0])]?.port;
  const running = await start(instance, generation, guestPorts, { port });
  rmSync(switchOf(instance.dir));
  return running;
}

/** The guest: any path answers; /note tells its note, `/note?word` sets it. */
function serve(dir, port) {
  const server = createServer((request, response) => {
    const [path, word] = (request.url ?? "/").split("?");
    if (path === "/note" && word) write(noteOf(dir), word);
    response.end(path === "/note" ? read(noteOf(dir)) : "ok");
  });
  server.keepAliveTimeout = 1;
  let tries = 200;
  server.on("error", () => {
    // The port of the process before may not be free at once.
    if (--tries > 0) setTimeout(() => server.listen(port, "127.0.0.1"), 20);
    else process.exit(1);
  });
  server.on("listening", () => write(join(dir, "port"), server.address().port));
  server.listen(port, "127.0.0.1");
}

async function readAll() {
  let text = "";
  for await (const part of process.stdin) text += part;
  return text;
}

function parse(text, lenience) {
  if (lenience === "any input") return {};
  let request;
  try {
    request = JSON.parse(text);
  } catch {
    throw new Failure("failed", "the request is not JSON", 2);
  }
  if (lenience === "") assertSchema(request);
  return request;
}

function assertSchema(request) {
  if (request.schema_version !== 1) {
    throw new Failure("unsupported", "only schema version 1 is spoken here", 2);
  }
}

/** One call. @param {typeof VERBS} verbs @param {readonly string[]} capabilities */
export async function main(verb, verbs = VERBS, capabilities = CAPABILITIES, lenience = "") {
  const answer = (value) =>
    process.stdout.write(`${JSON.stringify({ schema_version: 1, ...value })}\n`);
  try {
    const request = parse(await readAll(), lenience);
    if (!Object.hasOwn(verbs, verb)) throw new Failure("unsupported", `no verb ${verb}`, 2);
    const value = await verbs[verb](request);
    answer(verb === "capabilities" ? { ...value, capabilities } : value);
  } catch (error) {
    answer({ error: { code: error.code ?? "failed", message: error.message } });
    process.exitCode = error.exitCode ?? 1;
  }
}

const args = process.argv.slice(2);
if (args[0] === "serve") serve(args[1], Number(args[2]));
else if (process.argv[1] === SELF) {
  // `--without=rollback,transfer` leaves capabilities out.
  const without = (args[0] ?? "").replace("--without=", "").split(",");
  const capabilities = CAPABILITIES.filter((one) => !without.includes(one));
  await main(args.at(-1), VERBS, capabilities);
}
