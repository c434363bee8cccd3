/** Forms of the cluster page: join tokens, removal and drain of members. */
import type { Hono } from "hono";
import { createTokenSchema, isAppError, removalCost } from "../domain/index.ts";
import type { CreatedToken, Queries, TemplateInfo } from "../domain/index.ts";
import { act, ask, contextOf, readForm, withNotice } from "./actions.ts";
import { removalEffects, tokenState } from "./cluster-models.ts";
import { commandLines } from "./command-lines.ts";
import type { Ui, UiContext, UiEnv } from "./context.ts";
import { newTokenPage, tokenMadePage, type TokenForm } from "./pages/tokens.ts";
import { createSubmissions, type Submissions } from "./submissions.ts";

const LISTED = 1_000;
/** Made tokens that a repeated form is answered with; a double click makes one token. */
const TOKENS_KEPT = 8;

/** Registers the forms and their confirmation pages. */
export function registerClusterActions(app: Hono<UiEnv>, ui: Ui): void {
  const submissions = createSubmissions<string>();
  registerTokenForm(app, ui);
  registerRevoke(app, ui, submissions);
  registerRemove(app, ui, submissions);
  registerDrain(app, ui, submissions);
}

function registerTokenForm(app: Hono<UiEnv>, ui: Ui): void {
  const made = createSubmissions<CreatedToken>(TOKENS_KEPT);
  const show = (c: UiContext, values: TokenForm, problem = "") =>
    ui.show(
      c,
      {
        title: problem === "" ? "Make a join token" : "Not made: join token",
        tone: problem === "" ? "idle" : "bad",
        section: "cluster",
        path: "/ui/cluster/tokens/new",
        body: newTokenPage(ui.pageOf(c), ui.queries.cluster(), values, problem),
      },
      problem === "" ? 200 : 422,
    );
  app.get("/cluster/tokens/new", (c) => show(c, { ttl_seconds: "3600", uses: "1" }));
  app.post("/cluster/tokens", async (c) => {
    const form = await readForm(c);
    const values = { ttl_seconds: form["ttl_seconds"] ?? "", uses: form["uses"] ?? "" };
    const asked = createTokenSchema.safeParse({
      ttl_seconds: Number(values.ttl_seconds),
      uses: Number(values.uses),
    });
    if (!asked.success) {
      return show(c, values, "Choose a lifetime, and a number of nodes from 1 to 1000.");
    }
    const key = submissionKey(c, form);
    let token: CreatedToken;
    try {
      token = await made.once(key, () => ui.commands.createJoinToken(asked.data, contextOf(c)));
    } catch (error) {
      if (!isAppError(error) || error.code !== "no_quorum") throw error;
      return show(c, values, `The token could not be made: ${error.message}.`);
    }
    return ui.show(c, {
      title: "The token is made",
      tone: "ok",
      section: "cluster",
      path: "/ui/cluster",
      body: tokenMadePage(ui.queries.cluster(), token, ui.clock.now()),
    });
  });
}

const submissionKey = (c: UiContext, form: Readonly<Record<string, string>>): string => {
  const sent = form["idempotency_key"] ?? "";
  return sent === "" ? "" : `${c.get("session").id} ${sent}`;
};

function registerRevoke(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  app.get("/cluster/tokens/:id/revoke", (c) => {
    const id = c.req.param("id");
    const token = ui.queries.cluster().tokens.find((one) => one.token_id === id);
    const state = token === undefined ? undefined : tokenState(token, ui.clock.now());
    return ask(ui, c, "cluster", {
      title: `Revoke join token ${id.slice(0, 8)}?`,
      effects: [
        "Nobody joins with it any more. Nodes that joined with it stay members.",
        ...(state === undefined
          ? []
          : [`Now: ${state.state.word.toLowerCase()}, expires ${state.left}.`]),
      ],
      action: `/ui/cluster/tokens/${encodeURIComponent(id)}/revoke`,
      verb: "Revoke token",
      kind: "danger",
      command: commandLines.revokeToken(id),
      back: "/ui/cluster",
      ...(token === undefined ? { blocked: "There is no such token (any more)." } : {}),
    });
  });
  app.post("/cluster/tokens/:id/revoke", (c) =>
    act(c, submissions, async (_form, context) => {
      await ui.commands.revokeJoinToken(c.req.param("id"), context);
      return withNotice("/ui/cluster", "token-revoked");
    }),
  );
}

/** Every template; the list comes in pages. */
function allTemplates(queries: Queries): TemplateInfo[] {
  const all: TemplateInfo[] = [];
  let next: string | undefined;
  do {
    const page = queries.listTemplates({
      limit: LISTED,
      ...(next === undefined ? {} : { next_token: next }),
    });
    all.push(...page.items);
    next = page.next_token;
  } while (next !== undefined);
  return all;
}

function registerRemove(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  const { queries, commands } = ui;
  app.get("/cluster/members/:id/remove", (c) => {
    const id = c.req.param("id");
    const view = queries.cluster();
    const cost = removalCost(id, view, allTemplates(queries), queries.swarms());
    return ask(ui, c, "cluster", {
      title: `Remove ${id} from the cluster?`,
      effects: removalEffects(id, view, cost),
      action: `/ui/cluster/members/${encodeURIComponent(id)}/remove`,
      verb: "Remove node",
      kind: "danger",
      command: commandLines.remove(id),
      back: "/ui/cluster",
      ...(cost.blocked === "" ? {} : { blocked: cost.blocked }),
    });
  });
  app.post("/cluster/members/:id/remove", (c) =>
    act(c, submissions, async (_form, context) => {
      await commands.removeNode(c.req.param("id"), context);
      return withNotice("/ui/cluster", "node-removed");
    }),
  );
}

function registerDrain(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  for (const drained of [true, false]) {
    const verb = drained ? "drain" : "undrain";
    app.get(`/nodes/:id/${verb}`, (c) => {
      const node = ui.queries.node(c.req.param("id"));
      return ask(ui, c, "cluster", {
        title: drained ? `Drain ${node.node_id}?` : `End the drain of ${node.node_id}?`,
        effects: drained
          ? [
              "It gives up what it leads, and gets no new template.",
              "What it holds stays: sandboxes go on and start there as before.",
            ]
          : ["It leads again, and gets the templates that it lacks."],
        action: `/ui/nodes/${node.node_id}/${verb}`,
        verb: drained ? "Drain node" : "End drain",
        kind: drained ? "danger" : "primary",
        command: commandLines.drain(node.node_id, drained),
        back: "/ui/cluster",
      });
    });
    app.post(`/nodes/:id/${verb}`, (c) =>
      act(c, submissions, async (_form, context) => {
        await ui.commands.drainNode(c.req.param("id"), drained, context);
        return withNotice("/ui/cluster", drained ? "node-drained" : "node-undrained");
      }),
    );
  }
}
