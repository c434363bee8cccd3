/**
 * The page's application, mounted at `/ui`. Every page works without script: links, forms, and a
 * redirect after each post. The same address answers with its twin of the API when JSON is asked.
 */
import { Hono } from "hono";
import { csrf } from "hono/csrf";
import { HTTPException } from "hono/http-exception";
import { secureHeaders } from "hono/secure-headers";
import { AppError, errorText, isAppError, isActiveJob } from "../domain/index.ts";
import type { Queries } from "../domain/index.ts";
import { registerActions } from "./actions.ts";
import { pathOf, streamUrl, twin } from "./addresses.ts";
import { loadAssets } from "./assets.ts";
import { registerBundles } from "./bundle-routes.ts";
import { registerClusterActions } from "./cluster-actions.ts";
import { leaderOf } from "./cluster-models.ts";
import { commandLines } from "./command-lines.ts";
import { registerCompat } from "./compat-routes.ts";
import { registerEdits } from "./edit-actions.ts";
import { templateTitle } from "./fragments/template-head.ts";
import { jobTitle } from "./fragments/job-head.ts";
import { favicon, isTone } from "./icons.ts";
import type { Ui, UiContext, UiDependencies, UiEnv } from "./context.ts";
import { layout, type PageContext } from "./layout.ts";
import { helpPage } from "./pages/help.ts";
import { jobPage } from "./pages/job.ts";
import { jobsPage, templatesPage, type ListFilter } from "./pages/list.ts";
import { clusterPage } from "./pages/cluster.ts";
import { nodePage, nodesPage } from "./pages/nodes.ts";
import { overviewPage } from "./pages/overview.ts";
import { problemPage } from "./pages/problem.ts";
import { templatePage } from "./pages/template.ts";
import { registerRedo } from "./redo-actions.ts";
import { allTags, findJob, findTemplate, ofNode } from "./regions.ts";
import { registerRetention } from "./retention-routes.ts";
import { openSession } from "./session.ts";
import { assertMayChange, findAccess, registerSignIn } from "./sign-in.ts";
import { registerSnapshotActions } from "./snapshot-actions.ts";
import { lineageOf, registerSnapshots } from "./snapshot-routes.ts";
import { nodeStatus, status } from "./status.ts";
import { registerStorage } from "./storage-routes.ts";
import { createStreamHub } from "./stream.ts";
import { registerTags } from "./tag-routes.ts";
import { noticeText } from "./view-models.ts";
import { registerWhy } from "./why-routes.ts";

const POLICY = {
  defaultSrc: ["'none'"],
  scriptSrc: ["'self'"],
  styleSrc: ["'self'"],
  imgSrc: ["'self'", "data:"],
  connectSrc: ["'self'"],
  formAction: ["'self'"],
  baseUri: ["'none'"],
  frameAncestors: ["'none'"],
  requireTrustedTypesFor: ["'script'"],
  trustedTypes: ["htmx", "default"],
};

const LOG_SHOWN = 500;

/** @throws Error when a file of the page is missing in the package. */
export function createUi(deps: UiDependencies): Hono {
  const assets = loadAssets();
  const hub = createStreamHub(deps);
  deps.signal?.addEventListener("abort", () => hub.close());
  const pageOf = (c: UiContext): PageContext => ({
    nodeId: deps.queries.nodeId,
    version: deps.version,
    now: deps.clock.now(),
    token: c.get("session").token,
    submissionKey: () => deps.random.uuid(),
    settings: c.get("session").settings,
    access: c.get("access"),
    here: pathOf(c),
    scriptUrl: assets.script.url,
    styleUrl: assets.style.url,
    notice: noticeText(c.req.query("notice")),
  });
  const ui: Ui = {
    ...deps,
    hub,
    pageOf,
    show: async (c, view, code = 200) => c.html(await layout(view, pageOf(c)), code),
  };
  const app = new Hono<UiEnv>();
  app.onError((error, c) => answerProblem(ui, c, error));
  app.use(secureHeaders({ ...HEADERS, contentSecurityPolicy: POLICY }));
  for (const asset of Object.values(assets)) {
    app.get(asset.url.slice("/ui".length), (c) => {
      const isPacked = /\bgzip\b/.test(c.req.header("accept-encoding") ?? "");
      return c.body(isPacked ? asset.gzip : asset.body, 200, {
        "content-type": asset.type,
        "cache-control": "public, max-age=31536000, immutable",
        vary: "accept-encoding",
        ...(isPacked ? { "content-encoding": "gzip" } : {}),
      });
    });
  }
  app.get("/icon/:tone", (c) => {
    const tone = c.req.param("tone").replace(".svg", "");
    return c.body(favicon(isTone(tone) ? tone : "idle"), 200, {
      "content-type": "image/svg+xml",
      "cache-control": "public, max-age=86400",
    });
  });
  app.use(csrf());
  app.use(async (c, next) => {
    if (typeof c.get("requestId") !== "string") c.set("requestId", deps.random.uuid());
    c.set("session", openSession(c, deps.queries.nodeId, deps.random));
    const access = findAccess(c, deps.queries.nodeId, deps.signIns);
    c.set("access", access);
    if (access.name !== undefined) c.set("actor", `token:${access.name}`);
    assertMayChange(c, access);
    c.header("cache-control", "no-store");
    c.header("vary", "accept");
    await next();
  });
  registerPages(app, ui);
  registerStorage(app, ui);
  registerRetention(app, ui);
  registerCompat(app, ui);
  // Before the details: `new` is no template's id.
  registerActions(app, ui);
  registerClusterActions(app, ui);
  registerRedo(app, ui);
  registerTags(app, ui);
  registerEdits(app, ui);
  registerBundles(app, ui);
  registerWhy(app, ui);
  registerSignIn(app, ui);
  registerSnapshotActions(app, ui);
  registerSnapshots(app, ui, { twin, pathOf, streamUrl: (topic) => streamUrl(ui, topic) });
  registerDetails(app, ui);
  registerStream(app, ui);
  app.all("*", (c) => {
    if (c.req.path === "/ui/" && c.req.method === "GET") return overview(ui, c);
    throw new AppError("not_found", `there is no ${c.req.path}`);
  });
  return new Hono().route("/", app);
}

const HEADERS = {
  referrerPolicy: "same-origin",
  xFrameOptions: "DENY",
  strictTransportSecurity: false,
} as const;

async function overview(ui: Ui, c: UiContext): Promise<Response> {
  const { queries } = ui;
  const stream = streamUrl(ui, "overview");
  const state = queries.overview();
  const recent = queries.listTemplates({ limit: 8 }).items;
  const waiting = state.attention.length;
  return ui.show(c, {
    title: waiting === 0 ? "Overview" : `(${waiting}) Overview`,
    tone: waiting > 0 ? "bad" : state.active_jobs.length > 0 ? "busy" : "ok",
    section: "overview",
    path: "/ui/",
    jsonUrl: "/v1/nodes/self",
    command: commandLines.nodes(),
    streamUrl: stream,
    refresh: state.active_jobs.length > 0,
    body: overviewPage(
      state,
      queries.cluster(),
      recent,
      (template) => findJob(queries, template.job_id),
      ui.clock.now(),
    ),
  });
}

function filterOf(c: UiContext): ListFilter & { request: Record<string, string | number> } {
  const text = (c.req.query("text") ?? "").slice(0, 200);
  const state = (c.req.query("status") ?? "").slice(0, 40);
  const label = (c.req.query("label") ?? "").slice(0, 4_400);
  const limit = Number(c.req.query("limit") ?? 50);
  const token = c.req.query("next_token");
  const request = {
    limit: Number.isInteger(limit) && limit > 0 ? Math.min(limit, 200) : 50,
    ...(text === "" ? {} : { text }),
    ...(state === "" ? {} : { status: state }),
    ...(label === "" ? {} : { label }),
    ...(token === undefined ? {} : { next_token: token }),
  };
  return { text, status: state, label, path: pathOf(c), request };
}

function registerPages(app: Hono<UiEnv>, ui: Ui): void {
  const { queries, clock } = ui;
  app.get("/", (c) => overview(ui, c));
  app.get("/templates", async (c) => {
    const filter = filterOf(c);
    const stream = streamUrl(ui, "templates");
    return (
      twin(c, `/v1/templates${new URL(c.req.url).search}`) ??
      ui.show(c, {
        title: "Templates",
        tone: "idle",
        section: "templates",
        path: filter.path,
        jsonUrl: `/v1/templates${new URL(c.req.url).search}`,
        command: commandLines.templates(),
        streamUrl: stream,
        body: templatesPage(
          queries.listTemplates(filter.request),
          (template) => findJob(queries, template.job_id),
          filter,
          clock.now(),
        ),
      })
    );
  });
  app.get("/jobs", async (c) => {
    const filter = filterOf(c);
    return (
      twin(c, "/v1/jobs") ??
      ui.show(c, {
        title: "Jobs",
        tone: "idle",
        section: "jobs",
        path: filter.path,
        jsonUrl: "/v1/jobs",
        command: commandLines.jobs(),
        streamUrl: streamUrl(ui, "jobs"),
        body: jobsPage(queries.listJobs(filter.request), filter, clock.now()),
      })
    );
  });
  app.get("/nodes", async (c) => {
    return (
      twin(c, "/v1/nodes") ??
      ui.show(c, {
        title: "Nodes",
        tone: "idle",
        section: "nodes",
        path: "/ui/nodes",
        jsonUrl: "/v1/nodes",
        command: commandLines.nodes(),
        streamUrl: streamUrl(ui, "nodes"),
        body: nodesPage(queries.nodes(), clock.now()),
      })
    );
  });
  app.get("/cluster", async (c) => {
    const view = queries.cluster();
    const isWell = view.quorum.available && view.divergence.length === 0;
    return (
      twin(c, "/v1/cluster") ??
      ui.show(c, {
        title: view.quorum.available ? "Cluster" : "No quorum: cluster",
        tone: view.quorum.available ? (isWell ? "idle" : "warn") : "bad",
        section: "cluster",
        path: "/ui/cluster",
        jsonUrl: "/v1/cluster",
        command: commandLines.cluster(),
        streamUrl: streamUrl(ui, "cluster"),
        body: clusterPage(view, queries.swarms(), clock.now()),
      })
    );
  });
  app.get("/help", (c) =>
    ui.show(c, {
      title: "Settings and help",
      tone: "idle",
      section: "help",
      path: "/ui/help",
      body: helpPage(ui.pageOf(c)),
    }),
  );
}

/** The newest lines of a job's log; none when the job is gone. */
async function tailOf(queries: Queries, jobId: string, limit: number) {
  if (findJob(queries, jobId) === undefined) return [];
  return (await queries.jobLog(jobId, { limit: 100_000 })).slice(-limit);
}

function registerDetails(app: Hono<UiEnv>, ui: Ui): void {
  const { queries, clock } = ui;
  app.get("/templates/:id", async (c) => {
    const template = queries.template(c.req.param("id"));
    if (template.kind === "snapshot") {
      return c.redirect(`/ui/snapshots/${template.template_id}${new URL(c.req.url).search}`, 303);
    }
    const url = `/v1/templates/${template.template_id}`;
    const json = twin(c, url);
    if (json !== undefined) return json;
    const job = findJob(queries, template.job_id);
    const since = streamUrl(ui, `template:${template.template_id}`);
    const log = await tailOf(queries, template.job_id, LOG_SHOWN);
    const name = templateTitle(template);
    return ui.show(c, {
      title: name,
      tone: status(template.status).tone,
      section: "templates",
      path: `/ui/templates/${template.template_id}`,
      jsonUrl: url,
      command: commandLines.template(template.template_id),
      streamUrl: since.replace("%7E0", `%7E${log.at(-1)?.sequence ?? 0}`),
      refresh: job !== undefined && isActiveJob(job),
      body: templatePage({
        template,
        job,
        log,
        request: requestText(queries, template.template_id),
        leader: leaderOf(queries.cluster(), template),
        lineage: lineageOf(queries, template.template_id),
        tags: allTags(queries),
        find: (id) => findTemplate(queries, id),
        swarms: queries.swarms(),
        now: clock.now(),
      }),
    });
  });
  app.get("/jobs/:id", async (c) => {
    const job = queries.job(c.req.param("id"));
    const json = twin(c, `/v1/jobs/${job.job_id}`);
    if (json !== undefined) return json;
    const since = streamUrl(ui, `job:${job.job_id}`);
    const limit = c.req.query("log") === "all" ? 100_000 : LOG_SHOWN;
    const log = await tailOf(queries, job.job_id, limit);
    const more = log.length === LOG_SHOWN ? `/ui/jobs/${job.job_id}?log=all` : undefined;
    return ui.show(c, {
      title: jobTitle(job),
      tone: status(job.status).tone,
      section: "jobs",
      path: pathOf(c),
      jsonUrl: `/v1/jobs/${job.job_id}`,
      command: commandLines.watch(job),
      streamUrl: since.replace("%7E0", `%7E${log.at(-1)?.sequence ?? 0}`),
      refresh: isActiveJob(job),
      body: jobPage(job, log, more, clock.now()),
    });
  });
  app.get("/nodes/:id", async (c) => {
    const node = queries.node(c.req.param("id"));
    const name = node.node_id === queries.nodeId ? "self" : node.node_id;
    return (
      twin(c, `/v1/nodes/${name}`) ??
      ui.show(c, {
        title: `${nodeStatus(node).word}: node ${node.node_id}`,
        tone: nodeStatus(node).tone,
        section: "nodes",
        path: `/ui/nodes/${node.node_id}`,
        jsonUrl: `/v1/nodes/${name}`,
        command: commandLines.sandboxes(),
        streamUrl: streamUrl(ui, `node:${node.node_id}`),
        body: nodePage(node, ofNode(queries, node.node_id), clock.now()),
      })
    );
  });
}

/** The stored create request as text; blank before the template has one. */
function requestText(queries: Queries, id: string): string {
  try {
    return JSON.stringify(queries.templateRequest(id), undefined, 2);
  } catch (error) {
    if (isAppError(error)) return "";
    throw error;
  }
}

function registerStream(app: Hono<UiEnv>, ui: Ui): void {
  app.get("/stream", (c) => {
    const body = ui.hub.open({
      topic: c.req.query("topic") ?? "",
      session: c.get("session").id,
      since: c.req.header("last-event-id") ?? c.req.query("since") ?? "",
      signal: c.req.raw.signal,
    });
    if (body === "unknown") throw new AppError("not_found", "there is no such stream");
    if (body === "full") throw new AppError("too_many_requests", "too many streams are open");
    return c.body(body, 200, {
      "content-type": "text/event-stream; charset=utf-8",
      "x-accel-buffering": "no",
    });
  });
}

/** Failures as a page: title, detail, code, request id and what to try. */
async function answerProblem(ui: Ui, c: UiContext, thrown: Error): Promise<Response> {
  const error =
    thrown instanceof HTTPException
      ? new AppError("forbidden", "the form came from another page; reload it and send it again")
      : isAppError(thrown)
        ? thrown
        : new AppError("internal", "something went wrong on this node", { cause: thrown });
  const fields = { request_id: c.get("requestId"), path: c.req.path, error: errorText(thrown) };
  if (error.code === "internal") ui.log.error("page: request failed", fields);
  else ui.log.debug("page: request refused", fields);
  if (c.get("session") === undefined) {
    c.set("session", openSession(c, ui.queries.nodeId, ui.random));
  }
  c.set("access", c.get("access") ?? findAccess(c, ui.queries.nodeId, ui.signIns));
  c.set("failure", thrown);
  if (c.get("requestId") === undefined) c.set("requestId", ui.random.uuid());
  const body = problemPage({
    title: error.row.title,
    detail: error.message,
    code: error.code,
    status: error.row.status,
    requestId: c.get("requestId"),
  });
  const answer = await ui.show(c, {
    title: error.row.title,
    tone: "bad",
    section: "help",
    path: pathOf(c),
    body,
  });
  return new Response(answer.body, { status: error.row.status, headers: answer.headers });
}
