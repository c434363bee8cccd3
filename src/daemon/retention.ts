/**
 * Retention: templates that the policy names are deleted as an operator would, with all guards of
 * a deletion, by the first of the healthy members in rendezvous order. What keeps a template is
 * looked at again inside the change that claims it.
 */
import {
  AppError,
  candidateOrder,
  errorText,
  isActiveJob,
  isRetentionOff,
  planRetention,
  policyInForce,
  type Catalog,
  type Clock,
  type Log,
  type RetentionItem,
  type RetentionPolicy,
  type RetentionReport,
  type TemplateRecord,
} from "../domain/index.ts";
import type { Deletions } from "./deletions.ts";
import type { Nodes } from "./nodes.ts";
import type { Records } from "./records.ts";

export interface RetentionParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly nodes: Pick<Nodes, "all" | "self" | "isMember">;
  readonly deletions: Pick<Deletions, "remove">;
  /** Alone, or agreeing with another member: what is not heard of may be a use. */
  readonly isInTouch: () => boolean;
  readonly clock: Clock;
  readonly log: Log;
}

export interface RetentionOptions {
  readonly dryRun: boolean;
  /** Instead of what the nodes are configured with. */
  readonly policy?: Partial<RetentionPolicy>;
  readonly actor: string;
}

export interface Retention {
  /** One that cannot be deleted is told of and stops no other. */
  apply(options: RetentionOptions): Promise<RetentionReport>;
  /** The slow timer's: what is due goes, when it is this node's to do. */
  pass(): Promise<void>;
}

export function createRetention(parts: RetentionParts): Retention {
  const { records, nodes, deletions, isInTouch, log } = parts;
  const plan = (policy: RetentionPolicy) => planRetention(policy, sightOf(parts));

  const remove = async (item: RetentionItem, policy: RetentionPolicy, actor: string) => {
    const { template_id: id } = item;
    const mayGo = (current: TemplateRecord) => {
      const now = plan(policy).find((one) => one.template_id === id);
      const why = now === undefined ? "it is used or has changed" : now.kept_by;
      if (current.protected === true || why === "") return;
      throw new AppError("template_protected", `template ${id} is kept: ${why}`);
    };
    try {
      await deletions.remove(id, { force: false, actor, mayGo });
      log.info("a template went by retention", { template_id: id, reason: item.reason });
      return { ...item, deleted: true };
    } catch (error) {
      log.info("a template stays in spite of retention", { template_id: id, err: error });
      return { ...item, error: errorText(error) };
    }
  };

  const apply: Retention["apply"] = async ({ dryRun, policy: asked, actor }) => {
    const policy = { ...policyInForce(nodes.all()), ...asked };
    const report = { dry_run: dryRun, in_touch: isInTouch(), policy };
    const items: RetentionItem[] = [];
    for (const item of isRetentionOff(policy) ? [] : plan(policy)) {
      const goes = !dryRun && report.in_touch && item.kept_by === "";
      items.push(goes ? await remove(item, policy, actor) : item);
    }
    return { ...report, items };
  };

  return {
    apply,
    async pass() {
      if (isRetentionOff(policyInForce(nodes.all())) || !isInTouch()) return;
      const healthy = nodes.all().filter((node) => node.healthy && !node.drained);
      const ids = healthy.map(({ node_id }) => node_id);
      const [first] = candidateOrder("retention", ids);
      if (first === nodes.self) await apply({ dryRun: false, actor: "retention" });
    },
  };

  function sightOf({ catalog, clock }: RetentionParts) {
    const active = new Set<string>();
    for (const job of records.list("job")) if (isActiveJob(job)) active.add(job.template_id);
    return {
      templates: records.list("template"),
      tags: records.list("tag"),
      use(id: string) {
        const use = { count: 0, lastUsedAt: "" };
        for (const { owner, value } of catalog.list("refs", { id })) {
          if (value === undefined || !nodes.isMember(owner)) continue;
          use.count += value.count;
          if ((value.last_used_at ?? "") > use.lastUsedAt)
            use.lastUsedAt = value.last_used_at ?? "";
        }
        return use;
      },
      hasActiveJob: (id: string) => active.has(id),
      now: clock.now(),
    };
  }
}
