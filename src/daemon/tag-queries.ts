/** Names that stand for templates, from what is known here. */
import {
  AppError,
  CLUSTER,
  LIMITS,
  isNameOf,
  type Catalog,
  type Queries,
  type TagRecord,
  type TemplateRecord,
} from "../domain/index.ts";

export type TagQueries = Pick<Queries, "tag" | "listTags">;

export const tagOf = (catalog: Catalog, name: string): TagRecord | undefined =>
  catalog.get(CLUSTER, "tag", name)?.value;

/** What a template is called: its name, unless that stands for another one by now. */
export function displayName(
  catalog: Catalog,
  { kind, status, display_name: name = "", template_id: id }: TemplateRecord,
): string {
  // A build that is under way has not claimed its name yet.
  if (kind === "snapshot" || name === "" || status === "PENDING") return name;
  return isNameOf(tagOf(catalog, name), id) ? name : "";
}

/** The id that a tag stands for. @throws AppError template_not_found: it points at nothing now */
export function taggedId(catalog: Catalog, name: string): string | undefined {
  const tag = tagOf(catalog, name);
  if (tag === undefined) return undefined;
  const { template_id: id } = tag;
  if (catalog.get(CLUSTER, "template", id)?.value !== undefined) return id;
  throw new AppError("template_not_found", `tag ${name} points at ${id}, which is gone`, {
    meta: { tag: name, template_id: id },
  });
}

export function createTagQueries(catalog: Catalog): TagQueries {
  return {
    tag(name) {
      const tag = tagOf(catalog, name);
      if (tag !== undefined) return tag;
      throw new AppError("tag_not_found", `tag ${JSON.stringify(name)} not found`);
    },
    listTags({ limit = LIMITS.pageDefault, next_token } = {}) {
      const size = Math.min(Math.max(limit, 1), LIMITS.pageMax);
      const rest = [...catalog.list("tag", { owner: CLUSTER })]
        .flatMap(({ value }) => value ?? [])
        .filter(({ name }) => next_token === undefined || name > next_token)
        .sort((a, b) => (a.name < b.name ? -1 : 1));
      const items = rest.slice(0, size);
      const last = items.at(-1);
      return rest.length > size && last !== undefined
        ? { items, next_token: last.name }
        : { items };
    },
  };
}
