// The whole job on this machine, in front of the reader: set-up, a one-node daemon in a temporary
// directory, a template from a small OCI image made here, a sandbox from its snapshot, its answer
// over HTTP, the timings and the status page. `--exit` ends it after the checks.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values: options } = parseArgs({
  options: {
    exit: { type: "boolean", default: false },
    nodes: { type: "string", default: "1" },
    driver: { type: "string" },
    "data-dir": { type: "string" },
    listen: { type: "string", default: "127.0.0.1:0" },
    help: { type: "boolean", short: "h", default: false },
  },
});
if (options.help) {
  console.log(`npm run demo -- [--exit] [--nodes N] [--driver qemu|rootfs] [--listen HOST:PORT]
                [--data-dir DIR]

Makes a template from an image, starts a sandbox from its snapshot and asks it over HTTP.
With --nodes N (3 to 9), N daemons on loopback become a cluster instead; their driver is rootfs
when no other is asked for, because N guests at once are much for one machine.
Stays up until Ctrl-C; --exit ends it after the checks (exit code 0 when all held).`);
  process.exit(0);
}

const step = (text) => console.log(`\n\x1b[1m▸ ${text}\x1b[0m`);
const main = join(root, "dist/daemon/main.js");

const setup = spawnSync(process.execPath, [join(root, "scripts/setup.mjs"), "demo"], {
  stdio: "inherit",
  cwd: root,
});
if (setup.status !== 0) process.exit(setup.status ?? 1);

const { assembleDemoImage } = await import("./lib/demo-image.mjs");
const work = mkdtempSync(join(tmpdir(), "templatecenter-demo-"));
const dataDir = options["data-dir"] ?? join(work, "data");
const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
const guestDir = process.env.TEMPLATECENTER_GUEST_DIR ?? join(cache, "templatecenter/guest");
let daemon;
let stopping = false;

/** Runs a client command; its output goes to the terminal unless `capture`. */
function cli(args, { capture = false } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [main, ...args, "--data-dir", dataDir], {
      stdio: ["ignore", capture ? "pipe" : "inherit", "inherit"],
    });
    let output = "";
    child.stdout?.on("data", (bytes) => (output += bytes));
    child.on("exit", (code) =>
      code === 0
        ? resolve(output)
        : reject(new Error(`templatecenter ${args.join(" ")} ended with code ${code}`)),
    );
  });
}

async function startDaemon() {
  const args = [main, "daemon", "--data-dir", dataDir, "--listen", options.listen];
  args.push("--log-level", "warn", "--guest-dir", guestDir);
  // A laptop whose disk is nearly full shows it all the same, as long as there is room.
  args.push("--storage-thresholds", "100,100,100");
  if (options.driver) args.push("--driver", options.driver);
  const began = performance.now();
  daemon = spawn(process.execPath, args, { stdio: ["ignore", "inherit", "inherit"] });
  const ended = new Promise((_, reject) =>
    daemon.once("exit", (code) => {
      if (!stopping) reject(new Error(`the daemon ended with code ${code}`));
    }),
  );
  const ready = (async () => {
    for (;;) {
      if (existsSync(join(dataDir, "daemon.json"))) {
        const { url } = JSON.parse(readFileSync(join(dataDir, "daemon.json"), "utf8"));
        const answer = await fetch(`${url}/readyz`).catch(() => undefined);
        if (answer?.ok) return url;
      }
      await sleep(20);
    }
  })();
  const url = await Promise.race([ready, ended]);
  return { url, milliseconds: performance.now() - began };
}

async function stopDaemon() {
  if (daemon === undefined || daemon.exitCode !== null) return;
  stopping = true;
  const ended = new Promise((resolve) => daemon.once("exit", resolve));
  daemon.kill("SIGTERM");
  const code = await Promise.race([ended, sleep(30_000, "timeout")]);
  if (code !== 0) throw new Error(`the daemon did not stop cleanly: ${code}`);
}

/** The sandbox's answer, and how long after the request to start it. */
async function askSandbox(sandbox, began) {
  const address = sandbox.ports["8080"];
  if (address === undefined) return undefined;
  for (;;) {
    const answer = await fetch(`http://${address.host}:${address.port}/`).catch(() => undefined);
    if (answer?.ok) return { text: (await answer.text()).trim(), after: performance.now() - began };
    if (performance.now() - began > 30_000) throw new Error("the sandbox did not answer in 30 s");
    await sleep(2);
  }
}

const ms = (value) => (value === undefined ? "-" : `${Math.round(value)} ms`);

async function run() {
  step("An OCI image, assembled here: static busybox, a web page, 3 layers");
  const image = await assembleDemoImage(join(work, "image"));
  console.log(`  ${image.layers} layers, ${image.bytes} bytes: ${image.reference}`);

  step("A one-node daemon");
  const { url, milliseconds } = await startDaemon();
  console.log(`  ready after ${ms(milliseconds)}; data in ${dataDir}; page at ${url}/ui/`);

  step("A template from the image");
  const created = [
    "tpl",
    "create-from-image",
    ...["--image", image.reference, "--name", "demo", "--writable-layer-size", "1Gi"],
    ...["--expose-port", "8080", "--probe", "8080", "--probe-path", "/health"],
    ...["--cpu", "1000", "--memory", "256", "--wait"],
  ];
  await cli(created);
  const template = JSON.parse(await cli(["tpl", "info", "demo", "--json"], { capture: true }));
  if (template.status !== "READY") throw new Error(`the template is ${template.status}`);

  step("A sandbox from its snapshot");
  const began = performance.now();
  const answer = await fetch(`${url}/v1/sandboxes`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ template_id: template.template_id }),
  });
  const sandbox = await answer.json();
  if (!answer.ok) throw new Error(`the sandbox did not start: ${JSON.stringify(sandbox)}`);
  const running = performance.now() - began;
  const asked = await askSandbox(sandbox, began);
  const [replica] = template.replicas;
  const cold = replica.timings?.first_answer_ms;
  console.log(`  sandbox ${sandbox.sandbox_id} running ${ms(running)} after the request`);
  if (asked === undefined) {
    console.log("  the rootfs driver runs no VM, so there is nobody to ask over HTTP");
  } else {
    console.log(`  GET / answered ${ms(asked.after)} after the request: ${asked.text}`);
    if (!asked.text.includes("hello from a sandbox")) throw new Error("that is not its answer");
    if (cold) {
      console.log(
        `  cold boot to first answer: ${ms(cold)}, ${(cold / asked.after).toFixed(1)} times as long`,
      );
    }
  }
  await cli(["sandbox", "list"]);

  if (!options.exit) {
    step(`Everything is at ${url}/ui/ — Ctrl-C ends the demo`);
    await interrupted();
  }
  step("Clean-up");
  await cli(["sandbox", "delete", sandbox.sandbox_id]);
  await cli(["tpl", "delete", template.template_id]);
  await stopDaemon();
  console.log("  sandbox, template and daemon are gone\n\nThe demo held.");
}

const interrupted = () =>
  new Promise((resolve) => {
    process.once("SIGINT", resolve);
    process.once("SIGTERM", resolve);
  });
const count = Number(options.nodes);
if (![1, 3, 4, 5, 6, 7, 8, 9].includes(count)) {
  console.error(
    `--nodes ${options.nodes}: must be 1 or 3 to 9: of two nodes neither can do without the other`,
  );
  process.exit(2);
}

async function runCluster() {
  const { runClusterDemo } = await import("./demo-cluster.mjs");
  const flags = ["--log-level", "error", "--guest-dir", guestDir];
  flags.push("--driver", options.driver ?? "rootfs");
  const stay = options.exit ? undefined : interrupted();
  await runClusterDemo({ main, work, count, flags, stay });
}

let code = 0;
try {
  await (count > 1 ? runCluster() : run());
} catch (error) {
  console.error(`\nThe demo failed: ${error.message}`);
  code = 1;
  await stopDaemon().catch((failure) => console.error(failure.message));
} finally {
  rmSync(work, { recursive: true, force: true });
}
process.exit(code);
