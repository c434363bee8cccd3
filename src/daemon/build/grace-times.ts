import type { ArtifactRecord, Clock } from "../../domain/index.ts";

/**
 * What is left of artifacts' graces, counted from when this node first saw each begin, by its
 * monotonic clock: who wrote the record may have a clock that is hours off, and this host's may be
 * set while the grace runs. A restart of the daemon begins the count anew: later than configured is
 * possible, sooner is not.
 */
export class GraceTimes {
  readonly #clock: Clock;
  readonly #configuredMs: number;
  readonly #seen = new Map<string, { readonly grace: string; readonly at: number }>();

  constructor(clock: Clock, configuredMs: number) {
    this.#clock = clock;
    this.#configuredMs = configuredMs;
  }

  /** To be told of each change of an artifact's record; without one it is gone. */
  see(artifactId: string, artifact: ArtifactRecord | undefined): void {
    const since = artifact?.unreferenced_at;
    if (artifact === undefined || since === undefined) {
      this.#seen.delete(artifactId);
      return;
    }
    const grace = `${since}/${artifact.gc_deadline}`;
    if (this.#seen.get(artifactId)?.grace === grace) return;
    this.#seen.set(artifactId, { grace, at: this.#clock.monotonic() });
  }

  /** Milliseconds until its grace is over; of one that has none, all of it. */
  leftMs(artifact: ArtifactRecord): number {
    this.see(artifact.artifact_id, artifact);
    const seen = this.#seen.get(artifact.artifact_id);
    const { unreferenced_at: since, gc_deadline } = artifact;
    if (seen === undefined || since === undefined) return this.#configuredMs;
    // Both were read from one clock, so that their difference is right.
    const graceMs = Math.max(this.#configuredMs, gc_deadline * 1_000 - Date.parse(since));
    return Math.max(0, graceMs - (this.#clock.monotonic() - seen.at));
  }
}
