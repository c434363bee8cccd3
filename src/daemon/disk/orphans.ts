/**
 * Files in the data folder that no record, fact or row knows: what crashes, failed removals and
 * downloads that nobody waits for any more have left. They are told of from the first look on, and
 * go when they have not changed for a while, so that nothing is taken for an orphan that is only
 * about to get its record. Of what is nowhere else the time counts from the first look, by the
 * monotonic clock: a catalog that was lost makes orphans of what has not changed for long.
 */
import { lstatSync, renameSync } from "node:fs";
import { lstat, mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { errorText, type Clock, type Log, type Orphan } from "../../domain/index.ts";

/** One folder of the data folder, and what in it is known. */
export interface Place {
  /** Below the data folder, as `artifacts/partial`. */
  readonly folder: string;
  /** Answers at once: between its answer and the removal nothing else runs. */
  readonly isKnown: (name: string) => boolean;
  /** True of what is nowhere else: its whole grace runs from when it was first seen. */
  readonly isOnlyCopy?: (name: string) => boolean;
  /** Kept for at least so long, whatever the grace. */
  readonly leastMs?: number;
}

export interface OrphanParts {
  readonly nodeId: string;
  readonly dataDir: string;
  /** On the same file system; emptied at start. */
  readonly workDir: string;
  readonly places: readonly Place[];
  readonly graceMs: number;
  readonly clock: Pick<Clock, "now" | "monotonic">;
  readonly log: Log;
  /** Reads what `isKnown` needs and cannot wait for. */
  readonly prepare?: () => Promise<void>;
  readonly onSwept?: (folder: string, bytes: number) => void;
}

export interface Orphans {
  /** What is there now, and when it goes. */
  find(): Promise<Orphan[]>;
  /** The same, after removing what is due; `urgent` shortens the grace. */
  sweep(options?: { urgent?: boolean }): Promise<Orphan[]>;
  /** What the last look found, for metrics. */
  latest(): readonly Orphan[];
}

/** Under disk pressure: longer than any rename, row or first chunk takes. */
const URGENT_MS = 10 * 60_000;
const DEPTH = 4;

interface Extent {
  readonly bytes: number;
  readonly changedMs: number;
}

/** Bytes on disk, and the latest change of it or of anything in it. */
async function measure(path: string, depth = DEPTH): Promise<Extent> {
  const found = await lstat(path);
  let bytes = found.blocks * 512;
  let changedMs = found.ctimeMs;
  if (!found.isDirectory() || depth === 0) return { bytes, changedMs };
  for (const name of await readdir(path)) {
    const inside = await measure(join(path, name), depth - 1);
    bytes += inside.bytes;
    changedMs = Math.max(changedMs, inside.changedMs);
  }
  return { bytes, changedMs };
}

export function createOrphans(parts: OrphanParts): Orphans {
  const { clock, dataDir, log, places } = parts;
  let last: readonly Orphan[] = [];
  let counter = 0;
  let tail: Promise<unknown> = Promise.resolve();

  /** When what is nowhere else was first seen, by its path. */
  const seen = new Map<string, number>();

  /** Milliseconds until it goes; less than none: it is due. */
  const leftMs = (place: Place, name: string, changedMs: number, urgent: boolean): number => {
    const isOnlyCopy = place.isOnlyCopy?.(name) === true;
    const isShort = urgent && !isOnlyCopy;
    const graceMs = isShort ? Math.min(parts.graceMs, URGENT_MS) : parts.graceMs;
    const unchanged = changedMs + Math.max(place.leastMs ?? 0, graceMs) - clock.now();
    if (!isOnlyCopy) return unchanged;
    const path = join(place.folder, name);
    const since = seen.get(path) ?? clock.monotonic();
    seen.set(path, since);
    return Math.max(unchanged, since + graceMs - clock.monotonic());
  };

  const look = async (place: Place, name: string): Promise<Orphan | undefined> => {
    try {
      const { bytes, changedMs } = await measure(join(dataDir, place.folder, name));
      const dueMs = clock.now() + leftMs(place, name, changedMs, false);
      return {
        node_id: parts.nodeId,
        folder: place.folder,
        name,
        bytes,
        changed_at: new Date(changedMs).toISOString(),
        due_at: new Date(dueMs).toISOString(),
        removed: false,
      };
    } catch {
      // Gone or changed while it was looked at: then it is no orphan.
      return undefined;
    }
  };
  const lookAll = async (): Promise<Orphan[]> => {
    await parts.prepare?.();
    const found: Orphan[] = [];
    for (const place of places) {
      const names = await readdir(join(dataDir, place.folder)).catch(() => []);
      for (const name of names.sort()) {
        const isKnown = place.isKnown(name);
        if (isKnown) seen.delete(join(place.folder, name));
        const orphan = isKnown ? undefined : await look(place, name);
        if (orphan !== undefined) found.push(orphan);
      }
    }
    return found;
  };

  /** Out of the way by one rename that nothing can come between, then removed. */
  const remove = async (place: Place, orphan: Orphan): Promise<Orphan> => {
    const path = join(dataDir, place.folder, orphan.name);
    const aside = join(parts.workDir, "swept");
    await mkdir(aside, { recursive: true, mode: 0o750 });
    const target = join(aside, String(++counter));
    try {
      if (place.isKnown(orphan.name)) return orphan;
      if (lstatSync(path).ctimeMs > Date.parse(orphan.changed_at) + 1) return orphan;
      renameSync(path, target);
    } catch (error) {
      return { ...orphan, error: errorText(error) };
    }
    await rm(target, { recursive: true, force: true });
    const { folder, name, bytes } = orphan;
    log.warn("files that nothing knows were removed", { folder, name, bytes });
    parts.onSwept?.(folder, bytes);
    return { ...orphan, removed: true };
  };

  const sweep = async (urgent: boolean): Promise<Orphan[]> => {
    const swept: Orphan[] = [];
    for (const orphan of await lookAll()) {
      const place = places.find(({ folder }) => folder === orphan.folder);
      if (place === undefined) continue;
      const left = leftMs(place, orphan.name, Date.parse(orphan.changed_at), urgent);
      swept.push(left <= 0 ? await remove(place, orphan) : orphan);
    }
    last = swept.filter(({ removed }) => !removed);
    return swept;
  };
  const alone = <T>(work: () => Promise<T>): Promise<T> => {
    const result = tail.then(work);
    tail = result.catch(() => undefined);
    return result;
  };

  return {
    latest: () => last,
    find: () => alone(async () => [...(last = await lookAll())]),
    sweep: ({ urgent = false } = {}) => alone(() => sweep(urgent)),
  };
}
