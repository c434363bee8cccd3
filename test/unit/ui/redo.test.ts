/** Redo from the page: the choice, what is said before, and what is asked for. */
import { describe, expect, test } from "vitest";
import { AppError } from "../../../src/domain/index.ts";
import {
  nodeChoices,
  readRedo,
  redoEffects,
  redoRequest,
  shortList,
  tryPreview,
} from "../../../src/ui/redo-models.ts";
import { commandLines } from "../../../src/ui/command-lines.ts";
import { aNode } from "../../support/fake-http-service.ts";
import { openForm } from "../../support/ui-form.ts";
import { createUiApp, tplId } from "../../support/ui-site.ts";

const HTML = { headers: { accept: "text/html" } };
const form = (mode: string, nodes: string[] = [], memoryOnly = false) =>
  readRedo({ mode, nodes, memoryOnly });

describe("the words", () => {
  test("nodes count only for the modes that have them, and unknown modes are ALL", () => {
    expect(form("ALL", ["a"]).nodes).toEqual([]);
    expect(form("FAILED_ONLY", ["a"]).nodes).toEqual([]);
    expect(form("FAILED_NODES", ["b", "a", "b", ""]).nodes).toEqual(["a", "b"]);
    expect(form("nonsense").mode).toBe("ALL");
    expect(redoRequest(form("NODES", ["a"], true))).toEqual({
      redo_mode: "NODES",
      distribution_scope: ["a"],
      memory_only: true,
    });
  });
  test("say where it works, from which phase on, and what serves meanwhile", () => {
    const preview = { mode: "ALL", nodes: ["a", "b"], resume_phase: "SNAPSHOTTING" } as const;
    const said = redoEffects(form("ALL"), preview);
    expect(said[0]).toBe("2 nodes make their replicas anew: a, b.");
    expect(said[1]).toContain("stays as it is");
    expect(said[2]).toContain("serves until the new one is ready");
    expect(said[3]).toContain("pulled and built again");
    const memory = redoEffects(form("NODES", ["a"], true), { ...preview, nodes: ["a"] });
    expect(memory[0]).toBe("1 node makes its replica anew: a.");
    expect(memory[3]).toContain("builds nothing");
    const pulled = redoEffects(form("ALL"), { ...preview, resume_phase: "BUILDING_EXT4" });
    expect(pulled[1]).toContain("built again first");
  });
  test("a refusal is a sentence, a failure of the node is thrown", () => {
    const refuse = (error: Error) =>
      tryPreview(() => {
        throw error;
      });
    expect(refuse(new AppError("no_failed_template_replicas"))).toMatch(/^No node has/);
    expect(refuse(new AppError("redo_not_allowed", "not before it was pulled"))).toBe(
      "Not before it was pulled.",
    );
    expect(() => refuse(new AppError("catalog_corrupt", "broken"))).toThrow("broken");
  });
  test("long lists of nodes are cut, and nodes that make nothing cannot be ticked", () => {
    const names = Array.from({ length: 15 }, (_, index) => `n${index}`);
    expect(shortList(names)).toMatch(/n11 and 3 more$/);
    const nodes = [aNode({ node_id: "b", drained: true }), aNode({ node_id: "a" })];
    const choices = nodeChoices(nodes, ["a", "b"]);
    expect(choices.map(({ nodeId, isOpen }) => [nodeId, isOpen])).toEqual([
      ["a", true],
      ["b", false],
    ]);
  });
  test("the command asks for the same", () => {
    expect(commandLines.redo("tpl-1", form("FAILED_NODES", ["a", "b"], true))).toBe(
      "templatecenter tpl redo tpl-1 --node a --node b --failed-only --memory-only",
    );
    expect(commandLines.redo("tpl-1", form("ALL"))).toBe("templatecenter tpl redo tpl-1");
  });
});

describe("the forms", () => {
  const base = `/ui/templates/${tplId("c")}`;
  const confirm = (query: string) => `${base}/redo/confirm?${query}`;
  test.each([
    ["redo_mode=ALL", { redo_mode: "ALL" }],
    ["redo_mode=ALL&node=node-a", { redo_mode: "ALL" }],
    [
      "redo_mode=NODES&node=node-a&node=node-b.example.org",
      { redo_mode: "NODES", distribution_scope: ["node-a", "node-b.example.org"] },
    ],
    ["redo_mode=FAILED_ONLY&memory_only=on", { redo_mode: "FAILED_ONLY", memory_only: true }],
    [
      "redo_mode=FAILED_NODES&node=node-b.example.org",
      { redo_mode: "FAILED_NODES", distribution_scope: ["node-b.example.org"] },
    ],
  ])("%s asks for it once it is confirmed", async (query, asked) => {
    const { app, service } = createUiApp();
    const opened = await openForm(app, confirm(query));
    expect(service.calls).toEqual([]);
    const [first, second] = [await opened.send(), await opened.send()];
    expect(first.headers.get("location")).toMatch(/^\/ui\/jobs\/job-\d\?notice=redo-submitted$/);
    expect(second.headers.get("location")).toBe(first.headers.get("location"));
    expect(service.calls.map(({ name, argument }) => [name, argument])).toEqual([
      ["redoTemplate", { id: tplId("c"), ...asked }],
    ]);
  });
  test("credentials go with the confirmation and are never shown again", async () => {
    const { app, service } = createUiApp();
    const opened = await openForm(app, confirm("redo_mode=ALL"));
    service.failWith = new AppError("redo_not_allowed", "no");
    const fields = { registry_username: " bot ", registry_password: "hunter2" };
    const answer = await opened.send(fields);
    expect(answer.status).toBe(409);
    expect(await answer.text()).not.toContain("hunter2");
    expect(service.calls[0]?.argument).toMatchObject({
      registry_username: "bot",
      registry_password: "hunter2",
    });
  });
  test("a forged form does nothing", async () => {
    const { app, service } = createUiApp();
    const opened = await openForm(app, confirm("redo_mode=ALL"));
    expect((await opened.send({ csrf_token: "0".repeat(32) })).status).toBe(403);
    expect((await opened.send({}, { origin: "http://evil.example" })).status).toBe(403);
    expect(service.calls).toEqual([]);
  });
  test("what cannot be done has no button, and says why", async () => {
    const { app } = createUiApp();
    const none = await app.request(
      `/ui/templates/${tplId("a")}/redo/confirm?redo_mode=FAILED_ONLY`,
      HTML,
    );
    expect(await none.text()).toContain("No node has a replica that failed.");
    await expect(openForm(app, confirm("redo_mode=NODES"))).rejects.toThrow("no form");
    const page = await (await app.request(`/ui/templates/${tplId("a")}/redo`, HTML)).text();
    expect(page).toMatch(/value="FAILED_ONLY"\s+disabled/);
  });
});
