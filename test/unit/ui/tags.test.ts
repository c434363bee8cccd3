/** Tags, labels and protection on the page: what is said, what is asked for, what is refused. */
import { describe, expect, test } from "vitest";
import { AppError } from "../../../src/domain/index.ts";
import { commandLines } from "../../../src/ui/command-lines.ts";
import {
  actorText,
  labelChanges,
  labelLines,
  movedText,
  parseLabels,
  promotePlan,
} from "../../../src/ui/tag-models.ts";
import { aTemplate } from "../../support/fake-http-service.ts";
import { openForm } from "../../support/ui-form.ts";
import { createUiApp, SPREADING_JOB, tplId } from "../../support/ui-site.ts";

const HTML = { headers: { accept: "text/html" } };
const [web, notebooks] = [tplId("a"), tplId("c")];

async function markup(path: string): Promise<string> {
  return (await createUiApp().app.request(path, HTML)).text();
}

describe("the words", () => {
  const tag = (history: { template_id: string; rollback?: boolean; actor: string }[]) => ({
    name: "prod",
    template_id: history.at(-1)?.template_id ?? "",
    history: history.map((one, index) => ({
      ...one,
      change_id: String(index),
      at: "2026-01-02T03:04:05.000Z",
      asked_at: "2026-01-02T03:04:05.000Z",
    })),
    created_at: "",
    updated_at: "",
  });
  const now = Date.parse("2026-01-02T03:04:17.000Z");

  test("a refused move says who moved it, where to and when", () => {
    const find = () => aTemplate({ template_id: "tpl-2", display_name: "web" });
    expect(movedText("prod", tag([{ template_id: "tpl-2", actor: "token:ci" }]), find, now)).toBe(
      "Refused: the holder of token ci moved it to web (tpl-2) 12 s ago. You have changed nothing.",
    );
    const back = tag([{ template_id: "tpl-2", actor: "page:abc", rollback: true }]);
    expect(movedText("prod", back, () => undefined, now)).toMatch(
      /^Refused: visitor abc of the page rolled it back to tpl-2, which is gone 12 s ago/,
    );
    expect(movedText("prod", undefined, find, now)).toContain("was deleted meanwhile");
    expect([actorText("job:0123456789"), actorText("socket"), actorText("")]).toEqual([
      "job 01234567",
      "the command line on a node",
      "somebody",
    ]);
  });

  test("a tag moves only to what serves, and not to where it is", () => {
    const find = () => undefined;
    const plan = (status: string, at?: string) =>
      promotePlan(
        "prod",
        at === undefined ? undefined : tag([{ template_id: at, actor: "" }]),
        aTemplate({ template_id: "tpl-1", status }),
        find,
      );
    expect(plan("FAILED").blocked).toContain("is failed");
    expect(plan("READY", "tpl-1").blocked).toBe("Tag prod points at it already.");
    expect(plan("READY", "tpl-0").blocked).toBeUndefined();
    expect(plan("READY").effects[0]).toContain("There is no tag prod yet");
    expect(commandLines.promote("prod", "tpl-1", null)).toMatch(/--new$/);
    expect(commandLines.promote("prod", "tpl-1", "tpl-0")).toMatch(/--from tpl-0$/);
  });

  test("labels are lines, and only what was changed of them is asked for", () => {
    expect(parseLabels("a=1\r\n\n b = x=y \nc=")).toEqual({ a: "1", b: "x=y", c: "" });
    expect(parseLabels("a")).toContain("“a” is no label");
    expect(parseLabels("=1")).toContain("is no label");
    expect(parseLabels("a=1\na=2")).toBe("a is there twice.");
    expect(parseLabels(`${"k".repeat(300)}=1`)).toContain("longer than 256");
    expect(parseLabels("__proto__=1")).toEqual({ ["__proto__"]: "1" });
    expect(labelLines({ a: "1", b: "" })).toBe("a=1\nb=");
    expect(labelChanges({ a: "1", b: "2", c: "3" }, { a: "1", b: "5", d: "6" })).toEqual({
      b: "5",
      c: null,
      d: "6",
    });
  });
});

describe("promote", () => {
  const path = `/ui/promote?tag=stable&template=${notebooks}`;

  test("moves the tag from where the visitor saw it", async () => {
    const { app, service } = createUiApp();
    const form = await openForm(app, path);
    expect(form.markup).toContain(`Tag stable points at debian-web (${web}).`);
    const answer = await form.send();
    expect(answer.headers.get("location")).toBe("/ui/tags/stable?notice=tag-moved");
    expect(service.calls.map(({ argument }) => argument)).toEqual([
      { name: "stable", template_id: notebooks, expected_template_id: web },
    ]);
  });

  test("that is refused says who moved it to what, and changes nothing", async () => {
    const { app, service } = createUiApp();
    const form = await openForm(app, path);
    await service.commands.promoteTag(
      "stable",
      { template_id: tplId("d") },
      { requestId: "r", actor: "me" },
    );
    const answer = await form.send();
    expect(answer.status).toBe(409);
    const text = await answer.text();
    expect(text).toMatch(/Refused: me moved it to spreading \(tpl-d+\) .* ago/);
    expect(text).toContain(`/ui/promote?tag=stable&amp;template=${notebooks}`);
    expect(service.tags.get("stable")?.template_id).toBe(tplId("d"));
  });

  test("makes a tag that nobody has made meanwhile", async () => {
    const { app, service } = createUiApp();
    const form = await openForm(app, `/ui/promote?tag=fresh&template=${web}`);
    expect((await form.send()).headers.get("location")).toContain("/ui/tags/fresh");
    expect(service.calls[0]?.argument).toMatchObject({ expected_template_id: null });
  });

  test("names what is wrong with the choice", async () => {
    const { app } = createUiApp();
    const answer = await app.request(`/ui/promote?tag=Prod&template=${web}`, HTML);
    expect(answer.status).toBe(422);
    expect(await answer.text()).toContain("must be lower-case letters");
    expect(await markup("/ui/promote?tag=prod&template=nothing")).toContain(
      "There is no template nothing.",
    );
    expect(await markup(`/ui/promote?tag=prod&template=${tplId("f")}`)).not.toContain(
      'method="post"',
    );
  });
});

describe("a tag", () => {
  test("shows its history, goes back in one step, and is refused when it has moved", async () => {
    const { app, service } = createUiApp();
    const page = await markup("/ui/tags/stable");
    expect(page.match(/<tr>/g)).toHaveLength(4);
    expect(page).toContain("Rolled back");
    const form = await openForm(app, "/ui/tags/stable/rollback");
    const again = await openForm(app, "/ui/tags/stable/rollback");
    const answer = await form.send();
    expect(answer.headers.get("location")).toBe("/ui/tags/stable?notice=tag-rolled-back");
    expect(service.tags.get("stable")?.template_id).toBe(notebooks);
    const late = await again.send();
    expect(late.status).toBe(409);
    expect(await late.text()).toContain("Refused: me rolled it back to");
    expect(service.tags.get("stable")?.template_id).toBe(notebooks);
  });

  test("that has pointed nowhere else says so and has no way back", async () => {
    const page = await markup("/ui/tags/debian-web");
    expect(page).not.toContain("/ui/tags/debian-web/rollback");
    expect(page).toContain("it has pointed nowhere else");
    expect(await markup("/ui/tags/debian-web/rollback")).toContain("has pointed nowhere else.");
  });

  test("is deleted once it is confirmed, and that it is a name is said before", async () => {
    const { app, service } = createUiApp();
    const form = await openForm(app, "/ui/tags/debian-web/delete");
    expect(form.markup).toContain("It is the name of its template");
    expect((await form.send()).headers.get("location")).toBe("/ui/tags?notice=tag-deleted");
    expect(service.tags.has("debian-web")).toBe(false);
  });
});

describe("what is said of a template", () => {
  test("its name is saved; one that is taken comes back with what was typed", async () => {
    const { app, service } = createUiApp();
    const form = await openForm(app, `/ui/templates/${web}/rename`);
    expect(form.markup).toContain('value="debian-web"');
    service.failWith = new AppError("name_taken", "other is the name of tpl-9");
    const refused = await form.send({ display_name: "other" });
    expect(refused.status).toBe(422);
    const text = await refused.text();
    expect(text).toContain("Other is the name of tpl-9.");
    expect(text).toContain('value="other"');
    const saved = await form.send({ display_name: " other " });
    expect(saved.headers.get("location")).toBe(`/ui/templates/${web}?notice=template-renamed`);
    expect(service.calls.at(-1)?.argument).toEqual({ id: web, name: "other" });
  });

  test("labels that others set meanwhile stay, and what is no label is named", async () => {
    const { app, service } = createUiApp();
    const form = await openForm(app, `/ui/templates/${web}/labels`);
    expect(form.markup).toContain("team=web\nstage=production");
    const wrong = await form.send({ labels: "team" });
    expect(wrong.status).toBe(422);
    expect(await wrong.text()).toContain("is no label");
    const template = service.templates.find((one) => one.template_id === web);
    Object.assign(template!.labels, { meanwhile: "yes" });
    await form.send({ labels: "team=core\r\nexample.org/cost-centre=4711\r\nnew=" });
    expect(template?.labels).toEqual({
      team: "core",
      "example.org/cost-centre": "4711",
      meanwhile: "yes",
      new: "",
    });
  });

  test("protection is taken and given back, and shows where deletion is offered", async () => {
    const { app, service } = createUiApp();
    const guarded = await markup(`/ui/templates/${tplId("f")}/delete`);
    expect(guarded).toContain("It is protected from deletion");
    expect(guarded).toContain(`/ui/templates/${tplId("f")}/unprotect`);
    expect(guarded).not.toContain('method="post"');
    expect(await markup(`/ui/templates/${tplId("f")}`)).toContain("Protected</span>");
    for (const [verb, isProtected] of [
      ["unprotect", false],
      ["protect", true],
    ] as const) {
      await (await openForm(app, `/ui/templates/${tplId("f")}/${verb}`)).send();
      expect(service.calls.at(-1)?.argument).toEqual({ id: tplId("f"), isProtected });
    }
  });

  test("redo on a node waits for the job that works on it, and names it", async () => {
    const busy = await markup(`/ui/templates/${tplId("d")}`);
    expect(busy).toMatch(/<button[^>]*disabled[^>]*>\s*Redo on node-2\s*<\/button>/);
    expect(busy).toContain(`/ui/jobs/${SPREADING_JOB}`);
    expect(busy).not.toContain("redo/confirm");
    expect(await markup(`/ui/templates/${notebooks}`)).toContain("redo/confirm?redo_mode=NODES");
  });

  test.each(["/ui/promote?tag=stable&template=" + notebooks, "/ui/tags/stable/rollback"])(
    "%s is refused without the session's token",
    async (path) => {
      const { app, service } = createUiApp();
      const form = await openForm(app, path);
      expect((await form.send({ csrf_token: "0".repeat(32) })).status).toBe(403);
      expect(service.calls).toEqual([]);
    },
  );
});
