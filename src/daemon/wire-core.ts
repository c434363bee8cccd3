/**
 * The daemon over whatever ground it stands on: services, reconcilers and what wakes them, joined
 * without a file, a listener or a driver of their own. The simulation runs exactly this.
 */
import {
  isAppError,
  untilTick,
  type Clock,
  type ClusterConfig,
  type Commands,
  type Log,
} from "../domain/index.ts";
import type { Artifacts } from "./build/artifacts.ts";
import { parseReference } from "./build/source/reference.ts";
import { createClusterService } from "./cluster-service.ts";
import { clusterView } from "./cluster-view.ts";
import { createCollection } from "./collection.ts";
import { createCommands, trimJobs } from "./commands.ts";
import { createCompat } from "./compat.ts";
import { coverageOf } from "./coverage.ts";
import { createDeletions, type Deletions } from "./deletions.ts";
import { createCancelJob } from "./job-cancel.ts";
import type { DaemonParts } from "./parts.ts";
import { createQueries } from "./queries.ts";
import { createRetention } from "./retention.ts";
import { isolatesGuests } from "./secrets.ts";
import { createSnapshots } from "./snapshots.ts";
import type { Closers, State } from "./state.ts";
import type { Work } from "./wire-builds.ts";
import { createBundles } from "./wire-bundles.ts";
import { createRemovedWork, type Runtime } from "./wire-runtime.ts";
import { GcWorker } from "./workers/gc.ts";
import { createNodeFact } from "./workers/node-fact.ts";
import { PlacementWorker } from "./workers/placement.ts";
import { ResnapshotWorker } from "./workers/resnapshot.ts";
import { ScrubWorker } from "./workers/scrub.ts";

const CLUSTER_EVENT_MS = 1_000;
const REPUBLISH_MS = 300;
/** A deletion whose node has died is carried on within this time. */
const DELETIONS_MS = 5_000;
const RETENTION_MS = 60_000;
/** The core's own heartbeat: the node's fact goes through the catalog's writer. */
const ROUND_MS = 15_000;

/** What the core is told of its host and its process. */
export interface HostParts {
  readonly isDraining: () => boolean;
  readonly restart: (reason: string) => void;
  /** Where the API is reached; blank before it is. */
  readonly address: () => string;
  readonly cpuCount: number;
  readonly memoryBytes: number;
}

export function createCore(
  parts: DaemonParts,
  state: State,
  runtime: Runtime,
  work: Work,
  host: HostParts,
) {
  const { config, log, clock, version } = parts;
  const publishNode = createNodeFact({
    facts: state.facts,
    driver: runtime.driver,
    driverDetail: runtime.detail,
    ...(runtime.failure === undefined ? {} : { driverFailure: runtime.failure }),
    clock,
    log,
    meter: state.meter,
    version,
    nodeIp: runtime.nodeIp,
    address: host.address,
    cpuCount: host.cpuCount,
    memoryBytes: host.memoryBytes,
    resnapshotIntervalMs: config.resnapshot_interval_ms,
    retention: {
      keep_last: config.retention_keep_last,
      unused_ttl_ms: config.retention_unused_ttl_ms,
    },
    isFilled: () => isFilled(state),
  });
  const services = createServices(parts, state, runtime, work, { ...host, publishNode });
  let lastRound = clock.monotonic();
  return {
    ...services,
    publishNode,
    /** Enters the cluster, and takes up what lies here of a former life. */
    async recover(): Promise<void> {
      await state.cluster.start();
      await recoverArtifacts(work.artifacts, log);
      await runtime.sandboxes.recover();
      await publishNode();
    },
    /** The reconcilers; what nothing else triggers is looked at on the timers. */
    async work(opened: Closers): Promise<void> {
      const reconcile = await startWorkers(parts, state, runtime, work, publishNode, opened);
      services.resnapshot.start();
      opened.push(() => services.resnapshot.stop());
      const round = async () => {
        // A round that fails has ended as well; one that hangs in the catalog's queue has not.
        await publishNode().finally(() => (lastRound = clock.monotonic()));
      };
      const timers = [
        every(parts, ROUND_MS, round),
        every(parts, 5_000, () => runtime.sandboxes.refresh()),
        every(parts, DELETIONS_MS, () => services.deletions.resume()),
        every(parts, RETENTION_MS, () => services.retention.pass()),
        every(parts, 30_000, reconcile),
        every(parts, 60_000, () => trimJobs(state.records, state.jobLog)),
      ];
      opened.push(async () => timers.forEach((stop) => stop()));
    },
    alive: () => clock.monotonic() - lastRound < 4 * ROUND_MS,
  };
}

/** Work that nothing else triggers: a slow timer per activity, ended with the daemon. */
export function every({ clock, log }: DaemonParts, milliseconds: number, work: () => unknown) {
  let stopped = false;
  let timer: { cancel(): void };
  const next = () => {
    timer = clock.after(untilTick(clock, milliseconds), () => {
      void Promise.resolve()
        .then(work)
        .catch((error: unknown) => log.warn("a periodic activity failed", { err: error }))
        .finally(() => {
          if (!stopped) next();
        });
    });
  };
  next();
  return () => {
    stopped = true;
    timer.cancel();
  };
}

/** What the daemon as a whole can be asked to do by its parts. */
interface Lifecycle extends Pick<HostParts, "isDraining" | "restart"> {
  readonly publishNode: () => Promise<unknown>;
}

const compatOf = (state: State, { compatScan }: Runtime, { publishNode }: Lifecycle) =>
  createCompat({ ...state, ...state.cluster, scanner: compatScan, publishNode });

/** Each of its turns is a redo as an operator would ask for it. */
const createResnapshot = ({ clock, log }: DaemonParts, state: State, commands: () => Commands) =>
  new ResnapshotWorker({
    ...state,
    clock,
    log: log.child({ module: "resnapshot" }),
    redo: (templateId, nodeId, request_id) =>
      commands().redoTemplate(
        templateId,
        { request_id, redo_mode: "NODES", distribution_scope: [nodeId], memory_only: true },
        { requestId: request_id, actor: "resnapshot" },
      ),
  });

const retentionOf = ({ clock, log }: DaemonParts, state: State, deletions: Deletions) =>
  createRetention({
    ...state,
    deletions,
    isInTouch: () => isInTouch(state),
    clock,
    log: log.child({ module: "retention" }),
  });

/** The read side and the write side, over everything that was opened. */
function createServices(
  parts: DaemonParts,
  state: State,
  runtime: Runtime,
  { artifacts, builds, cleanup, files }: Work,
  lifecycle: Lifecycle,
) {
  const { config, log, clock, random, metrics } = parts;
  const { membership, cluster } = state;
  const view = () => clusterView({ ...state, clock });
  const mayKnock = () => admitsStrangers(cluster.members.config());
  const connect = (key: string) => membership.connect(key, mayKnock);
  const clusterCommands = createClusterService({
    ...state,
    clock,
    random,
    log: log.child({ module: "cluster" }),
    dataDir: config.data_dir,
    nodeId: config.node_id,
    catalogId: membership.catalogId,
    forgetIdentity: () => membership.forgetIdentity(),
    connect,
    restart: lifecycle.restart,
    view,
  });
  const inTouch = () => isInTouch(state);
  const collection = createCollection({ ...state, ...runtime, cleanup, isInTouch: inTouch });
  const compat = compatOf(state, runtime, lifecycle);
  const resnapshot = createResnapshot(parts, state, () => commands);
  const queries = createQueries({
    ...state,
    ...runtime,
    collection,
    compat,
    resnapshot,
    random,
    isolateGuests: isolatesGuests(config),
    askJobLog: (nodeId, jobId, options) => state.asks.jobLog(nodeId, jobId, options),
    cluster: view,
    swarms: () => cluster.swarm.views(),
  });
  const settled = (id: string) =>
    Promise.all([builds.settled(id), runtime.snapshotWork.settled(id)]).then(() => undefined);
  const cancelJob = createCancelJob({ ...state, clock, settled });
  const deletions = createDeletions({
    ...state,
    ...runtime,
    isUp: (nodeId) => cluster.liveness.isUp(nodeId),
    queries,
    artifacts,
    cancelJob,
    clock,
    random,
    log: log.child({ module: "deletions" }),
  });
  const retention = retentionOf(parts, state, deletions);
  const snapshots = createSnapshots({ ...state, ...runtime, deletions, clock, random });
  const commands = createCommands({
    ...state,
    ...runtime,
    snapshots,
    retention,
    cluster: clusterCommands,
    bundles: createBundles(parts, state, runtime, { files }, queries),
    deletions,
    cancelJob,
    builds,
    cleanup,
    collection,
    compat,
    resnapshot,
    queries,
    clock,
    random,
    jobDeadlineMs: config.job_deadline_ms,
    checkReference: (reference) => void parseReference(reference),
    isDraining: lifecycle.isDraining,
    onResolveStage: (stage, milliseconds) => metrics.resolveStage(stage, milliseconds),
  });
  return { queries, commands, connect, deletions, resnapshot, retention };
}

/** The reconcilers, and what wakes them. Answers what the slow timer calls. */
async function startWorkers(
  parts: DaemonParts,
  state: State,
  runtime: Runtime,
  { artifacts, builds, cleanup, grace }: Work,
  publishNode: () => Promise<unknown>,
  opened: Closers,
): Promise<() => Promise<void>> {
  const { config, log, clock } = parts;
  const recover = () => recoverArtifacts(artifacts, log);
  await runtime.replicas.start();
  opened.push(() => runtime.replicas.stop());
  runtime.compatScan.start();
  opened.push(() => runtime.compatScan.stop());
  runtime.snapshotWork.start();
  opened.push(() => runtime.snapshotWork.stop());
  const removed = createRemovedWork(parts, state, { cleanup });
  removed.start();
  opened.push(() => removed.stop());
  builds.start();
  const placement = new PlacementWorker({
    ...state,
    clock,
    log: log.child({ module: "placement" }),
  });
  placement.start();
  const scrub = new ScrubWorker({ ...state, clock, log: log.child({ module: "scrub" }) });
  scrub.start();
  const gc = new GcWorker({
    ...state,
    cleanup,
    grace,
    clock,
    log: log.child({ module: "gc" }),
    isInTouch: () => isInTouch(state),
  });
  gc.start();
  opened.push(() => gc.stop());
  opened.push(() => scrub.stop());
  opened.push(announceCluster(state, clock));
  let republish: { cancel(): void } | undefined;
  const unsubscribe = state.catalog.subscribe((entry) => {
    if (entry.kind === "artifact" && entry.value === undefined) void recover();
    if (entry.kind === "replica" && entry.owner === config.node_id) {
      // Whether this node is filled is part of its fact.
      republish ??= clock.after(REPUBLISH_MS, () => {
        republish = undefined;
        publishNode().catch((error: unknown) => log.warn("node fact is not told", { err: error }));
      });
    }
  });
  opened.push(async () => {
    unsubscribe();
    republish?.cancel();
    placement.stop();
    await builds.stop();
  });
  return () => {
    builds.reconcile();
    runtime.replicas.reconcile();
    runtime.snapshotWork.reconcile();
    placement.reconcile();
    gc.reconcile();
    return recover();
  };
}

/** What needs a quorum waits for one: the slow timer tries again. */
async function recoverArtifacts(artifacts: Artifacts, log: Log): Promise<void> {
  try {
    await artifacts.recover();
  } catch (error) {
    if (!isAppError(error) || !error.row.retryable) throw error;
    log.info("artifacts on the disk are taken into the catalog when there is a quorum");
  }
}

/** Who comes with a token that is not good any more is to hear why. */
const admitsStrangers = (config: ClusterConfig | undefined): boolean =>
  Object.keys(config?.tokens ?? {}).length > 0;

/** Alone, or agreeing with another member about everything that is replicated. */
export const isInTouch = ({ cluster: { members, replication } }: State): boolean =>
  members.others().length === 0 || replication.peers().some((peer) => peer.inSync === true);

/** Alone, or in touch with the others and with everything here that they want here. */
function isFilled(state: State): boolean {
  const own = coverageOf(state.catalog, state.nodes).get(state.cluster.members.self);
  return isInTouch(state) && own !== undefined && own.ready >= own.wanted;
}

/**
 * One event for whatever changed about the cluster, at most one a second; the view is asked for.
 */
function announceCluster({ catalog, cluster, hub }: State, clock: Clock): () => Promise<void> {
  let timer: { cancel(): void } | undefined;
  const soon = () => {
    timer ??= clock.after(CLUSTER_EVENT_MS, () => {
      timer = undefined;
      hub.publish("cluster", "cluster", {});
    });
  };
  const off = [
    cluster.liveness.onChange(soon),
    cluster.members.onChange(soon),
    cluster.warnings.onChange(soon),
    catalog.subscribe(({ kind }) => {
      if (kind === "leader") soon();
    }),
  ];
  const stopSwarms = announceSwarms({ catalog, cluster, hub }, clock);
  return async () => {
    timer?.cancel();
    stopSwarms();
    for (const stop of off) stop();
  };
}

/** Shares of a running swarm change without entries: looked at each second while there is one. */
function announceSwarms(
  { catalog, cluster, hub }: Pick<State, "catalog" | "cluster" | "hub">,
  clock: Clock,
): () => void {
  // By artifact, of those that somebody lacks a part of: what all hold is not looked at.
  let last = new Map<string, string>();
  let timer: { cancel(): void } | undefined;
  const look = () => {
    timer = undefined;
    const now = new Map(
      cluster.swarm
        .views()
        .filter(({ nodes }) => nodes.some(({ complete }) => !complete))
        .map((swarm) => [swarm.artifact_id, JSON.stringify(swarm)]),
    );
    for (const id of new Set([...last.keys(), ...now.keys()])) {
      if (now.get(id) !== last.get(id)) hub.publish("swarm", id, {});
    }
    last = now;
    if (now.size > 0) soon();
  };
  const soon = () => (timer ??= clock.after(CLUSTER_EVENT_MS, look));
  const off = catalog.subscribe(({ kind }) => {
    if (kind === "holding") soon();
  });
  soon();
  return () => {
    timer?.cancel();
    off();
  };
}
