/**
 * Queries and Commands over plain arrays, with a real event ring, for tests of the HTTP side: what
 * a route does with an answer or an error is shown without the work behind it.
 */
import {
  AppError,
  getCompatMatrix,
  isActiveJob,
  previewUpgrade,
  renderRequest,
  redoModeOf,
  redoTargets,
  resumePhaseOf,
  type ArtifactInfo,
  type ArtifactWhy,
  type BundleManifest,
  type CallContext,
  type ChangeEvent,
  type ClusterView,
  type Commands,
  type CompatInput,
  type CreateFromImageRequest,
  type GcReport,
  type JobInfo,
  type JobLogLine,
  type MemberView,
  type NodeFact,
  type Queries,
  type RedoPreview,
  type RedoRequest,
  type ReplicaStatus,
  type ResnapshotView,
  type RetentionReport,
  type RuntimeRef,
  type SandboxInfo,
  type StorageList,
  type SwarmView,
  type TagRecord,
  type TemplateInfo,
  type TemplateRecord,
  type TemplateWhy,
} from "../../src/domain/index.ts";
import { fakeSnapshotCommands, fakeSnapshotQueries } from "./fake-snapshots.ts";
import { fakeTags } from "./fake-tags.ts";

const AT = "2026-01-02T03:04:05.000Z";
export const SHA = `sha256:${"ab".repeat(32)}`;

export const aReplica = (over: Partial<ReplicaStatus> = {}): ReplicaStatus => ({
  node_id: "node-a",
  node_ip: "127.0.0.1",
  status: "READY",
  phase: "READY",
  ...over,
});

export const aTemplate = (over: Partial<TemplateInfo> = {}): TemplateInfo => ({
  template_id: "tpl-000000000000000000000001",
  instance_type: "cubebox",
  version: "v2",
  status: "READY",
  kind: "template",
  display_name: "web",
  labels: { team: "blue" },
  protected: false,
  last_error: "",
  warning: "",
  origin_sandbox_id: "",
  parent_id: "",
  created_at: AT,
  updated_at: AT,
  image_info: `registry.example/web:1@${SHA}`,
  job_id: "job-1",
  artifact_id: "rfs-1",
  artifact_digest: SHA,
  artifact_size_bytes: 1_000,
  replicas: [aReplica()],
  desired_nodes: ["node-a"],
  cube_egress_ca_baked: true,
  cube_egress_ca_fingerprint: "aa",
  cube_egress_ca_targets_written: 2,
  ...over,
});

export const aJob = (over: Partial<JobInfo> = {}): JobInfo => ({
  job_id: "job-1",
  template_id: "tpl-000000000000000000000001",
  request_id: "r-1",
  resource_type: "template",
  resource_id: "tpl-000000000000000000000001",
  attempt_no: 1,
  operation: "CREATE",
  source_image_ref: "registry.example/web:1",
  instance_type: "cubebox",
  status: "RUNNING",
  phase: "UNPACKING",
  progress: 30,
  error_message: "",
  expected_node_count: 1,
  ready_node_count: 0,
  failed_node_count: 0,
  runs: 1,
  phases: [{ phase: "PULLING", started_at: AT }],
  deadline_at: AT,
  created_at: AT,
  updated_at: AT,
  pull_total_bytes: 0,
  pull_downloaded_bytes: 0,
  pull_total_layers: 0,
  pull_completed_layers: 0,
  pull_speed_bps: 0,
  written_bytes: 0,
  entries: 0,
  phase_ratio: 0.5,
  note: "",
  artifact_digest: "",
  ...over,
});

export const anArtifact = (over: Partial<ArtifactInfo> = {}): ArtifactInfo => ({
  artifact_id: "rfs-1",
  template_spec_fingerprint: "ff",
  build_key: "bb",
  source_image_ref: "registry.example/web:1",
  source_image_digest: SHA,
  digest: SHA,
  ext4_size_bytes: 1_000,
  data_bytes: 900,
  entries: 3,
  writable_layer_size: "1Gi",
  status: "READY",
  last_error: "",
  gc_deadline: 0,
  cube_egress_ca_baked: false,
  cube_egress_ca_fingerprint: "",
  cube_egress_ca_targets_written: 0,
  created_at: AT,
  updated_at: AT,
  holders: ["node-a"],
  ...over,
});

export const aNode = (over: Partial<NodeFact> = {}): NodeFact => ({
  node_id: "node-a",
  node_ip: "127.0.0.1",
  address: "http://127.0.0.1:7330",
  instance_type: "cubebox",
  version: "0.1.0",
  started_at: AT,
  healthy: true,
  drained: false,
  driver: "rootfs",
  driver_detail: "",
  guest_image_version: "g1",
  agent_version: "a1",
  kernel_version: "k1",
  versions_extra: {},
  cpu_count: 2,
  memory_bytes: 1024,
  storage: {
    usage_pct: 1,
    total_bytes: 10,
    free_bytes: 9,
    mode: "healthy",
    last_error: "",
    last_updated_at: 1,
  },
  ...over,
});

const aStorageList = (): StorageList => {
  const { node_id, node_ip, healthy, storage } = aNode();
  return { items: [{ node_id, node_ip, healthy, writable: true, ...storage }] };
};

export const aSandbox = (over: Partial<SandboxInfo> = {}): SandboxInfo => ({
  sandbox_id: "sb-1",
  template_id: "tpl-000000000000000000000001",
  node_id: "node-a",
  status: "RUNNING",
  ports: { "80": { host: "127.0.0.1", port: 40_080 } },
  labels: {},
  timings: { restore: 9 },
  created_at: AT,
  ...over,
});

export const aRef = (over: Partial<RuntimeRef> = {}): RuntimeRef => ({
  id: 1,
  snapshot_id: "tpl-1",
  sandbox_id: "sb-1",
  node_id: "node-a",
  node_ip: "127.0.0.1",
  binding_type: "memory_backing",
  sandbox_gen: 0,
  status: "ACTIVE",
  attached_at: AT,
  last_seen_at: AT,
  last_error: "",
  source: "runtime",
  ...over,
});

export const aWhy = ({ artifact_id, status }: ArtifactInfo): ArtifactWhy => ({
  artifact_id,
  status,
  why: "used: 1 reference",
  references: [{ kind: "template", id: "tpl-1", status: "READY", why: "made from it" }],
  kept_until: AT,
  nodes: [
    {
      node_id: "node-a",
      is_member: true,
      healthy: true,
      holding: "complete",
      size_bytes: 1_000,
      is_removing: false,
      replicas: ["tpl-1"],
      runtime_ref_count: 1,
      sandboxes: ["sb-1"],
    },
  ],
});

export const aTemplateWhy = (template: TemplateInfo): TemplateWhy => ({
  template_id: template.template_id,
  kind: template.kind,
  status: template.status,
  last_error: "",
  artifact_id: template.artifact_id,
  artifact_status: "READY",
  references: [{ kind: "sandbox", id: "sb-1", node_id: "node-a" }],
  unanswered: [],
  nodes: [
    {
      node_id: "node-b",
      ready: false,
      why: "the node is drained",
      phase: "",
      error_message: "",
      healthy: true,
      drained: true,
      in_scope: true,
      wanted: false,
      driver: "rootfs",
      compat_status: "MISSING",
      storage_mode: "healthy",
      free_bytes: 9,
      holds_artifact: false,
    },
  ],
});

export const aGcReport = (over: Partial<GcReport> = {}): GcReport => ({
  dry_run: true,
  in_touch: true,
  items: [
    {
      artifact_id: "rfs-old",
      status: "READY",
      step: "release",
      why: "nobody refers to it and its grace is over",
      due_at: AT,
      nodes: [{ node_id: "node-a", bytes: 2_000 }],
    },
  ],
  nodes: [{ node_id: "node-a", artifacts: 1, bytes: 2_000 }],
  bytes: 2_000,
  orphans: [
    {
      node_id: "node-a",
      folder: "artifacts/partial",
      name: "a".repeat(64),
      bytes: 4_096,
      changed_at: AT,
      due_at: "2026-01-01T01:00:00.000Z",
      removed: false,
    },
  ],
  evictions: [],
  unanswered: [],
  ...over,
});

const aResnapshot = (): ResnapshotView => ({
  state: "stopped",
  failure: {
    template_id: "tpl-1",
    node_id: "node-a",
    request_id: "resnapshot-3-node-a",
    job_id: "job-9",
    started_at: AT,
    failed_at: AT,
    error: "the guest does not answer",
  },
  pending: 4,
  done: 2,
  failed: 1,
});

export const aRetentionReport = (over: Partial<RetentionReport> = {}): RetentionReport => {
  const item = { status: "READY", line: "web", created_at: AT, last_used_at: "", deleted: false };
  return {
    dry_run: true,
    in_touch: true,
    policy: { keep_last: 2, unused_ttl_ms: 0 },
    items: [
      { ...item, template_id: "tpl-old", reason: "superseded", kept_by: "" },
      { ...item, template_id: "tpl-kept", reason: "unused", kept_by: "tag prod" },
    ],
    ...over,
  };
};

const compatInput = (templates: readonly TemplateInfo[]): CompatInput => ({
  templates: templates.map((one) => ({ ...one, status: "READY", generation: 0, request: {} })),
  nodes: [aNode()],
  replicas: templates.flatMap(({ template_id: id, replicas }) =>
    replicas.map((value) => ({ id, value })),
  ),
});

function aMatrix(templates: readonly TemplateInfo[], page: Parameters<Queries["compat"]>[0] = {}) {
  const { hasMore, ...matrix } = getCompatMatrix(compatInput(templates), {
    ...page,
    after: page.next_token,
  });
  const last = matrix.templates.at(-1)?.template_id;
  return hasMore && last !== undefined ? { ...matrix, next_token: last } : matrix;
}

export interface FakeService {
  cluster: ClusterView;
  readonly queries: Queries;
  readonly commands: Commands;
  readonly templates: TemplateInfo[];
  readonly jobs: JobInfo[];
  readonly logs: Map<string, JobLogLine[]>;
  readonly artifacts: ArtifactInfo[];
  readonly sandboxes: SandboxInfo[];
  readonly refs: RuntimeRef[];
  /** By name. */
  readonly tags: Map<string, TagRecord>;
  /** The bytes of every artifact. */
  bytes: Uint8Array;
  /** What the next command throws. */
  failWith: unknown;
  /** Names and contexts of the commands that ran. */
  readonly calls: { name: string; argument: unknown; context?: CallContext }[];
  publish(type: ChangeEvent["type"], subject: string, data?: Record<string, unknown>): void;
  /** Changes a job and publishes it. */
  updateJob(id: string, change: Partial<JobInfo>): void;
  addLog(id: string, message: string): void;
  /** Readers of events now. */
  listeners(): number;
  /** Forgets the ring, as a restart does. */
  restart(): void;
}

const aStored = {
  ...{ instance_type: "cubebox", version: "v2", kind: "template", status: "READY" },
  ...{ generation: 1, desired_nodes: [], last_error: "", created_at: AT, updated_at: AT },
} as const satisfies Partial<TemplateRecord>;

const byId = <T>(items: readonly T[], match: (item: T) => boolean, error: () => AppError): T => {
  const found = items.find(match);
  if (found === undefined) throw error();
  return found;
};

interface State {
  boot: number;
  sequence: number;
  ring: ChangeEvent[];
  readonly listeners: Set<(event: ChangeEvent) => void>;
}

function queriesOf(
  service: Omit<FakeService, "queries" | "commands">,
  state: State,
  tags: ReturnType<typeof fakeTags>,
): Queries {
  const template = (id: string) =>
    byId(
      service.templates,
      (one) => one.template_id === id || one.display_name === id,
      () => new AppError("template_not_found", `template ${id} not found`),
    );
  const artifact = (id: string) =>
    byId(
      service.artifacts,
      (one) => one.artifact_id === id,
      () => new AppError("artifact_not_found", `artifact ${id} not found`),
    );
  const job = (id: string) =>
    byId(
      service.jobs,
      (one) => one.job_id === id,
      () => new AppError("job_not_found", `job ${id} not found`),
    );
  // Another one each time it is asked, so that nothing is kept between the steps of a test.
  let revision = 0;
  return {
    nodeId: "node-a",
    overview: () => ({
      node: aNode(),
      templates: {},
      jobs: {},
      sandboxes: service.sandboxes.length,
      active_jobs: service.jobs.filter(isActiveJob),
      attention: [],
    }),
    listTemplates(filter = {}) {
      const { status, limit = 100, next_token = "0" } = filter;
      const all = service.templates.filter((one) => status === undefined || one.status === status);
      const start = Number(next_token);
      const end = start + limit;
      const items = all.slice(start, end);
      return end < all.length ? { items, next_token: String(end) } : { items };
    },
    template,
    templateRequest: (id) => ({ request_id: "fresh", template_id: template(id).template_id }),
    renderRequest: (id, request) => {
      const { template_id } = template(id);
      return renderRequest(request, { ...aStored, template_id, request: { template_id } }, false);
    },
    replicas: (id) => template(id).replicas,
    redoPreview: (id, request) => aRedoPreview(template(id), request),
    listJobs: (filter = {}) => ({
      items: service.jobs.filter(
        (one) => filter.status === undefined || one.status === filter.status,
      ),
    }),
    job,
    jobLog: async (id, options = {}) =>
      (service.logs.get(job(id).job_id) ?? [])
        .filter((line) => line.sequence > (options.after ?? 0))
        .slice(0, options.limit ?? 1_000),
    artifact,
    listArtifacts: () => service.artifacts,
    nodes: () => [aNode()],
    node: (id) =>
      byId(
        [aNode()],
        (one) => id === "self" || one.node_id === id,
        () => new AppError("node_not_found", `node ${id} not found`),
      ),
    storage: () => aStorageList(),
    refreshStorage: async () => aStorageList(),
    sandboxes: () => service.sandboxes,
    sandbox: (id) =>
      byId(
        service.sandboxes,
        (one) => one.sandbox_id === id,
        () => new AppError("sandbox_not_found", `sandbox ${id} not found`),
      ),
    compat: (page) => aMatrix(service.templates, page),
    compatPreview: (upgrade) => previewUpgrade(compatInput(service.templates), upgrade),
    resnapshot: () => aResnapshot(),
    whyArtifact: (id) => aWhy(artifact(id)),
    whyTemplate: async (id) => aTemplateWhy(template(id)),
    async runtimeRefs(id) {
      const items = service.refs.filter((ref) => ref.snapshot_id === id);
      return { items, count: items.length, unanswered: [] };
    },
    runtimeRefOf: async (id) =>
      byId(
        service.refs,
        (one) => one.sandbox_id === id,
        () => new AppError("runtime_ref_not_found", `sandbox ${id} has none`),
      ),
    subscribe(listener) {
      state.listeners.add(listener);
      return () => state.listeners.delete(listener);
    },
    eventsSince(id) {
      const [boot, sequence] = id.split(".").map(Number);
      if (boot !== state.boot || sequence === undefined) return undefined;
      return state.ring.filter((event) => Number(event.id.split(".")[1]) > sequence);
    },
    lastEventId: () => `${state.boot}.${state.sequence}`,
    resolveRevision: () => ++revision,
    ...fakeSnapshotQueries(),
    ...tags.queries,
    cluster: () => service.cluster,
    swarms: (id) => aSwarms().filter((one) => id === undefined || one.artifact_id === id),
  };
}

function commandsOf(
  service: Omit<FakeService, "commands">,
  tags: ReturnType<typeof fakeTags>,
): Commands {
  const enter = (name: string, argument: unknown, context?: CallContext): void => {
    service.calls.push({ name, argument, context });
    if (service.failWith !== undefined) {
      const error = service.failWith;
      service.failWith = undefined;
      throw error as Error;
    }
  };
  const slice = async function* (range?: { start: number; end: number }) {
    const { start, end } = range ?? { start: 0, end: service.bytes.length - 1 };
    for (let at = start; at <= end; at += 100) {
      yield service.bytes.subarray(at, Math.min(at + 100, end + 1));
    }
  };
  return {
    ...fakeSnapshotCommands(enter),
    ...tags.commands(enter),
    async createTemplate(request, context) {
      enter("createTemplate", request, context);
      const one = aTemplate({ template_id: request.template_id ?? "tpl-new" });
      service.templates.push(one);
      return one;
    },
    async createFromImage(request: CreateFromImageRequest, context) {
      enter("createFromImage", request, context);
      const job_id = `job-${service.jobs.length + 1}`;
      const job = aJob({ job_id, status: "PENDING", phase: "PULLING", progress: 0 });
      service.jobs.push(job);
      return job;
    },
    async redoTemplate(id, request, context) {
      enter("redoTemplate", { id, ...request }, context);
      const { template_id } = service.queries.template(id);
      const job_id = `job-${service.jobs.length + 1}`;
      const job = aJob({ job_id, template_id, operation: "REDO", status: "PENDING", progress: 0 });
      service.jobs.push(job);
      return job;
    },
    async commitSandbox(request, context) {
      enter("commitSandbox", request, context);
      const job_id = `job-${service.jobs.length + 1}`;
      const { sandbox_id } = request;
      const job = aJob({ job_id, operation: "COMMIT", sandbox_id, status: "PENDING", progress: 0 });
      service.jobs.push(job);
      return job;
    },
    async cancelJob(id, context) {
      enter("cancelJob", id, context);
      const job = service.queries.job(id);
      if (!isActiveJob(job)) throw new AppError("job_not_active", `job ${id} has already ended`);
      return { ...job, cancel_requested: true };
    },
    async deleteTemplate(id, options, context) {
      enter("deleteTemplate", { id, ...options }, context);
      const { template_id } = service.queries.template(id);
      service.templates.splice(
        service.templates.findIndex((one) => one.template_id === id),
        1,
      );
      return { template_id };
    },
    resolve(request) {
      enter("resolve", request);
      const template = service.queries.template(request.template_id ?? "");
      return {
        template_id: template.template_id,
        kind: template.kind,
        node_id: "node-a",
        replica: template.replicas[0] ?? aReplica(),
        request,
      };
    },
    async exportBundle(id, context) {
      enter("exportBundle", id, context);
      const { template_id } = service.queries.template(id);
      const manifest = { template: { template_id } } as BundleManifest;
      return { manifest, body: slice() };
    },
    async importBundle(source, request, context) {
      const parts: Uint8Array[] = [];
      for await (const part of source) parts.push(part);
      enter("importBundle", { ...request, bytes: Buffer.concat(parts).length }, context);
      const signed_by = { node_id: "n", cluster_id: "", key: "k" };
      const made = { template_id: "tpl-1", kind: "template", artifact_id: "rfs-1" } as const;
      return { ...made, outcome: "accepted", job_id: "job-1", signed_by };
    },
    async runSandbox(request, context) {
      enter("runSandbox", request, context);
      const sandbox = aSandbox({ sandbox_id: request.sandbox_id ?? "sb-new" });
      service.sandboxes.push(sandbox);
      return sandbox;
    },
    async deleteSandbox(id, context) {
      enter("deleteSandbox", id, context);
      const at = service.sandboxes.indexOf(service.queries.sandbox(id));
      service.sandboxes.splice(at, 1);
    },
    async applyRetention({ dryRun, policy }, context) {
      enter("applyRetention", { dryRun, policy }, context);
      return aRetentionReport({
        dry_run: dryRun,
        policy: { keep_last: 2, unused_ttl_ms: 0, ...policy },
      });
    },
    async collectGarbage({ dryRun }, context) {
      enter("collectGarbage", { dryRun }, context);
      return aGcReport({ dry_run: dryRun });
    },
    async rescanCompat(request, context) {
      enter("rescanCompat", request, context);
      const counts = { scanned: 3, changed: 1, stale: 1, unknown: 0 };
      return { nodes: [{ node_id: "node-a", healthy: true, ...counts }] };
    },
    async adoptCompatBaseline(id, context) {
      enter("adoptCompatBaseline", id, context);
      const { template_id } = service.queries.template(id);
      return { template_id, updated: 1, nodes: ["node-a"] };
    },
    async resumeResnapshot(context) {
      enter("resumeResnapshot", undefined, context);
      return { state: "idle", pending: 0, done: 2, failed: 1 };
    },
    async undeleteArtifact(id, context) {
      enter("undeleteArtifact", id, context);
      return service.queries.artifact(id);
    },
    async acquireRuntimeRef(request, context) {
      enter("acquireRuntimeRef", request, context);
      const { snapshot_id, sandbox_id } = request;
      const ref = aRef({ id: service.refs.length + 1, snapshot_id, sandbox_id });
      service.refs.push(ref);
      return ref;
    },
    async releaseRuntimeRefs(id, reason, context) {
      enter("releaseRuntimeRefs", { id, reason }, context);
      const kept = service.refs.filter((ref) => ref.sandbox_id !== id);
      const released = service.refs.length - kept.length;
      service.refs.splice(0, service.refs.length, ...kept);
      return released;
    },
    async observeRuntimeRefs(observed, context) {
      enter("observeRuntimeRefs", observed, context);
    },
    async openArtifact(id, token, range) {
      enter("openArtifact", { id, token, range });
      return { info: service.queries.artifact(id), body: slice(range) };
    },
    artifactToken: () => "the-token",
    async createJoinToken(request, context) {
      enter("createJoinToken", request, context);
      return { token_id: "tok-1", token: "tcj1.secret", expires_at: AT, uses_left: 1 };
    },
    async revokeJoinToken(id, context) {
      enter("revokeJoinToken", id, context);
    },
    async joinCluster(request, context) {
      enter("joinCluster", request, context);
      return aCluster();
    },
    async leaveCluster(context) {
      enter("leaveCluster", undefined, context);
    },
    async removeNode(id, context) {
      enter("removeNode", id, context);
      service.queries.node(id);
    },
    async drainNode(id, drained, context) {
      enter("drainNode", { id, drained }, context);
      service.queries.node(id);
    },
  };
}

export const aLoneNode = (): ClusterView => ({
  clustered: false,
  cluster_id: "",
  node_id: "node-1",
  peer_id: "",
  addresses: [],
  state_hash: "00".repeat(16),
  quorum: {
    available: true,
    note: "this node is alone and its own quorum",
    number: 0,
    voters: ["node-1"],
    alive: ["node-1"],
    changing: false,
  },
  members: [],
  leaders: [],
  sessions: [],
  divergence: [],
  warnings: [],
  tokens: [],
  messages: {},
});

const aMember = (id: string, more: Partial<MemberView> = {}): MemberView => ({
  node_id: id,
  peer_id: `12D3KooW${id}`,
  addresses: [`/ip4/10.0.0.${id.at(-1) ?? "1"}/tcp/7331`],
  joined_at: AT,
  drained: false,
  self: id === "node-1",
  voter: true,
  liveness: "alive",
  liveness_since: AT,
  connected: true,
  wanted: 8,
  ready: 8,
  coverage_pct: 100,
  warm: true,
  in_sync: true,
  compared_at: AT,
  lag_ms: 12,
  leads: 0,
  version: "0.2.0",
  ...more,
});

/** Five nodes: one suspected, one being filled, one that disagrees. */
export const aCluster = (): ClusterView => ({
  ...aLoneNode(),
  clustered: true,
  cluster_id: "c1",
  peer_id: "12D3KooWnode-1",
  addresses: ["/ip4/10.0.0.1/tcp/7331"],
  quorum: {
    available: true,
    note: "voter node-4 is down; 1 more may fail",
    number: 4,
    voters: ["node-1", "node-2", "node-3", "node-4", "node-5"],
    alive: ["node-1", "node-2", "node-3", "node-5"],
    changing: false,
  },
  members: [
    aMember("node-1", { leads: 2 }),
    aMember("node-2", { leads: 1, in_sync: false }),
    aMember("node-3", { drained: true }),
    aMember("node-4", { liveness: "suspect", connected: false, in_sync: null }),
    aMember("node-5", { warm: false, ready: 5, coverage_pct: 62 }),
  ],
  leaders: [
    { template_id: "tpl-1", node_id: "node-1", epoch: 3, since: AT, valid: true },
    { template_id: "tpl-2", node_id: "node-2", epoch: 1, since: AT, valid: true },
  ],
  sessions: [{ node_id: "node-1", incarnation: 7, beat: 41, term_ms: 8_000, ended: false }],
  warnings: [
    {
      code: "clock_skew",
      node_id: "node-4",
      detail: "the clocks are 3600 s apart",
      advice: "set the clocks of both hosts by NTP",
      since: AT,
    },
  ],
  divergence: [
    {
      node_id: "node-2",
      since: AT,
      count: 1,
      entries: [{ owner: "node-4", kind: "replica", id: "tpl-1", here: 5, there: 4 }],
    },
  ],
  tokens: [{ token_id: "tok-1", created_at: AT, expires_at: AT, uses_left: 1 }],
  messages: { "changes:accepted": 812, "changes:rejected:schema": 1 },
});

export const aSwarms = (): SwarmView[] => [
  {
    artifact_id: "art-1",
    digest: SHA,
    size_bytes: 128 * 1024 * 1024,
    chunk_count: 2_048,
    nodes: [
      aShare("node-1", { have_chunks: 2_048, complete: true, sent_bytes: 140_000_000 }),
      aShare("node-2", { have_chunks: 1_300, sources: { "node-1": 50_000_000 }, down_bps: 9e6 }),
      aShare("node-3", { have_chunks: 900, reused_chunks: 120 }),
    ],
  },
];

const aShare = (
  node_id: string,
  more: Partial<SwarmView["nodes"][number]>,
): SwarmView["nodes"][number] => ({
  node_id,
  have_chunks: 0,
  complete: false,
  reused_chunks: 0,
  sources: {},
  sent_bytes: 0,
  down_bps: 0,
  up_bps: 0,
  ...more,
});

/** Every node that shall hold it takes part; the rules of the modes are the real ones. */
function aRedoPreview(template: TemplateInfo, request: RedoRequest): RedoPreview {
  const mode = redoModeOf(request);
  const scope = request.distribution_scope ?? template.desired_nodes;
  const nodes = redoTargets(mode, scope, template.replicas);
  return { mode, nodes, resume_phase: resumePhaseOf(undefined, template.replicas) };
}

/** One READY template with its job, artifact and replica. */
export function createFakeService(): FakeService {
  const state: State = { boot: 1, sequence: 0, ring: [], listeners: new Set() };
  const base: Omit<FakeService, "queries" | "commands"> = {
    cluster: aLoneNode(),
    templates: [aTemplate()],
    jobs: [aJob()],
    logs: new Map(),
    artifacts: [anArtifact()],
    sandboxes: [aSandbox()],
    refs: [],
    tags: new Map(),
    bytes: Uint8Array.from({ length: 1_000 }, (_, index) => index % 251),
    failWith: undefined,
    calls: [],
    publish(type, subject, data = {}) {
      const event = { id: `${state.boot}.${++state.sequence}`, at: AT, type, subject, data };
      state.ring.push(event);
      for (const listener of [...state.listeners]) listener(event);
    },
    updateJob(id, change) {
      const at = base.jobs.findIndex((job) => job.job_id === id);
      const job = { ...base.jobs[at]!, ...change };
      base.jobs[at] = job;
      base.publish("job", id, job);
    },
    addLog(id, message) {
      const lines = base.logs.get(id) ?? [];
      const line = { sequence: lines.length + 1, at: AT, level: "info" as const, message };
      base.logs.set(id, [...lines, line]);
      base.publish("job-log", id, line);
    },
    listeners: () => state.listeners.size,
    restart() {
      state.boot += 1;
      state.sequence = 0;
      state.ring = [];
    },
  };
  const tags = fakeTags(base.templates, base.tags);
  const withQueries = Object.assign(base, { queries: queriesOf(base, state, tags) });
  return Object.assign(withQueries, { commands: commandsOf(withQueries, tags) });
}
