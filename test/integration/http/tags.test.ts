/** Tags, names and labels by route and by command line. */
import { afterEach, beforeEach, expect, it } from "vitest";
import { openCliShell, type CliShell } from "../../support/cli-shell.ts";

const TPL = "tpl-000000000000000000000001";
let shell: CliShell;

beforeEach(async () => {
  shell = await openCliShell();
  const { templates } = shell.fixture.service;
  templates.push({ ...templates[0]!, template_id: "tpl-2", display_name: "" });
});
afterEach(() => shell.close());

const calls = () => shell.fixture.service.calls;

it("a tag is promoted, listed, shown with its history, rolled back and deleted", async () => {
  expect((await shell.run(`tag promote prod ${TPL} --new`)).out).toContain(`template_id: ${TPL}\n`);
  const moved = await shell.run(`tag promote prod tpl-2 --from ${TPL} --json`);
  expect(JSON.parse(moved.out)).toMatchObject({ name: "prod", template_id: "tpl-2" });
  expect((await shell.run("tag list")).out).toMatch(/^NAME +TEMPLATE_ID +UPDATED_AT\nprod +tpl-2/);
  expect(JSON.parse((await shell.run("tag ls --json")).out)).toMatchObject({
    items: [{ name: "prod" }],
  });
  const { out } = await shell.run("tag history prod");
  // The newest first.
  expect(out.split("\n").slice(-3, -1)).toEqual([
    expect.stringMatching(/^tpl-2 .* me +promote$/),
    expect.stringMatching(new RegExp(`^${TPL} .* promote$`)),
  ]);
  const back = await shell.run("tag rollback prod --from tpl-2");
  expect(back.out).toMatch(new RegExp(`^${TPL} .* rollback$`, "m"));
  expect((await shell.run("tag rm prod")).out).toBe("tag deleted: prod\n");
  expect(calls()[1]).toMatchObject({
    name: "promoteTag",
    argument: { name: "prod", template_id: "tpl-2", expected_template_id: TPL },
    context: { actor: "socket" },
  });
});

it("exits 4 when the tag has been moved by others, 3 when there is none", async () => {
  await shell.run("tag promote prod tpl-2");
  const moved = await shell.run(`tag promote prod ${TPL} --from ${TPL}`);
  expect([moved.code, moved.err]).toEqual([
    4,
    "error: tag prod was not moved: it points at tpl-2\n" +
      "hint: see where it points: templatecenter tag info TAG\n",
  ]);
  expect((await shell.run("tag info none")).code).toBe(3);
  expect((await shell.run("tag rollback prod")).code).toBe(4);
});

it("a template gets another name, and loses it", async () => {
  expect((await shell.run("tpl rename tpl-2 www")).out).toContain("name: www\n");
  await shell.run("tpl rename www");
  expect(calls().map(({ argument }) => argument)).toEqual([
    { id: "tpl-2", name: "www" },
    { id: "www", name: "" },
  ]);
  const ask = (alias: unknown) =>
    fetch(`${shell.url}/v1/templates/${TPL}/alias`, {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ alias }),
    });
  expect((await ask(null)).status).toBe(200);
  expect(calls().at(-1)?.argument).toEqual({ id: TPL, name: "" });
  expect((await ask(7)).status).toBe(400);
});

it("labels are set and taken away, with = in values", async () => {
  const { out, code } = await shell.run(`tpl label ${TPL} query=a=1&b=2 team-`);
  expect([code, out.includes("labels: query=a=1&b=2\n")]).toEqual([0, true]);
  expect(calls()[0]?.argument).toEqual({ id: TPL, labels: { query: "a=1&b=2", team: null } });
  await shell.run(`tpl label ${TPL} a=b --replace`);
  expect(calls()[1]?.argument).toMatchObject({ labels: { a: "b" }, replace: true });
  expect((await shell.run(`tpl label ${TPL} team`)).code).toBe(2);
  expect((await shell.run(`tpl label ${TPL}`)).code).toBe(2);
});

it("templates and snapshots are protected and let go", async () => {
  const said = await shell.run("tpl protect tpl-2");
  expect([said.code, said.out]).toEqual([0, "template tpl-2 is protected\n"]);
  expect((await shell.run("tpl info tpl-2")).out).toContain("protected: yes\n");
  expect(JSON.parse((await shell.run("tpl unprotect tpl-2 --json")).out)).toMatchObject({
    protected: false,
  });
  expect((await shell.run("snapshot protect snap-1")).out).toBe("snapshot snap-1 is protected\n");
  expect((await shell.run("snapshot unprotect tpl-2")).code).toBe(3);
  expect(calls().map(({ argument }) => argument)).toEqual([
    { id: "tpl-2", isProtected: true },
    { id: "tpl-2", isProtected: false },
    { id: "snap-1", isProtected: true },
  ]);
});

it("renders with the predecessor's flags, from standard input too", async () => {
  const { out, code } = await shell.run(
    ["tpl", "render", "--template-id", "tpl-2", "--file", "-"],
    JSON.stringify({ request_id: "r-1", labels: { a: "b" } }),
  );
  expect([code, out.split("\n").slice(0, 4)]).toEqual([
    0,
    [
      "request_id: r-1",
      "api_request: template_id=- containers=0 volumes=0 annotations=0 labels=1",
      "merged_request: template_id=tpl-2 containers=0 volumes=0 annotations=0 labels=1",
      "host_request: cpu=2000m mem=2000Mi ports=- network=open command=[]",
    ],
  ]);
  const whole = JSON.parse((await shell.run("tpl render tpl-2 --json")).out);
  expect(Object.keys(whole)).toEqual([
    "template_id",
    "kind",
    "api_request",
    "merged_request",
    "host_request",
  ]);
  expect((await shell.run(["tpl", "render", "tpl-2", "--file", "-"], "{")).code).toBe(2);
  expect((await shell.run("tpl render none")).code).toBe(3);
});

it("a template is made from a prepared request, with flags over it", async () => {
  const request = { template_id: "tpl-7", containers: [{ image: { image: "rfs-1" } }] };
  const made = await shell.run(
    ["tpl", "create", "--file", "-", "--name", "www", "--node", "node-a"],
    JSON.stringify(request),
  );
  expect([made.code, made.out.includes("template_id: tpl-7\n")]).toEqual([0, true]);
  expect(calls()[0]).toMatchObject({
    name: "createTemplate",
    argument: { ...request, display_name: "www", distribution_scope: ["node-a"] },
  });
  expect((await shell.run("tpl create")).code).toBe(2);
  expect((await shell.run(["tpl", "create", "--file", "-"], '{"labels":7}')).code).toBe(2);
});
