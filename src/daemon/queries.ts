/** The read side: views of the catalog, answered from memory. */
import {
  AppError,
  CLUSTER,
  LIMITS,
  clusterAttention,
  compatAttention,
  isActiveJob,
  labelFilter,
  pendingReplicas,
  renderRequest,
  resnapshotAttention,
  type ArtifactInfo,
  type ArtifactRecord,
  type Catalog,
  type ClusterView,
  type JobInfo,
  type JobLogLine,
  type JobRecord,
  type Overview,
  type Page,
  type PageRequest,
  type Queries,
  type Random,
  type ReplicaStatus,
  type SandboxInfo,
  type SwarmView,
  type TemplateInfo,
  type TemplateRecord,
} from "../domain/index.ts";
import type { Collection } from "./collection.ts";
import type { Compat } from "./compat.ts";
import type { StorageView } from "./disk/view.ts";
import type { EventHub } from "./events.ts";
import type { ClusterRefs } from "./ref-asks.ts";
import type { JobLog } from "./job-log.ts";
import type { Nodes } from "./nodes.ts";
import type { ResnapshotWorker } from "./workers/resnapshot.ts";
import { workersOf } from "./job-record.ts";
import { replicasOf, type Records } from "./records.ts";
import { previewRedo } from "./redo.ts";
import { createSnapshotQueries } from "./snapshot-queries.ts";
import { listAllTemplates, newestFirst } from "./template-list.ts";
import { createTagQueries, displayName, taggedId } from "./tag-queries.ts";

export interface QueryParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly nodes: Nodes;
  /** Lines of a job's log that another node keeps. @throws AppError peer_unreachable */
  readonly askJobLog: (
    nodeId: string,
    jobId: string,
    options: { after?: number; limit?: number },
  ) => Promise<readonly JobLogLine[]>;
  readonly collection: Pick<Collection, "whyArtifact" | "whyTemplate">;
  readonly compat: Pick<Compat, "matrix" | "preview">;
  readonly resnapshot: Pick<ResnapshotWorker, "view">;
  readonly clusterRefs: Pick<ClusterRefs, "find">;
  readonly cluster: () => ClusterView;
  readonly swarms: () => readonly SwarmView[];
  readonly storage: StorageView;
  readonly hub: EventHub;
  readonly jobLog: JobLog;
  readonly random: Random;
  /** Guests reach no network here, whatever is asked for. */
  readonly isolateGuests: boolean;
  readonly sandboxes: { list(): readonly SandboxInfo[] };
}

/** The page after `next_token`, which is the base64url of the last item's sort key. */
function paginate<T>(
  items: readonly T[],
  sortKey: (item: T) => string,
  { limit, next_token }: PageRequest,
): Page<T> {
  const size = Math.min(Math.max(limit ?? LIMITS.pageDefault, 1), LIMITS.pageMax);
  let start = 0;
  if (next_token !== undefined) {
    const last = Buffer.from(next_token, "base64url").toString("utf8");
    if (Buffer.from(last, "utf8").toString("base64url") !== next_token) {
      throw new AppError("invalid_request", "invalid next_token", {
        meta: { errors: [{ pointer: "/next_token", detail: "is not a token of this list" }] },
      });
    }
    start = items.findIndex((item) => sortKey(item) < last);
    if (start < 0) return { items: [] };
  }
  const page = items.slice(start, start + size);
  const last = page.at(-1);
  return start + size < items.length && last !== undefined
    ? { items: page, next_token: Buffer.from(sortKey(last), "utf8").toString("base64url") }
    : { items: page };
}

const jobKey = (job: { created_at: string; job_id: string }) => `${job.created_at}/${job.job_id}`;

export function createQueries(parts: QueryParts): Queries {
  const { catalog, hub, jobLog } = parts;
  const nodeId = parts.nodes.self;
  const record = {
    template: (id: string) => catalog.get(CLUSTER, "template", id)?.value,
    job: (id: string) => catalog.get(CLUSTER, "job", id)?.value,
    artifact: (id: string) => catalog.get(CLUSTER, "artifact", id)?.value,
  };
  const values = <T>(entries: Iterable<{ value?: T }>): T[] =>
    [...entries].flatMap(({ value }) => (value === undefined ? [] : [value]));
  const replicas = (id: string): ReplicaStatus[] => replicasOf(catalog, id);

  const templateInfo = (template: TemplateRecord): TemplateInfo =>
    templateView(
      { ...template, display_name: displayName(catalog, template) },
      replicas(template.template_id),
      record.artifact(template.artifact_id ?? ""),
    );
  const jobInfo = (job: JobRecord): JobInfo =>
    jobView(job, catalog, record.artifact(job.artifact_id ?? ""));
  const artifactInfo = ({ download_token, ...artifact }: ArtifactRecord): ArtifactInfo => ({
    ...artifact,
    holders: [...catalog.list("holding", { id: artifact.artifact_id })].map(({ owner }) => owner),
  });

  const allTemplates = () =>
    listAllTemplates({
      templates: () => values(catalog.list("template")),
      jobs: () => values(catalog.list("job")),
      nameOf: (template) => displayName(catalog, template),
      viewOf: templateInfo,
      pseudoOf: pseudoTemplate,
    });
  const findTemplate = (idOrName: string): TemplateInfo => {
    const id = idOrName.trim();
    const found = record.template(id) ?? record.template(taggedId(catalog, id) ?? "");
    if (found !== undefined) return templateInfo(found);
    const all = allTemplates();
    const named = all.filter((one) => one.kind === "template" && one.display_name === id);
    const info =
      all.find((candidate) => candidate.template_id === id) ??
      named.find((candidate) => candidate.status === "READY") ??
      named.find(() => id !== "");
    if (info === undefined) {
      throw new AppError("template_not_found", `template ${JSON.stringify(id)} not found`);
    }
    return info.view();
  };

  const stored = (id: string): TemplateRecord => {
    const template = record.template(findTemplate(id).template_id);
    if (template !== undefined) return template;
    throw new AppError("template_not_found", `template ${id} has no stored request yet`);
  };
  let revision = 0;
  catalog.subscribe(({ kind }) => {
    if (["template", "replica", "node", "tag"].includes(kind)) revision++;
  });
  parts.nodes.onChange(() => revision++);
  const queries: Queries = {
    nodeId,
    overview: () => overview(queries, nodeId),
    listTemplates(filter = {}) {
      const wanted = filter.text?.toLowerCase();
      const label = filter.label ? labelFilter(filter.label) : undefined;
      const items = allTemplates().filter(
        (info) =>
          (filter.status === undefined || info.status === filter.status.toUpperCase()) &&
          (wanted === undefined ||
            `${info.template_id} ${info.display_name} ${info.image_info}`
              .toLowerCase()
              .includes(wanted)) &&
          (label === undefined || label(info.labels)),
      );
      const page = paginate(items, ({ key }) => key, filter);
      return { ...page, items: page.items.map((one) => one.view()) };
    },
    template: findTemplate,
    templateRequest: (id) => ({
      ...structuredClone(stored(id).request),
      request_id: parts.random.uuid(),
    }),
    renderRequest: (id, request) =>
      renderRequest(
        { request_id: parts.random.uuid(), ...request },
        stored(id),
        parts.isolateGuests,
      ),
    replicas(id) {
      const template = record.template(findTemplate(id).template_id);
      if (template === undefined) return [];
      const begun = replicas(template.template_id);
      return [...begun, ...pendingReplicas(template, begun, (node) => parts.nodes.get(node))];
    },
    redoPreview: (id, request) => previewRedo({ ...parts, queries }, id, request),
    listJobs(filter = {}) {
      const items = values(catalog.list("job")).filter(
        (job) =>
          (filter.status === undefined || job.status === filter.status.toUpperCase()) &&
          (filter.template_id === undefined || job.template_id === filter.template_id),
      );
      const page = paginate(newestFirst(items, jobKey), jobKey, filter);
      return { ...page, items: page.items.map(jobInfo) };
    },
    job(id) {
      const job = record.job(id);
      if (job === undefined) {
        throw new AppError("job_not_found", `job ${JSON.stringify(id)} not found`);
      }
      return jobInfo(job);
    },
    async jobLog(id, options = {}) {
      const others = workersOf(queries.job(id)).filter((node) => node !== nodeId);
      const own = await jobLog.read(id, options);
      if (others.length === 0) return own;
      const asked = await Promise.allSettled(
        others.map((node) => parts.askJobLog(node, id, options)),
      );
      const lines = asked.flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
      const sorted = [...own, ...lines].sort((a, b) => a.sequence - b.sequence);
      return sorted.slice(0, options.limit ?? LIMITS.jobLogLines);
    },
    artifact(id) {
      const artifact = record.artifact(id);
      if (artifact === undefined) {
        throw new AppError("artifact_not_found", `artifact ${JSON.stringify(id)} not found`);
      }
      return artifactInfo(artifact);
    },
    listArtifacts: () => values(catalog.list("artifact")).map(artifactInfo),
    ...createSnapshotQueries(parts),
    ...createTagQueries(catalog),
    whyArtifact: (id) => parts.collection.whyArtifact(id),
    async whyTemplate(id) {
      const template = record.template(findTemplate(id).template_id);
      if (template !== undefined) return parts.collection.whyTemplate(template);
      throw new AppError("template_not_found", `template ${id} is still being made by its job`);
    },
    async runtimeRefs(id) {
      const found = await parts.clusterRefs.find({ snapshotId: findTemplate(id).template_id });
      const { refs, count, unanswered } = found;
      return { items: refs, count, unanswered };
    },
    async runtimeRefOf(sandboxId) {
      const { refs, unanswered } = await parts.clusterRefs.find({ sandboxId });
      const [newest] = [...refs].sort((a, b) => (a.attached_at < b.attached_at ? 1 : -1));
      if (newest !== undefined) return newest;
      const silent = unanswered.map(({ node_id }) => node_id).sort();
      throw new AppError(
        "runtime_ref_not_found",
        `sandbox ${JSON.stringify(sandboxId)} has no active runtime ref` +
          (silent.length === 0 ? "" : `; no answer from ${silent.join(", ")}`),
        { meta: { unanswered: silent } },
      );
    },
    cluster: () => parts.cluster(),
    swarms(artifactId) {
      const all = parts.swarms();
      if (artifactId === undefined) return all;
      queries.artifact(artifactId);
      return all.filter((swarm) => swarm.artifact_id === artifactId);
    },
    compat: (page = {}) => parts.compat.matrix(page),
    compatPreview: (upgrade) => parts.compat.preview(upgrade),
    resnapshot: () => parts.resnapshot.view(),
    nodes: () => parts.nodes.all(),
    node(id) {
      const wanted = id === "self" ? nodeId : id;
      const node = parts.nodes.get(wanted);
      if (node === undefined) {
        throw new AppError("node_not_found", `node ${JSON.stringify(id)} not found`);
      }
      return node;
    },
    storage: () => parts.storage.list(),
    refreshStorage: (options) => parts.storage.refresh(options),
    sandboxes: () => parts.sandboxes.list(),
    sandbox(id) {
      const sandbox = parts.sandboxes.list().find((found) => found.sandbox_id === id);
      if (sandbox === undefined) {
        throw new AppError("sandbox_not_found", `sandbox ${JSON.stringify(id)} not found`);
      }
      return sandbox;
    },
    subscribe: (listener) => hub.subscribe(listener),
    eventsSince: (id) => hub.since(id),
    lastEventId: () => hub.lastId(),
    resolveRevision: () => revision,
  };
  return queries;
}

function templateView(
  template: TemplateRecord,
  replicas: readonly ReplicaStatus[],
  artifact: ArtifactRecord | undefined,
): TemplateInfo {
  return {
    template_id: template.template_id,
    instance_type: template.instance_type,
    version: template.version,
    status: template.status,
    kind: template.kind,
    display_name: template.display_name ?? "",
    labels: template.labels ?? {},
    protected: template.protected ?? false,
    last_error: template.last_error,
    warning: template.warning ?? "",
    origin_sandbox_id: template.origin_sandbox_id ?? "",
    parent_id: template.parent_id ?? "",
    created_at: template.created_at,
    updated_at: template.updated_at,
    image_info: template.image_info ?? "",
    job_id: template.job_id ?? "",
    artifact_id: template.artifact_id ?? "",
    artifact_digest: artifact?.digest ?? "",
    artifact_size_bytes: artifact?.ext4_size_bytes ?? 0,
    replicas: [...replicas],
    desired_nodes: template.desired_nodes,
    cube_egress_ca_baked: artifact?.cube_egress_ca_baked ?? false,
    cube_egress_ca_fingerprint: artifact?.cube_egress_ca_fingerprint ?? "",
    cube_egress_ca_targets_written: artifact?.cube_egress_ca_targets_written ?? 0,
  };
}

/** A build without definition: status from its job (spec §2.5). */
function pseudoTemplate(job: JobRecord): TemplateInfo {
  return {
    template_id: job.template_id,
    instance_type: job.instance_type,
    version: "v2",
    status: job.template_status || job.status || "PENDING",
    kind: "template",
    display_name: job.request?.display_name ?? job.display_name ?? "",
    labels: job.request?.labels ?? {},
    protected: false,
    last_error: job.error_message,
    warning: job.warning ?? "",
    origin_sandbox_id: job.sandbox_id ?? "",
    parent_id: "",
    created_at: job.created_at,
    updated_at: job.updated_at,
    image_info: imageInfo(job.source_image_ref ?? "", job.source_image_digest ?? ""),
    job_id: job.job_id,
    artifact_id: job.artifact_id ?? "",
    artifact_digest: "",
    artifact_size_bytes: 0,
    replicas: [],
    desired_nodes: [],
    cube_egress_ca_baked: false,
    cube_egress_ca_fingerprint: "",
    cube_egress_ca_targets_written: 0,
  };
}

/** `ref`, or `ref@digest`, never with two `@` (spec §2.5). */
export function imageInfo(reference: string, digest: string): string {
  const bare = digest.slice(digest.lastIndexOf("@") + 1);
  return bare === "" || reference.includes("@") ? reference : `${reference}@${bare}`;
}

function jobView(
  { request, definition, ...job }: JobRecord,
  catalog: Catalog,
  artifact: ArtifactRecord | undefined,
): JobInfo {
  let progress;
  for (const { owner, value } of catalog.list("job-progress", { id: job.job_id })) {
    if (progress === undefined || owner === job.worked_by) progress = value;
  }
  return {
    ...job,
    pull_total_bytes: progress?.pull_total_bytes ?? 0,
    pull_downloaded_bytes: progress?.pull_downloaded_bytes ?? 0,
    pull_total_layers: progress?.pull_total_layers ?? 0,
    pull_completed_layers: progress?.pull_completed_layers ?? 0,
    pull_speed_bps: isActiveJob(job) ? (progress?.pull_speed_bps ?? 0) : 0,
    written_bytes: progress?.written_bytes ?? 0,
    entries: progress?.entries ?? 0,
    phase_ratio: isActiveJob(job) ? (progress?.phase_ratio ?? 0) : 1,
    note: isActiveJob(job) ? (progress?.note ?? "") : "",
    artifact_digest: artifact?.digest ?? "",
  };
}

const countBy = <T>(items: readonly T[], of: (item: T) => string): Record<string, number> => {
  const counts: Record<string, number> = {};
  for (const item of items) counts[of(item)] = (counts[of(item)] ?? 0) + 1;
  return counts;
};

function overview(queries: Queries, nodeId: string): Overview {
  const templates = queries.listTemplates({ limit: LIMITS.pageMax }).items;
  const jobs = queries.listJobs({ limit: LIMITS.pageMax }).items;
  const node = queries.node(nodeId);
  const resnapshot = queries.resnapshot();
  const attention: Overview["attention"][number][] = [
    ...clusterAttention(queries.cluster()),
    ...resnapshotAttention(resnapshot),
    ...compatAttention(queries.compat({ limit: 1 }).summary, resnapshot),
  ];
  for (const template of templates) {
    if (template.status !== "FAILED" && template.status !== "PARTIALLY_READY") continue;
    attention.push({
      subject: template.template_id,
      kind: "template",
      since: template.updated_at,
      why: template.last_error || `the template is ${template.status}`,
      next: "mend the cause, then create the template again; delete this one when it is not needed",
    });
  }
  if (node.storage.mode !== "healthy" && node.storage.mode !== "unknown") {
    attention.push({
      subject: node.node_id,
      kind: "node",
      since: new Date(node.storage.last_updated_at * 1_000).toISOString(),
      why: `the disk is ${node.storage.usage_pct} % full (${node.storage.mode})`,
      next: "free space below the data directory, or delete templates that are not used",
    });
  }
  if (node.driver_error !== undefined) {
    attention.push({
      subject: node.node_id,
      kind: "node",
      since: node.started_at,
      why: `the ${node.driver} driver does not answer: ${node.driver_error}`,
      next: "mend its executable, and check it with `templatecenter runtime check`",
    });
  }
  if (node.driver === "rootfs") {
    attention.push({
      subject: node.node_id,
      kind: "node",
      since: node.started_at,
      why: `no micro-VM driver runs here: ${node.driver_detail}`,
      next: "install qemu-system-x86 and run `templatecenter guest install`, then restart",
    });
  }
  return {
    node,
    templates: countBy(templates, (template) => template.status),
    jobs: countBy(jobs, (job) => job.status),
    sandboxes: queries.sandboxes().length,
    active_jobs: jobs.filter(isActiveJob),
    attention,
  };
}
