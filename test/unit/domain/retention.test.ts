import { describe, expect, it, test } from "vitest";
import {
  lineOf,
  planRetention,
  policyInForce,
  type RetentionPolicy,
  type RetentionSight,
  type TagRecord,
  type TemplateRecord,
} from "../../../src/domain/index.ts";
import { templateValue } from "../../support/storage.ts";

const DAY_MS = 24 * 60 * 60_000;
const day = (n: number) => new Date(Date.UTC(2026, 0, n)).toISOString();
const NOW = Date.UTC(2026, 0, 31);

/** Made on that day of January. */
const made = (n: number, change: Partial<TemplateRecord> = {}): TemplateRecord => ({
  ...templateValue(`tpl-${n}`),
  display_name: "web",
  created_at: day(n),
  updated_at: day(n),
  ...change,
});
const tag = (name: string, ...ids: string[]): TagRecord => ({
  name,
  template_id: ids.at(-1) ?? "",
  history: ids.map((id) => ({
    ...{ change_id: id, template_id: id, actor: "me", at: day(1), asked_at: day(1) },
  })),
  created_at: day(1),
  updated_at: day(1),
});
const plan = (
  policy: Partial<RetentionPolicy>,
  templates: readonly TemplateRecord[],
  sight: Partial<RetentionSight> = {},
) =>
  planRetention(
    { keep_last: 0, unused_ttl_ms: 0, ...policy },
    {
      templates,
      tags: [],
      use: () => ({ count: 0, lastUsedAt: "" }),
      hasActiveJob: () => false,
      now: NOW,
      ...sight,
    },
  );
const going = (items: ReturnType<typeof plan>) =>
  items.filter(({ kept_by }) => kept_by === "").map(({ template_id }) => template_id);

describe("keeping the last", () => {
  it("names what newer ones of the same line have superseded, the oldest first", () => {
    const templates = [made(3), made(1), made(4), made(2)];
    expect(going(plan({ keep_last: 2 }, templates))).toEqual(["tpl-1", "tpl-2"]);
    expect(going(plan({ keep_last: 4 }, templates))).toEqual([]);
    expect(going(plan({}, templates))).toEqual([]);
  });

  it("counts only those that can serve; what failed before them goes too", () => {
    const failed = { status: "FAILED" } as const;
    const templates = [made(1, failed), made(2), made(3, failed), made(4), made(5, failed)];
    expect(going(plan({ keep_last: 2 }, templates))).toEqual(["tpl-1"]);
    expect(going(plan({ keep_last: 1 }, templates))).toEqual(["tpl-1", "tpl-2", "tpl-3"]);
    expect(going(plan({ keep_last: 1 }, [made(1, failed), made(2, failed)]))).toEqual([]);
  });

  it("keeps names and images apart, and snapshots and what is under way out of it", () => {
    const image = (n: number, image_info: string) => made(n, { display_name: "", image_info });
    const templates = [
      image(1, "r.example:5000/web:1@sha256:aa"),
      image(2, "r.example:5000/web:2@sha256:bb"),
      image(3, "r.example:5000/other:1"),
      made(4, { display_name: "r" }),
      made(5, { display_name: "", image_info: "" }),
      made(6, { display_name: "", image_info: "" }),
      made(7, { kind: "snapshot" }),
      made(8),
      made(9, { status: "PENDING" }),
      made(10, { status: "DELETING" }),
    ];
    expect(going(plan({ keep_last: 1 }, templates))).toEqual(["tpl-1"]);
    expect(lineOf(templates[0]!)).toBe("r.example:5000/web");
    expect(lineOf({ image_info: "r.example:5000/web" })).toBe("r.example:5000/web");
  });
});

describe("what nobody uses", () => {
  it("goes when it was neither used nor changed for so long", () => {
    const templates = [made(1), made(2), made(3, { updated_at: day(29) })];
    const use = (id: string) => ({ count: 0, lastUsedAt: id === "tpl-2" ? day(28) : "" });
    const items = plan({ unused_ttl_ms: 5 * DAY_MS }, templates, { use });
    expect(items).toMatchObject([{ template_id: "tpl-1", reason: "unused", last_used_at: "" }]);
    expect(going(plan({ unused_ttl_ms: 1 * DAY_MS }, templates, { use }))).toEqual([
      "tpl-1",
      "tpl-2",
      "tpl-3",
    ]);
  });
});

describe("what stays all the same, and why", () => {
  const policy = { keep_last: 1 };
  test.each<[string, Partial<TemplateRecord>, Partial<RetentionSight>]>([
    ["protected", { protected: true }, {}],
    ["protected", { retain: true }, {}],
    ["tag prod", {}, { tags: [tag("prod", "tpl-1")] }],
    ["tag prod goes back to it", {}, { tags: [tag("prod", "tpl-1", "tpl-2")] }],
    ["in use by 2 sandboxes", {}, { use: () => ({ count: 2, lastUsedAt: "" }) }],
    ["a job works on it", {}, { hasActiveJob: (id) => id === "tpl-1" }],
    ["", {}, { tags: [tag("prod", "tpl-1", "tpl-2", "tpl-3")] }],
  ])("%s", (why, change, sight) => {
    const items = plan(policy, [made(1, change), made(9)], sight);
    expect(items.map(({ template_id, kept_by }) => [template_id, kept_by])).toEqual([
      ["tpl-1", why],
    ]);
  });
});

test("in force is what every node is configured with, the mildest of it", () => {
  const node = (keep_last: number, unused_ttl_ms: number) => ({
    retention: { keep_last, unused_ttl_ms },
  });
  expect(policyInForce([node(2, 10), node(5, 7)])).toEqual({ keep_last: 5, unused_ttl_ms: 10 });
  expect(policyInForce([node(2, 0), node(5, 7)])).toEqual({ keep_last: 5, unused_ttl_ms: 0 });
  expect(policyInForce([node(2, 10), {}])).toEqual({ keep_last: 0, unused_ttl_ms: 0 });
  expect(policyInForce([])).toEqual({ keep_last: 0, unused_ttl_ms: 0 });
});
