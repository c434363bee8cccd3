/**
 * The leader's side of a template between jobs (design §5): which nodes shall hold it, as nodes
 * join, come back and go, and what its status is as their replicas become ready. A template whose
 * record already says what it should costs nothing: leadership is claimed only to change it.
 */
import {
  errorText,
  inScope,
  isActiveJob,
  isAppError,
  isCounted,
  snapshotStatus,
  statusFromReplicas,
  type Catalog,
  type Clock,
  type Log,
  type TemplateRecord,
} from "../../domain/index.ts";
import type { Leases } from "../leases.ts";
import type { Nodes } from "../nodes.ts";
import { ledRecords, replicasOf, type Records } from "../records.ts";

export interface PlacementParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly nodes: Nodes;
  readonly leases: Leases;
  readonly clock: Clock;
  readonly log: Log;
}

/** Changes that come together are looked at together. */
const SETTLE_MS = 250;
/** Templates looked at between two turns of the event loop. */
const SLICE = 50;
/** After a failure: no quorum, or another node took the leadership meanwhile. */
const RETRY_MS = 2_000;

type Change = Pick<TemplateRecord, "desired_nodes" | "status" | "last_error">;

export class PlacementWorker {
  readonly #parts: PlacementParts;
  readonly #due = new Set<string>();
  readonly #working = new Set<string>();
  readonly #unsubscribe: (() => void)[] = [];
  #timer: { cancel(): void } | undefined;
  #stopped = false;

  constructor(parts: PlacementParts) {
    this.#parts = parts;
  }

  start(): void {
    const { catalog, nodes, leases } = this.#parts;
    this.#unsubscribe.push(
      catalog.subscribe(({ kind, id, value }) => {
        if (kind === "template" || kind === "replica") this.#look(id);
        if (kind === "node") this.reconcile();
        if (kind === "job" && value !== undefined && "template_id" in value) {
          this.#look(String(value.template_id));
        }
      }),
      nodes.onChange(() => this.reconcile()),
      leases.onOpportunity((templateId) => this.#look(templateId)),
    );
    this.reconcile();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
  }

  reconcile(): void {
    for (const template of this.#parts.records.list("template")) this.#look(template.template_id);
  }

  #look(templateId: string): void {
    if (this.#stopped) return;
    this.#due.add(templateId);
    this.#timer ??= this.#parts.clock.after(SETTLE_MS, () => {
      this.#timer = undefined;
      void this.#settleDue();
    });
  }

  /** What is due now, a slice at a time: others want their turn when there are thousands. */
  async #settleDue(): Promise<void> {
    const due = [...this.#due];
    this.#due.clear();
    for (let at = 0; at < due.length && !this.#stopped; at += SLICE) {
      if (at > 0) await this.#parts.clock.sleep(0);
      const busy = this.#busyTemplates();
      for (const id of due.slice(at, at + SLICE)) void this.#settle(id, busy);
    }
  }

  /** Those that a job is at work on. */
  #busyTemplates(): ReadonlySet<string> {
    const busy = new Set<string>();
    for (const job of this.#parts.records.list("job")) {
      if (isActiveJob(job)) busy.add(job.template_id);
    }
    return busy;
  }

  async #settle(templateId: string, busy: ReadonlySet<string>): Promise<void> {
    const { leases, clock, log } = this.#parts;
    if (this.#working.has(templateId) || this.#changeOf(templateId, busy) === undefined) return;
    this.#working.add(templateId);
    try {
      const led = await leases.use(templateId, async (lease) => {
        const records = ledRecords(this.#parts.records, lease);
        const at = new Date(clock.now()).toISOString();
        await records.update("template", templateId, (current) => {
          const now = this.#busyTemplates();
          const change = current === undefined ? undefined : this.#wantedOf(current, now);
          return change === undefined || current === undefined
            ? undefined
            : { ...current, ...change, updated_at: at };
        });
      });
      if (led !== undefined) this.#look(templateId);
    } catch (error) {
      const level = isAppError(error) && error.row.retryable ? "debug" : "warn";
      log[level]("a template's placement could not be written", {
        template_id: templateId,
        reason: errorText(error),
      });
      clock.after(RETRY_MS, () => this.#look(templateId));
    } finally {
      this.#working.delete(templateId);
    }
  }

  #changeOf(templateId: string, busy: ReadonlySet<string>): Change | undefined {
    const template = this.#parts.records.get("template", templateId);
    return template === undefined ? undefined : this.#wantedOf(template, busy);
  }

  /** What is to be written differently; undefined when the record is as it should be. */
  #wantedOf(template: TemplateRecord, busy: ReadonlySet<string>): Change | undefined {
    const { nodes, catalog } = this.#parts;
    // PENDING is its job's; FAILED is made again when somebody asks for it.
    const isServing = template.status === "READY" || template.status === "PARTIALLY_READY";
    const isFrozen = template.kind === "snapshot";
    if (!isServing && !(isFrozen && template.status === "FAILED")) return undefined;
    if (busy.has(template.template_id)) return undefined;
    const desired = placeTemplate(template, nodes);
    const replicas = replicasOf(catalog, template.template_id).filter((replica) =>
      isCounted(template, replica),
    );
    const heard = new Set(replicas.map((replica) => replica.node_id));
    // A node that is being filled for the first time does not make the template less ready.
    const counted = desired.filter((id) => heard.has(id) || nodes.get(id)?.["warm"] !== false);
    const found = isFrozen ? snapshotStatus(replicas) : statusFromReplicas(counted, replicas);
    // What could not be frozen stays so; what was lost is there again with its first copy.
    if (!isServing && found.ready === 0) return undefined;
    const isSettled = found.ready > 0 || replicas.every(({ phase }) => phase === "FAILED");
    const { status, error } =
      counted.length > 0 && isSettled
        ? found
        : { status: template.status, error: template.last_error };
    const isSame =
      status === template.status &&
      error === template.last_error &&
      desired.join("\0") === template.desired_nodes.join("\0");
    return isSame ? undefined : { desired_nodes: desired, status, last_error: error };
  }
}

/**
 * Nodes that shall hold the template: those that do and are still members, and every other in its
 * scope that is healthy and not drained. A node that is down keeps its place.
 */
export function placeTemplate(
  template: Pick<TemplateRecord, "desired_nodes" | "distribution_scope">,
  nodes: Nodes,
): string[] {
  const scope = template.distribution_scope ?? [];
  const kept = template.desired_nodes.filter((id) => nodes.isMember(id));
  const more = nodes
    .all()
    .filter((node) => node.healthy && !node.drained && inScope(node, scope))
    .map((node) => node.node_id);
  return [...new Set([...kept, ...more])].sort();
}
