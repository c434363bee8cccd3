/** The names of the service that route tests talk to: the real rules over a map. */
import {
  AppError,
  promoteTag,
  relabel,
  rollbackTag,
  type CallContext,
  type Commands,
  type Queries,
  type TagRecord,
  type TemplateInfo,
} from "../../src/domain/index.ts";

type Enter = (name: string, argument: unknown, context?: CallContext) => void;
type TagCommands = Pick<
  Commands,
  | "promoteTag"
  | "rollbackTag"
  | "deleteTag"
  | "renameTemplate"
  | "labelTemplate"
  | "protectTemplate"
>;

export function fakeTags(templates: TemplateInfo[], tags: Map<string, TagRecord>) {
  let changes = 0;
  const found = <T>(value: T | undefined, code: "tag_not_found" | "template_not_found"): T => {
    if (value === undefined) throw new AppError(code);
    return value;
  };
  const template = (id: string) =>
    found(
      templates.find((one) => one.template_id === id || one.display_name === id),
      "template_not_found",
    );
  const set = (name: string, next: TagRecord | undefined): TagRecord => {
    if (next !== undefined) tags.set(name, next);
    return found(tags.get(name), "tag_not_found");
  };
  const change = (name: string, expected: string | null | undefined) => {
    const minute = String(++changes).padStart(2, "0");
    return { name, expected, id: String(changes), actor: "me", at: `2026-01-02T03:${minute}:00Z` };
  };
  const edit = (id: string, more: Partial<TemplateInfo>) => Object.assign(template(id), more);
  const queries: Pick<Queries, "tag" | "listTags"> = {
    tag: (name) => found(tags.get(name), "tag_not_found"),
    listTags: ({ limit = 100, next_token = "0" } = {}) => {
      const all = [...tags.values()];
      const end = Number(next_token) + limit;
      const items = all.slice(Number(next_token), end);
      return end < all.length ? { items, next_token: String(end) } : { items };
    },
  };
  const commands = (enter: Enter): TagCommands => ({
    async promoteTag(name, request, context) {
      enter("promoteTag", { name, ...request }, context);
      const { template_id } = template(request.template_id);
      const { expected_template_id: expected } = request;
      return set(name, promoteTag(tags.get(name), template_id, change(name, expected)));
    },
    async rollbackTag(name, request, context) {
      enter("rollbackTag", { name, ...request }, context);
      return set(name, rollbackTag(tags.get(name), change(name, request.expected_template_id)));
    },
    async deleteTag(name, context) {
      enter("deleteTag", name, context);
      queries.tag(name);
      tags.delete(name);
    },
    async renameTemplate(id, name, context) {
      enter("renameTemplate", { id, name }, context);
      return edit(id, { display_name: name });
    },
    async labelTemplate(id, request, context) {
      enter("labelTemplate", { id, ...request }, context);
      return edit(id, { labels: relabel(template(id).labels, request) });
    },
    async protectTemplate(id, isProtected, context) {
      enter("protectTemplate", { id, isProtected }, context);
      // The snapshots of these tests are not among the templates.
      return edit(id.startsWith("snap-") ? "tpl-2" : id, { protected: isProtected });
    },
  });
  return { queries, commands };
}
