/** The compat pages: what a cell says, what a form does and what it refuses. */
import { describe, expect, test } from "vitest";
import {
  MEANINGS,
  adoptPlan,
  cellReason,
  compatSentence,
  previewNotes,
  previewSentence,
  resnapshotPlan,
  resnapshotSentence,
} from "../../../src/ui/compat-models.ts";
import { heatMap } from "../../../src/ui/fragments/heat-map.ts";
import { COMPAT_STATUSES, getCompatMatrix } from "../../../src/domain/index.ts";
import { compatQueries, manyReplicas } from "../../support/compat-input.ts";
import { createUiApp, tplId } from "../../support/ui-site.ts";

const IDS = ["web", "fine", "legacy", "partial", "box"];
const queries = compatQueries(IDS);
const row = (id: string) => queries.compat({ template_id: id }).templates[0];
const cellOf = (id: string, node: string) => row(id)!.nodes.find((one) => one.node_id === node)!;
const NOBODY: ReadonlySet<string> = new Set();
const HTML = { headers: { accept: "text/html" } };

describe("words", () => {
  test("say why a cell is what it is", () => {
    expect(cellReason(cellOf("web", "node-a"))).toBe("");
    expect(cellReason(cellOf("web", "node-b"))).toBe("guest image 0.9.0 → 1.0.0");
    expect(cellReason(cellOf("web", "node-d"))).toBe("the node is down");
    expect(cellReason(cellOf("legacy", "node-b"))).toBe("guest image ? → 1.0.0, agent ? → 1.0.0");
    expect(cellReason(cellOf("partial", "node-b"))).toBe("no ready replica");
  });

  test("say how it is as a whole", () => {
    expect(compatSentence(queries.compat().summary)).toBe(
      "3 templates have stale replicas: 3 on 2 nodes. Nothing starts from them.",
    );
    const calm = { stale_templates: 0, stale_replicas: 0, affected_nodes: 0 };
    expect(compatSentence({ ...calm, missing_replicas: 1, unknown_replicas: 0 })).toContain(
      "No replica is stale",
    );
    expect(Object.keys(MEANINGS)).toEqual([...COMPAT_STATUSES]);
  });

  test("say what an upgrade would do", () => {
    const breaking = queries.compatPreview({ guestImage: "2.0.0" });
    expect(previewSentence(breaking)).toBe(
      "3 templates would have stale replicas: 8 on 4 nodes. 3 could start nowhere until they are made again.",
    );
    expect(previewNotes(breaking)).toEqual([
      "Stale now already: 3 replicas.",
      "Of 2 replicas nobody can tell.",
    ]);
    const kernel = queries.compatPreview({ kernel: "7.0" });
    expect(previewSentence(kernel)).toBe("Nothing would become stale.");
    expect(previewNotes(kernel).at(-1)).toMatch(/^A kernel alone breaks nothing: .*\.$/);
    expect(previewNotes(queries.compatPreview({ guestImage: "0.9.0" }))).toContain(
      "Would fit again: 3 stale replicas.",
    );
  });

  test("say where making again is", () => {
    const counts = { pending: 2, done: 0, failed: 0 };
    const next = { template_id: "t", node_id: "n", not_before: "" };
    expect(resnapshotSentence({ state: "off", ...counts })).toContain("resnapshot_interval");
    expect(resnapshotSentence({ state: "idle", ...counts })).toContain("one at a time");
    expect(resnapshotSentence({ state: "waiting", ...counts })).toContain("other jobs");
    expect(resnapshotSentence({ state: "waiting", next, ...counts })).toBe(
      "2 stale replicas to be made again, one at a time.",
    );
    expect(resnapshotSentence({ state: "running", ...counts })).toContain("2 stale replicas");
    expect(resnapshotSentence({ state: "stopped", ...counts })).toContain("first failure");
  });
});

describe("plans", () => {
  test("adopt is for what is unknown on healthy nodes", () => {
    expect(adoptPlan(row("legacy"))).toMatchObject({ nodes: ["node-b", "node-c"] });
    expect(adoptPlan(row("legacy")).effects).toContain("What is stale stays stale: 1 replica.");
    expect(adoptPlan(row("web")).blocked).toBeDefined();
  });

  test("making again is for what is stale where work is taken, and not for a sandbox's memory", () => {
    expect(resnapshotPlan(row("web"), NOBODY)).toMatchObject({ nodes: ["node-b"] });
    expect(resnapshotPlan(row("web"), new Set(["node-b"])).blocked).toBeDefined();
    expect(resnapshotPlan(row("fine"), NOBODY).blocked).toBeDefined();
    expect(resnapshotPlan(row("box"), NOBODY).blocked).toContain("memory of one sandbox");
    const committed = { ...row("web")!, origin_sandbox_id: "sb-1" };
    expect(resnapshotPlan(committed, NOBODY).effects.join()).toContain("start anew");
  });
});

describe("the matrix", () => {
  const markup = async (path: string, kind: "full" | "two" = "full") =>
    (await createUiApp(kind).app.request(path, HTML)).text();

  test("has a word in every cell, and a link to the reason where not all is well", async () => {
    const page = await markup("/ui/compat");
    expect(page).toContain(`href="/ui/compat/${tplId("a")}#node-node-b"`);
    expect(page).toContain('title="guest image 0.9.0 → 1.0.0"');
    expect(page).toContain("down</span>");
    const cells = [...page.matchAll(/<td[^>]*>([\s\S]*?)<\/td>/g)].map(([, inner = ""]) =>
      inner.replace(/<[^>]*>/g, "").trim(),
    );
    expect(cells.length).toBeGreaterThan(20);
    const words = ["OK", "Stale", "Unknown", "Missing", "not wanted here"];
    expect(cells.filter((text) => !words.includes(text))).toEqual([]);
    expect((await markup("/ui/compat?status=MISSING")).match(/<tr>/g)).toHaveLength(2);
  });

  test("of many nodes has letters with the words as names, and stays light", async () => {
    const page = await markup("/ui/compat", "two");
    expect(page).toContain('aria-label="Stale"');
    expect(page).toMatch(/<\/svg>S<\/a>/);
    const { templates } = getCompatMatrix(manyReplicas(50, 30));
    expect(String(await heatMap(templates)).length).toBeLessThanOrEqual(250 * 1024);
  });

  test("is the API's where JSON is asked", async () => {
    const ask = (path: string) =>
      createUiApp().app.request(path, { headers: { accept: "application/json" } });
    const at = async (path: string) => (await ask(path)).headers.get("location");
    expect(await at("/ui/compat?status=STALE")).toBe("/v1/compat?status=STALE");
    expect(await at(`/ui/compat/${tplId("a")}`)).toBe(`/v1/compat?template_id=${tplId("a")}`);
    expect(await at("/ui/compat/preview?kernel=7")).toBe("/v1/compat/preview?kernel=7");
  });
});

describe("forms", () => {
  async function send(path: string, change: Record<string, string> = {}) {
    const { app, service } = createUiApp();
    const page = await app.request(path, HTML);
    const cookie = page.headers.get("set-cookie")?.split(";")[0] ?? "";
    const text = await page.text();
    const value = (name: string) =>
      new RegExp(`name="${name}"\\s+value="([^"]+)"`).exec(text)?.[1] ?? "";
    const answer = await app.request(path, {
      method: "POST",
      headers: {
        "content-type": "application/x-www-form-urlencoded",
        origin: "http://localhost",
        cookie,
      },
      body: new URLSearchParams({
        csrf_token: value("csrf_token"),
        idempotency_key: value("idempotency_key"),
        ...change,
      }).toString(),
    });
    const calls = service.calls.map(({ name, argument }) => [name, argument]);
    return { answer, calls, to: answer.headers.get("location") };
  }

  test("scan, adopt, make again and go on, each once it is confirmed", async () => {
    const scan = await send("/ui/compat/rescan");
    expect(scan.calls).toEqual([["rescanCompat", { node_ids: [], all_nodes: true }]]);
    expect(scan.to).toBe("/ui/compat?notice=compat-scanned");
    const legacy = tplId("c");
    const adopted = await send(`/ui/compat/${legacy}/adopt`);
    expect(adopted.calls).toEqual([["adoptCompatBaseline", legacy]]);
    expect(adopted.to).toBe(`/ui/compat/${legacy}?notice=baseline-adopted`);
    const web = tplId("a");
    const redo = await send(`/ui/compat/${web}/resnapshot`);
    expect(redo.calls).toMatchObject([
      ["redoTemplate", { redo_mode: "NODES", distribution_scope: ["node-b"], memory_only: true }],
    ]);
    expect(redo.to).toMatch(/^\/ui\/jobs\/.*notice=resnapshot-begun$/);
    const resumed = await send("/ui/compat/resnapshot/resume");
    expect(resumed.calls).toEqual([["resumeResnapshot", undefined]]);
    expect(resumed.to).toBe("/ui/compat?notice=resnapshot-resumed");
  });

  test.each(["rescan", "resnapshot/resume", `${tplId("c")}/adopt`, `${tplId("a")}/resnapshot`])(
    "%s is refused without the session's token",
    async (path) => {
      const { answer, calls } = await send(`/ui/compat/${path}`, { csrf_token: "0".repeat(32) });
      expect(answer.status).toBe(403);
      expect(calls).toEqual([]);
    },
  );

  test("a preview that cannot be asked comes back with what is wrong", async () => {
    const { app } = createUiApp();
    const wrong = await app.request("/ui/compat/preview?extra=qemu", HTML);
    expect(wrong.status).toBe(422);
    expect(await wrong.text()).toContain("must be NAME=VERSION");
    const none = await app.request("/ui/compat/preview", HTML);
    expect(none.status).toBe(422);
    expect(await none.text()).toContain("name at least one version");
  });
});
