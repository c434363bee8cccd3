/** Two nodes, one register: how artifacts go, and what never goes. */
import { beforeEach, describe, expect, it } from "vitest";
import { createCleanup, type Cleanup } from "../../../src/daemon/build/cleanup.ts";
import { GraceTimes } from "../../../src/daemon/build/grace-times.ts";
import { createEvictions } from "../../../src/daemon/disk/eviction.ts";
import type { Orphans } from "../../../src/daemon/disk/orphans.ts";
import { GcWorker } from "../../../src/daemon/workers/gc.ts";
import { KeyedQueue, createFacts, createRecords, type Facts } from "../../../src/daemon/records.ts";
import {
  CLUSTER,
  LIMITS,
  STORAGE_THRESHOLDS,
  storageFrom,
  type ArtifactRecord,
  type ArtifactStore,
  type NodeStorage,
  type TemplateRecord,
} from "../../../src/domain/index.ts";
import { openCatalog, type OpenedCatalog } from "../../../src/storage/index.ts";
import { aJob, aReplica, anArtifact } from "../../support/fake-http-service.ts";
import {
  manualClock,
  memoryDatabase,
  realClock,
  recordedLog,
  templateValue,
} from "../../support/storage.ts";

const AT = "2026-01-01T00:00:00.000Z";
const MIB = 1024 ** 2;
type Node = "a" | "b";

interface Side {
  readonly files: Map<string, string>;
  readonly facts: Facts;
  readonly cleanup: Cleanup;
  readonly grace: GraceTimes;
}

let catalog: OpenedCatalog;
let sides: Record<Node, Side>;
let down: Set<string>;
/** What the disk answers to a removal. */
let removal: (artifactId: string) => Promise<void>;
let version = 0;

const put = async (kind: string, id: string, value: unknown) => {
  version++;
  const entry = { owner: CLUSTER, kind, id, version, ...(value === null ? {} : { value }) };
  await catalog.merge([entry as never]);
};
const records = () =>
  createRecords(catalog, {
    async update(kind: string, id: string, change: (current: unknown) => unknown) {
      const current = catalog.get(CLUSTER, kind as "artifact", id);
      const next = change(current?.value);
      if (next === undefined) return current;
      await put(kind, id, next);
      return catalog.get(CLUSTER, kind as "artifact", id);
    },
  } as never);
const artifactOf = (id: string) => records().get("artifact", id);

const HOUR_MS = 3_600_000;
/** Milliseconds that have passed for every node, whatever its wall clock says. */
let passedMs = 0;

const sideOf = (name: Node, { aheadMs = HOUR_MS, graceMs = 0 } = {}): Side => {
  const clock = {
    ...manualClock(),
    now: () => Date.parse(AT) + aheadMs + passedMs,
    monotonic: () => passedMs,
  };
  const files = new Map<string, string>();
  const facts = createFacts(catalog, clock, name);
  const store = {
    find: (id: string) => (files.has(id) ? { digest: files.get(id) } : undefined),
    async remove(id: string) {
      await removal(id);
      files.delete(id);
    },
  } as unknown as ArtifactStore;
  const grace = new GraceTimes(clock, graceMs);
  const cleanup = createCleanup({
    catalog,
    records: records(),
    facts,
    store,
    clock,
    log: recordedLog(),
    isMember: () => true,
    isUp: (id) => !down.has(id),
    askHolds: async (id, { artifact_id, digest }) =>
      sides[id as Node].files.get(artifact_id) === digest,
    isBuilding: () => false,
    graceMs,
    grace,
    files: new KeyedQueue(),
  });
  return { files, facts, cleanup, grace };
};

beforeEach(async () => {
  version = 0;
  passedMs = 0;
  down = new Set();
  removal = () => Promise.resolve();
  const openDatabase = async () => memoryDatabase();
  catalog = await openCatalog({
    dir: "unused",
    log: recordedLog(),
    clock: realClock,
    openDatabase,
  });
  sides = { a: sideOf("a"), b: sideOf("b") };
});

const hold = async (name: Node, id: string, digest = `sha256:${id}`) => {
  sides[name].files.set(id, digest);
  await sides[name].facts.put("holding", id, {
    artifact_id: id,
    digest,
    size_bytes: 1,
    complete: true,
  });
};
const artifact = async (id: string, over: Partial<ArtifactRecord> = {}) => {
  await put("artifact", id, {
    ...anArtifact(),
    download_token: "",
    artifact_id: id,
    digest: `sha256:${id}`,
    status: "READY",
    data_bytes: 10 * MIB,
    gc_deadline: 0,
    updated_at: AT,
    ...over,
  });
};
const template = (id: string, over: Partial<TemplateRecord> = {}) =>
  put("template", id, { ...templateValue(id), desired_nodes: [], artifact_id: "", ...over });
const replica = (name: Node, id: string, artifact_id: string | undefined) =>
  sides[name].facts.put(
    "replica",
    id,
    artifact_id === undefined ? undefined : aReplica({ node_id: name, artifact_id }),
  );
const GOING = { status: "CLEANUP_PENDING", unreferenced_at: AT } as const;

describe("letting go", () => {
  it("row 82: given the file is gone already, then the clean-up succeeds; given the node is, it waits", async () => {
    await artifact("rfs-1", GOING);
    await hold("a", "rfs-1");
    await hold("b", "rfs-1");
    sides.a.files.clear();
    down.add("b");
    expect(await sides.a.cleanup.clean("rfs-1")).toBe(true);
    expect(sides.a.facts.get("holding", "rfs-1")).toBeUndefined();
    expect(await sides.a.cleanup.advance("rfs-1")).toBe("none");
    expect(artifactOf("rfs-1")?.status).toBe("CLEANUP_PENDING");
  });

  it("row 83: given the removal fails, then the record stays, and a retry finishes it", async () => {
    await artifact("rfs-1", { unreferenced_at: AT });
    await hold("a", "rfs-1");
    removal = () => Promise.reject(new Error("io error"));
    await expect(sides.a.cleanup.release("rfs-1")).rejects.toThrow("io error");
    expect(artifactOf("rfs-1")?.status).toBe("CLEANUP_PENDING");
    expect(sides.a.facts.get("holding", "rfs-1")).toBeDefined();
    removal = () => Promise.resolve();
    expect(await sides.a.cleanup.clean("rfs-1")).toBe(true);
    expect(await sides.a.cleanup.advance("rfs-1")).toBe("forget");
    expect(artifactOf("rfs-1")).toBeUndefined();
  });

  it("row 87: given a guest here still uses it, then it stays CLEANUP_PENDING until that ends", async () => {
    await artifact("rfs-1", { unreferenced_at: AT });
    await hold("a", "rfs-1");
    await replica("a", "tpl-1", "rfs-1");
    await sides.a.cleanup.release("rfs-1");
    expect(artifactOf("rfs-1")?.status).toBe("CLEANUP_PENDING");
    expect(sides.a.files.has("rfs-1")).toBe(true);
    await replica("a", "tpl-1", undefined);
    expect(await sides.a.cleanup.clean("rfs-1")).toBe(true);
    expect(sides.a.files.has("rfs-1")).toBe(false);
  });

  it("row 89: given one artifact's collection fails, then the others are collected", async () => {
    for (const id of ["rfs-1", "rfs-2", "rfs-3"]) {
      await artifact(id, GOING);
      await hold("a", id);
    }
    removal = (id) => (id === "rfs-2" ? Promise.reject(new Error("panic")) : Promise.resolve());
    const { facts, cleanup, grace } = sides.a;
    const log = recordedLog();
    const worker = new GcWorker({
      catalog,
      records: records(),
      facts,
      nodes: { self: "a", all: () => [{ node_id: "a", healthy: true, drained: false }] } as never,
      cleanup,
      grace,
      clock: manualClock(),
      log,
      isInTouch: () => true,
    });
    await worker.pass();
    expect([...sides.a.files.keys()]).toEqual(["rfs-2"]);
    expect(log.lines.filter(({ level }) => level === "warn")).toHaveLength(1);
    await worker.stop();
  });
});

describe("the grace, with clocks an hour apart", () => {
  const GRACE_MS = 10 * 60_000;
  const ahead = { aheadMs: HOUR_MS, graceMs: GRACE_MS };
  const behind = { aheadMs: -HOUR_MS, graceMs: GRACE_MS };

  it.each([
    ["an hour behind who ends it", behind, ahead],
    ["an hour ahead of who ends it", ahead, behind],
  ])("begun by a node that is %s is neither shorter nor longer", async (_name, maker, ender) => {
    sides = { a: sideOf("a", maker), b: sideOf("b", ender) };
    await artifact("rfs-1");
    await hold("b", "rfs-1");
    expect(await sides.a.cleanup.advance("rfs-1")).toBe("grace");
    expect(await sides.b.cleanup.advance("rfs-1")).toBe("none");
    passedMs += GRACE_MS - 1;
    for (const side of [sides.a, sides.b]) expect(await side.cleanup.advance("rfs-1")).toBe("none");
    passedMs += 1;
    expect(await sides.b.cleanup.advance("rfs-1")).toBe("release");
  });

  it("counts from when it was seen here, and anew when the artifact was used in between", async () => {
    sides = { a: sideOf("a", behind), b: sideOf("b", ahead) };
    await artifact("rfs-1");
    await sides.a.cleanup.advance("rfs-1");
    passedMs += GRACE_MS;
    expect(await sides.b.cleanup.advance("rfs-1"), "first seen now").toBe("none");
    await template("tpl-1", { artifact_id: "rfs-1" });
    expect(await sides.a.cleanup.advance("rfs-1")).toBe("renew");
    await put("template", "tpl-1", null);
    expect(await sides.a.cleanup.advance("rfs-1")).toBe("grace");
    passedMs += GRACE_MS - 1;
    for (const side of [sides.a, sides.b]) expect(await side.cleanup.advance("rfs-1")).toBe("none");
  });

  it("is never shorter than what this node is told to give", async () => {
    sides = { a: sideOf("a", { ...ahead, graceMs: 0 }), b: sideOf("b", ahead) };
    await artifact("rfs-1");
    await sides.a.cleanup.advance("rfs-1");
    expect(await sides.b.cleanup.advance("rfs-1")).toBe("none");
    passedMs += GRACE_MS;
    expect(await sides.b.cleanup.advance("rfs-1")).toBe("release");
  });

  it("of what is undeleted is the long one, on every node", async () => {
    sides = { a: sideOf("a", behind), b: sideOf("b", ahead) };
    await artifact("rfs-1", { unreferenced_at: AT });
    await hold("a", "rfs-1");
    await sides.a.cleanup.undelete("rfs-1");
    await sides.b.cleanup.advance("rfs-1");
    passedMs += LIMITS.artifactTtlMs - 1;
    expect(await sides.b.cleanup.advance("rfs-1")).toBe("none");
    passedMs += 1;
    expect(await sides.b.cleanup.advance("rfs-1")).toBe("release");
  });
});

describe("eviction under disk pressure", () => {
  let disk: NodeStorage;
  const swept: boolean[] = [];
  const orphans = {
    sweep: async ({ urgent = false } = {}) => {
      swept.push(urgent);
      return [];
    },
  } as unknown as Orphans;
  const full = (pct: number) =>
    storageFrom(
      { total_bytes: 100 * MIB, used_bytes: pct * MIB, volume_count: 0, snapshot_count: 0 },
      1,
    );
  const evictionsOf = (name: Node, isInTouch = true) => {
    disk = full(90);
    const { cleanup, files } = sides[name];
    return createEvictions({
      nodeId: name,
      records: records(),
      store: { find: (id: string) => (files.has(id) ? ({} as never) : undefined) },
      cleanup,
      orphans,
      meter: {
        thresholds: STORAGE_THRESHOLDS,
        latest: () => disk,
        measure: async () => disk,
      },
      log: recordedLog(),
      isInTouch: () => isInTouch,
    });
  };

  it("takes what nobody refers to, longest first, and as much as is needed", async () => {
    await artifact("rfs-new", { unreferenced_at: "2026-01-01T00:30:00.000Z" });
    await artifact("rfs-old", { unreferenced_at: AT });
    await artifact("rfs-used");
    await template("tpl-1", { artifact_id: "rfs-used", desired_nodes: ["a"] });
    for (const id of ["rfs-new", "rfs-old", "rfs-used"]) await hold("a", id);
    const evictions = evictionsOf("a");
    expect(evictions.due()).toEqual([
      expect.objectContaining({ node_id: "a", artifact_id: "rfs-old", kind: "unreferenced" }),
    ]);
    await evictions.relieve();
    expect([...sides.a.files.keys()]).toEqual(["rfs-new", "rfs-used"]);
    expect(swept.at(-1)).toBe(true);
    await evictions.reclaim(100 * MIB);
    expect([...sides.a.files.keys()]).toEqual(["rfs-used"]);
    disk = full(80);
    expect(evictions.due()).toEqual([]);
  });

  it("several that lack room at once are served one after the other", async () => {
    const ids = ["rfs-1", "rfs-2", "rfs-3"];
    for (const id of ids) {
      await artifact(id, { unreferenced_at: AT });
      await hold("a", id);
    }
    let active = 0;
    const most: number[] = [];
    removal = async () => {
      most.push(++active);
      for (let turn = 0; turn < 20; turn++) await new Promise((next) => setImmediate(next));
      active--;
      if (most.length === 1) throw new Error("io error");
    };
    const evictions = evictionsOf("a");
    await Promise.all(ids.map(() => evictions.reclaim(10 * MIB)));
    expect(most.every((count) => count === 1)).toBe(true);
    expect(sides.a.files.size).toBe(0);
  });

  it("nothing goes while this node does not agree with another", async () => {
    await artifact("rfs-1", { unreferenced_at: AT });
    await hold("a", "rfs-1");
    await evictionsOf("a", false).relieve();
    expect(sides.a.files.size).toBe(1);
  });

  it("a spare copy of what is referenced goes, the last one never", async () => {
    await artifact("rfs-1");
    await template("tpl-1", { artifact_id: "rfs-1", desired_nodes: [] });
    await hold("a", "rfs-1");
    await hold("b", "rfs-1");
    await Promise.all([evictionsOf("a").relieve(), evictionsOf("b").relieve()]);
    const left = (["a", "b"] as const).filter((name) => sides[name].files.has("rfs-1"));
    expect(left).toHaveLength(1);
    for (const name of left) await evictionsOf(name).reclaim(100 * MIB);
    expect(sides[left[0] ?? "a"].files.has("rfs-1")).toBe(true);
    expect(artifactOf("rfs-1")?.status).toBe("READY");
  });

  it.each([
    ["is down", () => void down.add("b")],
    ["has lost its file, whatever its fact says", () => sides.b.files.clear()],
  ])("no copy counts whose node %s", async (_name, spoil) => {
    await artifact("rfs-1");
    await template("tpl-1", { artifact_id: "rfs-1" });
    await hold("a", "rfs-1");
    await hold("b", "rfs-1");
    spoil();
    await evictionsOf("a").reclaim(100 * MIB);
    expect(sides.a.files.has("rfs-1")).toBe(true);
  });

  it("what a template is wanted here for, or a job works on, stays", async () => {
    for (const id of ["rfs-1", "rfs-2"]) {
      await artifact(id);
      await hold("a", id);
      await hold("b", id);
    }
    await template("tpl-1", { artifact_id: "rfs-1", desired_nodes: ["a"] });
    await put("job", "j-1", aJob({ job_id: "j-1", artifact_id: "rfs-2" }));
    await evictionsOf("a").reclaim(100 * MIB);
    expect([...sides.a.files.keys()]).toEqual(["rfs-1", "rfs-2"]);
  });
});
