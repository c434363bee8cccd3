/** A running guest's memory goes on at another node, which has never booted its template. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { assembleDemoImage } from "../../scripts/lib/demo-image.mjs";
import { askSandbox } from "../support/ask-sandbox.ts";
import { TestDaemon, waitFor, type Row } from "../support/daemon.ts";

const LONG_MS = 300_000;
let dir: string;
const daemons: TestDaemon[] = [];

const daemon = (index: number): TestDaemon => {
  const found = daemons[index];
  if (found === undefined) throw new Error(`there is no daemon ${index}`);
  return found;
};

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-deliver-"));
  await assembleDemoImage(join(dir, "image"));
  for (const name of ["one", "two"]) {
    const flags = ["--node-id", name, "--p2p-listen", "/ip4/127.0.0.1/tcp/0"];
    daemons.push(await TestDaemon.make("qemu", flags));
  }
  await Promise.all(daemons.map((one) => one.start()));
  const made = await daemon(0).ask("POST", "/v1/cluster/join-tokens", {});
  const joined = await daemon(1).ask("POST", "/v1/cluster/join", { token: made.body["token"] });
  expect(joined.status, JSON.stringify(joined.body)).toBeLessThan(300);
}, LONG_MS);

afterAll(async () => {
  await Promise.all(daemons.map((one) => one.remove()));
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

async function start(index: number, template_id: string, sandbox_id: string): Promise<Row> {
  const sandbox = { template_id, sandbox_id };
  const { status, body } = await daemon(index).ask("POST", "/v1/sandboxes", sandbox);
  expect({ status, body }).toMatchObject({ status: 201, body: { status: "RUNNING" } });
  return body;
}
const note = async (sandbox: Row, word = "") =>
  (await askSandbox(sandbox, `/cgi-bin/note?${word}`)).trim();

it(
  "is delivered to a second node, where the guest goes on from its memory",
  { timeout: LONG_MS },
  async () => {
    const job = await daemon(0).submit({
      source_image_ref: `oci:${join(dir, "image")}:demo`,
      writable_layer_size: "64Mi",
      exposed_ports: [8080],
      distribution_scope: ["one"],
      container_overrides: {
        resources: { cpu: "1000m", mem: "128Mi" },
        probe: { port: 8080, path: "/health" },
      },
    });
    expect(await daemon(0).ended(job.job_id, LONG_MS)).toMatchObject({ status: "READY" });
    const sandbox = await start(0, job.template_id, "sb-here");
    expect(await note(sandbox, "moved")).toBe("moved");
    const frozen = await daemon(0).ask("POST", "/v1/sandboxes/sb-here/snapshots", {});
    expect(frozen).toMatchObject({ status: 201, body: { status: "READY" } });
    const id = String(frozen.body["snapshot_id"]);
    expect(await note(sandbox, "later")).toBe("later");
    const delivered = await daemon(1).ask("POST", `/v1/snapshots/${id}/nodes`, { nodes: ["two"] });
    expect(delivered, JSON.stringify(delivered.body)).toMatchObject({
      status: 200,
      body: { operation: "DELIVER", status: "READY", nodes: ["two"] },
    });
    const far = await start(1, id, "sb-there");
    expect(far).toMatchObject({ snapshot_id: id, template_id: job.template_id });
    expect(await note(far)).toBe("moved");
    expect(await note(far, "there")).toBe("there");
    expect(await note(sandbox)).toBe("later");
    expect(await daemon(1).items(`/v1/templates/${job.template_id}/replicas`)).toMatchObject([
      { node_id: "one" },
    ]);

    await daemon(1).ask("DELETE", "/v1/sandboxes/sb-there");
    expect((await daemon(1).ask("DELETE", `/v1/snapshots/${id}`)).status).toBe(200);
    await waitFor("its files to go from both", async () => {
      const left = await Promise.all(daemons.map((one) => one.names("templates")));
      return !left.flat().some((name) => name.startsWith(id));
    });
    await waitFor("all that was frozen to go from the second", async () => {
      await daemon(1).ask("POST", "/v1/gc");
      return (await daemon(1).items("/v1/artifacts")).length === 1;
    });
    await daemon(0).ask("DELETE", "/v1/sandboxes/sb-here");
  },
);
