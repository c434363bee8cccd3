/**
 * The composition root: opens what a daemon needs in order, joins adapters to ports, and takes it
 * all down again in reverse. Nothing here decides anything.
 */
import { rename, writeFile } from "node:fs/promises";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import {
  isAppError,
  type AppError,
  type Catalog,
  type Clock,
  type ClusterConfig,
  type Commands,
  type Log,
  type Queries,
} from "../domain/index.ts";
import type { Artifacts } from "./build/artifacts.ts";
import { parseReference } from "./build/source/reference.ts";
import { createClusterService } from "./cluster-service.ts";
import { clusterView } from "./cluster-view.ts";
import { createCollection } from "./collection.ts";
import { createCommands, trimJobs } from "./commands.ts";
import { createCompat } from "./compat.ts";
import type { Config } from "./config.ts";
import { createDeletions } from "./deletions.ts";
import { openDoor } from "./door.ts";
import type { Listening } from "./http/server.ts";
import { createCancelJob } from "./job-cancel.ts";
import type { DaemonParts } from "./parts.ts";
import { createSnapshots } from "./snapshots.ts";
import { openState, type Closers, type State } from "./state.ts";
import { coverageOf } from "./coverage.ts";
import { createQueries } from "./queries.ts";
import { createBuilds, type Work } from "./wire-builds.ts";
import { createDisk } from "./wire-disk.ts";
import { openRuntime, ownAddress, type Runtime } from "./wire-runtime.ts";
import { GcWorker } from "./workers/gc.ts";
import { createNodeFact } from "./workers/node-fact.ts";
import { PlacementWorker } from "./workers/placement.ts";
import { ResnapshotWorker } from "./workers/resnapshot.ts";
import { ScrubWorker } from "./workers/scrub.ts";

export interface Daemon {
  readonly catalog: Catalog;
  readonly queries: Queries;
  readonly commands: Commands;
  readonly listening: Listening;
  /** One line for `systemctl status`. */
  status(): string;
  /** False when the core has not finished a round of its own for long, whatever timers still do. */
  alive(): boolean;
  /** Resolves with the reason when everything in the process is to be started anew. */
  readonly restartWanted: Promise<string>;
  /** Resolves with the reason when this daemon must not run on. */
  readonly failed: Promise<AppError>;
  /** Parks work at a step, closes listeners and catalog. Sandboxes go on. */
  stop(): Promise<void>;
}

const CLUSTER_EVENT_MS = 1_000;
const REPUBLISH_MS = 300;
/** A deletion whose node has died is carried on within this time. */
const DELETIONS_MS = 5_000;
/** The core's own heartbeat: the node's fact goes through the catalog's writer. */
const ROUND_MS = 15_000;
/** Orphan files are looked for this often. */
const SWEEP_MS = 10 * 60_000;

/** Starts everything in order; what was opened is closed again when a later step fails. */
export async function startDaemon(parts: DaemonParts): Promise<Daemon> {
  const opened: Closers = [];
  try {
    return await start(parts, opened);
  } catch (error) {
    for (const close of opened.reverse()) await close().catch(() => undefined);
    throw error;
  }
}

/** Work that nothing else triggers: a slow timer per activity, ended with the daemon. */
function every({ clock, log }: DaemonParts, milliseconds: number, work: () => unknown) {
  let stopped = false;
  let timer: { cancel(): void };
  const next = () => {
    timer = clock.after(milliseconds, () => {
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
interface Lifecycle {
  readonly isDraining: () => boolean;
  readonly restart: (reason: string) => void;
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

/** The read side and the write side, over everything that was opened. */
function createServices(
  parts: DaemonParts,
  state: State,
  runtime: Runtime,
  { artifacts, builds, cleanup }: Work,
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
  const snapshots = createSnapshots({ ...state, ...runtime, deletions, clock, random });
  const commands = createCommands({
    ...state,
    ...runtime,
    snapshots,
    cluster: clusterCommands,
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
  return { queries, commands, connect, deletions, resnapshot };
}

/** The reconcilers, and what wakes them. Answers what the slow timer calls. */
async function startWorkers(
  parts: DaemonParts,
  state: State,
  runtime: Runtime,
  { artifacts, builds, cleanup }: Work,
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

async function start(parts: DaemonParts, opened: Closers): Promise<Daemon> {
  const { config, log, clock, health, metrics, version } = parts;
  const state = await openState(parts, opened);
  const runtime = await openRuntime(parts, state, opened);
  const work = await createBuilds(parts, state);
  const disk = createDisk(parts, state, runtime, work, () => isInTouch(state));
  const { catalog, records, membership, cluster } = state;
  let draining = false;
  let restart: (reason: string) => void = () => undefined;
  const restartWanted = new Promise<string>((resolve) => (restart = resolve));
  const isDraining = () => draining;
  const services = createServices(parts, state, runtime, work, {
    isDraining,
    restart,
    publishNode: () => publishNode(),
  });
  const { queries, commands } = services;
  const door: { listening?: Listening } = {};
  const publishNode = createNodeFact({
    facts: state.facts,
    driver: runtime.driver,
    driverDetail: runtime.detail,
    clock,
    log,
    meter: state.meter,
    version,
    nodeIp: ownAddress(),
    address: () => door.listening?.url ?? "",
    cpuCount: Math.max(1, cpus().length),
    memoryBytes: totalmem(),
    resnapshotIntervalMs: config.resnapshot_interval_ms,
    isFilled: () => isFilled(state),
  });
  if (membership.file !== undefined) {
    cluster.attach(await services.connect(membership.file.preshared_key));
  }
  await cluster.start();
  await recoverArtifacts(work.artifacts, log);
  await runtime.sandboxes.recover();
  await publishNode();
  health.opened(catalog);
  metrics.watch({ catalog, queries, cluster, clock });
  const reconcile = await startWorkers(parts, state, runtime, work, publishNode, opened);
  services.resnapshot.start();
  opened.push(() => services.resnapshot.stop());
  const listening = await openDoor(parts, { catalog, queries, commands }, opened);
  door.listening = listening;
  await publishNode();
  await writeDaemonFile(config, version, listening);
  const status = () => {
    const active =
      work.builds.activeCount + runtime.replicas.activeCount + runtime.snapshotWork.activeCount;
    const templates = [...catalog.list("template")].length;
    return `${templates} templates, ${active} at work, ${runtime.sandboxes.list().length} sandboxes`;
  };
  let lastRound = clock.monotonic();
  const round = async () => {
    // A round that fails has ended as well; one that hangs in the catalog's queue has not.
    await publishNode().finally(() => (lastRound = clock.monotonic()));
  };
  const timers = [
    every(parts, ROUND_MS, round),
    every(parts, 5_000, () => runtime.sandboxes.refresh()),
    every(parts, DELETIONS_MS, () => services.deletions.resume()),
    every(parts, 30_000, reconcile),
    every(parts, 30_000, () => disk.evictions.relieve()),
    every(parts, SWEEP_MS, () => disk.orphans.sweep()),
    every(parts, 60_000, () => trimJobs(records, state.jobLog)),
  ];
  opened.push(async () => timers.forEach((stop) => stop()));
  return {
    catalog,
    queries,
    commands,
    listening,
    status,
    restartWanted,
    failed: cluster.copied,
    alive: () => clock.monotonic() - lastRound < 4 * ROUND_MS,
    async stop() {
      draining = true;
      health.drain();
      for (const close of opened.reverse()) await close();
    },
  };
}

/** `<data>/daemon.json`: the ports in use, for clients and scripts; complete or not there. */
async function writeDaemonFile(
  config: Config,
  version: string,
  { url, address, port }: Listening,
): Promise<void> {
  const path = join(config.data_dir, "daemon.json");
  const content = { url, address, port, pid: process.pid, version, node_id: config.node_id };
  await writeFile(`${path}.new`, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o640 });
  await rename(`${path}.new`, path);
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
const isInTouch = ({ cluster: { members, replication } }: State): boolean =>
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
  // By artifact, of those that somebody lacks a part of: what all hold is not looked at.
  let last = new Map<string, string>();
  const stopSwarms = everySoOften(clock, () => {
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
  });
  return async () => {
    timer?.cancel();
    stopSwarms();
    for (const stop of off) stop();
  };
}

function everySoOften(clock: Clock, work: () => void): () => void {
  let timer = clock.after(CLUSTER_EVENT_MS, function again() {
    work();
    timer = clock.after(CLUSTER_EVENT_MS, again);
  });
  return () => timer.cancel();
}
