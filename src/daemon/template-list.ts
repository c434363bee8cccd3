/**
 * Templates as a list goes through them: what they are filtered and ordered by, and the whole view
 * only of those that are shown. A view copies its replicas, which a thousand of them is not for.
 */
import type { JobRecord, TemplateInfo, TemplateRecord } from "../domain/index.ts";

export type ListedTemplate = Pick<
  TemplateInfo,
  "template_id" | "kind" | "status" | "display_name" | "image_info"
> & {
  readonly labels: Readonly<Record<string, string>>;
  /** Sorts by last update, then by id. */
  readonly key: string;
  view(): TemplateInfo;
};

/** The same items, with the greatest key first; each key is made once. */
export function newestFirst<T>(items: readonly T[], keyOf: (item: T) => string): T[] {
  const keyed = items.map((item) => ({ item, key: keyOf(item) }));
  keyed.sort((a, b) => (a.key < b.key ? 1 : a.key > b.key ? -1 : 0));
  return keyed.map(({ item }) => item);
}

export interface TemplateListParts {
  readonly templates: () => Iterable<TemplateRecord>;
  readonly jobs: () => Iterable<JobRecord>;
  /** What it is called now. */
  readonly nameOf: (template: TemplateRecord) => string;
  readonly viewOf: (template: TemplateRecord) => TemplateInfo;
  /** Of a build that has no definition. */
  readonly pseudoOf: (job: JobRecord) => TemplateInfo;
}

const keyOf = (one: { updated_at: string; template_id: string }): string =>
  `${one.updated_at}/${one.template_id}`;

/** Definitions, and the jobs that have none yet or none any more (spec §2.5); newest first. */
export function listAllTemplates(parts: TemplateListParts): ListedTemplate[] {
  const listed: ListedTemplate[] = [];
  const known = new Set<string>();
  for (const template of parts.templates()) {
    known.add(template.template_id);
    listed.push({
      template_id: template.template_id,
      kind: template.kind,
      status: template.status,
      display_name: parts.nameOf(template),
      image_info: template.image_info ?? "",
      labels: template.labels ?? {},
      key: keyOf(template),
      view: () => parts.viewOf(template),
    });
  }
  const lone = new Map<string, JobRecord>();
  for (const job of parts.jobs()) {
    if (job.resource_type !== "template" || known.has(job.template_id)) continue;
    const other = lone.get(job.template_id);
    if (other === undefined || isLater(job, other)) lone.set(job.template_id, job);
  }
  for (const job of lone.values()) {
    const info = parts.pseudoOf(job);
    listed.push({ ...info, key: keyOf(info), view: () => info });
  }
  return newestFirst(listed, ({ key }) => key);
}

const isLater = (a: JobRecord, b: JobRecord): boolean =>
  a.created_at === b.created_at ? a.job_id > b.job_id : a.created_at > b.created_at;
