/**
 * Stale replicas made again by themselves. The first of the healthy members in rendezvous order
 * takes each step; the order only spares double work: a step is decided again inside the change of
 * the record, and a redo that was asked for twice is refused the second time.
 */
import {
  RESNAPSHOT,
  applyResnapshot,
  candidateOrder,
  errorText,
  isActiveJob,
  isAppError,
  resnapshotStep,
  resnapshotView,
  resumeResnapshot,
  type Catalog,
  type Clock,
  type Log,
  type ResnapshotRecord,
  type ResnapshotSight,
  type ResnapshotStep,
  type ResnapshotView,
} from "../../domain/index.ts";
import type { Nodes } from "../nodes.ts";
import type { Records } from "../records.ts";

export interface ResnapshotParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly nodes: Nodes;
  readonly clock: Clock;
  readonly log: Log;
  /** Asks for a redo of that node's replica, its root filesystem kept. */
  readonly redo: (templateId: string, nodeId: string, requestId: string) => Promise<unknown>;
}

/** Changes that come together are looked at together. */
const SETTLE_MS = 500;
/** After a step that could not be taken: no quorum, or another attempt is under way. */
const RETRY_MS = 5_000;
const WATCHED = new Set(["template", "job", "replica", "node", "resnapshot"]);

type Turn = NonNullable<ResnapshotRecord["current"]>;

/** What is known here now, as the rules of the domain want it. */
export function resnapshotSight(
  parts: Pick<ResnapshotParts, "catalog" | "records" | "nodes" | "clock">,
): ResnapshotSight {
  const { catalog, records, nodes, clock } = parts;
  const active = new Set<string>();
  for (const job of records.list("job")) if (isActiveJob(job)) active.add(job.template_id);
  const known = new Map(nodes.all().map((node) => [node.node_id, node]));
  return {
    template: (id) => records.get("template", id),
    node: (id) => known.get(id),
    replicas: catalog.list("replica"),
    replica: (nodeId, templateId) => catalog.get(nodeId, "replica", templateId)?.value,
    job: (requestId) => {
      for (const job of records.list("job")) if (job.request_id === requestId) return job;
      return undefined;
    },
    hasActiveJob: (id) => active.has(id),
    now: clock.now(),
  };
}

export class ResnapshotWorker {
  readonly #parts: ResnapshotParts;
  #timer: { cancel(): void } | undefined;
  #due: { cancel(): void } | undefined;
  #unsubscribe: (() => void)[] = [];
  #pass: Promise<void> | undefined;
  #again = false;
  #stopped = false;

  constructor(parts: ResnapshotParts) {
    this.#parts = parts;
  }

  start(): void {
    const { catalog, nodes } = this.#parts;
    this.#unsubscribe = [
      catalog.subscribe(({ kind }) => {
        if (WATCHED.has(kind)) this.reconcile();
      }),
      nodes.onChange(() => this.reconcile()),
    ];
    this.reconcile();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#due?.cancel();
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    await this.#pass;
  }

  /** A look soon. */
  reconcile(): void {
    if (this.#stopped) return;
    if (this.#pass !== undefined) {
      this.#again = true;
      return;
    }
    this.#timer ??= this.#parts.clock.after(SETTLE_MS, () => {
      this.#timer = undefined;
      this.#pass = this.#contain().finally(() => {
        this.#pass = undefined;
        if (this.#again) this.reconcile();
        this.#again = false;
      });
    });
  }

  view(): ResnapshotView {
    return resnapshotView(this.#record(), resnapshotSight(this.#parts), this.#parts.nodes.all());
  }

  /** Goes on after a failure. @throws AppError no_quorum */
  async resume(): Promise<ResnapshotView> {
    await this.#parts.records.update("resnapshot", RESNAPSHOT, resumeResnapshot);
    return this.view();
  }

  #record(): ResnapshotRecord | undefined {
    return this.#parts.records.get("resnapshot", RESNAPSHOT);
  }

  /** Nothing is looked through where nobody has asked for it. */
  #isIdle(): boolean {
    if (this.#record()?.current !== undefined) return false;
    return this.#parts.nodes.all().every((node) => node.resnapshot_interval_ms === undefined);
  }

  #isOurs(): boolean {
    const { nodes } = this.#parts;
    const healthy = nodes.all().filter((node) => node.healthy && !node.drained);
    const [first] = candidateOrder(
      RESNAPSHOT,
      healthy.map(({ node_id }) => node_id),
    );
    return first === nodes.self;
  }

  async #contain(): Promise<void> {
    if (this.#isIdle()) return;
    const { log } = this.#parts;
    const step = resnapshotStep(this.#record(), resnapshotSight(this.#parts));
    if (step.step === "wait") return this.#lookAfter(step.ms);
    if (step.step === "none" || !this.#isOurs()) return;
    try {
      if (step.step === "ask") await this.#ask(step.turn);
      else await this.#write();
    } catch (error) {
      const level = isAppError(error) && error.row.retryable ? "debug" : "warn";
      log[level]("a stale replica is not made again yet", { reason: errorText(error) });
      this.#lookAfter(RETRY_MS);
    }
  }

  /** @param failed why the turn that is under way cannot go on */
  async #write(failed?: { readonly turn: Turn; readonly error: string }): Promise<void> {
    const { records, clock, log } = this.#parts;
    let step: ResnapshotStep = { step: "none" };
    const written = await records.update("resnapshot", RESNAPSHOT, (current) => {
      const isOver =
        failed !== undefined && current?.current?.request_id === failed.turn.request_id;
      step = isOver
        ? { step: "fail", error: failed.error }
        : resnapshotStep(current, resnapshotSight(this.#parts));
      return applyResnapshot(current, step, clock.now());
    });
    const { current, failure } = written ?? {};
    log.info("stale replicas are made again", { ...step, current, failure });
  }

  async #ask(turn: Turn): Promise<void> {
    try {
      await this.#parts.redo(turn.template_id, turn.node_id, turn.request_id);
    } catch (error) {
      const isPassing =
        isAppError(error) && (error.row.retryable || error.code === "template_attempt_in_progress");
      if (isPassing) throw error;
      await this.#write({ turn, error: errorText(error) });
    }
  }

  #lookAfter(milliseconds: number): void {
    this.#due?.cancel();
    if (this.#stopped) return;
    const ms = Math.max(milliseconds, SETTLE_MS);
    this.#due = this.#parts.clock.after(ms, () => this.reconcile());
  }
}
