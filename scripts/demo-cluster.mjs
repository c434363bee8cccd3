// `npm run demo -- --nodes 5`: daemons on loopback become one cluster in front of the reader; a
// template made through one of them spreads to all; its leader is killed in the middle of the next
// job and another ends it; a node that was down, and one that is new, catch up by themselves.
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { assembleDemoImage } from "./lib/demo-image.mjs";

const seconds = (ms) => `${(ms / 1_000).toFixed(1)} s`;
const step = (text) => console.log(`\n\x1b[1m▸ ${text}\x1b[0m`);

async function until(what, check, timeoutMs = 90_000) {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (performance.now() > end)
      throw new Error(`waited ${seconds(timeoutMs)} in vain for ${what}`);
    await sleep(50);
  }
}

class Node {
  constructor(main, name, dataDir, flags) {
    Object.assign(this, { main, name, dataDir, flags, url: "", child: undefined });
  }

  async start() {
    const own = ["--node-id", this.name, "--p2p-listen", "/ip4/127.0.0.1/tcp/0"];
    const args = [this.main, "daemon", "--data-dir", this.dataDir, "--listen", "127.0.0.1:0"];
    this.child = spawn(process.execPath, [...args, ...own, ...this.flags], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    const { pid } = this.child;
    this.url = await until(`${this.name} to be ready`, async () => {
      if (this.child.exitCode !== null) throw new Error(`${this.name} has ended`);
      const path = join(this.dataDir, "daemon.json");
      if (!existsSync(path)) return undefined;
      const said = JSON.parse(readFileSync(path, "utf8"));
      const answer =
        said.pid === pid ? await fetch(`${said.url}/readyz`).catch(() => {}) : undefined;
      return answer?.ok ? said.url : undefined;
    });
  }

  async ask(method, path, body) {
    const answer = await fetch(`${this.url}${path}`, {
      method,
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
    const text = await answer.text();
    const value = text === "" ? {} : JSON.parse(text);
    if (!answer.ok) throw new Error(`${method} ${path} at ${this.name}: ${text}`);
    return value;
  }

  cli(args) {
    return new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [this.main, ...args, "--data-dir", this.dataDir], {
        stdio: ["ignore", "inherit", "inherit"],
      });
      child.on("exit", (code) =>
        code === 0 ? resolve() : reject(new Error(`${args.join(" ")} ended with code ${code}`)),
      );
    });
  }

  async end(signal) {
    if (this.child === undefined || this.child.exitCode !== null) return;
    if (this.child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.kill(signal);
    const code = await Promise.race([ended, sleep(30_000, "timeout")]);
    if (signal === "SIGTERM" && code !== 0) {
      throw new Error(`${this.name} did not stop cleanly: ${code}`);
    }
  }
}

const isActive = (job) => job.status === "PENDING" || job.status === "RUNNING";

/** Every node of `names` holds the template, as `node` sees it. */
const readyOn = (node, templateId, names) =>
  until(`${templateId} to be ready on ${names.join(", ")}`, async () => {
    const template = await node.ask("GET", `/v1/templates/${templateId}`).catch(() => undefined);
    const ready = template?.replicas.filter((replica) => replica.status === "READY") ?? [];
    const held = new Set(ready.map((replica) => replica.node_id));
    return names.every((name) => held.has(name)) ? template : undefined;
  });

async function enter(node, seed) {
  const { token } = await seed.ask("POST", "/v1/cluster/join-tokens", {});
  await node.ask("POST", "/v1/cluster/join", { token });
  await until(`${node.name} to be a member`, async () => {
    const state = await node.ask("GET", "/v1/cluster").catch(() => undefined);
    return state?.clustered && state.members.some((member) => member.node_id === node.name);
  });
}

/** @returns once everything held; throws otherwise */
export async function runClusterDemo({ main, work, count, flags, stay }) {
  const image = await assembleDemoImage(join(work, "image"));
  const nodes = [];
  const add = async () => {
    const name = `node-${nodes.length + 1}`;
    const node = new Node(main, name, join(work, name), flags);
    nodes.push(node);
    await node.start();
    return node;
  };
  const create = (node, name) =>
    node.ask("POST", "/v1/templates/from-image", {
      source_image_ref: image.reference,
      writable_layer_size: "1Gi",
      display_name: name,
      exposed_ports: [8080],
      container_overrides: {
        // Another environment is another artifact: each template here is really built.
        envs: [{ key: "DEMO", value: name }],
        resources: { cpu: "500", mem: "256Mi" },
        probe: { port: 8080, path: "/health" },
      },
    });
  try {
    step(`${count} daemons, one cluster`);
    const first = await add();
    for (let index = 1; index < count; index++) await enter(await add(), first);
    const names = nodes.map((node) => node.name);
    await until("all to see each other, and enough voters to do without one", async () => {
      const { members, quorum } = await first.ask("GET", "/v1/cluster");
      const isSettled = quorum.voters.length >= 3 && !quorum.changing;
      return isSettled && members.every((member) => member.liveness === "alive" && member.in_sync);
    });
    await first.cli(["cluster", "status"]);
    for (const node of nodes) console.log(`  ${node.name}: ${node.url}/ui/cluster`);

    const last = nodes.at(-1);
    step(`A template, asked for at ${last.name}`);
    let began = performance.now();
    const job = await create(last, "demo");
    const template = await readyOn(last, job.template_id, names);
    const built = await last.ask("GET", `/v1/jobs/${job.job_id}`);
    console.log(
      `  built on ${built.worked_by} and READY on all ${count} nodes after ` +
        seconds(performance.now() - began),
    );

    step("The next one, and its leader is killed with -9 in the middle");
    began = performance.now();
    const second = await create(first, "demo-takeover");
    const running = await until("a leader to work on it", async () => {
      const found = await first.ask("GET", `/v1/jobs/${second.job_id}`).catch(() => undefined);
      return found?.worked_by && isActive(found) ? found : undefined;
    });
    const leader = nodes.find((node) => node.name === running.worked_by);
    const witness = nodes.find((node) => node !== leader);
    await leader.end("SIGKILL");
    console.log(`  ${leader.name} is dead in ${running.phase}`);
    const ended = await until("another to end the job", async () => {
      // The witness may have heard nothing of the job before its leader died.
      const found = await witness.ask("GET", `/v1/jobs/${second.job_id}`).catch(() => undefined);
      return found === undefined || isActive(found) ? undefined : found;
    });
    console.log(
      `  ${ended.worked_by} ended the job ${ended.status} ${seconds(performance.now() - began)} ` +
        "after it was asked for",
    );
    if (ended.status !== "READY") throw new Error(`the job ended ${ended.error_message}`);

    step(`${leader.name} comes back, and catches up by itself`);
    began = performance.now();
    await leader.start();
    await readyOn(leader, second.template_id, names);
    console.log(`  it holds all templates ${seconds(performance.now() - began)} after its start`);

    step("One more node: it is filled before it counts as ready");
    began = performance.now();
    const more = await add();
    await enter(more, first);
    await until(`${more.name} to be filled`, async () => {
      const { members } = await first.ask("GET", "/v1/cluster");
      return members.find((member) => member.node_id === more.name)?.warm;
    });
    console.log(`  ${more.name} holds everything ${seconds(performance.now() - began)} after it`);
    console.log("  was started\n");
    await first.cli(["cluster", "status"]);

    if (stay !== undefined) {
      step(`Everything is at ${first.url}/ui/cluster — Ctrl-C ends the demo`);
      await stay;
    }
    step("Clean-up");
    await first.cli(["tpl", "delete", template.template_id]);
    for (const node of nodes) await node.end("SIGTERM");
    console.log("  templates and daemons are gone\n\nThe demo held.");
  } finally {
    for (const node of nodes) await node.end("SIGKILL").catch(() => undefined);
  }
}
