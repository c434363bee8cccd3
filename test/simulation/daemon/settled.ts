/** What holds of a cluster of simulated daemons some time after all faults have ended. */
import {
  CLUSTER,
  RECORD_KINDS,
  isActiveJob,
  type DriverSnapshot,
} from "../../../src/domain/index.ts";
import type { DaemonNode } from "./daemon-node.ts";
import type { Truth } from "./truth.ts";

const KINDS = [...RECORD_KINDS, "node", "replica", "holding", "refs", "job-progress"] as const;

/** What is not settled yet; empty: everything is. */
export function unsettled(nodes: readonly DaemonNode[], truth: Truth): string[] {
  return [...differences(nodes), ...records(nodes, truth), ...nodes.flatMap(ofNode)];
}

/** What not all nodes hold in the same version. */
function differences(nodes: readonly DaemonNode[]): string[] {
  const hashes = nodes.map((node) => node.daemon?.state.catalog.stateHash() ?? "down");
  if (new Set(hashes).size === 1) return [];
  const views = nodes.map(({ daemon }) => {
    const view = new Map<string, number>();
    for (const kind of KINDS) {
      for (const { owner, id, version } of daemon?.state.catalog.list(kind) ?? []) {
        view.set(`${kind}/${id}/${owner}`, version);
      }
    }
    return view;
  });
  const found = [...new Set(views.flatMap((view) => [...view.keys()]))].flatMap((key) => {
    const versions = views.map((view) => view.get(key) ?? "none");
    return new Set(versions).size > 1 ? [`${key}: ${versions.join(", ")}`] : [];
  });
  return [`catalogs differ: ${found.join("; ")}`];
}

/** What lies on a host for nothing; empty: all of it is of use. */
export const useless = (nodes: readonly DaemonNode[]): string[] => nodes.flatMap(filesOf);

function records(nodes: readonly DaemonNode[], truth: Truth): string[] {
  const found: string[] = [];
  for (const job of truth.jobs().filter(isActiveJob)) {
    found.push(`job ${job.job_id} is ${job.status} in ${job.operation}/${job.phase}`);
  }
  for (const { template_id: id, status, artifact_id, desired_nodes } of truth.templates()) {
    if (["PENDING", "CREATING", "DELETING"].includes(status)) found.push(`${id} is ${status}`);
    if (status === "READY") {
      for (const node of nodes) {
        const isReady = node.machine.dirs.size > 0 && made(node).has(id);
        if (desired_nodes.includes(node.name) && !isReady) {
          found.push(`${id} is READY, and ${node.name} has no files of it`);
        }
      }
    }
    if (status === "FAILED") continue;
    const hasBytes = nodes.some(({ machine }) =>
      [...machine.files.values()].some(({ sidecars }) => sidecars.has(artifact_id ?? "")),
    );
    if (!hasBytes) found.push(`nobody holds ${artifact_id ?? ""} of ${id}`);
  }
  for (const { artifact_id, status } of truth.artifacts()) {
    if (status === "BUILDING" || status === "PENDING") found.push(`${artifact_id} is ${status}`);
  }
  return found;
}

/** Rows of the snapshots that a node says it has: key → folder. */
function made(node: DaemonNode): Map<string, string> {
  const rows = [...node.disk.rows.local].filter(([key]) => key.startsWith("driver-snapshot\0"));
  return new Map(
    rows.map(([key, row]) => [key.slice("driver-snapshot\0".length), (row as DriverSnapshot).dir]),
  );
}

function ofNode(node: DaemonNode): string[] {
  const { daemon, machine, name } = node;
  if (daemon === undefined) return [`${name} is down`];
  const found: string[] = [];
  const sandboxes = daemon.runtime.sandboxes.list();
  const known = new Set(sandboxes.map(({ sandbox_id }) => sandbox_id));
  for (const [id, { sandbox }] of machine.vms) {
    if (!known.has(id)) found.push(`nobody on ${name} knows the VM of ${id}`);
    const on = sandbox.snapshotId ?? sandbox.templateId;
    const refs = daemon.runtime.refs.active({ sandboxId: id });
    if (!refs.some((ref) => ref.snapshot_id === on)) found.push(`${id} has no ref of ${on}`);
  }
  for (const { sandbox_id: id, status } of sandboxes) {
    if (status === "STARTING") found.push(`${id} is ${status} on ${name}`);
    if (status === "RUNNING" && !machine.vms.has(id)) found.push(`${id} runs without a VM`);
  }
  for (const ref of daemon.runtime.refs.active()) {
    if (ref.source === "driver" && !known.has(ref.sandbox_id)) {
      found.push(`${ref.sandbox_id} is not on ${name} and has a ref of ${ref.snapshot_id}`);
    }
  }
  for (const [key, dir] of made(node)) {
    if (!machine.dirs.has(dir)) found.push(`${dir} of ${key} is not on ${name}`);
  }
  return found;
}

function filesOf(node: DaemonNode): string[] {
  const { daemon, machine, name } = node;
  if (daemon === undefined) return [`${name} is down`];
  const found: string[] = [];
  const rows = made(node);
  const dirs = new Set(rows.values());
  const bases = new Set([...machine.vms.values()].map(({ base }) => base));
  for (const dir of machine.dirs.keys()) {
    if (!dirs.has(dir)) found.push(`nobody on ${name} knows ${dir}`);
  }
  for (const [key, dir] of rows) {
    const [id = ""] = key.split("@");
    const isGone = daemon.state.catalog.get(CLUSTER, "template", id)?.value === undefined;
    const isUsed = [...daemon.runtime.refs.usedSnapshots()].includes(id);
    if ((key.includes("@") || isGone) && !bases.has(dir) && !isUsed) {
      found.push(`${dir} is of no use on ${name}, and stays`);
    }
  }
  return found;
}
