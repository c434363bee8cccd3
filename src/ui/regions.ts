/**
 * What of a page is live: named regions, each with the events that touch it and its rendering. A
 * page is built from the same regions as its stream, so the two cannot differ.
 */
import { isAppError } from "../domain/index.ts";
import type { ChangeEvent, JobInfo, Queries, TemplateInfo } from "../domain/index.ts";
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

function findTemplate(queries: Queries, id: string): TemplateInfo | undefined {
  try {
    return queries.template(id);
  } catch (error) {
    if (isAppError(error)) return undefined;
    throw error;
  }
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
  const replicas = of("replicas", (template) => replicaTable(template));
  const progress = (): Region[] => {
    const job = jobOf();
    if (job === undefined) return [];
    return [{ id: `progress-${job.job_id}`, render: (now) => jobProgress(job, now) }];
  };
  return {
    touched: (event) => {
      const mine = event.subject === id || findJob(queries, event.subject)?.template_id === id;
      if (event.type === "job-progress") return mine ? [head, ...progress()] : [];
      if (event.type === "job") return mine ? [head, factList, swarm, ...progress()] : [];
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
