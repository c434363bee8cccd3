import type { Clock, LayerDescriptor, RootfsBuildProgress } from "../../domain/index.ts";
import type { RunProgress } from "./rootfs-run.ts";

/** Progress is shown to people: five times a second is enough. */
const INTERVAL_MS = 200;

/**
 * Joins what the sources and the build say about their progress, at a bearable rate, and times the
 * phases. PULLING lasts until the first layer's bytes are being unpacked.
 */
export class BuildMeter {
  private readonly clock: Clock;
  private readonly started: number;
  private readonly timings = new Map<string, number>();
  private readonly report: ((progress: RootfsBuildProgress) => void) | undefined;
  private phaseStarted: number;
  private reported = Number.NEGATIVE_INFINITY;
  private progress: RootfsBuildProgress;

  constructor(
    clock: Clock,
    layers: readonly LayerDescriptor[],
    report?: (progress: RootfsBuildProgress) => void,
  ) {
    this.clock = clock;
    this.report = report;
    this.started = this.phaseStarted = clock.monotonic();
    this.progress = {
      downloadedBytes: 0,
      totalBytes: layers.reduce((sum, layer) => sum + layer.sizeBytes, 0),
      completedLayers: 0,
      totalLayers: layers.length,
      entries: 0,
      writtenBytes: 0,
      phase: "PULLING",
    };
    this.show(true);
  }

  /** For `openLayer`. */
  readonly onBytes = (bytes: number): void => {
    const downloadedBytes = this.progress.downloadedBytes + bytes;
    this.progress = { ...this.progress, downloadedBytes };
    this.show(false);
  };

  onRun(run: RunProgress): void {
    const before = this.progress;
    this.progress = { ...before, ...run };
    const next = run.phase !== before.phase;
    if (next) this.endPhase(before.phase);
    this.show(next || run.completedLayers !== before.completedLayers);
  }

  /** Milliseconds of each phase and in total. */
  end(): Record<string, number> {
    this.endPhase(this.progress.phase);
    this.show(true);
    this.timings.set("total_ms", this.clock.monotonic() - this.started);
    return Object.fromEntries(this.timings);
  }

  private endPhase(phase: RootfsBuildProgress["phase"]): void {
    const now = this.clock.monotonic();
    this.timings.set(`${phase.toLowerCase()}_ms`, now - this.phaseStarted);
    this.phaseStarted = now;
  }

  private show(always: boolean): void {
    if (this.report === undefined) return;
    const now = this.clock.monotonic();
    if (!always && now - this.reported < INTERVAL_MS) return;
    this.reported = now;
    this.report(this.progress);
  }
}
