/** Tags and what else an operator says of a template without making anything of it anew. */
import {
  AppError,
  claimName,
  isForgotten,
  isNameOf,
  nameSchema,
  promoteTag,
  relabel,
  rollbackTag,
  type CallContext,
  type Clock,
  type Commands,
  type JobRecord,
  type Queries,
  type Random,
  type TagChange,
  type TagRecord,
  type TemplateInfo,
  type TemplateRecord,
} from "../domain/index.ts";
import type { Records } from "./records.ts";

export interface TagParts {
  readonly records: Records;
  readonly queries: Pick<Queries, "template" | "tag">;
  readonly clock: Clock;
  readonly random: Random;
}

export type TagCommands = Pick<
  Commands,
  | "promoteTag"
  | "rollbackTag"
  | "deleteTag"
  | "renameTemplate"
  | "labelTemplate"
  | "protectTemplate"
>;

export function createTags(parts: TagParts): TagCommands {
  const { records, queries, clock, random } = parts;
  const now = () => new Date(clock.now()).toISOString();
  const changeOf = (name: string, { actor }: CallContext, expected?: string | null): TagChange => ({
    name,
    id: random.uuid(),
    actor,
    at: now(),
    expected: typeof expected === "string" ? idOf(queries, expected) : expected,
  });
  const write = async (
    name: string,
    change: (tag: TagRecord | undefined) => TagRecord | undefined,
  ): Promise<TagRecord> => {
    const tag = await records.update("tag", name, change);
    if (tag !== undefined) return tag;
    throw new AppError("tag_not_found", `tag ${name} is gone`);
  };
  return {
    async promoteTag(name, request, context) {
      assertName(name, "/name");
      const id = await assertServes(parts, request.template_id);
      const change = changeOf(name, context, request.expected_template_id);
      return write(name, (current) => promoteTag(current, id, change));
    },
    async rollbackTag(name, request, context) {
      const change = changeOf(name, context, request.expected_template_id);
      return write(name, (current) => {
        const next = rollbackTag(current, change);
        if (next !== undefined) queries.template(next.template_id);
        return next;
      });
    },
    async deleteTag(name) {
      queries.tag(name);
      await releaseName(records, name, now());
    },
    async renameTemplate(idOrName, name, context) {
      const { template_id: id } = queries.template(idOrName);
      const { kind, display_name: before = "" } = records.get("template", id) ?? beingMade(id);
      // Any number of snapshots may be called the same (spec §4.14).
      if (kind === "snapshot") return edit(parts, id, () => ({ display_name: name }));
      if (name !== "") await takeName(records, id, changeOf(name, context));
      const edited = await edit(parts, id, () => ({ display_name: name }));
      if (before !== "" && before !== name && isNameOf(records.get("tag", before), id)) {
        await releaseName(records, before, now());
      }
      return edited;
    },
    labelTemplate: (idOrName, request) =>
      edit(parts, idOrName, ({ labels }) => ({ labels: relabel(labels, request) })),
    protectTemplate: (idOrName, isProtected) =>
      edit(parts, idOrName, () => ({ protected: isProtected })),
  };
}

/** Of a template that is gone only its id is known. */
function idOf(queries: TagParts["queries"], idOrName: string): string {
  try {
    return queries.template(idOrName).template_id;
  } catch {
    return idOrName;
  }
}

/** The template's id. @throws AppError template_not_found, template_has_no_ready_replica */
async function assertServes({ records, queries }: TagParts, idOrName: string): Promise<string> {
  const { template_id: id, status: known } = queries.template(idOrName);
  // Where a majority has it: it may be deleted right now.
  const { status = known } = (await records.update("template", id, () => undefined)) ?? {};
  if (status === "READY" || status === "PARTIALLY_READY") return id;
  throw new AppError(
    "template_has_no_ready_replica",
    `template ${id} is ${status}: no tag is moved to it`,
    { meta: { template_id: id, status } },
  );
}

/** @throws AppError template_not_found, template_attempt_in_progress: it is being deleted */
async function edit(
  { records, queries, clock }: TagParts,
  idOrName: string,
  change: (template: TemplateRecord) => Partial<TemplateRecord>,
): Promise<TemplateInfo> {
  const { template_id: id } = queries.template(idOrName);
  const at = new Date(clock.now()).toISOString();
  const written = await records.update("template", id, (current) => {
    if (current?.status === "DELETING") {
      throw new AppError("template_attempt_in_progress", `${id} is being deleted`);
    }
    return current && { ...current, ...change(current), updated_at: at };
  });
  return queries.template(written?.template_id ?? beingMade(id));
}

/** @throws AppError template_not_found */
function beingMade(id: string): never {
  throw new AppError("template_not_found", `template ${id} is still being made by its job`);
}

/** @throws AppError invalid_request, name_taken: it stands for another template */
async function takeName(records: Records, id: string, change: TagChange): Promise<void> {
  const { name } = change;
  assertName(name, "/alias");
  const taken = (by: string) =>
    new AppError("name_taken", `${name} is the name of ${by}`, { meta: { template_id: by } });
  // Of a catalog from before names were records.
  const bearer = [...records.list("template")].find(
    ({ kind, display_name, status }) =>
      kind === "template" && display_name === name && /READY$/.test(status),
  );
  await records.update("tag", name, (current) => {
    const holder = current?.template_id ?? bearer?.template_id ?? id;
    if (holder !== id && records.get("template", holder) !== undefined) throw taken(holder);
    return promoteTag(current, id, change);
  });
}

/** Nothing has the name any more: older builds that bore it do not come back to it. */
async function releaseName(records: Records, name: string, at: string): Promise<void> {
  for (const { template_id: id, kind, display_name } of [...records.list("template")]) {
    if (kind !== "template" || display_name !== name) continue;
    await records.update("template", id, (current) =>
      current?.display_name === name ? { ...current, display_name: "", updated_at: at } : undefined,
    );
  }
  await records.update("tag", name, (current) => (current ? null : undefined));
}

/**
 * Gives the name of a job's template to it, before it is seen to be READY.
 * @returns why it did not get it; blank: it has it, or has no name
 */
export async function claimTemplateName(
  records: Records,
  job: JobRecord,
  { template_id: id, display_name: name = "" }: TemplateRecord,
  at: string,
): Promise<string> {
  if (name === "") return "";
  const change = { name, id: job.job_id, actor: `job:${job.job_id}`, at, askedAt: job.created_at };
  const isRedo = job.operation === "REDO";
  const tag = await records.update("tag", name, (current) =>
    claimName(current, id, change, isRedo),
  );
  return isNameOf(tag, id) ? "" : `the name ${name} stays with ${tag?.template_id ?? ""}`;
}

/**
 * Tags of which no template is left go with the last one. What is not known here may only not be
 * heard of yet, so that a majority is asked.
 */
export async function dropForgottenTags(records: Records): Promise<void> {
  const isKnown = (id: string) => records.get("template", id) !== undefined;
  for (const { name, history } of [...records.list("tag")].filter((tag) =>
    isForgotten(tag, isKnown),
  )) {
    const gone = new Set<string>();
    for (const id of new Set(history.map((step) => step.template_id))) {
      const known = await records.update("template", id, () => undefined);
      if (known === undefined) gone.add(id);
    }
    await records.update("tag", name, (current) =>
      current !== undefined && isForgotten(current, (id) => !gone.has(id)) ? null : undefined,
    );
  }
}

/** @throws AppError invalid_request */
function assertName(name: string, pointer: string): void {
  const { error } = nameSchema.safeParse(name);
  if (error === undefined) return;
  const detail = error.issues[0]?.message ?? "is no name";
  throw new AppError("invalid_request", `${JSON.stringify(name)} ${detail}`, {
    meta: { errors: [{ pointer, detail }] },
  });
}
