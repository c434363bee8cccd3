/** The pages of compat and their forms. */
import type { Hono } from "hono";
import { AppError, COMPAT_STATUSES, upgradeOf, upgradeQuerySchema } from "../domain/index.ts";
import type { CompatStatus, Queries, TemplateCompatRow } from "../domain/index.ts";
import { act, ask, withNotice } from "./actions.ts";
import { pathOf, streamUrl, twin } from "./addresses.ts";
import { commandLines } from "./command-lines.ts";
import { adoptPlan, resnapshotPlan } from "./compat-models.ts";
import type { Ui, UiContext, UiEnv } from "./context.ts";
import { count } from "./format.ts";
import { compatHref } from "./fragments/heat-map.ts";
import { compatPage } from "./pages/compat.ts";
import {
  LABELS,
  UPGRADE_FIELDS,
  upgradePage,
  type UpgradeForm,
  type UpgradeView,
} from "./pages/compat-preview.ts";
import { compatRowPage } from "./pages/compat-row.ts";
import { status } from "./status.ts";
import { createSubmissions, type Submissions } from "./submissions.ts";
import { templateName } from "./view-models.ts";

/** So many cells a page shows at most, so that it stays light with any number of nodes. */
const CELLS = 1_500;
const MIN_ROWS = 10;
const MAX_ROWS = 50;

/** Registers the pages, the forms and their confirmation pages. */
export function registerCompat(app: Hono<UiEnv>, ui: Ui): void {
  const submissions = createSubmissions<string>();
  registerMatrix(app, ui);
  registerPreview(app, ui);
  registerClusterForms(app, ui, submissions);
  registerTemplateForms(app, ui, submissions);
  app.get("/compat/:id", (c) => {
    const row = rowOf(ui.queries, c.req.param("id"));
    const json = `/v1/compat?template_id=${encodeURIComponent(row.template_id)}`;
    return (
      twin(c, json) ??
      ui.show(c, {
        title: `${status(row.overall).word}: compat of ${templateName(row)}`,
        tone: status(row.overall).tone,
        section: "compat",
        path: compatHref(row.template_id),
        jsonUrl: json,
        command: commandLines.compatOf(row.template_id),
        body: compatRowPage(row, drainedOf(ui.queries)),
      })
    );
  });
}

const drainedOf = (queries: Queries): ReadonlySet<string> =>
  new Set(queries.nodes().flatMap((node) => (node.drained ? [node.node_id] : [])));

/** @throws AppError template_not_found */
function rowOf(queries: Queries, idOrName: string): TemplateCompatRow {
  const [row] = queries.compat({ template_id: idOrName }).templates;
  if (row !== undefined) return row;
  const { template_id } = queries.template(idOrName);
  const [named] = queries.compat({ template_id }).templates;
  if (named !== undefined) return named;
  throw new AppError("template_not_found", `template ${template_id} is still being made`);
}

const statusOf = (text: string | undefined): CompatStatus | undefined =>
  COMPAT_STATUSES.find((one) => one === text);

function registerMatrix(app: Hono<UiEnv>, ui: Ui): void {
  const { queries, clock } = ui;
  app.get("/compat", (c) => {
    const nodes = queries.nodes();
    const rows = Math.floor(CELLS / Math.max(nodes.length, 1));
    const status = statusOf(c.req.query("status"));
    const next_token = c.req.query("next_token");
    const json = `/v1/compat${status === undefined ? "" : `?status=${status}`}`;
    const answer = twin(c, json);
    if (answer !== undefined) return answer;
    const stream = streamUrl(ui, "compat");
    const matrix = queries.compat({
      status,
      limit: Math.min(MAX_ROWS, Math.max(MIN_ROWS, rows)),
      ...(next_token === undefined ? {} : { next_token }),
    });
    const stale = matrix.summary.stale_templates;
    const resnapshot = queries.resnapshot();
    return ui.show(c, {
      title: stale === 0 ? "Compat" : `(${stale} stale) Compat`,
      tone: resnapshot.state === "stopped" ? "bad" : stale > 0 ? "warn" : "idle",
      section: "compat",
      path: pathOf(c),
      jsonUrl: json,
      command: commandLines.compat(),
      streamUrl: stream,
      body: compatPage({
        ...{ matrix, resnapshot, nodes, status },
        upgrade: { form: readUpgrade(c), now: currentVersions(queries) },
        path: pathOf(c),
        now: clock.now(),
      }),
    });
  });
}

const readUpgrade = (c: UiContext): UpgradeForm => {
  const value = (name: string) => (c.req.query(name) ?? "").trim().slice(0, 1_024);
  return {
    guest_image: value("guest_image"),
    agent: value("agent"),
    kernel: value("kernel"),
    extra: value("extra"),
  };
};

function currentVersions(queries: Queries): UpgradeForm {
  const node = queries.node("self");
  const extra = Object.entries(node.versions_extra ?? {}).map(
    ([name, value]) => `${name}=${value}`,
  );
  return {
    guest_image: node.guest_image_version,
    agent: node.agent_version,
    kernel: node.kernel_version,
    extra: extra.join(","),
  };
}

function registerPreview(app: Hono<UiEnv>, ui: Ui): void {
  const { queries } = ui;
  app.get("/compat/preview", (c) => {
    const form = readUpgrade(c);
    const given = Object.fromEntries(Object.entries(form).filter(([, value]) => value !== ""));
    const json = `/v1/compat/preview?${new URLSearchParams(given).toString()}`;
    const answer = twin(c, json);
    if (answer !== undefined) return answer;
    const asked = upgradeQuerySchema.safeParse(given);
    const view: UpgradeView = {
      form,
      now: currentVersions(queries),
      ...(asked.success
        ? { preview: queries.compatPreview(upgradeOf(asked.data)) }
        : { problem: problemOf(asked.error.issues[0]) }),
    };
    return ui.show(
      c,
      {
        title: asked.success ? "Preview of an upgrade" : "Not asked: preview of an upgrade",
        tone: asked.success ? "idle" : "bad",
        section: "compat",
        path: pathOf(c),
        ...(asked.success ? { jsonUrl: json } : {}),
        command: commandLines.upgrade(form),
        body: upgradePage(view),
      },
      asked.success ? 200 : 422,
    );
  });
}

function problemOf(issue: { path: PropertyKey[]; message: string } | undefined): string {
  const field = UPGRADE_FIELDS.find((name) => name === issue?.path[0]);
  const text = issue?.message ?? "";
  return field === undefined ? `Not asked: ${text}.` : `Not asked: ${LABELS[field]} ${text}.`;
}

function registerClusterForms(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  const { queries, commands } = ui;
  app.get("/compat/rescan", (c) => {
    const healthy = queries.nodes().filter((node) => node.healthy);
    return ask(ui, c, "compat", {
      title: "Scan all nodes?",
      effects: [
        "Each healthy node reads its versions and judges its replicas again, one node after the " +
          `other, until one fails: ${count(healthy.length, "node")}.`,
        "Nothing is made or removed. Nodes do this by themselves when their versions change.",
      ],
      action: "/ui/compat/rescan",
      verb: "Scan all nodes",
      kind: "primary",
      command: commandLines.rescan(),
      back: "/ui/compat",
    });
  });
  app.post("/compat/rescan", (c) =>
    act(c, submissions, async (_form, context) => {
      await commands.rescanCompat({ node_ids: [], all_nodes: true }, context);
      return withNotice("/ui/compat", "compat-scanned");
    }),
  );
  app.get("/compat/resnapshot/resume", (c) => {
    const { failure, pending } = queries.resnapshot();
    return ask(ui, c, "compat", {
      title: "Go on making stale replicas again?",
      effects: [
        `To be made again, one at a time: ${count(pending, "stale replica")}, what failed last.`,
        "It stops again at the first failure.",
      ],
      action: "/ui/compat/resnapshot/resume",
      verb: "Go on",
      kind: "primary",
      command: commandLines.resume(),
      back: "/ui/compat",
      ...(failure === undefined ? { blocked: "Nothing has stopped." } : {}),
    });
  });
  app.post("/compat/resnapshot/resume", (c) =>
    act(c, submissions, async (_form, context) => {
      await commands.resumeResnapshot(context);
      return withNotice("/ui/compat", "resnapshot-resumed");
    }),
  );
}

function registerTemplateForms(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  const { queries, commands } = ui;
  app.get("/compat/:id/adopt", (c) => {
    const row = rowOf(queries, c.req.param("id"));
    const { effects, blocked } = adoptPlan(row);
    const href = compatHref(row.template_id);
    return ask(ui, c, "compat", {
      title: `Adopt the baseline of ${templateName(row)}?`,
      effects,
      action: `${href}/adopt`,
      verb: "Adopt baseline",
      kind: "primary",
      command: commandLines.adopt(row.template_id),
      back: href,
      ...(blocked === undefined ? {} : { blocked }),
    });
  });
  app.post("/compat/:id/adopt", (c) =>
    act(c, submissions, async (_form, context) => {
      const { template_id } = await commands.adoptCompatBaseline(c.req.param("id"), context);
      return withNotice(compatHref(template_id), "baseline-adopted");
    }),
  );
  app.get("/compat/:id/resnapshot", (c) => {
    const row = rowOf(queries, c.req.param("id"));
    const { nodes, effects, blocked } = resnapshotPlan(row, drainedOf(queries));
    const href = compatHref(row.template_id);
    return ask(ui, c, "compat", {
      title: `Make stale replicas of ${templateName(row)} again?`,
      effects,
      action: `${href}/resnapshot`,
      verb: "Make again",
      kind: "primary",
      command: commandLines.resnapshot(row.template_id, nodes),
      back: href,
      ...(blocked === undefined ? {} : { blocked }),
    });
  });
  app.post("/compat/:id/resnapshot", (c) =>
    act(c, submissions, async (_form, context) => {
      const row = rowOf(queries, c.req.param("id"));
      const { nodes, blocked } = resnapshotPlan(row, drainedOf(queries));
      if (blocked !== undefined) throw new AppError("invalid_request", blocked);
      const job = await commands.redoTemplate(
        row.template_id,
        { redo_mode: "NODES", distribution_scope: [...nodes], memory_only: true },
        context,
      );
      return withNotice(`/ui/jobs/${job.job_id}`, "resnapshot-begun");
    }),
  );
}
