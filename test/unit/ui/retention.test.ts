/** Retention on the page: which rule holds, who holds it back, what goes and why. */
import { describe, expect, test } from "vitest";
import { policyInForce } from "../../../src/domain/index.ts";
import {
  duesText,
  fateText,
  nodeRules,
  readRetention,
  reasonText,
  retentionEffects,
  ruleText,
} from "../../../src/ui/retention-models.ts";
import { aRetentionReport } from "../../support/fake-http-service.ts";
import { openForm } from "../../support/ui-form.ts";
import { createUiApp } from "../../support/ui-site.ts";

const DAY = 86_400_000;
const HTML = { headers: { accept: "text/html" } };
const node = (node_id: string, keep_last = 0, unused_ttl_ms = 0) => ({
  node_id,
  ...(keep_last + unused_ttl_ms === 0 ? {} : { retention: { keep_last, unused_ttl_ms } }),
});

describe("the words", () => {
  test("say the rule", () => {
    expect(ruleText({ keep_last: 3, unused_ttl_ms: 30 * DAY })).toBe(
      "Of each line the newest 3 that can serve stay; what nobody has used for 30 days goes.",
    );
    expect(ruleText({ keep_last: 0, unused_ttl_ms: 5_400_000 })).toContain("1 h 30 min");
    expect(ruleText({ keep_last: 0, unused_ttl_ms: 0 })).toMatch(/^No rule is in force/);
  });

  test("name the node that holds a rule back, and one that is stricter for nothing", () => {
    const nodes = [node("b", 2), node("a", 3, 30 * DAY), node("c", 3, 30 * DAY)];
    const rules = nodeRules(nodes, policyInForce(nodes));
    expect(rules.map((one) => [one.nodeId, one.holdsBack])).toEqual([
      ["a", false],
      ["b", true],
      ["c", false],
    ]);
    expect(rules[1]?.note).toBe(
      "holds back retention_unused_ttl: it is not set here; " +
        "retention_keep_last is stricter here; the mildest of all nodes holds",
    );
    expect(rules[0]?.note).toBe("");
    expect(rules[1]).toMatchObject({ keepLast: "2", unusedTtl: "not set" });
    expect(nodeRules([node("a")], policyInForce([node("a")]))[0]?.holdsBack).toBe(false);
  });

  test("say of each template why it is named and what becomes of it", () => {
    const report = aRetentionReport();
    const [old, kept] = report.items;
    expect([reasonText(old!, 0), fateText(old!)]).toEqual(["newer ones of web serve", "goes"]);
    expect([reasonText(kept!, 0), fateText(kept!)]).toEqual(["never used", "stays: tag prod"]);
    expect(fateText({ ...old!, error: "in use" })).toBe("stays: in use");
    expect(duesText(report)).toBe("1 template goes at the next round; 1 more is named and stays.");
    expect(retentionEffects(report)[1]).toBe(
      "1 template goes: web tpl-old. This cannot be undone.",
    );
  });

  test("numbers of an address are numbers or nothing", () => {
    expect(readRetention({ keepLast: "2", unusedDays: "30" })).toEqual({
      keep_last: 2,
      unused_ttl_ms: 30 * DAY,
    });
    expect(readRetention({ keepLast: "-1", unusedDays: "x" })).toEqual({});
    expect(readRetention({ keepLast: "9999999", unusedDays: "" })).toEqual({ keep_last: 1_000 });
  });
});

describe("the page", () => {
  test("says the rule, who holds it back, where it is set, and what would go", async () => {
    const { app, service } = createUiApp();
    const page = await (await app.request("/ui/storage/retention", HTML)).text();
    expect(page).toContain("Of each line the newest 2 that can serve stay.");
    expect(page).toContain("holds back retention_unused_ttl");
    expect(page).toContain("/etc/templatecenter/config.toml");
    expect(page).toContain("tpl-old");
    expect(page).toContain("stays: tag prod");
    expect(service.calls.map(({ argument }) => argument)).toEqual([{ dryRun: true, policy: {} }]);
  });

  test("deletes once it is confirmed, by the numbers that were tried", async () => {
    const { app, service } = createUiApp();
    const form = await openForm(app, "/ui/storage/retention/apply?keep_last=2&unused_days=30");
    expect(form.markup).toContain("retention --keep-last 2 --unused-ttl 720h");
    const policy = { keep_last: 2, unused_ttl_ms: 30 * DAY };
    expect((await form.send({ csrf_token: "0".repeat(32) })).status).toBe(403);
    const answer = await form.send();
    expect(answer.headers.get("location")).toBe(
      "/ui/storage/retention?notice=retention-partly-applied",
    );
    expect(service.calls.map(({ argument }) => argument)).toEqual([
      { dryRun: true, policy },
      { dryRun: false, policy },
    ]);
  });
});
