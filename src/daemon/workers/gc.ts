/**
 * Every node, the artifacts that nobody refers to (design §11). The first of the healthy members
 * in rendezvous order takes the steps of an artifact's record; every node removes its own copy of
 * what is CLEANUP_PENDING as soon as nothing here needs it. The order only spares double work:
 * each step is decided again inside the change of the record.
 */
import PQueue from "p-queue";
import {
  candidateOrder,
  errorText,
  gcStep,
  isAppError,
  type ArtifactRecord,
  type Catalog,
  type Clock,
  type GcStep,
  type Log,
} from "../../domain/index.ts";
import type { Cleanup } from "../build/cleanup.ts";
import type { GraceTimes } from "../build/grace-times.ts";
import type { Nodes } from "../nodes.ts";
import type { Facts, Records } from "../records.ts";

export interface GcParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly facts: Facts;
  readonly nodes: Nodes;
  readonly cleanup: Cleanup;
  readonly grace: Pick<GraceTimes, "see">;
  readonly clock: Clock;
  readonly log: Log;
  /** Alone, or agreeing with another member: what is not heard of may be a reference. */
  readonly isInTouch: () => boolean;
}

/** Changes that come together are looked at together. */
const SETTLE_MS = 500;
/** The slow round of the daemon looks anyway; a deadline before that has its own timer. */
const SOON_MS = 30_000;
/** Artifacts of one pass; the next comes with the next round (spec §8). */
const MOST_PER_PASS = 100;
const AT_ONCE = 5;

const WATCHED = new Set(["artifact", "template", "job", "holding", "replica", "node"]);
/** Steps that only somebody may take who would know of a reference. */
const TAKES_AWAY: ReadonlySet<GcStep> = new Set(["grace", "orphan", "release", "forget"]);

export class GcWorker {
  readonly #parts: GcParts;
  #timer: { cancel(): void } | undefined;
  #deadline: { cancel(): void } | undefined;
  #unsubscribe: () => void = () => undefined;
  #pass: Promise<void> | undefined;
  #again = false;
  #stopped = false;

  constructor(parts: GcParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#unsubscribe = this.#parts.catalog.subscribe((entry) => {
      if (entry.kind === "artifact") {
        this.#parts.grace.see(entry.id, entry.value as ArtifactRecord | undefined);
      }
      if (WATCHED.has(entry.kind)) this.reconcile();
    });
    this.reconcile();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#deadline?.cancel();
    this.#unsubscribe();
    await this.#pass;
  }

  /** A pass soon. */
  reconcile(): void {
    if (this.#stopped) return;
    if (this.#pass !== undefined) {
      this.#again = true;
      return;
    }
    this.#timer ??= this.#parts.clock.after(SETTLE_MS, () => {
      this.#timer = undefined;
      void this.pass();
    });
  }

  /** Looks at every artifact once; the failure of one stops no other. */
  pass(): Promise<void> {
    this.#pass ??= this.#run().finally(() => {
      this.#pass = undefined;
      if (!this.#again) return;
      this.#again = false;
      this.reconcile();
    });
    return this.#pass;
  }

  async #run(): Promise<void> {
    const { records, cleanup, facts } = this.#parts;
    const references = cleanup.references();
    const queue = new PQueue({ concurrency: AT_ONCE });
    const work: Promise<unknown>[] = [];
    let soonest = Infinity;
    for (const artifact of [...records.list("artifact")]) {
      const sight = cleanup.sight(artifact, references.get(artifact.artifact_id));
      const step = gcStep(artifact, sight);
      const mayStep = step !== "none" && this.#isOurs(artifact, step);
      const mayClean =
        artifact.status === "CLEANUP_PENDING"
          ? sight.references.length === 0
          : artifact.status === "READY" && artifact.cleaned_by?.includes(facts.nodeId) === true;
      if (artifact.unreferenced_at !== undefined && artifact.status !== "CLEANUP_PENDING") {
        soonest = Math.min(soonest, sight.graceLeftMs);
      }
      if ((!mayStep && !mayClean) || work.length >= MOST_PER_PASS) continue;
      work.push(queue.add(() => this.#contain(artifact, mayStep, mayClean)));
    }
    await Promise.all(work);
    this.#watchDeadline(soonest);
  }

  #isOurs({ artifact_id }: ArtifactRecord, step: GcStep): boolean {
    const { nodes, isInTouch } = this.#parts;
    const healthy = nodes.all().filter((node) => node.healthy && !node.drained);
    const [first] = candidateOrder(
      artifact_id,
      healthy.map(({ node_id }) => node_id),
    );
    return first === nodes.self && (!TAKES_AWAY.has(step) || isInTouch());
  }

  async #contain(artifact: ArtifactRecord, mayStep: boolean, mayClean: boolean): Promise<void> {
    const { cleanup, log } = this.#parts;
    const id = artifact.artifact_id;
    try {
      if (mayStep) await cleanup.advance(id);
      if (mayClean) await cleanup.clean(id);
    } catch (error) {
      const level = isAppError(error) && error.row.retryable ? "debug" : "warn";
      log[level]("an artifact could not be collected; the next pass tries again", {
        artifact_id: id,
        reason: errorText(error),
      });
    }
  }

  #watchDeadline(milliseconds: number): void {
    this.#deadline?.cancel();
    if (this.#stopped || milliseconds > SOON_MS) return;
    const ms = milliseconds + SETTLE_MS;
    this.#deadline = this.#parts.clock.after(ms, () => this.reconcile());
  }
}
