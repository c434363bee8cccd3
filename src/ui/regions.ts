/**
 * What of a page is live: named regions, each with the events that touch it and its rendering. A
 * page is built from the same regions as its stream, so the two cannot differ.
 */
import { LIMITS, isAppError } from "../domain/index.ts";
import type { ChangeEvent, JobInfo, Queries, TagRecord, TemplateInfo } from "../domain/index.ts";
import type { Html } from "./html.ts";
import { jobProgress } from "./fragments/job-progress.ts";
import { jobRow } from "./fragments/job-row.ts";
import { replicaTable } from "./fragments/replica-table.ts";
import { sandboxTable } from "./fragments/sandbox-table.ts";
import { templateRow } from "./fragments/template-row.ts";
import { activeJobs, attentionList, recentTemplates, tiles } from "./fragments/overview-parts.ts";
import { jobFacts, jobHead } from "./fragments/job-head.ts";
import {
  divergenceList,
  leaderTable,
  memberTable,
  quorumCard,
  sessionTable,
  swarmList,
} from "./fragments/cluster-parts.ts";
import { clusterSentence, leaderOf } from "./cluster-models.ts";
import { compatSentence } from "./compat-models.ts";
import { healthStrip } from "./fragments/health-strip.ts";
import { tokenTable } from "./fragments/token-table.ts";
import { nodeCard, nodeFacts } from "./fragments/node-facts.ts";
import { snapshotTopic, snapshotsTopic } from "./snapshot-topics.ts";
import { templateSwarm } from "./fragments/swarm-bars.ts";
import { templateTags } from "./fragments/tag-parts.ts";
import { tagBody } from "./pages/tags.ts";
import type { Region, Topic } from "./topic.ts";
import { templateFacts, templateHead } from "./fragments/template-head.ts";
import { jobSentence, templateSentence } from "./view-models.ts";

/** The job, or undefined when it is not known (any more). */
export function findJob(queries: Queries, id: string): JobInfo | undefined {
  if (id === "") return undefined;
  try {
    return queries.job(id);
  } catch (error) {
    if (isAppError(error)) return undefined;
    throw error;
  }
}

/** The template, or undefined when it is not known (any more). */
export function findTemplate(queries: Queries, id: string): TemplateInfo | undefined {
  try {
    return queries.template(id);
  } catch (error) {
    if (isAppError(error)) return undefined;
    throw error;
  }
}

/** The tag, or undefined when there is none (any more). */
export function findTag(queries: Queries, name: string): TagRecord | undefined {
  try {
    return queries.tag(name);
  } catch (error) {
    if (isAppError(error)) return undefined;
    throw error;
  }
}

/** Every tag; there are as many as there are names. */
export function allTags(queries: Queries): TagRecord[] {
  const all: TagRecord[] = [];
  let page = queries.listTags({ limit: LIMITS.pageMax });
  all.push(...page.items);
  while (page.next_token !== undefined) {
    page = queries.listTags({ limit: LIMITS.pageMax, next_token: page.next_token });
    all.push(...page.items);
  }
  return all;
}

const isJobEvent = (event: ChangeEvent): boolean =>
  event.type === "job" || event.type === "job-progress";

function overviewTopic(queries: Queries): Topic {
  const all: Record<string, Region> = {
    tiles: { id: "tiles", render: () => tiles(queries.overview()) },
    attention: { id: "attention", render: (now) => attentionList(queries.overview(), now) },
    health: { id: "cluster-health", render: (now) => healthStrip(queries.cluster(), now) },
    active: { id: "active-jobs", render: (now) => activeJobs(queries.overview().active_jobs, now) },
    recent: {
      id: "recent-templates",
      render: (now) =>
        recentTemplates(
          queries.listTemplates({ limit: 8 }).items,
          (template) => findJob(queries, template.job_id),
          now,
        ),
    },
  };
  const pick = (...names: string[]): Region[] => names.flatMap((name) => all[name] ?? []);
  return {
    touched: (event) => {
      if (event.type === "job-progress") return pick("active", "recent");
      if (event.type === "cluster") return pick("health", "attention");
      if (event.type === "resnapshot") return pick("attention");
      if (["job-log", "artifact", "swarm"].includes(event.type)) return [];
      return pick("tiles", "attention", "active", "recent");
    },
    refetch: () => undefined,
    logJob: undefined,
    sentence: () => {
      const waiting = queries.overview().attention.length;
      return waiting === 0 ? "Nothing needs you." : `${waiting} things need you.`;
    },
  };
}

function templatesTopic(queries: Queries): Topic {
  const row = (id: string): Region => ({
    id: `template-row-${id}`,
    render: (now) => {
      const template = findTemplate(queries, id);
      if (template === undefined) return undefined;
      return templateRow(template, findJob(queries, template.job_id), now);
    },
  });
  return {
    touched: (event) => {
      if (isJobEvent(event)) {
        const template = findJob(queries, event.subject)?.template_id;
        return template === undefined ? [] : [row(template)];
      }
      return event.type === "template" || event.type === "replica" ? [row(event.subject)] : [];
    },
    refetch: (event) =>
      event.type === "template" || event.type === "job" ? "templates-changed" : undefined,
    logJob: undefined,
    sentence: () => "",
  };
}

function jobsTopic(queries: Queries): Topic {
  return {
    touched: (event) =>
      isJobEvent(event)
        ? [
            {
              id: `job-row-${event.subject}`,
              render: (now) => {
                const job = findJob(queries, event.subject);
                return job === undefined ? undefined : jobRow(job, now);
              },
            },
          ]
        : [],
    refetch: (event) => (event.type === "job" ? "jobs-changed" : undefined),
    logJob: undefined,
    sentence: () => "",
  };
}

function templateTopic(queries: Queries, id: string): Topic {
  const current = () => findTemplate(queries, id);
  const jobOf = () => findJob(queries, current()?.job_id ?? "");
  const of = (name: string, render: (template: TemplateInfo, now: number) => Html | undefined) => ({
    id: `${name}-${id}`,
    render: (now: number) => {
      const template = current();
      return template === undefined ? undefined : render(template, now);
    },
  });
  const head = of("template-head", (template, now) => templateHead(template, jobOf(), now));
  const factList = of("template-facts", (template, now) =>
    templateFacts(template, leaderOf(queries.cluster(), template), now),
  );
  const swarm = of("swarm", (template) => templateSwarm(template, jobOf(), queries.swarms()));
  const replicas = of("replicas", (template) => replicaTable(template, jobOf()));
  const tags = of("tags", (template, now) =>
    templateTags(template, allTags(queries), (other) => findTemplate(queries, other), now),
  );
  const progress = (): Region[] => {
    const job = jobOf();
    if (job === undefined) return [];
    return [{ id: `progress-${job.job_id}`, render: (now) => jobProgress(job, now) }];
  };
  return {
    touched: (event) => {
      const mine = event.subject === id || findJob(queries, event.subject)?.template_id === id;
      if (event.type === "job-progress") return mine ? [head, ...progress()] : [];
      if (event.type === "job") return mine ? [head, factList, replicas, swarm, ...progress()] : [];
      if (event.type === "tag") return [tags];
      if (event.type === "artifact") return [factList];
      if (event.type === "cluster") return [factList];
      if (event.type === "swarm") return event.subject === current()?.artifact_id ? [swarm] : [];
      return mine && event.type !== "job-log" ? [head, factList, replicas, swarm] : [];
    },
    refetch: () => undefined,
    get logJob() {
      return current()?.job_id || undefined;
    },
    sentence: (now) => {
      const template = current();
      return template === undefined ? "" : templateSentence(template, jobOf(), now);
    },
  };
}

/** The page refetches its block: what a tag names is part of it. */
const tagsTopic = (): Topic => ({
  touched: () => [],
  refetch: ({ type }) => (["tag", "template"].includes(type) ? "tags-changed" : undefined),
  logJob: undefined,
  sentence: () => "",
});

function tagTopic(queries: Queries, name: string): Topic {
  const region: Region = {
    id: `tag-${name}`,
    render: (now) => {
      const tag = findTag(queries, name);
      return tag === undefined ? undefined : tagBody(tag, (id) => findTemplate(queries, id), now);
    },
  };
  return {
    touched: ({ type, subject }) => (type === "tag" && subject === name ? [region] : []),
    refetch: () => undefined,
    logJob: undefined,
    sentence: () => {
      const tag = findTag(queries, name);
      return tag === undefined ? "" : `Tag ${name} points at ${tag.template_id}.`;
    },
  };
}

function jobTopic(queries: Queries, id: string): Topic {
  const of = (name: string, render: (job: JobInfo, now: number) => Html): Region => ({
    id: `${name}-${id}`,
    render: (now) => {
      const job = findJob(queries, id);
      return job === undefined ? undefined : render(job, now);
    },
  });
  const head = of("job-head", jobHead);
  const progress = of("progress", jobProgress);
  const factList = of("job-facts", jobFacts);
  return {
    touched: (event) => {
      if (!isJobEvent(event) || event.subject !== id) return [];
      return event.type === "job" ? [head, progress, factList] : [progress, head];
    },
    refetch: () => undefined,
    logJob: id,
    sentence: (now) => {
      const job = findJob(queries, id);
      return job === undefined ? "" : jobSentence(job, now);
    },
  };
}

function nodeTopic(queries: Queries, id: string): Topic {
  const facts: Region = {
    id: `node-facts-${id}`,
    render: (now) => nodeFacts(queries.node(id), now),
  };
  const boxes: Region = {
    id: "sandboxes",
    render: (now) => sandboxTable(ofNode(queries, id), now),
  };
  return {
    touched: (event) => {
      if (event.type === "sandbox") return [boxes];
      return event.type === "node" && event.subject === id ? [facts] : [];
    },
    refetch: () => undefined,
    logJob: undefined,
    sentence: () => "",
  };
}

/** Sandboxes of one node. */
export const ofNode = (queries: Queries, id: string) =>
  queries.sandboxes().filter((box) => box.node_id === id);

function nodesTopic(queries: Queries): Topic {
  return {
    touched: (event) =>
      event.type === "node"
        ? [
            {
              id: `node-card-${event.subject}`,
              render: (now) => nodeCard(queries.node(event.subject), now),
            },
          ]
        : [],
    refetch: () => undefined,
    logJob: undefined,
    sentence: () => "",
  };
}

function clusterTopic(queries: Queries): Topic {
  const parts: readonly Region[] = [
    { id: "quorum", render: () => quorumCard(queries.cluster()) },
    { id: "members", render: (now) => memberTable(queries.cluster(), now) },
    { id: "leaders", render: (now) => leaderTable(queries.cluster(), now) },
    { id: "divergence", render: (now) => divergenceList(queries.cluster(), now) },
    { id: "tokens", render: (now) => tokenTable(queries.cluster(), now) },
    { id: "sessions", render: () => sessionTable(queries.cluster()) },
  ];
  const swarms: Region = { id: "swarms", render: () => swarmList(queries.swarms()) };
  return {
    touched: (event) => {
      if (event.type === "swarm") return [swarms];
      return ["cluster", "node", "replica"].includes(event.type) ? parts : [];
    },
    refetch: () => undefined,
    logJob: undefined,
    sentence: () => clusterSentence(queries.cluster()),
  };
}

/** The page refetches its block: who is judged by whom is seen only as a whole. */
const COMPAT_EVENTS = new Set(["template", "replica", "node", "cluster", "resnapshot"]);

function compatTopic(queries: Queries): Topic {
  return {
    touched: () => [],
    refetch: ({ type }) => (COMPAT_EVENTS.has(type) ? "compat-changed" : undefined),
    logJob: undefined,
    sentence: () => compatSentence(queries.compat({ limit: 1 }).summary),
  };
}

/** The topic of that name, such as `jobs` or `template:tpl-…`; undefined when there is none. */
export function topicOf(queries: Queries, name: string): Topic | undefined {
  const [kind = "", id = ""] = name.split(":", 2);
  switch (kind) {
    case "overview":
      return overviewTopic(queries);
    case "templates":
      return templatesTopic(queries);
    case "template":
      return templateTopic(queries, id);
    case "tags":
      return tagsTopic();
    case "tag":
      return tagTopic(queries, id);
    case "snapshots":
      return snapshotsTopic();
    case "snapshot":
      return snapshotTopic(queries, id);
    case "jobs":
      return jobsTopic(queries);
    case "job":
      return jobTopic(queries, id);
    case "cluster":
      return clusterTopic(queries);
    case "compat":
      return compatTopic(queries);
    case "nodes":
      return nodesTopic(queries);
    case "node":
      return nodeTopic(queries, id);
    default:
      return undefined;
  }
}
