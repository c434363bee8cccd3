/** Labels: free key and value pairs on a template, and what a filter by them means. */

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
