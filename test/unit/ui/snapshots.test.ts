/** Pages and forms of snapshots of running sandboxes. */
import { Hono } from "hono";
import { describe, expect, test, vi } from "vitest";
import { AppError, lineage } from "../../../src/domain/index.ts";
import { createUi } from "../../../src/ui/index.ts";
import { deletionPlan, readSnapshotQuery, treesOf } from "../../../src/ui/snapshot-models.ts";
import { realClock } from "../../../src/daemon/effects/clock.ts";
import { realRandom } from "../../../src/daemon/effects/random.ts";
import { aRef } from "../../support/fake-http-service.ts";
import { aSnapshot, fakeSnapshotQueries } from "../../support/fake-snapshots.ts";
import { openForm } from "../../support/ui-form.ts";
import {
  createUiApp,
  FAILED_SNAP,
  bundleFiles,
  openToAll,
  silentLog,
  SNAP,
  tplId,
} from "../../support/ui-site.ts";

const HTML = { headers: { accept: "text/html" } };
const pageOf = async (path: string) => {
  const { app } = createUiApp();
  return (await app.request(path, HTML)).text();
};
const rows = (markup: string) => markup.match(/id="snapshot-row-/g)?.length ?? 0;

describe("the list", () => {
  test.each([
    ["", 4],
    ["?name=BEFORE-upgrade", 1],
    [`?snapshot_id=${SNAP}`, 1],
    ["?sandbox_id=sb-4c1f", 3],
    ["?status=FAILED", 1],
    ["?sandbox_id=sb-4c1f&status=READY&limit=50", 2],
    ["?sandbox_id=nobody", 0],
  ])("with %j has %i rows", async (query, number) => {
    const markup = await pageOf(`/ui/snapshots${query}`);
    expect(rows(markup)).toBe(number);
    expect(markup).not.toContain("<b>bold</b>");
  });
  test("comes in pages that keep the filter", async () => {
    const { app, service } = createUiApp();
    const many = Array.from({ length: 25 }, (_, at) => aSnapshot(`snap-${at}`));
    const ui = createUi({
      queries: { ...service.queries, ...fakeSnapshotQueries(many) },
      commands: service.commands,
      signIns: openToAll,
      bundleFiles,
      version: "1",
      clock: realClock,
      random: realRandom,
      log: silentLog,
    });
    const first = await (await ui.request("/snapshots?status=READY", HTML)).text();
    expect(rows(first)).toBe(20);
    const next = /href="([^"]*next_token=20[^"]*)"/.exec(first)?.[1]?.replaceAll("&amp;", "&");
    expect(next).toContain("status=READY");
    const second = await (await ui.request((next ?? "").replace("/ui", ""), HTML)).text();
    expect(rows(second)).toBe(5);
    expect(second).not.toContain("Next page");
    expect((await app.request("/ui/snapshots?next_token=x", HTML)).status).toBe(400);
  });
  test("reads an address as anybody may write it", () => {
    const read = (query: Record<string, string>) => readSnapshotQuery((name) => query[name]);
    expect(read({ limit: "7", status: "nonsense", name: "  " })).toEqual({
      filter: { limit: 20 },
      isFiltered: false,
    });
    expect(read({ name: ` ${"x".repeat(300)}` }).filter.name).toHaveLength(256);
  });
});

describe("one snapshot", () => {
  test("shows where it is from, who uses it, and the tree that it is in", async () => {
    const markup = await pageOf(`/ui/snapshots/${SNAP}`);
    expect(markup).toMatch(new RegExp(`hx-get="/ui/snapshots/${SNAP}/refs"`));
    const tree = /<section class="lineage"[\s\S]*?<\/section>/.exec(markup)?.[0] ?? "";
    expect(tree).toContain(`href="/ui/templates/${tplId("a")}"`);
    expect(tree).toMatch(/<b aria-current="true">before-upgrade<\/b>[\s\S]*<ul>[\s\S]*too-large/);
    expect(tree.match(/<li>/g)).toHaveLength(4);
    const orphan = await pageOf("/ui/snapshots/snap-00000000000000000000000c");
    expect(orphan).toContain("tpl-gone, deleted");
    expect(await pageOf(`/ui/templates/${tplId("a")}`)).toContain(`id="lineage-${tplId("a")}"`);
  });
  test("says why it failed, and leads to the API when JSON is asked", async () => {
    expect(await pageOf(`/ui/snapshots/${FAILED_SNAP}`)).toContain("Failed: The disk is full.");
    const { app } = createUiApp();
    const answer = await app.request(`/ui/snapshots/${SNAP}`, {
      headers: { accept: "application/json" },
    });
    expect(answer.headers.get("location")).toBe(`/v1/snapshots/${SNAP}`);
    expect((await app.request("/ui/snapshots/none", HTML)).status).toBe(404);
  });
  test("trees put children under their parents, also under one that is gone", () => {
    const entries = lineage([
      aSnapshot("s1", { parent_id: "gone" }),
      aSnapshot("s2", { parent_id: "s1" }),
      aSnapshot("s3", { parent_id: "gone", created_at: "2026-02-01T00:00:00.000Z" }),
    ]);
    const [root] = treesOf(entries);
    expect(root?.entry.kind).toBe("gone");
    expect(root?.children.map(({ entry }) => entry.id)).toEqual(["s1", "s3"]);
    expect(root?.children[0]?.children[0]?.entry.id).toBe("s2");
  });
});

describe("the forms", () => {
  const done = async (path: string, fields: Record<string, string> = {}) => {
    const { app, service } = createUiApp();
    const opened = await openForm(app, path);
    expect(service.calls).toEqual([]);
    const [answer] = [await opened.send(fields), await opened.send(fields)];
    expect((await opened.send({ csrf_token: "0".repeat(32) })).status).toBe(403);
    const calls = service.calls.map(({ name, argument }) => [name, argument]);
    return { location: answer.headers.get("location"), calls };
  };
  test("take a snapshot of a sandbox, once", async () => {
    const found = await done("/ui/sandboxes/sb-4c1f/snapshot", { display_name: " v1 " });
    expect(found.calls).toEqual([["createSnapshot", { sandboxId: "sb-4c1f", display_name: "v1" }]]);
    expect(found.location).toBe("/ui/snapshots/snap-1?notice=snapshot-taken");
  });
  test("put the sandbox back to it", async () => {
    const found = await done(`/ui/snapshots/${SNAP}/rollback`);
    expect(found.calls).toEqual([["rollbackSandbox", { sandboxId: "sb-4c1f", snapshot_id: SNAP }]]);
    expect(found.location).toBe(`/ui/snapshots/${SNAP}?notice=sandbox-rolled-back`);
  });
  test("bring it to nodes that are ticked, or to all", async () => {
    const path = `/ui/snapshots/${SNAP}/deliver`;
    const page = await pageOf(path);
    expect(page).toMatch(/name="to-all"/);
    expect(page).toMatch(/name="to-node-node-a"/);
    const one = await done(path, { "to-node-node-a": "on" });
    expect(one.calls).toEqual([["deliverSnapshot", { id: SNAP, nodes: ["node-a"] }]]);
    expect(one.location).toBe(`/ui/snapshots/${SNAP}?notice=snapshot-delivered`);
    const all = await done(path, { "to-all": "on", "to-node-node-a": "on" });
    expect(all.calls).toEqual([["deliverSnapshot", { id: SNAP, nodes: "ALL" }]]);
    const { app, service } = createUiApp();
    const none = await (await openForm(app, path)).send();
    expect(none.status).toBe(400);
    expect(service.calls).toEqual([]);
    expect(await pageOf(`/ui/snapshots/${FAILED_SNAP}/deliver`)).toContain("failed, not ready");
  });
  test("delete it, and say first what hangs on it", async () => {
    const page = await pageOf(`/ui/snapshots/${SNAP}/delete`);
    expect(page).toContain("2 snapshots made after it stay");
    const found = await done(`/ui/snapshots/${SNAP}/delete`);
    expect(found.calls).toEqual([["deleteSnapshot", { id: SNAP }]]);
    expect(found.location).toBe("/ui/snapshots?notice=snapshot-deleted");
  });
  test("have no button for what cannot be done", async () => {
    const { app, service } = createUiApp();
    service.refs.push(aRef({ snapshot_id: SNAP, sandbox_id: "sb-9" }));
    const used = await (await app.request(`/ui/snapshots/${SNAP}/delete`, HTML)).text();
    expect(used).toContain("In use by 1 sandbox: sb-9.");
    expect(used).not.toContain('method="post"');
    const gone = await pageOf("/ui/snapshots/snap-00000000000000000000000c/rollback");
    expect(gone).toContain("Sandbox sb-gone does not run any more.");
    expect(await pageOf(`/ui/snapshots/${FAILED_SNAP}/rollback`)).toContain("failed, not ready");
  });
  test("name nodes that did not answer", () => {
    const { queries } = createUiApp().service;
    const refs = { items: [], count: 0, unanswered: [{ node_id: "n9", reason: "away" }] };
    expect(deletionPlan(queries.snapshot("snap-1"), refs, []).effects.at(-1)).toMatch(
      /^No answer from n9/,
    );
  });
  test("lead on when it takes long, and log how it ended", async () => {
    const { service } = createUiApp();
    let fail: (error: Error) => void = () => undefined;
    const warn = vi.fn();
    const ui = createUi({
      queries: service.queries,
      commands: {
        ...service.commands,
        createSnapshot: () => new Promise((_resolve, reject) => (fail = reject)),
      },
      signIns: openToAll,
      bundleFiles,
      version: "1",
      clock: { ...realClock, after: (_ms, run) => (queueMicrotask(run), { cancel: () => 0 }) },
      random: realRandom,
      log: { ...silentLog, warn },
    });
    const app = new Hono().route("/ui", ui);
    const opened = await openForm(app, "/ui/sandboxes/sb-4c1f/snapshot");
    const answer = await opened.send();
    expect(answer.headers.get("location")).toBe(
      "/ui/snapshots?sandbox_id=sb-4c1f&notice=snapshot-goes-on",
    );
    fail(new AppError("snapshot_failed", "the guest did not stop"));
    await vi.waitFor(() => expect(warn).toHaveBeenCalledOnce());
  });
});
