/** Tags, names and labels over a catalog in memory, as the commands and queries have them. */
import { randomUUID } from "node:crypto";
import { beforeEach, describe, expect, it } from "vitest";
import { createQueries, type QueryParts } from "../../../src/daemon/queries.ts";
import type { Records } from "../../../src/daemon/records.ts";
import {
  claimTemplateName,
  createTags,
  dropForgottenTags,
  type TagCommands,
} from "../../../src/daemon/tags.ts";
import type { JobRecord, Queries, TagRecord, TemplateRecord } from "../../../src/domain/index.ts";
import { openCatalog } from "../../../src/storage/index.ts";
import { memoryRecords } from "../../support/records.ts";
import {
  manualClock,
  memoryDatabase,
  realClock,
  recordedLog,
  templateValue,
} from "../../support/storage.ts";

const me = { requestId: "r1", actor: "me" };
let records: Records;
let queries: Queries;
let tags: TagCommands;
/** Comes in between: called ahead of each change of a record. */
let between: (kind: string) => Promise<void> | void;

beforeEach(async () => {
  between = () => undefined;
  const catalog = await openCatalog({
    dir: "unused",
    log: recordedLog(),
    clock: realClock,
    openDatabase: async () => memoryDatabase(),
  });
  records = memoryRecords(catalog, (kind) => between(kind));
  const random = { uuid: randomUUID, bytes: (length: number) => new Uint8Array(length) };
  queries = createQueries({
    catalog,
    records,
    random,
    isolateGuests: true,
    nodes: { self: "a", onChange: () => () => undefined },
  } as unknown as QueryParts);
  tags = createTags({ records, queries, random, clock: manualClock() });
  for (const id of ["tpl-1", "tpl-2", "tpl-3"]) await put(id);
});

const put = (id: string, change: Partial<TemplateRecord> = {}) =>
  records.update("template", id, () => ({ ...templateValue(id), ...change }));
const remove = async (id: string) => {
  await records.update("template", id, () => null);
  await dropForgottenTags(records);
};
const promote = (template_id: string, expected?: string | null) =>
  tags.promoteTag(
    "web",
    { template_id, ...(expected === undefined ? {} : { expected_template_id: expected }) },
    me,
  );
const named = (id: string) => queries.template(id).display_name;

describe("a tag", () => {
  it("stands for its template wherever an id does", async () => {
    await promote("tpl-1");
    expect(queries.template("web").template_id).toBe("tpl-1");
    expect(queries.templateRequest("web")).toMatchObject({ template_id: "tpl-1" });
    const before = queries.resolveRevision();
    await promote("tpl-2");
    expect(queries.template("web").template_id).toBe("tpl-2");
    // What is kept of an earlier resolve is not used.
    expect(queries.resolveRevision()).toBeGreaterThan(before);
  });

  it("of two promotes from the same place, one wins by compare-and-set", async () => {
    await promote("tpl-1", null);
    const both = await Promise.allSettled([promote("tpl-2", "tpl-1"), promote("tpl-3", "tpl-1")]);
    const won = both.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    expect(won).toHaveLength(1);
    expect(both.find((one) => one.status === "rejected")).toMatchObject({
      reason: { code: "tag_moved" },
    });
    expect(queries.tag("web").template_id).toBe(won[0]?.template_id);
  });

  it("may be named by another tag, also where it is expected", async () => {
    await promote("tpl-1");
    await tags.promoteTag("prod", { template_id: "web" }, me);
    expect(queries.tag("prod").template_id).toBe("tpl-1");
    await promote("tpl-2", "prod");
    expect(queries.tag("web").template_id).toBe("tpl-2");
  });

  it("moves to nothing that cannot serve", async () => {
    await put("tpl-2", { status: "FAILED" });
    await expect(promote("tpl-2")).rejects.toMatchObject({ code: "template_has_no_ready_replica" });
    await expect(promote("tpl-9")).rejects.toMatchObject({ code: "template_not_found" });
    // Deleted by somebody else while it is asked for.
    between = async () => {
      between = () => undefined;
      await put("tpl-3", { status: "DELETING" });
    };
    await expect(promote("tpl-3")).rejects.toMatchObject({ code: "template_has_no_ready_replica" });
    await expect(tags.promoteTag("Not Good", { template_id: "tpl-1" }, me)).rejects.toMatchObject({
      code: "invalid_request",
    });
    expect(queries.listTags().items).toEqual([]);
  });

  it("goes back by one step, not to what is gone", async () => {
    await promote("tpl-1");
    await promote("tpl-2");
    expect((await tags.rollbackTag("web", {}, me)).template_id).toBe("tpl-1");
    await promote("tpl-3");
    await remove("tpl-1");
    await expect(tags.rollbackTag("web", {}, me)).rejects.toMatchObject({
      code: "template_not_found",
    });
    expect(queries.tag("web").template_id).toBe("tpl-3");
  });

  it("whose template is gone says so, goes back, and goes with the last one", async () => {
    await promote("tpl-1");
    await promote("tpl-2");
    await remove("tpl-2");
    expect(() => queries.template("web")).toThrow("tag web points at tpl-2, which is gone");
    await tags.rollbackTag("web", {}, me);
    expect(queries.template("web").template_id).toBe("tpl-1");
    await remove("tpl-1");
    expect(() => queries.tag("web")).toThrow(expect.objectContaining({ code: "tag_not_found" }));
  });

  it("goes with the last template that it has pointed at, wherever it points", async () => {
    await promote("tpl-1");
    await promote("tpl-2");
    await remove("tpl-2");
    await remove("tpl-1");
    expect(() => queries.tag("web")).toThrow(expect.objectContaining({ code: "tag_not_found" }));
  });

  it("stays while a majority has a template of it that is not heard of here", async () => {
    await promote("tpl-1");
    await promote("tpl-2");
    await records.update("template", "tpl-1", () => null);
    const behind: Records = {
      ...records,
      list: (kind) => records.list(kind),
      update: (kind, id, change) => records.update(kind, id, change),
      get: (kind, id) => (id === "tpl-2" ? undefined : records.get(kind, id)),
    };
    await dropForgottenTags(behind);
    expect(queries.tag("web").template_id).toBe("tpl-2");
  });

  it("is taken away, and its template stays", async () => {
    await promote("tpl-1");
    await tags.deleteTag("web", me);
    expect(queries.template("tpl-1").status).toBe("READY");
    expect(() => queries.template("web")).toThrow(
      expect.objectContaining({ code: "template_not_found" }),
    );
    await expect(tags.deleteTag("web", me)).rejects.toMatchObject({ code: "tag_not_found" });
  });

  it("is listed by name, in pages", async () => {
    for (const name of ["c", "a", "b"]) await tags.promoteTag(name, { template_id: "tpl-1" }, me);
    const first = queries.listTags({ limit: 2 });
    expect(first.items.map(({ name }) => name)).toEqual(["a", "b"]);
    const rest = queries.listTags({ limit: 2, next_token: first.next_token ?? "" });
    expect(rest).toMatchObject({ items: [{ name: "c" }] });
    expect(rest.next_token).toBeUndefined();
  });
});

describe("a display name", () => {
  /** What a job does as its template becomes READY. */
  const built = async (id: string, created_at: string, operation = "CREATE") => {
    const template = await put(id, { display_name: "web", status: "PENDING" });
    const job = { job_id: `job-${id}`, operation, created_at } as JobRecord;
    const warning = template && (await claimTemplateName(records, job, template, created_at));
    await put(id, { display_name: "web" });
    return warning;
  };

  it("moves to the build that was asked for last, and can go back", async () => {
    expect(await built("tpl-1", "2026-01-01T00:01:00Z")).toBe("");
    expect(await built("tpl-3", "2026-01-01T00:03:00Z")).toBe("");
    expect(await built("tpl-2", "2026-01-01T00:02:00Z")).toBe("the name web stays with tpl-3");
    expect(queries.template("web").template_id).toBe("tpl-3");
    expect([named("tpl-1"), named("tpl-2"), named("tpl-3")]).toEqual(["", "", "web"]);
    await tags.rollbackTag("web", {}, me);
    expect([named("tpl-1"), named("tpl-3")]).toEqual(["web", ""]);
    // A redo of either leaves it there.
    await built("tpl-3", "2027-01-01T00:00:00Z", "REDO");
    expect(queries.template("web").template_id).toBe("tpl-1");
  });

  it("is free for others when its template is gone", async () => {
    await built("tpl-1", "2026-01-01T00:01:00Z");
    await remove("tpl-1");
    expect((await tags.renameTemplate("tpl-2", "web", me)).display_name).toBe("web");
  });

  it("that another template has is refused", async () => {
    await built("tpl-1", "2026-01-01T00:01:00Z");
    await expect(tags.renameTemplate("tpl-2", "web", me)).rejects.toMatchObject({
      code: "name_taken",
      meta: { template_id: "tpl-1" },
    });
    // Of a catalog from before names were records.
    await put("tpl-3", { display_name: "old" });
    expect(queries.template("old").template_id).toBe("tpl-3");
    await expect(tags.renameTemplate("tpl-2", "old", me)).rejects.toMatchObject({
      code: "name_taken",
    });
  });

  it("of two that take it at once is of one", async () => {
    const both = await Promise.allSettled([
      tags.renameTemplate("tpl-1", "web", me),
      tags.renameTemplate("tpl-2", "web", me),
    ]);
    expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    expect([named("tpl-1"), named("tpl-2")].sort()).toEqual(["", "web"]);
  });

  it("changes, goes, and does not come back to an older build", async () => {
    await built("tpl-1", "2026-01-01T00:01:00Z");
    await built("tpl-2", "2026-01-01T00:02:00Z");
    await tags.renameTemplate("web", "www", me);
    expect(queries.template("www").template_id).toBe("tpl-2");
    expect(() => queries.template("web")).toThrow("not found");
    expect(named("tpl-1")).toBe("");
    expect((await tags.renameTemplate("www", "", me)).display_name).toBe("");
    expect(queries.listTags().items).toEqual<TagRecord[]>([]);
    await expect(tags.renameTemplate("tpl-1", "No", me)).rejects.toMatchObject({
      code: "invalid_request",
    });
  });

  it("of a snapshot is only a text", async () => {
    await put("snap-1", { kind: "snapshot", display_name: "web" });
    await put("snap-2", { kind: "snapshot", display_name: "web" });
    expect([named("snap-1"), named("snap-2")]).toEqual(["web", "web"]);
    expect(() => queries.template("web")).toThrow("not found");
    await built("tpl-1", "2026-01-01T00:01:00Z");
    expect(named("snap-1")).toBe("web");
  });
});

it("a template or snapshot is protected, and not while it is being deleted", async () => {
  await put("snap-1", { kind: "snapshot" });
  for (const id of ["tpl-1", "snap-1"]) {
    expect((await tags.protectTemplate(id, true, me)).protected).toBe(true);
    expect((await tags.protectTemplate(id, false, me)).protected).toBe(false);
  }
  await put("tpl-1", { status: "DELETING" });
  await expect(tags.protectTemplate("tpl-1", true, me)).rejects.toMatchObject({
    code: "template_attempt_in_progress",
  });
});

it("a render has the request, what the template adds, and what a guest would run", async () => {
  await put("tpl-1", {
    request: {
      template_id: "tpl-1",
      labels: { team: "a" },
      annotations: { "com.exposed_ports": "80:81" },
      cube_network_config: { allow_internet_access: true },
      containers: [{ command: ["/serve"], args: ["-v"], resources: { cpu: "500m", mem: "1Gi" } }],
    },
  });
  const labels = { mine: "b" };
  const rendered = queries.renderRequest("tpl-1", { labels });
  const { api_request, merged_request, host_request } = rendered;
  expect(api_request).toEqual({ labels, request_id: merged_request.request_id });
  expect(merged_request).toMatchObject({
    template_id: "tpl-1",
    labels: { team: "a", mine: "b" },
    containers: [{ command: ["/serve"] }],
  });
  expect(host_request).toEqual({
    command: ["/serve"],
    args: ["-v"],
    env: [],
    working_dir: "/",
    cpu_millis: 500,
    memory_mib: 1_024,
    exposed_ports: [80, 81],
    // As the node says, whatever is asked for.
    isolated: true,
  });
  expect(() => queries.renderRequest("none", {})).toThrow("not found");
});

it("a rename of a snapshot takes no name from anybody", async () => {
  await put("snap-1", { kind: "snapshot" });
  await promote("tpl-1");
  expect((await tags.renameTemplate("snap-1", "web", me)).display_name).toBe("web");
  expect(queries.template("web").template_id).toBe("tpl-1");
});

it("labels are set, replaced and taken away, not while it is being deleted", async () => {
  await put("tpl-1", { labels: { team: "a", old: "x" } });
  const set = { labels: { query: "a=1&b=2", old: null } };
  expect((await tags.labelTemplate("tpl-1", set, me)).labels).toEqual({
    team: "a",
    query: "a=1&b=2",
  });
  const ids = (label: string) =>
    queries.listTemplates({ label }).items.map(({ template_id }) => template_id);
  expect(ids("query=a=1&b=2")).toEqual(["tpl-1"]);
  expect(ids("query=a")).toEqual([]);
  const only = { labels: { team: "b" }, replace: true };
  expect((await tags.labelTemplate("tpl-1", only, me)).labels).toEqual({ team: "b" });
  await put("tpl-1", { status: "DELETING" });
  await expect(tags.labelTemplate("tpl-1", only, me)).rejects.toMatchObject({
    code: "template_attempt_in_progress",
  });
});
