/**
 * All wording of the page. Pure functions from the views of `domain/schema.ts` to plain values that
 * the pages print; the clock comes in as `now` (milliseconds since the epoch).
 */
import { IMAGE_JOB_PHASES, isActiveJob, phaseOrdinal } from "../domain/index.ts";
import type {
  JobInfo,
  NodeFact,
  ReplicaStatus,
  SandboxInfo,
  TemplateInfo,
  TemplateWhy,
} from "../domain/index.ts";
import {
  count,
  formatBytes,
  formatDuration,
  formatRate,
  parseTime,
  roughDuration,
} from "./format.ts";
import { sentenceCase, status, type Status } from "./status.ts";

const PHASE_WORDS: Readonly<Record<string, string>> = {
  PULLING: "Pulling",
  UNPACKING: "Unpacking",
  BUILDING_EXT4: "Building ext4",
  GENERATING_JSON: "Generating request",
  DISTRIBUTING: "Distributing",
  CREATING_TEMPLATE: "Creating template",
  SNAPSHOTTING: "Snapshotting",
  REGISTERING: "Registering",
  READY: "Ready",
};

export const phaseWord = (phase: string): string => PHASE_WORDS[phase] ?? sentenceCase(phase);

/** The display name where there is one, else the id. */
export const templateName = (template: Pick<TemplateInfo, "template_id" | "display_name">) =>
  template.display_name === "" ? template.template_id : template.display_name;

/* ---- jobs ------------------------------------------------------------------------------------ */

export interface PhaseStep {
  readonly phase: string;
  readonly word: string;
  readonly state: "done" | "now" | "failed" | "waiting" | "skipped";
  /** Blank while the phase waits. */
  readonly duration: string;
  /** Set while the phase runs: the page counts on from here. */
  readonly since?: string;
  /** Whole percent of the time of all phases so far. */
  readonly share: number;
}

/** The phases of a job of one image, in order, with what is known of each. */
export function phaseSteps(job: JobInfo, now: number): readonly PhaseStep[] {
  const known: readonly string[] = IMAGE_JOB_PHASES;
  const names = known.includes(job.phase)
    ? known
    : [...new Set([...job.phases.map((entry) => entry.phase), job.phase])];
  const spans = names.map((phase) => {
    const entries = job.phases.filter((entry) => entry.phase === phase);
    const ms = entries.reduce((sum, entry) => sum + spanMs(entry, job, now), 0);
    return { phase, ms, started: entries.at(-1)?.started_at };
  });
  const total = spans.reduce((sum, span) => sum + span.ms, 0);
  const at = names.indexOf(job.phase);
  return spans.map(({ phase, ms, started }, index) => {
    const state = stepState(job, index, at, started !== undefined);
    const timed = started !== undefined && !(phase === "READY" && state === "done");
    return {
      phase,
      word: phaseWord(phase),
      state,
      duration: timed ? formatDuration(ms) : "",
      share: total === 0 ? 0 : Math.round((ms / total) * 100),
      ...(state === "now" && started !== undefined ? { since: started } : {}),
    };
  });
}

function spanMs(
  entry: { started_at: string; ended_at?: string | undefined },
  job: JobInfo,
  now: number,
): number {
  const start = parseTime(entry.started_at) ?? now;
  const end = parseTime(entry.ended_at) ?? parseTime(job.ended_at) ?? now;
  return Math.max(0, end - start);
}

function stepState(job: JobInfo, index: number, at: number, started: boolean): PhaseStep["state"] {
  if (job.status === "READY") return started || index === at ? "done" : "skipped";
  if (index < at) return started ? "done" : "skipped";
  if (index > at || job.status === "PENDING") return "waiting";
  return job.status === "FAILED" ? "failed" : "now";
}

/** `62 % · layer 5 of 8 · 41 MB/s · about 20 s left`. */
export function progressText(job: JobInfo): string {
  const parts = [`${Math.floor(job.progress)} %`];
  const pulling = ["PULLING", "UNPACKING", "BUILDING_EXT4"].includes(job.phase);
  if (isActiveJob(job) && pulling && job.pull_total_layers > 0) {
    const layer = Math.min(job.pull_completed_layers + 1, job.pull_total_layers);
    if (job.pull_completed_layers < job.pull_total_layers) {
      parts.push(`layer ${layer} of ${job.pull_total_layers}`);
    } else parts.push(`all ${count(job.pull_total_layers, "layer")} here`);
    const left = job.pull_total_bytes - job.pull_downloaded_bytes;
    const rate = formatRate(job.pull_speed_bps);
    if (left > 0 && rate !== "") {
      parts.push(rate, `about ${roughDuration((left / job.pull_speed_bps) * 1_000)} left`);
    }
  }
  if (isActiveJob(job) && job.note !== "") parts.push(job.note);
  return parts.join(" · ");
}

/** One sentence: what the job does or how it ended, and why. */
export function jobSentence(job: JobInfo, now: number): string {
  const took = formatDuration(
    Math.max(0, (parseTime(job.ended_at) ?? now) - (parseTime(job.created_at) ?? now)),
  );
  switch (job.status) {
    case "PENDING":
      return "Waiting for a free build slot on this node.";
    case "RUNNING": {
      const ordinal = phaseOrdinal(job.phase);
      const place = ordinal === 0 ? "" : ` (${ordinal} of ${IMAGE_JOB_PHASES.length})`;
      return job.cancel_requested === true
        ? `Being cancelled; it stops at the next safe point of ${phaseWord(job.phase).toLowerCase()}.`
        : `${phaseWord(job.phase)}${place} on ${count(job.expected_node_count, "node")}.`;
    }
    case "READY":
      return `Finished in ${took}; ready on ${readyOf(job)}.`;
    case "FAILED":
      return job.error_code === "job_cancelled"
        ? `Cancelled at ${phaseWord(job.phase).toLowerCase()} after ${took}.`
        : `Failed at ${phaseWord(job.phase).toLowerCase()} after ${took}: ${failure(job.error_message)}.`;
  }
}

const failure = (message: string): string =>
  message === "" ? "no reason was recorded" : message.replace(/\.+$/, "");

const readyOf = (job: JobInfo): string =>
  `${job.ready_node_count} of ${count(job.expected_node_count, "node")}`;

/** What an operator may expect or should do next. */
export function jobNext(job: JobInfo): string {
  if (job.status === "FAILED") {
    return job.error_code === "job_cancelled"
      ? "Nothing is left behind. Submit the image again when you want it."
      : adviceFor(job.error_code ?? "internal");
  }
  if (job.status === "READY") return "Run a sandbox from the template.";
  const at = phaseOrdinal(job.phase);
  const next = IMAGE_JOB_PHASES[at];
  if (job.cancel_requested === true) return "Scratch files go, and the job ends as failed.";
  return next === undefined || at === 0
    ? "The job ends with the template ready or with a reason why not."
    : `Next: ${phaseWord(next).toLowerCase()}.`;
}

/* ---- templates ------------------------------------------------------------------------------- */

/** One sentence: where the template stands, and why if it is not ready. */
export function templateSentence(template: TemplateInfo, job: JobInfo | undefined, now: number) {
  const { ready, wanted } = replicaCounts(template);
  const nodes = `${ready} of ${count(wanted, "node")}`;
  if (job !== undefined && isActiveJob(job)) return jobSentence(job, now);
  switch (template.status) {
    case "READY":
      return `Ready on ${nodes}: sandboxes start from its snapshot.`;
    case "PARTIALLY_READY":
      return `Partially ready: ${nodes}. ${firstFailure(template)}`;
    case "FAILED":
      return `Failed: ${failure(template.last_error)}.`;
    case "DELETING":
      return "Being deleted: nodes remove their replicas.";
    default:
      return "Accepted; the build has not started yet.";
  }
}

/** Replicas ready, over the nodes that shall hold one. */
export function replicaCounts(template: TemplateInfo): { ready: number; wanted: number } {
  const ready = template.replicas.filter((replica) => replica.status === "READY").length;
  return { ready, wanted: Math.max(template.desired_nodes.length, template.replicas.length) };
}

function firstFailure(template: TemplateInfo): string {
  const failed = template.replicas.find((replica) => (replica.error_message ?? "") !== "");
  if (failed === undefined) return "The other nodes have not reported yet.";
  const phase = failed.last_error_phase ?? failed.phase;
  return `${failed.node_id} failed at ${phaseWord(phase).toLowerCase()}: ${failure(failed.error_message ?? "")}.`;
}

/** What has replicas: a template or a snapshot. */
export interface Replicated extends Pick<TemplateInfo, "template_id" | "kind" | "desired_nodes"> {
  readonly status: string;
  readonly replicas: readonly ReplicaStatus[];
}

export interface ReplicaView {
  readonly nodeId: string;
  readonly goal: string;
  readonly actual: Status;
  readonly compat: Status | undefined;
  readonly versions: string;
  readonly timings: string;
  readonly error: string;
  /** Failed, or made with versions that its node has no more: a redo mends it. */
  readonly wantsRedo: boolean;
  readonly isReady: boolean;
}

/** Goal and actual of each node that shall hold, or still holds, a replica. */
export function replicaViews(template: Replicated): readonly ReplicaView[] {
  const nodes = new Set([
    ...template.desired_nodes,
    ...template.replicas.map((replica) => replica.node_id),
  ]);
  return [...nodes].map((nodeId) => {
    const replica = template.replicas.find((entry) => entry.node_id === nodeId);
    const wanted = template.desired_nodes.includes(nodeId) && template.status !== "DELETING";
    return {
      nodeId,
      goal: wanted ? "Ready" : "Absent",
      actual: status(replica?.phase ?? (wanted ? "PENDING" : "MISSING")),
      compat: replica?.compat_status === undefined ? undefined : status(replica.compat_status),
      versions: replica === undefined ? "" : boundVersions(replica),
      timings: timingsText(replica?.timings ?? {}),
      error: replica?.error_message ?? "",
      isReady: !wanted || replica?.status === "READY",
      wantsRedo:
        template.kind === "template" &&
        (replica?.status === "FAILED" || replica?.compat_status === "STALE"),
    };
  });
}

const boundVersions = (replica: ReplicaStatus): string =>
  [
    ["guest", replica.guest_image_version],
    ["agent", replica.agent_version],
    ["kernel", replica.kernel_version],
  ]
    .filter(([, version]) => (version ?? "") !== "")
    .map(([name, version]) => `${name ?? ""} ${version ?? ""}`)
    .join(" · ");

/** `boot 3.6 s · probe 0.2 s`, in the order they were measured. */
export const timingsText = (timings: Readonly<Record<string, number>>): string =>
  Object.entries(timings)
    .map(([step, ms]) => `${step.replaceAll("_", " ")} ${formatDuration(ms)}`)
    .join(" · ");

/** What deleting does, and what stands in its way. */
export function deletePlan(template: TemplateInfo, sandboxes: readonly SandboxInfo[]) {
  const users = sandboxes.filter((box) => box.template_id === template.template_id);
  const held = template.replicas.map((replica) => replica.node_id);
  const effects = [
    `The template ${templateName(template)} and its definition go. This cannot be undone.`,
    held.length === 0
      ? "No node holds a replica."
      : `${count(held.length, "node")} (${held.join(", ")}) remove the replica and its snapshot.`,
  ];
  if (template.artifact_size_bytes > 0) {
    const size = formatBytes(template.artifact_size_bytes);
    effects.push(`The root filesystem (${size}) stays until no template needs it.`);
  }
  return { effects, users };
}

/** Why what is protected cannot be deleted; undefined: it is not. */
export const guardText = ({ protected: isProtected }: { readonly protected: boolean }) =>
  isProtected ? "It is protected from deletion, also from retention." : undefined;

/** How many nodes it is not ready on, in one sentence. */
export function notReady(why: TemplateWhy): string {
  const left = why.nodes.filter((node) => !node.ready).length;
  const all = count(why.nodes.length, "node");
  return left === 0 ? `It is ready on all of ${all}.` : `It is not ready on ${left} of ${all}.`;
}

/** What one node's answer says, the reason first. */
export function nodeWhy(node: TemplateWhy["nodes"][number]): string[] {
  const disk = `${formatBytes(node.free_bytes)} free, storage ${node.storage_mode}`;
  return [
    node.ready ? "Sandboxes can be started there." : sentence(node.why),
    ...(node.error_message === "" ? [] : [`Last error: ${failure(node.error_message)}.`]),
    ...(node.phase === "" ? [] : [`Its replica stands at ${phaseWord(node.phase).toLowerCase()}.`]),
    node.wanted ? "It shall have a replica." : "It is not asked for a replica.",
    node.holds_artifact ? "The root filesystem is there." : "The root filesystem is not there.",
    `Compat ${status(node.compat_status).word.toLowerCase()}; ${node.driver} driver; ${disk}.`,
  ];
}

/** A message of an error as a sentence of the page. */
export const sentence = (message: string): string =>
  message === ""
    ? ""
    : `${message.charAt(0).toUpperCase()}${message.slice(1).replace(/\.+$/, "")}.`;

/* ---- nodes ----------------------------------------------------------------------------------- */

/** Why a node can or cannot take work. */
export function nodeSentence(node: NodeFact): string {
  if (!node.healthy) return `Unhealthy: ${failure(node.driver_detail)}.`;
  if (node.drained) return "Drained: it takes no new work and keeps what it holds.";
  return `Healthy: takes builds and runs sandboxes with the ${node.driver} driver.`;
}

/** What the storage mode means; blank when there is nothing to say. */
export const storageMeaning = (storage: NodeFact["storage"]): string =>
  ({
    healthy: "",
    warn: "getting full",
    reject: "no new snapshots",
    delete_only: "only deletions",
    unknown: storage.last_error === "" ? "not measured yet" : failure(storage.last_error),
  })[storage.mode];

/** Free space and what the storage mode means. */
export function storageText({ storage }: NodeFact): string {
  const free = `${formatBytes(storage.free_bytes)} free of ${formatBytes(storage.total_bytes)}`;
  const meaning = storageMeaning(storage);
  return meaning === "" ? free : `${free} · ${meaning}`;
}

/* ---- overview -------------------------------------------------------------------------------- */

/** `3 ready · 1 running`, states in the order of the counts, empty ones left out. */
export const countsText = (counts: Readonly<Record<string, number>>): string =>
  Object.entries(counts)
    .filter(([, number]) => number > 0)
    .map(([state, number]) => `${number} ${sentenceCase(state).toLowerCase()}`)
    .join(" · ");

export const sum = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((total, number) => total + number, 0);

/* ---- messages -------------------------------------------------------------------------------- */

const NOTICES = {
  "template-submitted": "Accepted. The build has begun; this page follows it.",
  "redo-submitted": "Accepted. The replicas are made anew; this page follows it.",
  "snapshot-taken": "The snapshot is taken; the sandbox runs on.",
  "snapshot-goes-on": "Accepted. It takes its time; the list follows it.",
  "snapshot-delivered": "The nodes have it: sandboxes can be started from it there.",
  "snapshot-delivering": "Accepted. It is copied; the table of replicas follows it.",
  "snapshot-deleted": "The snapshot is gone.",
  "sandbox-rolled-back": "The sandbox runs on the snapshot again.",
  "template-deleted": "The template is being deleted.",
  "job-cancelled": "The job was asked to stop.",
  "sandbox-started": "The sandbox runs.",
  "sandbox-stopped": "The sandbox was stopped.",
  "node-drained": "The node is drained.",
  "garbage-collected": "What was due is gone; the rest is shown below.",
  "node-undrained": "The node takes part again.",
  "node-removed": "The node is no member any more.",
  "token-revoked": "The token admits nobody any more.",
  "compat-scanned": "The nodes have judged their replicas again.",
  "baseline-adopted": "The versions of the nodes are the baseline now.",
  "resnapshot-begun": "Accepted. The stale replicas are made again; this page follows it.",
  "resnapshot-resumed": "It goes on, with what failed at the end.",
  "retention-applied": "What retention named is gone.",
  "retention-partly-applied": "Some of what retention named could not go and is still shown below.",
  "bundle-accepted":
    "The bundle is whole and signed. The template is being made; this page follows it.",
  "bundle-imported": "The bundle was taken in.",
  "bundle-present": "Nothing to do: what is in the bundle was here already.",
  "tag-moved": "The tag points there now.",
  "tag-rolled-back": "The tag points where it pointed before.",
  "tag-deleted": "The tag is gone; its templates stay.",
  "template-renamed": "The name was saved.",
  "labels-saved": "The labels were saved.",
  "template-protected": "It is protected from deletion.",
  "template-unprotected": "It can be deleted again.",
  "signed-out": "You are signed out; the page can be read on.",
  "settings-saved": "Your settings were saved in this browser.",
} as const;
export type NoticeCode = keyof typeof NOTICES;

/** What just happened, after a redirect. Only known codes: the text never comes from the URL. */
export const noticeText = (code: string | undefined): string | undefined =>
  code !== undefined && Object.hasOwn(NOTICES, code) ? NOTICES[code as NoticeCode] : undefined;

const ADVICE: Readonly<Record<string, string>> = {
  invalid_request: "Correct the named fields and send it again.",
  invalid_image_reference: "Write it as in docker pull, or as oci:DIR, oci-archive:FILE.",
  image_not_found: "Check the name and the tag; the registry does not have it.",
  image_refused: "The image itself is broken or hostile; see the log for the entry.",
  image_too_large: "Use a smaller image or raise the limit in the configuration.",
  image_platform_missing: "Publish the image for this node's platform.",
  registry_unauthorized: "Submit again with a registry user and password that may pull.",
  registry_unavailable: "Try again later; the registry or the way to it is down.",
  disk_space_low: "Delete templates that nobody needs, or give the node more disk.",
  driver_unavailable: "See the node page for what the driver needs.",
  guest_assets_missing: "Run templatecenter guest install on the node.",
  guest_boot_failed: "See the log for the guest's last console lines.",
  guest_probe_failed: "Check the readiness probe's port and path, then submit again.",
  template_not_found: "It may have been deleted. See the list of templates.",
  template_in_use: "Stop the sandboxes that run from it first.",
  template_protected: "Take the protection away first, on its page.",
  bundle_invalid: "The file is damaged or no bundle; export it again.",
  bundle_untrusted: "If you know that key, name it under the trusted keys of the form.",
  bundle_conflict: "Delete what is here first, or leave the bundle.",
  template_already_exists: "Take it in under another id, or a new one.",
  artifact_source_missing: "Export it on a node that holds it.",
  wrong_status: "Wait until it is ready, or see why it is not.",
  tag_not_found: "It may have been deleted. See the list of tags.",
  tag_moved: "See where it points now, then decide again.",
  tag_has_no_history: "Promote another template instead.",
  name_taken: "Choose another name, or move the tag of that name.",
  template_attempt_in_progress: "Wait for the running job, or cancel it.",
  template_has_no_ready_replica: "Wait until a replica is ready, or see why none is.",
  no_failed_template_replicas: "Choose all nodes, or tick the nodes to work on.",
  redo_not_allowed: "Create the template again from its image.",
  no_template_nodes: "Bring a node back, or end a drain; see the list of nodes.",
  snapshot_not_found: "It may have been deleted. See the list of snapshots.",
  snapshot_in_use: "Stop the sandboxes that run on it first.",
  snapshot_deleting: "It is being deleted; choose another one.",
  snapshot_foreign: "Choose a snapshot of that sandbox itself.",
  snapshot_operation_in_progress: "Wait until the other operation has ended.",
  storage_not_writable: "The node's disk is short of room; see the page of storage.",
  peer_unreachable: "Try again when the node is back, or see the cluster page.",
  artifact_not_found: "It may have been collected. See the page of storage.",
  job_not_found: "Ended jobs are dropped after a while. See the list of jobs.",
  job_not_active: "The job has already ended; there is nothing to cancel.",
  job_deadline_exceeded: "See which phase took the time, then submit again.",
  job_interrupted: "The daemon was restarted; submit the image again.",
  sandbox_not_found: "It has already stopped. See the node's list of sandboxes.",
  node_not_found: "See the list of nodes.",
  no_quorum: "Bring voters back; the cluster page says which are needed.",
  join_token_not_found: "It was revoked, or dropped after it expired.",
  not_clustered: "Make a join token: that makes this node a cluster.",
  daemon_draining: "The daemon is stopping. Try again when it is back.",
  unauthorized: "Sign in with the node's token, then send the form again.",
  too_many_requests: "Wait a minute, then try again.",
  forbidden: "Reload the page you came from and send the form again.",
  not_found: "Check the address, or start from the overview.",
};

/** What to try after a failure with that code. */
export const adviceFor = (code: string): string =>
  ADVICE[code] ?? "See the log of the daemon for the request id below, then try again.";
