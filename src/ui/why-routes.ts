/** The answers of `why` and of who uses something, from the same queries as the API's routes. */
import type { Hono } from "hono";
import { AppError, isAppError } from "../domain/index.ts";
import { commandLines } from "./command-lines.ts";
import type { Ui, UiContext, UiEnv } from "./context.ts";
import { artifactWhy, refTable, refusedAnswer, templateWhy } from "./fragments/why.ts";
import { redoOnNode } from "./fragments/replica-table.ts";
import { nothing, type Html } from "./html.ts";
import type { PageView } from "./layout.ts";
import { artifactPage } from "./pages/artifact.ts";
import { answerPage, nodeWhyPage } from "./pages/why.ts";
import { findJob } from "./regions.ts";
import { status } from "./status.ts";
import { nodeWhy, sentence } from "./view-models.ts";

interface Answered {
  readonly id: string;
  readonly path: string;
  readonly title: string;
  readonly section: PageView["section"];
  readonly back: { readonly href: string; readonly name: string };
  readonly jsonUrl: string;
  readonly command: string;
}

/** A refusal is an answer, too: it is shown in the place that asked. */
async function showAnswer(ui: Ui, c: UiContext, what: Answered, ask: () => Promise<Html>) {
  let body: Html;
  try {
    body = await ask();
  } catch (error) {
    if (!isAppError(error)) throw error;
    body = refusedAnswer(what.id, what.path, sentence(error.message));
  }
  return ui.show(c, {
    title: what.title,
    tone: "idle",
    section: what.section,
    path: what.path,
    jsonUrl: what.jsonUrl,
    command: what.command,
    body: answerPage(what.title, what.back, body),
  });
}

export function registerWhy(app: Hono<UiEnv>, ui: Ui): void {
  const { queries, clock } = ui;
  app.get("/artifacts/:id", (c) => {
    const artifact = queries.artifact(c.req.param("id"));
    const id = artifact.artifact_id;
    return ui.show(c, {
      title: `${status(artifact.status).word}: root filesystem ${id}`,
      tone: status(artifact.status).tone,
      section: "storage",
      path: `/ui/artifacts/${id}`,
      jsonUrl: `/v1/artifacts/${id}`,
      command: commandLines.whyArtifact(id),
      body: artifactPage(artifact, clock.now()),
    });
  });
  app.get("/artifacts/:id/why", (c) => {
    const { artifact_id: id } = queries.artifact(c.req.param("id"));
    const path = `/ui/artifacts/${id}/why`;
    const what: Answered = {
      id: `why-${id}`,
      path,
      title: "Why is it still here?",
      section: "storage",
      back: { href: `/ui/artifacts/${id}`, name: id },
      jsonUrl: `/v1/artifacts/${id}/why`,
      command: commandLines.whyArtifact(id),
    };
    return showAnswer(ui, c, what, async () =>
      artifactWhy(queries.whyArtifact(id), path, clock.now()),
    );
  });
  registerOfTemplates(app, ui);
}

/** Of templates and of snapshots, which are templates of another kind. */
function registerOfTemplates(app: Hono<UiEnv>, ui: Ui): void {
  const { queries, clock } = ui;
  for (const section of ["templates", "snapshots"] as const) {
    const find = (c: UiContext, name: string) => {
      const asked = c.req.param("id") ?? "";
      const found = section === "snapshots" ? queries.snapshot(asked) : queries.template(asked);
      const id = "snapshot_id" in found ? found.snapshot_id : found.template_id;
      const href = `/ui/${section}/${id}`;
      const shown = found.display_name === "" ? id : found.display_name;
      return { id, path: `${href}/${name}`, back: { href, name: shown } };
    };
    app.get(`/${section}/:id/why`, async (c) => {
      const { id, path, back } = find(c, "why");
      const node = c.req.query("node") ?? "";
      if (node !== "") return showNode(ui, c, { id, node, section, href: back.href });
      const what: Answered = {
        id: `why-${id}`,
        path,
        title: "Why is it not ready on a node?",
        section,
        back,
        jsonUrl: `/v1/templates/${id}/why`,
        command: commandLines.whyTemplate(id),
      };
      return showAnswer(ui, c, what, async () => templateWhy(await queries.whyTemplate(id), path));
    });
    app.get(`/${section}/:id/refs`, (c) => {
      const { id, path, back } = find(c, "refs");
      const what: Answered = {
        id: `refs-${id}`,
        path,
        title: "Who uses it",
        section,
        back,
        jsonUrl: `/v1/snapshots/${id}/runtime-refs`,
        command: commandLines.whyTemplate(id),
      };
      return showAnswer(ui, c, what, async () =>
        refTable(id, await queries.runtimeRefs(id), path, clock.now()),
      );
    });
  }
}

/** One node of a template or snapshot. */
async function showNode(
  ui: Ui,
  c: UiContext,
  of: { id: string; node: string; section: "templates" | "snapshots"; href: string },
): Promise<Response> {
  const { id, node, section, href } = of;
  const why = (await ui.queries.whyTemplate(id)).nodes.find((one) => one.node_id === node);
  if (why === undefined) throw new AppError("node_not_found", `there is no node ${node}`);
  const title = why.ready ? `It is ready on ${node}` : `Why is it not ready on ${node}?`;
  const job = findJob(ui.queries, ui.queries.template(id).job_id);
  const redo = why.ready || section === "snapshots" ? nothing : redoOnNode(id, node, job);
  return ui.show(c, {
    title,
    tone: why.ready ? "ok" : "warn",
    section,
    path: `${href}/why?${new URLSearchParams({ node }).toString()}`,
    jsonUrl: `/v1/templates/${id}/why`,
    command: commandLines.whyTemplate(id),
    body: nodeWhyPage(title, nodeWhy(why), href, redo),
  });
}
