/** The part of the composition root that runs guests: driver, sandboxes, replicas, refs. */
import { networkInterfaces } from "node:os";
import { AppError, type RuntimeDriver } from "../domain/index.ts";
import { isHeldElsewhere } from "./build/builder.ts";
import type { DaemonParts } from "./parts.ts";
import { createClusterRefs } from "./ref-asks.ts";
import { createDriver } from "./runtime/select.ts";
import { openRuntimeRefs } from "./runtime-refs.ts";
import { createSandboxes } from "./sandboxes.ts";
import { isolatesGuests } from "./secrets.ts";
import type { Closers, State } from "./state.ts";
import type { Work } from "./wire-builds.ts";
import { CompatScanWorker } from "./workers/compat-scan.ts";
import { ReplicasWorker } from "./workers/replicas.ts";
import { RemovedNodesWorker } from "./workers/removed-nodes.ts";
import { SnapshotsWorker } from "./workers/snapshots.ts";

/** The first address of this host that others could reach, else loopback. */
export function ownAddress(): string {
  for (const addresses of Object.values(networkInterfaces())) {
    for (const address of addresses ?? []) {
      if (!address.internal && address.family === "IPv4") return address.address;
    }
  }
  return "127.0.0.1";
}

/** @throws AppError template_has_no_ready_replica: nothing can run on it here */
function assertReplica({ facts }: State, templateId: string): void {
  if (facts.get("replica", templateId)?.status === "READY") return;
  throw new AppError(
    "template_has_no_ready_replica",
    `${templateId} has no ready replica on node ${facts.nodeId}`,
  );
}

export async function openRuntime(parts: DaemonParts, state: State, opened: Closers) {
  const { config, log, clock, random } = parts;
  const made = await createDriver({
    requested: config.driver,
    execDriver: config.exec_driver,
    guestDir: config.guest_dir,
    stateDir: config.data_dir,
    sandboxesDir: state.dirs.sandboxes,
    templatesDir: state.dirs.templates,
    clock,
    random,
    log: log.child({ module: "runtime" }),
  });
  opened.push(() => made.driver.close({ keepSandboxes: true }));
  return createRuntime(parts, state, { ...made, nodeIp: ownAddress() });
}

interface DriverParts {
  readonly driver: RuntimeDriver;
  /** Why this driver was chosen. */
  readonly detail: () => string;
  /** Why it does not answer, while it does not. */
  readonly failure?: () => string | undefined;
  readonly nodeIp: string;
}

/** The same over any driver. */
export async function createRuntime(
  parts: DaemonParts,
  state: State,
  { driver, detail, failure, nodeIp }: DriverParts,
) {
  const { config, log, clock, random, metrics } = parts;
  const refs = await openRuntimeRefs({
    ...state,
    clock,
    log: log.child({ module: "refs" }),
    nodeIp,
  });
  const sandboxes = createSandboxes({
    catalog: state.catalog,
    refs,
    driver,
    hub: state.hub,
    clock,
    random,
    log: log.child({ module: "sandboxes" }),
    nodeId: config.node_id,
    dir: state.dirs.sandboxes,
    poolSize: config.sandbox_pool_size,
    isolateGuests: isolatesGuests(config),
    onStarted: (milliseconds) => metrics.sandboxStarted(milliseconds),
  });
  const replicas = new ReplicasWorker({
    ...state,
    driver,
    clock,
    log: log.child({ module: "replicas" }),
    nodeIp,
    templatesDir: state.dirs.templates,
    concurrency: config.concurrent_boots,
    isolateGuests: isolatesGuests(config),
    isHeldElsewhere: (artifact) => isHeldElsewhere({ ...state, clock }, config.node_id, artifact),
    inUse: (templateId, generation) =>
      generation === undefined
        ? sandboxes.usedTemplates().has(templateId)
        : sandboxes.runsOn(templateId, generation),
  });
  const clusterRefs = createClusterRefs({
    refs,
    nodes: state.nodes,
    transport: state.cluster.transport,
    members: state.cluster.members,
    assertReplica: (id) => assertReplica(state, id),
  });
  const compatScan = new CompatScanWorker({
    ...state,
    clock,
    log: log.child({ module: "compat" }),
  });
  return {
    ...{ driver, detail, failure, nodeIp, sandboxes, replicas },
    ...{ refs, clusterRefs, compatScan },
  };
}

export type OpenedRuntime = Awaited<ReturnType<typeof createRuntime>>;

/** What is done with sandboxes needs artifacts as well. */
export function createSnapshotWork(
  { clock, log, random }: DaemonParts,
  state: State,
  runtime: OpenedRuntime,
  { cleanup, files }: Pick<Work, "cleanup" | "files">,
): SnapshotsWorker {
  return new SnapshotsWorker({
    ...state,
    ...runtime,
    files,
    clock,
    random,
    log: log.child({ module: "snapshots" }),
    templatesDir: state.dirs.templates,
    workDir: state.dirs.work,
    release: (id, { jobId }) => cleanup.release(id, { jobId, isUrgent: true }),
  });
}

/** What those left behind who were taken out of the cluster. */
export const createRemovedWork = (
  { clock, log }: DaemonParts,
  state: State,
  { cleanup }: Pick<Work, "cleanup">,
): RemovedNodesWorker =>
  new RemovedNodesWorker({
    ...state,
    clock,
    log: log.child({ module: "removed-nodes" }),
    release: (id, { jobId }) => cleanup.release(id, { jobId, isUrgent: true }),
  });

export type Runtime = OpenedRuntime & { readonly snapshotWork: SnapshotsWorker };
