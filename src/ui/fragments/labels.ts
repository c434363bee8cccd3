import { html, join, nothing, type Html } from "../html.ts";
import { labelPath } from "../tag-models.ts";

/** Labels, each a way to all that have it. */
export const labelLinks = (labels: Readonly<Record<string, string>>, shown = 50): Html => {
  const all = Object.entries(labels);
  const more = all.length - shown;
  return html`<span class="labels"
    >${join(
      all
        .slice(0, shown)
        .map(([key, value]) => html`<a href="${labelPath(key, value)}">${key}=${value}</a>`),
    )}${more > 0 ? html`<span class="sub">+${more}</span>` : nothing}</span
  >`;
};
