/**
 * Which templates go by themselves: those that newer ones of the same line have superseded, and
 * those that nobody has used for long. Pure; a deletion that follows has all guards of its own.
 */
import { z } from "zod";
import type { NodeFact, TemplateRecord } from "./schema.ts";
import type { TagRecord } from "./tag.ts";

export const retentionPolicySchema = z.object({
  /** So many that can serve stay of each line; 0: all. */
  keep_last: z.number().int().nonnegative(),
  /** Milliseconds since it was last used or changed; 0: for ever. */
  unused_ttl_ms: z.number().nonnegative(),
});
export type RetentionPolicy = z.infer<typeof retentionPolicySchema>;

export const retentionReportSchema = z.object({
  dry_run: z.boolean(),
  /** False: this node does not agree with the others yet, and takes nothing away. */
  in_touch: z.boolean(),
  policy: retentionPolicySchema,
  items: z.array(
    z.object({
      template_id: z.string(),
      status: z.string(),
      /** What it is a version of: a display name, or an image without its tag. */
      line: z.string(),
      created_at: z.string(),
      last_used_at: z.string(),
      reason: z.enum(["superseded", "unused"]),
      /** Why it stays all the same; blank: it goes. */
      kept_by: z.string(),
      deleted: z.boolean(),
      error: z.string().optional(),
    }),
  ),
});
export type RetentionReport = z.infer<typeof retentionReportSchema>;
export type RetentionItem = RetentionReport["items"][number];

export const isRetentionOff = ({ keep_last, unused_ttl_ms }: RetentionPolicy): boolean =>
  keep_last === 0 && unused_ttl_ms === 0;

/**
 * What holds in the cluster: only what every node is configured with, and of that the mildest, so
 * that a node that was forgotten keeps its templates.
 */
export function policyInForce(nodes: readonly Pick<NodeFact, "retention">[]): RetentionPolicy {
  const mildest = (of: (policy: RetentionPolicy) => number): number => {
    const all = nodes.map(({ retention }) => (retention === undefined ? 0 : of(retention)));
    return all.includes(0) ? 0 : Math.max(0, ...all);
  };
  return {
    keep_last: mildest((policy) => policy.keep_last),
    unused_ttl_ms: mildest((policy) => policy.unused_ttl_ms),
  };
}

/** The display name, else the image without tag and digest, else nothing. */
export function lineOf({
  display_name: name = "",
  image_info: image = "",
}: Pick<TemplateRecord, "display_name" | "image_info">): string {
  if (name !== "") return name;
  const [reference = ""] = image.split("@");
  const tag = reference.lastIndexOf(":");
  return tag > reference.lastIndexOf("/") ? reference.slice(0, tag) : reference;
}

export interface RetentionSight {
  readonly templates: Iterable<TemplateRecord>;
  readonly tags: Iterable<TagRecord>;
  /** Runtime refs of a template on all nodes, and when the last of them was taken or released. */
  readonly use: (templateId: string) => { readonly count: number; readonly lastUsedAt: string };
  readonly hasActiveJob: (templateId: string) => boolean;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

const isUsable = ({ status }: TemplateRecord): boolean =>
  status === "READY" || status === "PARTIALLY_READY";

/** Made before the last of those that stay of its line. */
function supersededIn(line: readonly TemplateRecord[], keepLast: number): TemplateRecord[] {
  const newest = [...line].sort((a, b) => (a.created_at < b.created_at ? 1 : -1));
  const last = newest.filter(isUsable)[keepLast - 1];
  return last === undefined ? [] : newest.filter((one) => one.created_at < last.created_at);
}

/** Everything that the policy names, with what keeps it, the oldest first. */
export function planRetention(policy: RetentionPolicy, sight: RetentionSight): RetentionItem[] {
  const templates = [...sight.templates].filter(
    (one) => one.kind === "template" && (isUsable(one) || one.status === "FAILED"),
  );
  const superseded = new Set<TemplateRecord>();
  if (policy.keep_last > 0) {
    const lines = new Map<string, TemplateRecord[]>();
    for (const one of templates) {
      // A name is no image, even when they are written alike.
      const line = `${one.display_name ? "name" : "image"} ${lineOf(one)}`;
      lines.set(line, [...(lines.get(line) ?? []), one]);
    }
    lines.delete("image ");
    for (const line of lines.values()) {
      for (const one of supersededIn(line, policy.keep_last)) superseded.add(one);
    }
  }
  const tagged = taggedBy(sight.tags);
  return templates
    .flatMap((one): RetentionItem[] => {
      const { count, lastUsedAt } = sight.use(one.template_id);
      const since = lastUsedAt > one.updated_at ? lastUsedAt : one.updated_at;
      const isUnused =
        policy.unused_ttl_ms > 0 && sight.now - Date.parse(since) > policy.unused_ttl_ms;
      if (!isUnused && !superseded.has(one)) return [];
      return [
        {
          template_id: one.template_id,
          status: one.status,
          line: lineOf(one),
          created_at: one.created_at,
          last_used_at: lastUsedAt,
          reason: superseded.has(one) ? "superseded" : "unused",
          kept_by: keptBy(one, count, tagged.get(one.template_id), sight),
          deleted: false,
        },
      ];
    })
    .sort((a, b) => (a.created_at < b.created_at ? -1 : 1));
}

/** Template id → why a tag needs it: where it points, or would go back to. */
function taggedBy(tags: Iterable<TagRecord>): Map<string, string> {
  const reasons = new Map<string, string>();
  for (const { name, template_id, history } of tags) {
    const before = history.at(-2)?.template_id;
    if (before !== undefined && !reasons.has(before)) {
      reasons.set(before, `tag ${name} goes back to it`);
    }
    reasons.set(template_id, `tag ${name}`);
  }
  return reasons;
}

function keptBy(
  { protected: isProtected, retain, template_id: id }: TemplateRecord,
  refs: number,
  tag: string | undefined,
  sight: RetentionSight,
): string {
  if (isProtected === true || retain === true) return "protected";
  if (tag !== undefined) return tag;
  if (refs > 0) return `in use by ${refs} ${refs === 1 ? "sandbox" : "sandboxes"}`;
  return sight.hasActiveJob(id) ? "a job works on it" : "";
}
