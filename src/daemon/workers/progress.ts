/**
 * A job's live progress: one fact, written at most every `progressIntervalMs`, never flushed to
 * disk.
 */
import {
  LIMITS,
  type Clock,
  type JobProgress,
  type ResolvedImage,
  type RootfsBuildProgress,
} from "../../domain/index.ts";
import type { Facts } from "../records.ts";

export interface ProgressReporter {
  layers(image: ResolvedImage): void;
  build(state: RootfsBuildProgress): void;
  replicas(ended: number, expected: number): void;
  /** The last state is written out; later calls do nothing. */
  end(): void;
}

export function createProgress(parts: {
  readonly facts: Facts;
  readonly clock: Clock;
  readonly jobId: string;
}): ProgressReporter {
  const { facts, clock, jobId } = parts;
  let state: JobProgress = {
    job_id: jobId,
    phase_ratio: 0,
    pull_total_bytes: 0,
    pull_downloaded_bytes: 0,
    pull_total_layers: 0,
    pull_completed_layers: 0,
    pull_speed_bps: 0,
    written_bytes: 0,
    entries: 0,
    note: "",
  };
  let writtenAt = -Infinity;
  let timer: { cancel(): void } | undefined;
  let ended = false;
  let last = { bytes: 0, at: clock.monotonic() };

  const write = () => {
    timer = undefined;
    writtenAt = clock.monotonic();
    // A lost progress fact is replaced by the next one; the job's record is what counts.
    facts.put("job-progress", jobId, state, { sync: false }).catch(() => undefined);
  };
  const change = (next: Partial<JobProgress>) => {
    if (ended) return;
    state = { ...state, ...next };
    if (timer !== undefined) return;
    const wait = writtenAt + LIMITS.progressIntervalMs - clock.monotonic();
    if (wait <= 0) write();
    else timer = clock.after(wait, write);
  };

  return {
    layers: (image) =>
      change({
        pull_total_layers: image.layers.length,
        pull_total_bytes: image.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0),
      }),
    build(progress) {
      const now = clock.monotonic();
      const seconds = (now - last.at) / 1_000;
      let speed = state.pull_speed_bps;
      // Bytes that go backwards (a layer begun again) have no speed (spec §3.3).
      if (progress.downloadedBytes < last.bytes) speed = 0;
      else if (seconds >= 0.2)
        speed = Math.round((progress.downloadedBytes - last.bytes) / seconds);
      if (seconds >= 0.2 || progress.downloadedBytes < last.bytes) {
        last = { bytes: progress.downloadedBytes, at: now };
      }
      const ratio = progress.totalBytes === 0 ? 1 : progress.downloadedBytes / progress.totalBytes;
      change({
        phase_ratio: Math.min(1, progress.phase === "BUILDING_EXT4" ? 0.5 : ratio),
        pull_total_bytes: progress.totalBytes,
        pull_downloaded_bytes: progress.downloadedBytes,
        pull_total_layers: progress.totalLayers,
        pull_completed_layers: progress.completedLayers,
        pull_speed_bps: speed,
        written_bytes: progress.writtenBytes,
        entries: progress.entries,
      });
    },
    replicas: (done, expected) =>
      change({
        phase_ratio: expected === 0 ? 1 : done / expected,
        pull_speed_bps: 0,
        note: `${done} of ${expected} nodes done`,
      }),
    end() {
      if (ended) return;
      timer?.cancel();
      state = { ...state, pull_speed_bps: 0 };
      write();
      ended = true;
    },
  };
}
