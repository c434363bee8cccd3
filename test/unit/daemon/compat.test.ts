/** Compat as two daemons do it: scans, rescans and baselines; rows 99, 100, 102 and 103 of §11. */
import { beforeEach, describe, expect, it } from "vitest";
import { createCompat, type Compat } from "../../../src/daemon/compat.ts";
import { createFacts, createRecords, type Facts } from "../../../src/daemon/records.ts";
import { CompatScanWorker } from "../../../src/daemon/workers/compat-scan.ts";
import {
  AppError,
  type Entry,
  type NodeFact,
  type ReplicaStatus,
} from "../../../src/domain/index.ts";
import { openCatalog, type OpenedCatalog } from "../../../src/storage/index.ts";
import { aNode, aReplica } from "../../support/fake-http-service.ts";
import {
  manualClock,
  memoryDatabase,
  realClock,
  recordedLog,
  templateEntry,
  waitFor,
} from "../../support/storage.ts";

type Handler = (from: string, body: Uint8Array) => Promise<Uint8Array>;

interface Host {
  readonly facts: Facts;
  readonly worker: CompatScanWorker;
  readonly compat: Compat;
  /** What its runtime would boot now; published when a scan is asked for. */
  boots: Partial<NodeFact>;
}

let catalog: OpenedCatalog;
let down: Set<string>;
let hosts: Map<string, Host>;
let clock: ReturnType<typeof manualClock>;

const versions = { guest_image_version: "g1", agent_version: "a1", kernel_version: "k1" };
const host = (id: string): Host => hosts.get(id) as Host;
const stored = (id: string, template = "tpl-1") =>
  catalog.get(id, "replica", template)?.value as ReplicaStatus;
const hold = (id: string, change: Partial<ReplicaStatus> = {}, template = "tpl-1") =>
  host(id).facts.put("replica", template, {
    ...aReplica({ node_id: id, compat_status: "OK", compat_policy: "STRICT", ...versions }),
    ...change,
  });
const publish = (id: string) => {
  const node = aNode({ node_id: id, node_ip: `ip-${id}`, ...host(id).boots });
  return host(id).facts.put("node", id, node);
};

function openHost(id: string, handlers: Map<string, Handler>): Host {
  const facts = createFacts(catalog, clock, id);
  const worker = new CompatScanWorker({ catalog, facts, clock, log: recordedLog() });
  const registers = { update: () => Promise.reject(new Error("no record is written here")) };
  const all = () => [...hosts.keys()].sort();
  const get = (nodeId: string) => {
    const fact = catalog.get(nodeId, "node", nodeId)?.value;
    return fact === undefined ? undefined : { ...fact, healthy: !down.has(nodeId) };
  };
  const compat = createCompat({
    catalog,
    records: createRecords(catalog, registers),
    nodes: {
      self: id,
      all: () => all().flatMap((one) => get(one) ?? []),
      get,
      isMember: (one) => hosts.has(one),
      wasRemoved: () => false,
      onChange: () => () => undefined,
    },
    members: {
      self: id,
      peerOf: (one: string) => one,
      // Only these two are used here.
    } as never,
    transport: {
      handle: (_protocol: string, handler: Handler) => handlers.set(id, handler),
      request: (to: string, _protocol: string, body: Uint8Array) => {
        if (down.has(to)) throw new AppError("peer_unreachable", `${to} does not answer`);
        return handlers.get(to)?.(id, body);
      },
    } as never,
    scanner: worker,
    publishNode: () => publish(id),
  });
  return { facts, worker, compat, boots: versions };
}

beforeEach(async () => {
  down = new Set();
  clock = manualClock();
  catalog = await openCatalog({
    dir: "unused",
    log: recordedLog(),
    clock: realClock,
    openDatabase: async () => memoryDatabase(),
  });
  await catalog.merge([templateEntry("tpl-1", 1)]);
  const handlers = new Map<string, Handler>();
  hosts = new Map();
  for (const id of ["a", "b"]) hosts.set(id, openHost(id, handlers));
  for (const id of ["a", "b"]) {
    await publish(id);
    await hold(id);
  }
});

describe("scans of a node", () => {
  it("write only what has changed, with the time", async () => {
    await hold("a", { guest_image_version: "g0" }, "tpl-2");
    const before = stored("a");
    expect(await host("a").worker.scan()).toEqual({
      node_id: "a",
      healthy: true,
      scanned: 2,
      changed: 1,
      stale: 1,
      unknown: 0,
    });
    expect(stored("a")).toBe(before);
    expect(stored("a", "tpl-2")).toMatchObject({
      compat_status: "STALE",
      compat_checked_unix: Math.floor(clock.now() / 1_000),
    });
    expect(await host("a").worker.scan()).toMatchObject({ changed: 0, stale: 1 });
  });

  it("come at start and when a version changes, once for changes that come together", async () => {
    await hold("a", { guest_image_version: "g0" });
    host("a").worker.start();
    expect(clock.fire()).toBeLessThan(1_000);
    expect(clock.timers).toHaveLength(0);
    await waitFor(() => stored("a").compat_status === "STALE");
    let writes = 0;
    const unsubscribe = catalog.subscribe((entry: Entry) => {
      if (entry.kind === "replica") writes++;
    });
    for (const guest_image_version of ["g2", "g3", "g0"]) {
      host("a").boots = { ...versions, guest_image_version };
      await publish("a");
    }
    expect(clock.fire()).toBeLessThan(1_000);
    expect(clock.timers).toHaveLength(0);
    await waitFor(() => stored("a").compat_status === "OK");
    expect(writes).toBe(1);
    unsubscribe();
    await host("a").worker.stop();
  });

  it("one that is asked for during another is the next one, for all who ask", async () => {
    const { worker } = host("a");
    await hold("a", { guest_image_version: "g0" });
    const first = worker.scan();
    const [second, third] = [worker.scan(), worker.scan()];
    expect(second).not.toBe(first);
    expect(third).toBe(second);
    expect(await first).toMatchObject({ changed: 1, stale: 1 });
    expect(await second).toMatchObject({ changed: 0, stale: 1 });
  });

  it("a replica that is made again meanwhile is left alone", async () => {
    await hold("a", { guest_image_version: "g0" });
    const making = host("a").facts.put("replica", "tpl-1", {
      ...stored("a"),
      status: "FAILED",
      phase: "SNAPSHOTTING",
    });
    expect(await host("a").worker.scan()).toMatchObject({ changed: 0 });
    await making;
    expect(stored("a")).toMatchObject({ status: "FAILED", compat_status: "OK" });
  });
});

describe("rescan over nodes", () => {
  it("row 102: given no ids and all_nodes=false, then invalid_request", async () => {
    const asked = host("a").compat.rescan({ node_ids: [], all_nodes: false });
    await expect(asked).rejects.toMatchObject({ code: "invalid_request" });
  });

  it("asks each healthy node, which publishes what it would boot now first", async () => {
    host("b").boots = { ...versions, guest_image_version: "g2" };
    const { nodes } = await host("a").compat.rescan({ node_ids: [], all_nodes: true });
    expect(nodes).toMatchObject([
      { node_id: "a", scanned: 1, stale: 0 },
      { node_id: "b", scanned: 1, changed: 1, stale: 1 },
    ]);
    expect(stored("b").compat_status).toBe("STALE");
  });

  it("row 99: given a node that is down, then its replica counts as UNKNOWN, or STALE as before", async () => {
    await hold("b", { compat_status: "STALE" }, "tpl-2");
    down.add("b");
    const { nodes } = await host("a").compat.rescan({ node_ids: ["ip-b"], all_nodes: false });
    expect(nodes).toEqual([
      { node_id: "b", healthy: false, scanned: 2, changed: 0, stale: 1, unknown: 1 },
    ]);
    const { templates } = host("a").compat.matrix({});
    expect(templates[0]?.nodes[1]).toMatchObject({ node_id: "b", compat_status: "UNKNOWN" });
  });

  it("refuses a node that it does not know, before any is scanned", async () => {
    const asked = host("a").compat.rescan({ node_ids: ["a", "c"], all_nodes: false });
    await expect(asked).rejects.toMatchObject({ code: "node_not_found" });
  });
});

describe("baselines", () => {
  const legacy = { guest_image_version: "", agent_version: "", compat_status: "UNKNOWN" } as const;

  it("row 100: given a STALE and an UNKNOWN replica, then only the UNKNOWN one binds its node's versions", async () => {
    await hold("a", { guest_image_version: "g0", compat_status: "STALE" });
    await hold("b", legacy);
    const { compat } = host("a");
    expect(await compat.adopt("tpl-1")).toEqual({
      template_id: "tpl-1",
      updated: 1,
      nodes: ["b"],
    });
    expect(stored("a")).toMatchObject({ guest_image_version: "g0", compat_status: "STALE" });
    expect(stored("b")).toMatchObject({ ...versions, compat_status: "OK" });
    expect(await compat.adopt("tpl-1")).toMatchObject({ updated: 0 });
  });

  it("of a template that is not there is template_not_found", async () => {
    const asked = host("a").compat.adopt("tpl-9");
    await expect(asked).rejects.toMatchObject({ code: "template_not_found" });
  });
});

it("the matrix comes in pages, whose sums are of all rows", async () => {
  for (const id of ["tpl-2", "tpl-3"]) await catalog.merge([templateEntry(id, 1)]);
  const { compat } = host("a");
  const first = compat.matrix({ limit: 2 });
  expect(first.templates.map((row) => row.template_id)).toEqual(["tpl-1", "tpl-2"]);
  const next = compat.matrix({ limit: 2, next_token: first.next_token ?? "" });
  expect(next.templates.map((row) => row.template_id)).toEqual(["tpl-3"]);
  expect(next.next_token).toBeUndefined();
  expect(next.summary).toEqual(first.summary);
  expect(() => compat.matrix({ next_token: "?" })).toThrow("invalid next_token");
});
