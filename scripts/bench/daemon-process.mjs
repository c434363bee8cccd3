// A daemon of dist/ in a temporary folder, for the benches.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Agent, fetch } from "undici";
import { inside } from "./namespaces.mjs";

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
export const cacheDir = join(cache, "templatecenter");
const guestDir = process.env.TEMPLATECENTER_GUEST_DIR ?? join(cacheDir, "guest");

/** Whatever way the bench ends, it leaves no daemon behind. */
const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

function spawnDaemon(command) {
  const [program, ...args] = command;
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "inherit"] });
  running.add(child);
  child.once("exit", () => running.delete(child));
  return child;
}

async function end(child, signal) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill(signal);
  await ended;
}

/** The address of the daemon once /readyz says so. @throws when the process ends before */
async function readyUrl(child, dataDir, dispatcher) {
  for (;;) {
    if (child.exitCode !== null) throw new Error(`the daemon ended with ${child.exitCode}`);
    try {
      const { url, pid } = JSON.parse(readFileSync(join(dataDir, "daemon.json"), "utf8"));
      if (pid === child.pid && (await fetch(`${url}/readyz`, { dispatcher })).ok) return url;
    } catch {
      // Not written, or not listening yet.
    }
    await sleep(2);
  }
}

/** What the daemon answers; its errors with their `code`. */
async function callApi(url, dispatcher, method, path, body) {
  const answer = await fetch(`${url}${path}`, {
    method,
    dispatcher,
    ...(body === undefined
      ? {}
      : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
  });
  const text = await answer.text();
  if (answer.ok) return text === "" ? undefined : JSON.parse(text);
  const error = new Error(`${method} ${path}: ${answer.status} ${text}`);
  const isProblem = answer.headers.get("content-type") === "application/problem+json";
  throw Object.assign(error, { code: isProblem ? JSON.parse(text).code : undefined });
}

/**
 * Starts a daemon and resolves when /readyz says so, with the milliseconds from spawn to then.
 * @param {string[]} extra flags
 * @param {string} [namespace] of the network; the API is asked through the daemon's socket then
 */
export async function startDaemon(extra = [], namespace = undefined) {
  const dir = mkdtempSync(join(tmpdir(), "templatecenter-bench-"));
  const dataDir = join(dir, "data");
  const args = [join(root, "dist/daemon/main.js"), "daemon", "--data-dir", dataDir];
  args.push("--listen", "127.0.0.1:0", "--log-level", "warn", "--guest-dir", guestDir, ...extra);
  const command = inside(namespace, [process.execPath, ...args]);
  const socketPath = join(dataDir, "templatecenter.sock");
  const dispatcher = namespace === undefined ? undefined : new Agent({ connect: { socketPath } });
  const began = performance.now();
  let child = spawnDaemon(command);
  let url = await readyUrl(child, dataDir, dispatcher);
  const readyMs = performance.now() - began;
  const call = (method, path, body) => callApi(url, dispatcher, method, path, body);
  return {
    get url() {
      return url;
    },
    get pid() {
      return child.pid;
    },
    readyMs,
    dataDir,
    call,
    /** Waits for a job's end; throws its error. */
    async finish(job) {
      for (;;) {
        const now = await call("GET", `/v1/jobs/${job.job_id}`);
        if (now.status === "READY") return now;
        if (now.status === "FAILED") throw new Error(now.error_message);
        await sleep(20);
      }
    },
    /** With -9: resolves when the process is gone. */
    kill: () => end(child, "SIGKILL"),
    /** After `kill`: the same node again, on the data it left. */
    async restart() {
      child = spawnDaemon(command);
      url = await readyUrl(child, dataDir, dispatcher);
    },
    async stop() {
      await end(child, "SIGTERM");
      await dispatcher?.destroy();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** The demo's template on a daemon; answers the template once READY. */
export async function makeDemoTemplate(daemon, reference) {
  const job = await daemon.call("POST", "/v1/templates/from-image", {
    source_image_ref: reference,
    writable_layer_size: "1Gi",
    exposed_ports: [8080],
    container_overrides: {
      resources: { cpu: "1000m", mem: "256Mi" },
      probe: { port: 8080, path: "/health" },
    },
  });
  await daemon.finish(job);
  return daemon.call("GET", `/v1/templates/${job.template_id}`);
}
