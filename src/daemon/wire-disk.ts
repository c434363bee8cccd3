/** The part of the composition root that keeps the disk from filling up. */
import { createEvictions } from "./disk/eviction.ts";
import { createOrphans } from "./disk/orphans.ts";
import { createPlaces } from "./disk/places.ts";
import type { DaemonParts } from "./parts.ts";
import type { State } from "./state.ts";
import type { Work } from "./wire-builds.ts";
import type { Runtime } from "./wire-runtime.ts";

export function createDisk(
  parts: DaemonParts,
  state: State,
  { replicas }: Runtime,
  { cleanup }: Work,
  isInTouch: () => boolean,
) {
  const { config, log, clock, metrics } = parts;
  const known = createPlaces({
    ...state,
    isWorking: (templateId) => replicas.isWorking(templateId),
  });
  const orphans = createOrphans({
    nodeId: config.node_id,
    dataDir: config.data_dir,
    workDir: state.dirs.work,
    places: known.places,
    prepare: () => known.prepare(),
    graceMs: config.orphan_grace_ms,
    clock,
    log: log.child({ module: "orphans" }),
    onSwept: (folder, bytes) => metrics.orphanSwept(folder, bytes),
  });
  const evictions = createEvictions({
    ...state,
    nodeId: config.node_id,
    cleanup,
    orphans,
    log: log.child({ module: "eviction" }),
    isInTouch,
    onEvicted: (kind, bytes) => metrics.evicted(kind, bytes),
  });
  state.space.onShort((bytes) => evictions.reclaim(bytes));
  state.waste.answer = async (sweep) => ({
    orphans: await (sweep ? orphans.sweep() : orphans.find()),
    evictions: [...evictions.due()],
  });
  metrics.watchOrphans(() => orphans.latest());
  return { orphans, evictions };
}
