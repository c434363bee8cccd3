/** What the accessibility rules find wrong on the page that is open. */
import axe from "axe-core";
import type { Page } from "playwright-core";

/** The rules whose answer may be another one in other colours. */
export const COLOUR_RULES: readonly string[] = ["color-contrast", "link-in-text-block"];

interface Found {
  readonly id: string;
  readonly nodes: readonly { readonly html: string }[];
}

/**
 * Our pages have no frames, so that the library is run in them as it is: its own driver opens and
 * closes a page for each answer, which takes longer than the rules do.
 * @param rules only these; all when left out
 */
export async function violations(page: Page, rules?: readonly string[]): Promise<string[]> {
  if (!(await page.evaluate("'axe' in window"))) await page.evaluate(axe.source);
  const only = rules === undefined ? "" : `runOnly: ${JSON.stringify(rules)},`;
  const found: readonly Found[] = await page.evaluate(
    `axe.run(document, { ${only} resultTypes: ["violations"], elementRef: false })
      .then((answer) => answer.violations)`,
  );
  return found.map((one) => `${one.id}: ${one.nodes[0]?.html ?? ""}`);
}
