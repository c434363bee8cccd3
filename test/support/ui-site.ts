/** The page over realistic fixtures, on a real socket. */
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import type { AddressInfo } from "node:net";
import { createUi } from "../../src/ui/index.ts";
import type { AuthConfig } from "../../src/daemon/http/ports.ts";
import { readOut, sendBundle } from "../../src/daemon/http/bundle-files.ts";
import { createPageSessions } from "../../src/daemon/page-sessions.ts";
import { realClock } from "../../src/daemon/effects/clock.ts";
import { realRandom } from "../../src/daemon/effects/random.ts";
import type {
  JobInfo,
  Log,
  NodeFact,
  Overview,
  Queries,
  SwarmView,
  TagRecord,
} from "../../src/domain/index.ts";
import { clusterAttention, compatAttention, isActiveJob } from "../../src/domain/index.ts";
import {
  aCluster,
  aJob,
  aLoneNode,
  aNode,
  aRef,
  aReplica,
  aSandbox,
  aSwarms,
  aTemplate,
  anArtifact,
  createFakeService,
  SHA,
  type FakeService,
} from "./fake-http-service.ts";
import { compatQueries } from "./compat-input.ts";
import { aSnapshot, fakeSnapshotQueries } from "./fake-snapshots.ts";

/** Nobody has to sign in. */
export const openToAll = createPageSessions({
  auth: { tokens: [] },
  clock: realClock,
  random: realRandom,
});

/** As the daemon has them. */
export const bundleFiles = { send: sendBundle, read: readOut };

export const silentLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLog,
};

const GIB = 1024 ** 3;
export const ago = (seconds: number): string =>
  new Date(realClock.now() - seconds * 1_000).toISOString();
export const tplId = (digit: string): string => `tpl-${digit.repeat(24)}`;
export const BUILDING_JOB = "5f0c2d1e-8c1b-4b57-9a53-0d6d1f5ad001";
export const FAILED_JOB = "a91be7c4-11d2-4c0f-8f60-b7ab3e0cc002";
export const SPREADING_JOB = "b7e1a0c9-52d4-4f0b-9c3a-1d2e3f4ad004";
export const READY_JOB = "c3d0f6a2-7e45-43b8-a3f4-6f2f9a1bb003";

export const uiNode = (over: Partial<NodeFact> = {}): NodeFact =>
  aNode({
    driver: "qemu",
    driver_detail: "QEMU 7.2.19, microvm, TCG",
    guest_image_version: "12.9-20260101",
    agent_version: "0.1.0",
    kernel_version: "6.1.0-44-cloud-amd64",
    memory_bytes: 24 * GIB,
    resnapshot_interval_ms: 900_000,
    started_at: ago(93_600),
    storage: {
      usage_pct: 38,
      total_bytes: 200 * GIB,
      free_bytes: 124 * GIB,
      mode: "healthy",
      last_error: "",
      last_updated_at: 1,
    },
    ...over,
  });

export const buildingJob = (over: Partial<JobInfo> = {}): JobInfo =>
  aJob({
    job_id: BUILDING_JOB,
    template_id: tplId("b"),
    source_image_ref: "docker.io/library/python:3.12-slim",
    source_image_digest: SHA,
    writable_layer_size: "1Gi",
    template_spec_fingerprint: "cd".repeat(32),
    phase: "UNPACKING",
    progress: 42,
    pull_total_bytes: 131_000_000,
    pull_downloaded_bytes: 96_000_000,
    pull_total_layers: 8,
    pull_completed_layers: 4,
    pull_speed_bps: 41_000_000,
    phases: [
      { phase: "PULLING", started_at: ago(9), ended_at: ago(6) },
      { phase: "UNPACKING", started_at: ago(6) },
    ],
    created_at: ago(9),
    deadline_at: ago(-3_590),
    ...over,
  });

const failedJob = (): JobInfo =>
  aJob({
    job_id: FAILED_JOB,
    template_id: tplId("f"),
    source_image_ref: "registry.example/private/billing:7",
    status: "FAILED",
    phase: "PULLING",
    progress: 5,
    error_code: "registry_unauthorized",
    error_message: "registry.example refused the credentials for private/billing",
    phases: [{ phase: "PULLING", started_at: ago(4_000), ended_at: ago(3_998) }],
    created_at: ago(4_000),
    ended_at: ago(3_998),
  });

const readyJob = (): JobInfo => {
  const spans = [3.1, 2.6, 0.4, 0.1, 0.2, 0.1, 4.2, 0.1];
  const names = [
    "PULLING",
    "UNPACKING",
    "BUILDING_EXT4",
    "GENERATING_JSON",
    "DISTRIBUTING",
    "CREATING_TEMPLATE",
    "SNAPSHOTTING",
    "REGISTERING",
  ] as const;
  let at = 7_200;
  const phases = names.map((phase, index) => {
    const started_at = ago(at);
    at -= spans[index] ?? 0;
    return { phase, started_at, ended_at: ago(at) };
  });
  return aJob({
    job_id: READY_JOB,
    template_id: tplId("a"),
    source_image_ref: "docker.io/library/debian:12",
    status: "READY",
    phase: "READY",
    progress: 100,
    ready_node_count: 1,
    phases: [...phases, { phase: "READY", started_at: ago(at), ended_at: ago(at) }],
    created_at: ago(7_200),
    ended_at: ago(at),
  });
};

const spreadingJob = (): JobInfo =>
  buildingJob({
    job_id: SPREADING_JOB,
    template_id: tplId("d"),
    source_image_ref: "docker.io/library/node:20",
    phase: "DISTRIBUTING",
    progress: 80,
    expected_node_count: 4,
    worked_by: "node-1",
  });

/** `node-1` leads the template that spreads. */
const uiCluster = () => {
  const view = aCluster();
  const since = ago(40);
  const leader = { template_id: tplId("d"), node_id: "node-1", epoch: 3, since, valid: true };
  return { ...view, node_id: "node-1", leaders: [leader, ...view.leaders.slice(1)] };
};

/** One that moved and went back, one that never moved, one whose template is gone. */
function tagsOf(): TagRecord[] {
  const step = (id: string, seconds: number, actor: string, rollback = false) => ({
    change_id: `${id}${seconds}`,
    template_id: id,
    actor,
    at: ago(seconds),
    asked_at: ago(seconds),
    ...(rollback ? { rollback } : {}),
  });
  const tag = (name: string, history: ReturnType<typeof step>[]): TagRecord => ({
    name,
    template_id: history.at(-1)?.template_id ?? "",
    history,
    created_at: history[0]?.at ?? "",
    updated_at: history.at(-1)?.at ?? "",
  });
  const [web, notebooks] = [tplId("a"), tplId("c")];
  return [
    tag("debian-web", [step(web, 7_190, `job:${READY_JOB}`)]),
    tag(`production-${"of-the-whole-company-".repeat(2)}eu`, [
      step(`tpl-${"9".repeat(24)}`, 90_000, "socket"),
    ]),
    tag("stable", [
      step(web, 80_000, "token:ci"),
      step(notebooks, 7_000, "page:1a2b3c4d"),
      step(web, 4_000, "token:a-very-long-name-of-a-token-of-the-release-robot", true),
    ]),
  ];
}

function fill(service: FakeService): void {
  const elsewhere = ["node-b.example.org", "node-c"];
  service.artifacts.push(anArtifact({ artifact_id: "rfs-elsewhere", holders: elsewhere }));
  for (const tag of tagsOf()) service.tags.set(tag.name, tag);
  const snapshotted = aReplica({
    guest_image_version: "12.9-20260101",
    agent_version: "0.1.0",
    kernel_version: "6.1.0-44-cloud-amd64",
    compat_status: "OK",
    timings: { boot: 3_600, probe: 180, snapshot: 16 },
  });
  const long = `a-very-long-name-${"of-a-template-".repeat(3)}x`;
  service.jobs.push(buildingJob(), failedJob(), readyJob(), spreadingJob());
  service.templates.push(
    aTemplate({
      template_id: tplId("b"),
      display_name: "python",
      status: "CREATING",
      job_id: BUILDING_JOB,
      image_info: "docker.io/library/python:3.12-slim",
      artifact_digest: "",
      artifact_size_bytes: 0,
      replicas: [],
      updated_at: ago(2),
    }),
    aTemplate({
      template_id: tplId("a"),
      display_name: "debian-web",
      labels: { team: "web", stage: "production", "example.org/cost-centre": "4711" },
      job_id: READY_JOB,
      image_info: "docker.io/library/debian:12",
      artifact_size_bytes: 1.3 * GIB,
      replicas: [snapshotted],
      updated_at: ago(7_190),
    }),
    aTemplate({
      template_id: tplId("c"),
      display_name: long,
      status: "PARTIALLY_READY",
      job_id: "",
      labels: { note: "<script>alert(1)</script>" },
      image_info: "registry.example/team/data-science/notebooks/gpu-enabled/runtime:2026.11.20",
      artifact_size_bytes: 9.6 * GIB,
      artifact_id: "rfs-elsewhere",
      desired_nodes: ["node-a", "node-b.example.org"],
      replicas: [
        snapshotted,
        aReplica({
          node_id: "node-b.example.org",
          status: "FAILED",
          phase: "FAILED",
          last_error_phase: "SNAPSHOTTING",
          error_message: "guest did not answer GET /health on port 8080 within 30 s",
          compat_status: "STALE",
        }),
      ],
      updated_at: ago(40_000),
    }),
    aTemplate({
      template_id: tplId("d"),
      display_name: "spreading",
      status: "CREATING",
      job_id: SPREADING_JOB,
      image_info: "docker.io/library/node:20",
      artifact_id: "art-1",
      artifact_size_bytes: 128 * 1024 * 1024,
      desired_nodes: ["node-1", "node-2", "node-3", "node-4"],
      replicas: [
        aReplica({
          node_id: "node-2",
          status: "FAILED",
          phase: "FAILED",
          last_error_phase: "SNAPSHOTTING",
          error_message: "the guest did not boot",
        }),
      ],
      updated_at: ago(20_000),
    }),
    aTemplate({
      template_id: tplId("f"),
      display_name: "billing",
      protected: true,
      status: "FAILED",
      job_id: FAILED_JOB,
      last_error: "registry.example refused the credentials for private/billing",
      image_info: "registry.example/private/billing:7",
      artifact_digest: "",
      artifact_size_bytes: 0,
      replicas: [],
      updated_at: ago(3_998),
    }),
  );
  service.refs.push(
    aRef({
      snapshot_id: tplId("a"),
      sandbox_id: "sb-4c1f",
      sandbox_gen: 3,
      source: "driver",
      attached_at: ago(75),
      last_seen_at: ago(2),
    }),
  );
  service.sandboxes.push(
    aSandbox({ sandbox_id: "sb-4c1f", template_id: tplId("a"), created_at: ago(75) }),
  );
  const lines = [
    "resolved docker.io/library/python:3.12-slim to linux/amd64",
    "pulling 8 layers, 125 MiB",
    "layer 1 of 8 verified",
    "layer 2 of 8 verified",
    "blob 3 was cut at 4 MiB; resumed",
    "layer 3 of 8 verified",
  ];
  for (const line of lines) service.addLog(BUILDING_JOB, line);
}

export const SNAP = "snap-00000000000000000000000a";
export const FAILED_SNAP = "snap-00000000000000000000000f";
/** Three of one sandbox, the second taken after a rollback to the first, and one that failed. */
const SNAPSHOTS = [
  aSnapshot(SNAP, {
    display_name: "before-upgrade",
    origin_sandbox_id: "sb-4c1f",
    parent_id: tplId("a"),
    rootfs_size_bytes_at_snapshot: 1.2 * GIB,
    created_at: ago(70),
    updated_at: ago(60),
  }),
  aSnapshot("snap-00000000000000000000000b", {
    display_name: "",
    origin_sandbox_id: "sb-4c1f",
    parent_id: SNAP,
    created_at: ago(50),
    updated_at: ago(50),
  }),
  aSnapshot("snap-00000000000000000000000c", {
    display_name: "<b>bold</b>",
    origin_sandbox_id: "sb-gone",
    parent_id: "tpl-gone",
    created_at: ago(40),
    updated_at: ago(40),
  }),
  aSnapshot(FAILED_SNAP, {
    status: "FAILED",
    display_name: "too-large",
    last_error: "the disk is full",
    origin_sandbox_id: "sb-4c1f",
    parent_id: SNAP,
    updated_at: ago(30),
  }),
];
const ORIGINS = [
  aSnapshot(tplId("a"), { kind: "template", display_name: "debian-web", parent_id: "" }),
].map(({ origin_sandbox_id: _box, ...template }) => template);

/** Two nodes, one of which is down: no quorum. */
export const aPair = () => {
  const view = aCluster();
  const [one, two] = view.members;
  const note =
    "1 of 2 voters are up and 2 are needed: resolve and sandboxes go on, changes are refused " +
    "(no_quorum) until node-2 is back";
  const voters = ["node-1", "node-2"];
  const quorum = { ...view.quorum, available: false, note, voters, alive: ["node-1"] };
  const dead = { ...two!, liveness: "dead" as const, liveness_since: ago(300), in_sync: null };
  return { ...view, quorum, members: [one!, dead], divergence: [], tokens: [] };
};

/** Others of the cluster, of which one has no rule of retention. */
const OTHERS = [
  uiNode({
    node_id: "node-b.example.org",
    address: "https://node-b.example.org:7330",
    retention: { keep_last: 2, unused_ttl_ms: 0 },
  }),
  uiNode({ node_id: "node-c", retention: { keep_last: 1, unused_ttl_ms: 30 * 86_400_000 } }),
];

export type SiteKind = "full" | "empty" | "two";

function withOverview(service: FakeService, kind: SiteKind, swarms: SwarmView[]): Queries {
  const node = uiNode({ retention: { keep_last: 2, unused_ttl_ms: 30 * 86_400_000 } });
  const cluster = () => (kind === "full" ? uiCluster() : kind === "two" ? aPair() : aLoneNode());
  const tally = (states: readonly string[]) => {
    const counts: Record<string, number> = {};
    for (const state of states) counts[state] = (counts[state] ?? 0) + 1;
    return counts;
  };
  const ids = ["a", "b", "c", "d", "f"].map(tplId);
  const compat = kind === "full" ? compatQueries(ids) : kind === "two" ? compatQueries() : {};
  const queries = { ...service.queries, ...compat };
  return {
    ...queries,
    ...fakeSnapshotQueries(kind === "full" ? SNAPSHOTS : [], ORIGINS),
    nodes: () => (kind === "full" ? [node, ...OTHERS] : [node]),
    cluster,
    swarms: () => swarms,
    node: (id) =>
      id === "self" || id === node.node_id
        ? node
        : (OTHERS.find((one) => kind === "full" && one.node_id === id) ?? service.queries.node(id)),
    overview: (): Overview => ({
      node,
      templates: tally(service.templates.map((template) => template.status)),
      jobs: tally(service.jobs.map((job) => job.status)),
      sandboxes: service.sandboxes.length,
      active_jobs: service.jobs.filter(isActiveJob),
      attention: [
        ...clusterAttention(cluster()),
        ...compatAttention(queries.compat({ limit: 1 }).summary, { state: "off" }),
        ...service.templates
          .filter((template) => template.status === "FAILED")
          .map((template) => ({
            subject: template.template_id,
            kind: "template" as const,
            since: template.updated_at,
            why: template.last_error,
            next: "Submit again with a registry user and password that may pull.",
          })),
      ],
    }),
  };
}

export interface UiSite {
  readonly service: FakeService;
  /** The distributions, to be changed by a test. */
  readonly swarms: SwarmView[];
  readonly app: Hono;
  readonly url: string;
  close(): Promise<void>;
}

/** `empty` has a node and nothing else, `two` a cluster of two of which one is down. */
export function createUiApp(
  kind: SiteKind = "full",
  auth: AuthConfig = { tokens: [] },
): {
  service: FakeService;
  swarms: SwarmView[];
  app: Hono;
} {
  const service = createFakeService();
  service.templates.length = 0;
  service.jobs.length = 0;
  service.sandboxes.length = 0;
  if (kind === "full") fill(service);
  const swarms = kind === "full" ? aSwarms() : [];
  const ui = createUi({
    queries: withOverview(service, kind, swarms),
    commands: service.commands,
    signIns: createPageSessions({ auth, clock: realClock, random: realRandom }),
    version: "0.1.0",
    clock: realClock,
    random: realRandom,
    bundleFiles,
    log: silentLog,
  });
  return { service, swarms, app: new Hono().route("/ui", ui) };
}

export async function serveUi(kind: SiteKind = "full", auth?: AuthConfig): Promise<UiSite> {
  const { service, swarms, app } = createUiApp(kind, auth);
  const server = await new Promise<ReturnType<typeof serve>>((resolve) => {
    const made = serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" }, () => resolve(made));
  });
  const { port } = server.address() as AddressInfo;
  return {
    service,
    swarms,
    app,
    url: `http://127.0.0.1:${port}`,
    close: () =>
      new Promise((resolve) => {
        if ("closeAllConnections" in server) server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}
