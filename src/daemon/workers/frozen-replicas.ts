/** A replica of what was frozen elsewhere: its files by the swarm, put together by the driver. */
import {
  AppError,
  errorText,
  frozenFor,
  misfit,
  type ArtifactRecord,
  type ArtifactStore,
  type Clock,
  type DriverSnapshot,
  type Frozen,
  type RuntimeDriver,
  type SnapshotFile,
  type TemplateRecord,
} from "../../domain/index.ts";
import type { Swarm } from "../../gossip/index.ts";
import type { Records } from "../records.ts";

export interface FrozenParts {
  readonly records: Pick<Records, "get">;
  readonly store: Pick<ArtifactStore, "find">;
  readonly swarm: Pick<Swarm, "fetch">;
  readonly driver: RuntimeDriver;
  readonly clock: Pick<Clock, "after">;
  /** True while another node that is up has all of it. */
  readonly isHeldElsewhere: (artifact: ArtifactRecord) => boolean;
}

/** Whether somebody still has what is fetched is looked at this often. */
const WATCH_MS = 1_000;

/** True when every file is there to be had. */
export const isPublished = ({ records }: Pick<FrozenParts, "records">, frozen: Frozen): boolean =>
  frozen.files.every(({ artifact_id: id }) => records.get("artifact", id)?.status === "READY");

/**
 * What a replica is put together with where it is of something frozen that fits this node.
 * Undefined: it is booted, which a template always can be; of a snapshot there is nothing else.
 * @throws AppError as `fetchFrozen`, of a snapshot
 */
export async function deliverFrozen(
  parts: FrozenParts,
  template: TemplateRecord,
  options: {
    readonly generation: number;
    readonly dir: string;
    readonly signal: AbortSignal;
    /** Told why it is booted all the same. */
    readonly onBoot: (reason: string) => void;
  },
): Promise<((rootfsPath: string) => Promise<DriverSnapshot | undefined>) | undefined> {
  const { generation, dir, signal, onBoot } = options;
  const frozen = frozenFor(template, generation);
  if (frozen === undefined) return undefined;
  const boots = (error: unknown): undefined => {
    if (template.kind === "snapshot" || signal.aborted) throw error;
    onBoot(errorText(error));
  };
  try {
    const files = await fetchFrozen(parts, frozen, signal);
    return (rootfsPath) =>
      putTogether(parts, template, frozen, { files, rootfsPath, dir, signal }).catch(boots);
  } catch (error) {
    return boots(error);
  }
}

/** Before anything is fetched for it. @throws AppError snapshot_incompatible */
export async function assertFits(
  { driver }: Pick<FrozenParts, "driver">,
  frozen: Frozen,
  signal: AbortSignal,
): Promise<void> {
  // Only after its trial boot a driver knows all that it is.
  await driver.probe({ signal });
  const { extra, ...versions } = await driver.versions();
  const host = { ...versions, versions_extra: extra, driver: driver.name };
  const reason = misfit(frozen, host);
  if (reason !== undefined) throw new AppError("snapshot_incompatible", reason);
}

/**
 * The files, on this node's disk.
 * @throws AppError snapshot_incompatible, artifact_not_ready, fetch_failed, disk_space_low
 */
async function fetchFrozen(
  parts: FrozenParts,
  frozen: Frozen,
  signal: AbortSignal,
): Promise<Pick<SnapshotFile, "name" | "path">[]> {
  const { records, store } = parts;
  await assertFits(parts, frozen, signal);
  const files = [];
  for (const { name, artifact_id: id } of frozen.files) {
    const artifact: ArtifactRecord | undefined = records.get("artifact", id);
    if (artifact?.status !== "READY") {
      throw new AppError("artifact_not_ready", `${name} of what was frozen is not there: ${id}`);
    }
    if (store.find(id)?.digest !== artifact.digest) await fetchHeld(parts, artifact, signal);
    const held = store.find(id);
    if (held?.digest !== artifact.digest) {
      throw new AppError("artifact_source_missing", `${id} is not on this node's disk`);
    }
    files.push({ name, path: held.path });
  }
  return files;
}

/** Nobody waits for a node that is down: what is fetched can be done without, or had later. */
async function fetchHeld(
  { swarm, clock, isHeldElsewhere }: FrozenParts,
  artifact: ArtifactRecord,
  signal: AbortSignal,
): Promise<void> {
  const gone = new AbortController();
  let timer: { cancel(): void } | undefined;
  const watch = () => {
    if (isHeldElsewhere(artifact)) timer = clock.after(WATCH_MS, watch);
    else {
      const { artifact_id } = artifact;
      gone.abort(new AppError("fetch_failed", `no node that is up holds ${artifact_id}`));
    }
  };
  watch();
  try {
    await swarm.fetch(artifact, { signal: AbortSignal.any([signal, gone.signal]) });
  } finally {
    timer?.cancel();
  }
}

/** @throws AppError snapshot_failed */
function putTogether(
  { driver }: Pick<FrozenParts, "driver">,
  { template_id: id, kind }: Pick<TemplateRecord, "template_id" | "kind">,
  frozen: Frozen,
  on: {
    readonly files: readonly Pick<SnapshotFile, "name" | "path">[];
    readonly rootfsPath: string;
    readonly dir: string;
    readonly signal: AbortSignal;
  },
): Promise<DriverSnapshot> {
  const { guest_image_version, agent_version, kernel_version, versions_extra } = frozen;
  const { files, rootfsPath, dir, signal } = on;
  return driver.importSnapshot(
    {
      ...(kind === "snapshot"
        ? { templateId: frozen.template_id, snapshotId: id }
        : { templateId: id }),
      versions: { guest_image_version, agent_version, kernel_version, extra: versions_extra },
      description: frozen.description,
      ...{ files, rootfsPath, dir },
    },
    { signal },
  );
}
