/** The answers of `why` and of who uses something, as the page tells them. */
import type { Hono } from "hono";
import { expect, test } from "vitest";
import { AppError } from "../../../src/domain/index.ts";
import { createUi } from "../../../src/ui/index.ts";
import { nodeWhy, notReady } from "../../../src/ui/view-models.ts";
import { realClock } from "../../../src/daemon/effects/clock.ts";
import { realRandom } from "../../../src/daemon/effects/random.ts";
import { aTemplate, aTemplateWhy } from "../../support/fake-http-service.ts";
import { createUiApp, bundleFiles, openToAll, silentLog, tplId } from "../../support/ui-site.ts";

const HTML = { headers: { accept: "text/html" } };
/** The text of a page, without its tags. */
async function textOf(app: Pick<Hono, "request">, path: string): Promise<string> {
  const answer = await app.request(path, HTML);
  const main = /<main[\s\S]*<\/main>/.exec(await answer.text())?.[0] ?? "";
  return main.replace(/<[^>]+>/g, " ").replace(/\s+/g, " ");
}

test("an artifact says who refers to it and on which nodes it lies", async () => {
  const { app } = createUiApp();
  const text = await textOf(app, "/ui/artifacts/rfs-1/why");
  expect(text).toContain("It is still here: used: 1 reference.");
  expect(text).toMatch(/template tpl-1 Ready made from it/);
  expect(text).toMatch(/node-a complete, 1000 B tpl-1 1: sb-1/);
  const page = await (await app.request("/ui/artifacts/rfs-1", HTML)).text();
  expect(page).toMatch(/id="why-rfs-1"\s+hx-get="\/ui\/artifacts\/rfs-1\/why"/);
  expect((await app.request("/ui/artifacts/none", HTML)).status).toBe(404);
});

test("a template says on which nodes it is not ready, why, and what holds it", async () => {
  const { app } = createUiApp();
  const text = await textOf(app, `/ui/templates/${tplId("c")}/why`);
  expect(text).toContain("It is not ready on 1 of 1 node.");
  expect(text).toMatch(/node-b the node is drained .*compat Missing healthy, 9 B free not here/);
  expect(text).toContain("In the way of its deletion: sandbox sb-1 on node-a.");
  const one = await textOf(app, `/ui/templates/${tplId("c")}/why?node=node-b`);
  expect(one).toContain("Why is it not ready on node-b?");
  expect(one).toContain("The node is drained.");
  const none = await app.request(`/ui/templates/${tplId("c")}/why?node=node-z`, HTML);
  expect(none.status).toBe(404);
});

test("who uses a template: how many, which, where, in what state and generation", async () => {
  const { app } = createUiApp();
  const text = await textOf(app, `/ui/templates/${tplId("a")}/refs`);
  expect(text).toContain("1 sandbox runs on it.");
  expect(text).toMatch(/sb-4c1f node-a Active memory_backing, told by this daemon 3 1 min ago/);
  expect(await textOf(app, `/ui/templates/${tplId("c")}/refs`)).toContain("No sandbox runs on it.");
});

test("nodes that do not answer are named, a refusal stands where the answer would", async () => {
  const { service } = createUiApp();
  const refs = service.refs.slice(0, 1);
  const queries = {
    ...service.queries,
    runtimeRefs: async () => ({
      items: refs,
      count: 6_000,
      unanswered: [{ node_id: "node-x", reason: "no answer within 5 s" }],
    }),
    whyTemplate: async () => {
      throw new AppError("template_not_found", "template x is still being made by its job");
    },
  };
  const app = createUi({
    queries,
    commands: service.commands,
    signIns: openToAll,
    bundleFiles,
    version: "1",
    clock: realClock,
    random: realRandom,
    log: silentLog,
  });
  const text = await textOf(app, `/templates/${tplId("a")}/refs`);
  expect(text).toContain("6000 sandboxes run on it; the first 1 are shown.");
  expect(text).toContain(
    "No answer from node-x: no answer within 5 s. What it holds counts as held.",
  );
  const refused = await app.request(`/templates/${tplId("a")}/why`, HTML);
  expect(refused.status).toBe(200);
  expect(await refused.text()).toContain("Template x is still being made by its job.");
});

test("the words of one node begin with the reason", () => {
  const why = aTemplateWhy(aTemplate());
  const [node] = why.nodes;
  expect(nodeWhy(node!)[0]).toBe("The node is drained.");
  expect(nodeWhy({ ...node!, ready: true, why: "" })[0]).toBe("Sandboxes can be started there.");
  expect(nodeWhy({ ...node!, error_message: "no disk." })[1]).toBe("Last error: no disk.");
  expect(notReady({ ...why, nodes: [{ ...node!, ready: true }] })).toBe(
    "It is ready on all of 1 node.",
  );
});
