/** Tags of a template, and where a tag has pointed. */
import type { TagRecord, TemplateInfo } from "../../domain/index.ts";
import { html, nothing, type Html } from "../html.ts";
import { status } from "../status.ts";
import { beforeOf, taggedText, type FindTemplate } from "../tag-models.ts";
import { confirmLink, statusMark, timeAgo } from "./bits.ts";
import { table } from "./tables.ts";

export const tagPath = (name: string): string => `/ui/tags/${encodeURIComponent(name)}`;

const templateLink = (id: string, find: FindTemplate): Html => {
  const template = find(id);
  if (template === undefined)
    return html`<code class="dim">${id}</code> <span class="sub">gone</span>`;
  const path = `/ui/templates/${id}`;
  return template.display_name === ""
    ? html`<a href="${path}"><code>${id}</code></a>`
    : html`<a href="${path}">${template.display_name}</a> <span class="sub id">${id}</span>`;
};

export const actorLink = (actor: string): Html =>
  actor.startsWith("job:")
    ? html`<a href="/ui/jobs/${actor.slice(4)}"><code>job:${actor.slice(4, 12)}</code></a>`
    : html`<code>${actor}</code>`;

const rollbackLink = (tag: TagRecord): Html =>
  beforeOf(tag) === undefined
    ? nothing
    : confirmLink(`${tagPath(tag.name)}/rollback`, "Roll back", "small");

/** Id rule: `tags-TEMPLATE`. The tags that point at a template or would go back to it. */
export function templateTags(
  template: TemplateInfo,
  tags: readonly TagRecord[],
  find: FindTemplate,
  now: number,
): Html {
  const id = template.template_id;
  const here = tags.filter((tag) => tag.template_id === id);
  const back = tags.filter((tag) => tag.template_id !== id && beforeOf(tag) === id);
  return html`<div id="tags-${id}" class="answer">
    <p class="lead">${taggedText(here.length)}</p>
    ${
      here.length + back.length === 0
        ? nothing
        : table(
            "Tags",
            ["Tag", "Points at", "Since", "By", "Action"],
            [...here, ...back].map(
              (tag) =>
                html`<tr>
                  <th scope="row"><a href="${tagPath(tag.name)}">${tag.name}</a></th>
                  <td>
                    ${tag.template_id === id ? "this one" : templateLink(tag.template_id, find)}
                    ${
                      tag.template_id === id
                        ? nothing
                        : html`<div class="sub">would go back to this one</div>`
                    }
                  </td>
                  <td class="num">${timeAgo(tag.history.at(-1)?.at ?? tag.updated_at, now)}</td>
                  <td>${actorLink(tag.history.at(-1)?.actor ?? "")}</td>
                  <td>${rollbackLink(tag)}</td>
                </tr>`,
            ),
          )
    }
    <p>
      <a class="btn small" href="/ui/promote?template=${id}">Promote</a>
      <span class="sub">make a tag point at it</span>
    </p>
  </div>`;
}

/** All tags, by name. */
export const tagTable = (tags: readonly TagRecord[], find: FindTemplate, now: number): Html =>
  table(
    "Tags",
    ["Tag", "Points at", "Status", "Before that", "Moved", "By", "Action"],
    tags.map((tag) => {
      const before = beforeOf(tag);
      const template = find(tag.template_id);
      return html`<tr>
        <th scope="row"><a class="row" href="${tagPath(tag.name)}">${tag.name}</a></th>
        <td>${templateLink(tag.template_id, find)}</td>
        <td>${template === undefined ? nothing : statusMark(status(template.status))}</td>
        <td>
          ${before === undefined ? html`<span class="dim">–</span>` : templateLink(before, find)}
        </td>
        <td class="num">${timeAgo(tag.updated_at, now)}</td>
        <td>${actorLink(tag.history.at(-1)?.actor ?? "")}</td>
        <td>${rollbackLink(tag)}</td>
      </tr>`;
    }),
  );

/** Where it has pointed, the newest first. */
export const tagHistory = (tag: TagRecord, find: FindTemplate, now: number): Html =>
  table(
    "History",
    ["Pointed at", "How", "By", "When"],
    tag.history.toReversed().map(
      (step, index) =>
        html`<tr>
          <th scope="row">
            ${templateLink(step.template_id, find)}
            ${index === 0 ? html`<span class="st ok">now</span>` : nothing}
          </th>
          <td>${step.rollback === true ? "Rolled back" : "Promoted"}</td>
          <td>${actorLink(step.actor)}</td>
          <td class="num">${timeAgo(step.at, now)}</td>
        </tr>`,
    ),
  );
