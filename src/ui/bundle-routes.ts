/** Bundles on the page: download from a node that holds the files, and upload. */
import type { Hono } from "hono";
import { AppError, isAppError, parseTemplateId } from "../domain/index.ts";
import type { ArtifactInfo, NodeFact } from "../domain/index.ts";
import { ask, assertToken, contextOf, withNotice } from "./actions.ts";
import {
  exportPlan,
  exportedSnapshot,
  exportedTemplate,
  holderOf,
  importRequestOf,
  refusalText,
  type Exported,
  type ImportFields,
} from "./bundle-models.ts";
import { commandLines } from "./command-lines.ts";
import type { Ui, UiContext, UiEnv } from "./context.ts";
import { html, join, type Html } from "./html.ts";
import { openUpload, type UploadForm } from "./multipart.ts";
import { importPage } from "./pages/import.ts";
import { createSubmissions, type Submissions } from "./submissions.ts";

export function registerBundles(app: Hono<UiEnv>, ui: Ui): void {
  registerExport(app, ui);
  registerImport(app, ui);
}

/** What is known of a thing, or undefined when it is not. */
function known<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (isAppError(error)) return undefined;
    throw error;
  }
}

const SHOWN = 3;

function registerExport(app: Hono<UiEnv>, ui: Ui): void {
  const { queries, bundleFiles } = ui;
  const links = (holders: readonly string[], path: string): Html =>
    join(
      holders.slice(0, SHOWN).map((id) => {
        const node = known<NodeFact>(() => queries.node(id));
        const { href, isItsOwn } = holderOf(id, node, path);
        return html`<a class="btn" href="${href}">${isItsOwn ? "Export on" : "See"} ${id}</a>`;
      }),
    );
  for (const section of ["templates", "snapshots"] as const) {
    const find = (c: UiContext): Exported => {
      const asked = c.req.param("id") ?? "";
      if (section === "snapshots") return exportedSnapshot(queries.snapshot(asked));
      const template = queries.template(asked);
      const artifact = known<ArtifactInfo>(() => queries.artifact(template.artifact_id));
      return exportedTemplate(template, artifact);
    };
    app.get(`/${section}/:id/export`, (c) => {
      const what = find(c);
      const base = `/ui/${section}/${what.id}`;
      const { effects, blocked } = exportPlan(what, queries.nodeId);
      return ask(ui, c, section, {
        title: `Export ${what.name}`,
        effects,
        action: `${base}/export/file`,
        method: "get",
        verb: "Download bundle",
        kind: "primary",
        command: commandLines.exportBundle(what),
        back: base,
        ...(blocked === undefined
          ? {}
          : { blocked, wayOut: links(what.holders, `${base}/export`) }),
      });
    });
    app.get(`/${section}/:id/export/file`, async (c) => {
      if (!c.get("access").mayChange) {
        throw new AppError("unauthorized", "a bundle holds the whole template: sign in first");
      }
      const { id } = find(c);
      const context = { ...contextOf(c), signal: c.req.raw.signal };
      return bundleFiles.send(ui, id, context, {}, c.env?.outgoing);
    });
  }
}

function registerImport(app: Hono<UiEnv>, ui: Ui): void {
  const submissions = createSubmissions<string>();
  const show = (c: UiContext, fields: ImportFields, error?: AppError) =>
    ui.show(
      c,
      {
        title: error === undefined ? "Import a bundle" : "Not taken in: bundle",
        tone: error === undefined ? "idle" : "bad",
        section: "templates",
        path: "/ui/import",
        body: importPage(ui.pageOf(c), fields, error === undefined ? "" : refusalText(error)),
      },
      error === undefined ? 200 : codeOf(error),
    );
  app.get("/import", (c) => show(c, {}));
  app.post("/import", async (c) => {
    const body = ui.bundleFiles.read(c.req.raw.body ?? new Blob([]).stream());
    const form = await openUpload(body, c.req.header("content-type") ?? "");
    try {
      assertToken(c, form.fields["csrf_token"]);
      return c.redirect(await takeIn(ui, c, form, submissions), 303);
    } catch (error) {
      if (!isAppError(error) || error.row.status >= 500 || error.code === "forbidden") throw error;
      // For the audit row: it was refused, though it is answered with a page.
      c.set("failure", error);
      return await show(c, form.fields, error);
    } finally {
      await form.close();
    }
  });
}

const codeOf = ({ row }: AppError): 403 | 409 | 422 | 429 =>
  row.status === 403 || row.status === 409 || row.status === 429 ? row.status : 422;

/** Where to look at what came of it. */
function takeIn(
  ui: Ui,
  c: UiContext,
  { fields, file }: UploadForm,
  submissions: Submissions<string>,
): Promise<string> {
  const key = fields["idempotency_key"] ?? "";
  return submissions.once(key === "" ? "" : `${c.get("session").id} ${key}`, async () => {
    if (file === undefined) throw new AppError("invalid_request", "choose the file of a bundle");
    const request = importRequestOf(fields);
    if (request.template_id !== undefined) parseTemplateId(request.template_id);
    const context = { ...contextOf(c), signal: c.req.raw.signal };
    const done = await ui.commands.importBundle(file, request, context);
    if (done.outcome === "accepted")
      return withNotice(`/ui/jobs/${done.job_id}`, "bundle-accepted");
    const code = done.outcome === "present" ? "bundle-present" : "bundle-imported";
    return withNotice(`/ui/${done.kind}s/${done.template_id}`, code);
  });
}
