/** All wording about retention. Pure. */
import type { NodeFact, RetentionItem, RetentionPolicy, RetentionReport } from "../domain/index.ts";
import { count, formatDuration, parseTime, relativeTime } from "./format.ts";

const DAY_MS = 86_400_000;

/** `30 days`; a TTL is given in hours and mostly meant in days. */
export const ttlText = (ms: number): string =>
  ms % DAY_MS === 0 ? count(ms / DAY_MS, "day") : formatDuration(ms);

/** The rule in force, in one sentence. */
export function ruleText({ keep_last, unused_ttl_ms }: RetentionPolicy): string {
  const rules = [
    ...(keep_last > 0
      ? [`of each line the newest ${keep_last === 1 ? "one" : keep_last} that can serve stay`]
      : []),
    ...(unused_ttl_ms > 0 ? [`what nobody has used for ${ttlText(unused_ttl_ms)} goes`] : []),
  ];
  if (rules.length === 0) return "No rule is in force: no template goes by itself.";
  const text = rules.join("; ");
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

export interface NodeRule {
  readonly nodeId: string;
  readonly keepLast: string;
  readonly unusedTtl: string;
  /** How it bears on the rule in force; blank: it is configured as what is in force. */
  readonly note: string;
  readonly holdsBack: boolean;
}

const part = (
  own: number,
  inForce: number,
  isSetSomewhere: boolean,
): "agrees" | "holds back" | "stricter" => {
  if (own === 0) return isSetSomewhere ? "holds back" : "agrees";
  return inForce === 0 || own === inForce ? "agrees" : "stricter";
};

/**
 * What each node is configured with: a rule holds only when every node has it, and of different
 * ones the mildest does.
 */
export function nodeRules(
  nodes: readonly Pick<NodeFact, "node_id" | "retention">[],
  inForce: RetentionPolicy,
): NodeRule[] {
  const has = (of: (policy: RetentionPolicy) => number): boolean =>
    nodes.some(({ retention }) => retention !== undefined && of(retention) > 0);
  const someKeep = has(({ keep_last }) => keep_last);
  const someTtl = has(({ unused_ttl_ms }) => unused_ttl_ms);
  return [...nodes]
    .sort((a, b) => (a.node_id < b.node_id ? -1 : 1))
    .map(({ node_id, retention = { keep_last: 0, unused_ttl_ms: 0 } }) => {
      const { keep_last: keep, unused_ttl_ms: ttl } = retention;
      const parts = [
        [part(keep, inForce.keep_last, someKeep), "retention_keep_last"],
        [part(ttl, inForce.unused_ttl_ms, someTtl), "retention_unused_ttl"],
      ] as const;
      const named = (what: string) => parts.filter(([one]) => one === what).map(([, name]) => name);
      const back = named("holds back");
      const stricter = named("stricter");
      return {
        nodeId: node_id,
        keepLast: keep === 0 ? "not set" : String(keep),
        unusedTtl: ttl === 0 ? "not set" : ttlText(ttl),
        holdsBack: back.length > 0,
        note: [
          ...(back.length === 0 ? [] : [`holds back ${back.join(" and ")}: it is not set here`]),
          ...(stricter.length === 0
            ? []
            : [`${stricter.join(" and ")} is stricter here; the mildest of all nodes holds`]),
        ].join("; "),
      };
    });
}

/** Why it is named, in a few words. */
export function reasonText(item: RetentionItem, now: number): string {
  if (item.reason === "superseded") return `newer ones of ${item.line || "its line"} serve`;
  const at = parseTime(item.last_used_at);
  return at === undefined ? "never used" : `last used ${relativeTime(now, at)}`;
}

/** What becomes of it. */
export function fateText(item: RetentionItem): string {
  if (item.kept_by !== "") return `stays: ${item.kept_by}`;
  if (item.error !== undefined) return `stays: ${item.error}`;
  return item.deleted ? "deleted" : "goes";
}

/** What would go, in one sentence. */
export function duesText({ items }: RetentionReport): string {
  const due = items.filter(({ kept_by }) => kept_by === "").length;
  const kept = items.length - due;
  if (items.length === 0) return "The rule names no template now.";
  return `${count(due, "template")} ${due === 1 ? "goes" : "go"} at the next round${
    kept === 0
      ? ""
      : `; ${kept} more ${kept === 1 ? "is" : "are"} named and ${kept === 1 ? "stays" : "stay"}`
  }.`;
}

/** What the confirmation says will happen. */
export function retentionEffects(report: RetentionReport): string[] {
  const due = report.items.filter(({ kept_by }) => kept_by === "");
  const names = due.slice(0, 12).map(({ template_id, line }) => `${line || "–"} ${template_id}`);
  const more = due.length - names.length;
  return [
    ruleText(report.policy),
    due.length === 0
      ? "No template goes."
      : `${count(due.length, "template")} ${due.length === 1 ? "goes" : "go"}: ${names.join(", ")}${
          more > 0 ? ` and ${more} more` : ""
        }. This cannot be undone.`,
    "Each is looked at again before it goes: one that is used, tagged or protected by then stays.",
  ];
}

export interface RetentionForm {
  readonly keepLast: string;
  readonly unusedDays: string;
}

/** From untrusted text; what is no number is left out. */
export function readRetention(form: RetentionForm): Partial<RetentionPolicy> {
  const whole = (text: string, most: number): number | undefined => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    return Number.isInteger(value) && value >= 0 ? Math.min(value, most) : undefined;
  };
  const keep_last = whole(form.keepLast, 1_000);
  const days = whole(form.unusedDays, 36_500);
  return {
    ...(keep_last === undefined ? {} : { keep_last }),
    ...(days === undefined ? {} : { unused_ttl_ms: days * DAY_MS }),
  };
}
