/** What goes wrong with hosts: a full disk, a wrong clock, a process that stands still, a copy. */
import { randomBytes } from "node:crypto";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestCluster } from "../support/cluster.ts";
import { TestDaemon, waitFor, type Row } from "../support/daemon.ts";
import { SmallDisk } from "../support/small-disk.ts";
import { WrongClock } from "../support/wrong-clock.ts";

const LONG_MS = 240_000;
const WAIT_MS = 90_000;
/** The node whose clock is wrong, and the one whose disk is small. */
const [GOOD, CLOCK, DISK] = [0, 1, 2] as const;
const DISK_BYTES = 192 * 1024 * 1024;
let dir: string;
let disk: SmallDisk;
let clock: WrongClock;
let cluster: TestCluster;
let images = 0;

async function freshRequest(): Promise<Row> {
  const name = `image-${++images}`;
  const file = { path: "data", type: "file" as const, content: randomBytes(300_000) };
  await assembleOciLayout(join(dir, name), { layers: [{ entries: [file] }], tag: "demo" });
  return { source_image_ref: `oci:${join(dir, name)}:demo`, writable_layer_size: "1Mi" };
}

const node = (index: number): TestDaemon => cluster.node(index);
const warned = (index: number, code: string, of: number) =>
  cluster.until(
    index,
    `node ${index} to warn of ${code} with node ${of}`,
    ({ warnings }) =>
      warnings.some((one) => one.code === code && one.node_id === TestCluster.nodeId(of)),
    WAIT_MS,
  );
const logged = (index: number, text: string) =>
  waitFor(`node ${index} to log "${text}"`, () => node(index).output.includes(text), WAIT_MS);

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-faults-"));
  [disk, clock] = await Promise.all([SmallDisk.make(DISK_BYTES), WrongClock.make()]);
  cluster = await TestCluster.make(1, ["--session-term", "3"]);
  await cluster.add({ env: clock.env });
  await cluster.add({ dataDir: disk.path });
  await cluster.inSync();
  await cluster.until(GOOD, "three voters", ({ quorum }) => quorum.voters.length === 3, WAIT_MS);
}, LONG_MS);

afterAll(async () => {
  await cluster.remove();
  await Promise.all([disk.remove(), clock.remove(), rm(dir, { recursive: true, force: true })]);
}, LONG_MS);

describe("a disk that is full", { timeout: LONG_MS }, () => {
  it("makes its node refuse changes and say why, while the others go on", async () => {
    const job = await node(GOOD).submit(await freshRequest());
    const { template_id } = await node(GOOD).ended(job.job_id, WAIT_MS);
    await waitFor("the small disk to hold it", async () => {
      const { status } = await node(DISK).ask("POST", "/v1/resolve", { template_id });
      return status === 200;
    });
    await disk.fill();
    const later = await node(GOOD).submit({ ...(await freshRequest()), display_name: "later" });
    await logged(DISK, "the catalog cannot be written; reads go on");
    const ready = await node(DISK).fetch(node(DISK).url, "/readyz?verbose");
    expect(ready.status).toBe(503);
    expect(await ready.text()).toMatch(/No space left|ENOSPC/);
    const refused = await node(DISK).ask("POST", "/v1/templates/from-image", await freshRequest());
    expect(refused.status).toBeGreaterThanOrEqual(500);
    expect(refused.body["code"]).toMatch(/catalog_degraded|disk_space_low/);
    const resolved = await node(DISK).ask("POST", "/v1/resolve", { template_id });
    expect(resolved.status).toBe(200);
    // The others have their majority; what they see is a member that falls behind.
    await waitFor("the others to hold the later one", async () => {
      const { body } = await node(GOOD).ask("GET", `/v1/templates/${later.template_id}`);
      const replicas = (body["replicas"] ?? []) as Row[];
      return replicas.filter((replica) => replica["status"] === "READY").length >= 2;
    });
    await cluster.until(GOOD, "node 2 to be behind", ({ members }) =>
      members.some((one) => one.node_id === TestCluster.nodeId(DISK) && one.in_sync === false),
    );
  });

  it("is noticed to have room again: the node catches up by itself", async () => {
    await disk.free();
    await logged(DISK, "the catalog can be written again");
    await waitFor("node 2 to be ready", async () => {
      return (await node(DISK).ask("GET", "/readyz")).status === 200;
    });
    await cluster.inSync([GOOD, CLOCK, DISK], WAIT_MS);
    await waitFor(
      "the later template to be there too",
      async () => {
        const { body } = await node(DISK).ask("GET", "/v1/templates/later");
        const replicas = (body["replicas"] ?? []) as Row[];
        return replicas.filter((replica) => replica["status"] === "READY").length === 3;
      },
      WAIT_MS,
    );
  });
});

describe("a clock that is wrong", { timeout: LONG_MS }, () => {
  it("is told of on both sides when it jumps, and fails no job", async () => {
    await clock.jump("+2h");
    const both = Promise.all([
      warned(CLOCK, "clock_skew", GOOD),
      warned(GOOD, "clock_skew", CLOCK),
    ]);
    // Who works on one is chance, one in three; the default deadline of a job is an hour.
    const workers = new Set<unknown>();
    for (let turn = 0; turn < 80 && !workers.has(TestCluster.nodeId(CLOCK)); turn++) {
      const job = await node(turn % 2 === 0 ? GOOD : CLOCK).submit(await freshRequest());
      const ended = await node(GOOD).ended(job.job_id, WAIT_MS);
      expect(ended, ended.error_message).toMatchObject({ status: "READY" });
      if (turn % 2 === 0) workers.add(ended["worked_by"]);
    }
    expect([...workers]).toContain(TestCluster.nodeId(CLOCK));
    await both;
    const shown = await node(CLOCK).cli(["cluster", "status"]);
    expect(shown.stdout).toMatch(/WARNING node-0: the clocks are 7200 s apart: it is .* NTP/s);
    await logged(GOOD, "the clocks are 7200 s apart");
    await clock.jump("+0");
    await cluster.until(
      CLOCK,
      "the warnings to end",
      ({ warnings }) => warnings.length === 0,
      WAIT_MS,
    );
    await cluster.inSync();
  });

  it("keeps a node from joining, and both nodes say how far apart they are", async () => {
    const early = await WrongClock.make("-1h");
    const index = await cluster.addAlone([], { env: early.env });
    const token = await cluster.token(GOOD);
    const { status, body } = await node(index).ask("POST", "/v1/cluster/join", { token });
    expect({ status, body }).toMatchObject({ status: 409, body: { code: "clock_skew" } });
    expect(body["detail"]).toMatch(/the clocks are 3(600|599|601) s apart/);
    await logged(GOOD, "a node that wants to join was refused");
    await early.jump("+0");
    await cluster.join(index);
    await early.remove();
  });
});

describe("a peer that never answers", { timeout: LONG_MS }, () => {
  it("is found dead, holds nobody up, and says itself that it stood still", async () => {
    const token = await cluster.token(CLOCK);
    node(CLOCK).signal("SIGSTOP");
    try {
      const loner = await cluster.addAlone();
      const joining = node(loner).ask("POST", "/v1/cluster/join", { token });
      await cluster.until(
        GOOD,
        "it to be found dead",
        ({ members }) => members.some((one) => one.node_id === "node-1" && one.liveness === "dead"),
        WAIT_MS,
      );
      const shown = await node(GOOD).cli(["doctor"]);
      expect(shown).toMatchObject({ code: 1 });
      expect(shown.stdout).toContain("node-1 is dead since");
      const answer = await joining;
      expect(answer).toMatchObject({ status: 503, body: { code: "peer_unreachable" } });
      expect(answer.body["detail"]).toContain(TestCluster.address(CLOCK));
      const made = await node(GOOD).ask("POST", "/v1/cluster/join-tokens", {});
      expect(made.status).toBe(201);
    } finally {
      node(CLOCK).signal("SIGCONT");
    }
    await logged(CLOCK, "this node stood still");
    await cluster.inSync([GOOD, CLOCK, DISK], WAIT_MS);
  });
});

describe("a host that was cloned with its data directory", { timeout: LONG_MS }, () => {
  it("is told at its first word that another runs with its identity, and ends", async () => {
    const folder = await mkdtemp(join(tmpdir(), "tc-clone-"));
    await node(GOOD).stop();
    for (const name of ["catalog", "identity.key", "cluster.json"]) {
      await cp(join(node(GOOD).dataDir, name), join(folder, name), { recursive: true });
    }
    await node(GOOD).start();
    await cluster.inSync([GOOD, CLOCK, DISK], WAIT_MS);
    const clone = await cluster.clone(GOOD, folder);
    try {
      await clone.start().catch(() => undefined);
      expect(await clone.exited).toBe(78);
      expect(clone.output).toContain("another daemon runs with this node's identity");
      await waitFor("a member to log it", () =>
        cluster.nodes.some(({ output }) =>
          output.includes("two daemons run with the identity of node-0"),
        ),
      );
      const { status } = await node(GOOD).ask("GET", "/readyz");
      expect(status).toBe(200);
    } finally {
      await clone.remove();
      await rm(folder, { recursive: true, force: true });
    }
  });
});
