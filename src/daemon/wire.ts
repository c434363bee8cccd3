/**
 * The composition root: opens what a daemon needs in order, joins adapters to ports, and takes it
 * all down again in reverse. Nothing here decides anything.
 */
import { rename, writeFile } from "node:fs/promises";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import type { AppError, Catalog, Commands, Queries } from "../domain/index.ts";
import type { Config } from "./config.ts";
import { openDoor } from "./door.ts";
import type { Listening } from "./http/server.ts";
import type { DaemonParts } from "./parts.ts";
import { openState, type Closers } from "./state.ts";
import { openBuilds } from "./wire-builds.ts";
import { createCore, every, isInTouch } from "./wire-core.ts";
import { createDisk } from "./wire-disk.ts";
import { createSnapshotWork, openRuntime } from "./wire-runtime.ts";

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

async function start(parts: DaemonParts, opened: Closers): Promise<Daemon> {
  const { config, clock, health, metrics, version } = parts;
  const state = await openState(parts, opened);
  const driven = await openRuntime(parts, state, opened);
  const work = await openBuilds(parts, state);
  const runtime = { ...driven, snapshotWork: createSnapshotWork(parts, state, driven, work) };
  const disk = createDisk(parts, state, runtime, work, () => isInTouch(state));
  const { catalog, membership, cluster } = state;
  let draining = false;
  let restart: (reason: string) => void = () => undefined;
  const restartWanted = new Promise<string>((resolve) => (restart = resolve));
  const door: { listening?: Listening } = {};
  const core = createCore(parts, state, runtime, work, {
    isDraining: () => draining,
    restart,
    address: () => door.listening?.url ?? "",
    cpuCount: Math.max(1, cpus().length),
    memoryBytes: totalmem(),
  });
  const { queries, commands } = core;
  if (membership.file !== undefined) {
    cluster.attach(await core.connect(membership.file.preshared_key));
  }
  await core.recover();
  health.opened(catalog);
  metrics.watch({ catalog, queries, cluster, clock });
  await core.work(opened);
  const listening = await openDoor(parts, { catalog, queries, commands }, opened);
  door.listening = listening;
  await core.publishNode();
  await writeDaemonFile(config, version, listening);
  const timers = [
    every(parts, 30_000, () => disk.evictions.relieve()),
    every(parts, SWEEP_MS, () => disk.orphans.sweep()),
  ];
  opened.push(async () => timers.forEach((stop) => stop()));
  const status = () => {
    const active =
      work.builds.activeCount + runtime.replicas.activeCount + runtime.snapshotWork.activeCount;
    const templates = [...catalog.list("template")].length;
    return `${templates} templates, ${active} at work, ${runtime.sandboxes.list().length} sandboxes`;
  };
  return {
    catalog,
    queries,
    commands,
    listening,
    status,
    restartWanted,
    failed: cluster.copied,
    alive: core.alive,
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
