/** All wording about tags, labels and protection. Pure. */
import type { TagRecord, TemplateInfo } from "../domain/index.ts";
import { count, parseTime, relativeTime } from "./format.ts";
import { status } from "./status.ts";
import { templateName } from "./view-models.ts";

/** What is known of a template that a tag names; undefined: it is gone. */
export type FindTemplate = (id: string) => TemplateInfo | undefined;

/** The name that it is known by, and its id where that is another. */
export function pointsAt(id: string, find: FindTemplate): string {
  const template = find(id);
  if (template === undefined) return `${id}, which is gone`;
  return template.display_name === "" ? id : `${template.display_name} (${id})`;
}

const ACTORS: readonly (readonly [RegExp, (name: string) => string])[] = [
  [/^token:(.+)$/, (name) => `the holder of token ${name}`],
  [/^page:(.+)$/, (name) => `visitor ${name} of the page`],
  [/^job:(.+)$/, (name) => `job ${name.slice(0, 8)}`],
  [/^(socket)$/, () => "the command line on a node"],
];

/** `token:ci` as words. */
export function actorText(actor: string): string {
  for (const [pattern, words] of ACTORS) {
    const name = pattern.exec(actor)?.[1];
    if (name !== undefined) return words(name);
  }
  return actor === "" ? "somebody" : actor;
}

/** Where it would go back to; undefined: it has pointed nowhere else. */
export const beforeOf = (tag: TagRecord): string | undefined => tag.history.at(-2)?.template_id;

/** Who moved it last, where to, and when: said to whom a move was refused. */
export function movedText(
  name: string,
  tag: TagRecord | undefined,
  find: FindTemplate,
  now: number,
): string {
  const last = tag?.history.at(-1);
  if (tag === undefined || last === undefined) {
    return `Refused: tag ${name} was deleted meanwhile. You have changed nothing.`;
  }
  const when = relativeTime(now, parseTime(last.at) ?? now);
  const did = last.rollback === true ? "rolled it back to" : "moved it to";
  return (
    `Refused: ${actorText(last.actor)} ${did} ${pointsAt(tag.template_id, find)} ${when}. ` +
    "You have changed nothing."
  );
}

const SERVING = new Set(["READY", "PARTIALLY_READY"]);

/** What moving the tag does, and what stands in its way. */
export function promotePlan(
  name: string,
  tag: TagRecord | undefined,
  template: TemplateInfo,
  find: FindTemplate,
) {
  const to = pointsAt(template.template_id, find);
  const blocked = !SERVING.has(template.status)
    ? `${templateName(template)} is ${status(template.status).word.toLowerCase()}: ` +
      "a tag moves only to what can serve."
    : tag?.template_id === template.template_id
      ? `Tag ${name} points at it already.`
      : undefined;
  const effects =
    tag === undefined
      ? [
          `There is no tag ${name} yet: it is made, and points at ${to}.`,
          "If somebody makes it before you, nothing is changed.",
        ]
      : [
          `Tag ${name} points at ${pointsAt(tag.template_id, find)}. It will point at ${to}.`,
          `It moves only while it still points there; one rollback brings it back.`,
          "Sandboxes that run stay on what they run on; new ones by that name start from the new one.",
        ];
  return { effects, blocked };
}

/** What going back does, and what stands in its way. */
export function rollbackTagPlan(tag: TagRecord, find: FindTemplate) {
  const before = beforeOf(tag);
  if (before === undefined) {
    return { effects: [], blocked: `Tag ${tag.name} has pointed nowhere else.` };
  }
  const effects = [
    `Tag ${tag.name} points at ${pointsAt(tag.template_id, find)}.`,
    `It will point at ${pointsAt(before, find)} again; another rollback undoes that.`,
    "It moves only while it still points where you see it now.",
  ];
  const blocked = find(before) === undefined ? `${before} is gone.` : undefined;
  return { effects, blocked };
}

/** What a template's tags are, in one sentence. */
export const taggedText = (number: number): string =>
  number === 0
    ? "No tag points at it: sandboxes name it by its id."
    : `${count(number, "tag points", "tags point")} at it.`;

/** Labels as a person edits them, one on a line. */
export const labelLines = (labels: Readonly<Record<string, string>>): string =>
  Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join("\n");

type Labels = Readonly<Record<string, string>>;

/** @returns the labels, or what is wrong with a line */
export function parseLabels(text: string): Labels | string {
  const labels: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const line of text.split(/\r?\n/).filter((one) => one.trim() !== "")) {
    const at = line.indexOf("=");
    const key = line.slice(0, at).trim();
    if (at < 0 || key === "") return `“${line.trim()}” is no label: write KEY=VALUE.`;
    if (key.length > 256) return `The key ${key.slice(0, 32)}… is longer than 256 characters.`;
    const value = line.slice(at + 1).trim();
    if (value.length > 4_096) return `The value of ${key} is longer than 4096 characters.`;
    if (key in labels) return `${key} is there twice.`;
    labels[key] = value;
  }
  return { ...labels };
}

/**
 * What the visitor has changed of what was shown: labels that others set meanwhile stay.
 * @returns null for those that were taken away
 */
export function labelChanges(shown: Labels, wanted: Labels): Record<string, string | null> {
  const gone = Object.keys(shown).filter((key) => !Object.hasOwn(wanted, key));
  return Object.fromEntries([
    ...Object.entries(wanted).filter(([key, value]) => shown[key] !== value),
    ...gone.map((key) => [key, null] as const),
  ]);
}

/** The list of all templates with that label. */
export const labelPath = (key: string, value: string): string =>
  `/ui/templates?${new URLSearchParams({ label: `${key}=${value}` }).toString()}`;
