/** Labels: free key and value pairs on a template, and what a filter by them means. */
import { z } from "zod";

export const labelTemplateSchema = z.strictObject({
  labels: z.record(z.string().min(1).max(256), z.string().max(4_096).nullable()),
  replace: z.boolean().optional().describe("take all others away"),
});
export type LabelTemplateRequest = z.infer<typeof labelTemplateSchema>;

/**
 * Whether labels match `KEY` or `KEY=VALUE`. The value begins at the first `=` and may hold more of
 * them, or nothing.
 */
export function labelFilter(
  text: string,
): (labels: Readonly<Record<string, string>> | undefined) => boolean {
  const at = text.indexOf("=");
  const key = at < 0 ? text : text.slice(0, at);
  const value = at < 0 ? undefined : text.slice(at + 1);
  return (labels = {}) =>
    Object.hasOwn(labels, key) && (value === undefined || labels[key] === value);
}

/** Set and taken away: null takes a label away. */
export function relabel(
  labels: Readonly<Record<string, string>> | undefined,
  { labels: change, replace }: LabelTemplateRequest,
): Record<string, string> {
  const all = Object.entries({ ...(replace === true ? {} : labels), ...change });
  return Object.fromEntries(
    all.flatMap(([key, value]) => (value === null ? [] : [[key, value] as const])),
  );
}
