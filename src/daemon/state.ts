/**
 * What a daemon keeps, opened in order: folders, catalog, artifacts, and its side of the cluster.
 */
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  AppError,
  type ArtifactStore,
  type Catalog,
  type Clock,
  type Folders,
  type Waste,
} from "../domain/index.ts";
import { createCluster, zlibCompressor, type ClusterOptions } from "../gossip/index.ts";
import { openArtifactStore } from "../storage/index.ts";
import { createAsks } from "./asks.ts";
import { createDiskAsks } from "./disk/asks.ts";
import { createDiskMeter, type DiskMeter } from "./disk/meter.ts";
import { createSpace, type Space } from "./disk/space.ts";
import { createStorageView } from "./disk/view.ts";
import { realFolders } from "./effects/folders.ts";
import { createEventHub, publishEntries } from "./events.ts";
import { createJobLog } from "./job-log.ts";
import { createLeases } from "./leases.ts";
import { openMembership, type Membership } from "./membership.ts";
import { createNodes } from "./nodes.ts";
import { createFacts, createRecords } from "./records.ts";
import { endProcess, findVms } from "./runtime/qemu/vm-process.ts";
import type { DaemonParts } from "./parts.ts";

export type Closers = (() => Promise<void>)[];

const DIRECTORIES = [
  "catalog",
  "artifacts",
  "templates",
  "snapshots",
  "sandboxes",
  "work",
] as const;
export type Directories = Readonly<Record<(typeof DIRECTORIES)[number], string>>;

async function makeDirectories(dataDir: string): Promise<Directories> {
  const made = DIRECTORIES.map(async (name) => {
    const path = join(dataDir, name);
    await mkdir(path, { recursive: true, mode: 0o750 }).catch((cause: unknown) => {
      throw new AppError("config_invalid", `data_dir = ${dataDir}: ${path} cannot be made`, {
        cause,
      });
    });
    return [name, path] as const;
  });
  return Object.fromEntries(await Promise.all(made)) as Directories;
}

/**
 * What a dead daemon left in its scratch folder; only after the catalog's lock is ours. A guest
 * that was on trial there is ended first: later the driver could not tell it from its own trial.
 */
async function emptyWork(dir: string, clock: Clock): Promise<void> {
  for (const { id } of await findVms([dir])) await endProcess(id, clock);
  for (const name of await readdir(dir))
    await rm(join(dir, name), { recursive: true, force: true });
}

/** What of a daemon lies on the host: where it is kept, and how it is reached. */
export interface Ground {
  readonly dirs: Directories;
  readonly catalog: Catalog;
  readonly membership: Membership;
  readonly store: ArtifactStore;
  readonly folders: Folders;
  readonly meter: DiskMeter;
  readonly compress?: ClusterOptions["compress"];
}

export async function openState(parts: DaemonParts, opened: Closers) {
  const { config, log, clock } = parts;
  const dirs = await makeDirectories(config.data_dir);
  const { catalog, membership } = await openMembership({ ...parts, catalogDir: dirs.catalog });
  opened.push(() => catalog.close());
  await emptyWork(dirs.work, clock);
  const store = await openArtifactStore({ dir: dirs.artifacts, workDir: dirs.work, log });
  const meter = createDiskMeter({
    dir: config.data_dir,
    clock,
    thresholds: config.storage_limits,
    counts: () => countHeld(catalog, store, config.node_id),
  });
  const own = { dirs, catalog, membership, store, folders: realFolders, meter };
  return createState(parts, { ...own, compress: zlibCompressor }, opened);
}

/** The same over any host: nothing here touches a disk or a network by itself. */
export function createState(parts: DaemonParts, ground: Ground, opened: Closers) {
  const { config, log, clock, random, metrics } = parts;
  const { dirs, catalog, membership, store, folders, meter, compress } = ground;
  const hub = createEventHub(clock, random);
  const unsubscribe = publishEntries(catalog, hub);
  opened.push(async () => unsubscribe());
  const facts = createFacts(catalog, clock, config.node_id);
  const space = createSpace({
    nodeId: config.node_id,
    meter,
    log: log.child({ module: "space" }),
    onRefused: (what) => metrics.writeRefused(what),
  });
  const jobLog = createJobLog(catalog, hub, clock, log);
  opened.push(() => jobLog.flush());
  const cluster = createCluster({
    nodeId: config.node_id,
    catalog,
    clock,
    random,
    log: log.child({ module: "cluster" }),
    sessionTermMs: config.session_term * 1_000,
    store: swarmStore(store, space),
    ...(compress === undefined ? {} : { compress }),
    presharedKey: () => membership.presharedKey(),
    uploadLimitBps: config.upload_limit * 1024 * 1024,
    onForgotten: (entry) => {
      facts.restate(entry).catch((err: unknown) => log.warn("a fact is not told again", { err }));
    },
    publishHolding: (artifactId, holding) => facts.put("holding", artifactId, holding),
  });
  opened.push(() => cluster.stop());
  const { members, liveness, leadership, transport } = cluster;
  const nodes = createNodes(catalog, members, liveness);
  const records = createRecords(catalog, cluster.registers);
  const leases = createLeases(leadership, clock, log);
  const asks = createAsks({ transport, members });
  const waste: { answer: (sweep: boolean) => Promise<Waste> } = {
    // Asked before the daemon is whole: nothing is known to be of no use.
    answer: () => Promise.resolve({ orphans: [], evictions: [] }),
  };
  const diskAsks = createDiskAsks({
    transport,
    members,
    own: {
      measure: () => meter.measure(),
      holds: (artifactId, digest) =>
        store.find(artifactId)?.digest === digest && !store.isSuspect(digest),
      waste: (sweep) => waste.answer(sweep),
    },
  });
  const storage = createStorageView({ nodes, asks: diskAsks, clock });
  const core = { catalog, store, folders, hub, records, facts, jobLog };
  const disk = { meter, space, storage, diskAsks, waste };
  return { dirs, ...core, ...disk, cluster, membership, nodes, leases, asks, swarm: cluster.swarm };
}

export type State = ReturnType<typeof createState>;

/** Root filesystems, by their bytes, and VM snapshots that are ready here. */
function countHeld(catalog: Catalog, store: ArtifactStore, nodeId: string) {
  const volumes = new Set(store.inventory().map(({ artifact }) => artifact.digest)).size;
  const own = [...catalog.list("replica", { owner: nodeId })];
  return { volumes, snapshots: own.filter(({ value }) => value?.status === "READY").length };
}

/** The artifact store as the swarm sees it: with room on the disk before a file is begun. */
const swarmStore = (store: ArtifactStore, space: Space): ClusterOptions["store"] => ({
  find: (artifactId) => store.find(artifactId),
  findDigest: (digest) => store.findDigest(digest),
  manifest: (digest) => store.manifest(digest),
  inventory: () => store.inventory(),
  readChunks: (digest, indexes) => store.readChunks(digest, indexes),
  openPartial: (artifact, manifest) => store.openPartial(artifact, manifest),
  partialManifest: (digest) => store.partialManifest(digest),
  isSuspect: (digest) => store.isSuspect(digest),
  addSidecar: (digest, sidecar) => store.addSidecar(digest, sidecar),
  holdSpace: (bytes) => space.hold(bytes, "fetch"),
});
