/** What a cluster refuses, with an error that says why, on both sides. */
import { cp, mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TestCluster } from "../support/cluster.ts";
import { TestDaemon, waitFor, type Row } from "../support/daemon.ts";

const LONG_MS = 240_000;
let cluster: TestCluster;
let other: TestCluster;
let loner: number;

beforeAll(async () => {
  cluster = await TestCluster.make(2);
  other = await TestCluster.make(1);
  loner = await cluster.addAlone();
}, LONG_MS);

afterAll(async () => {
  await cluster.remove();
  await other.remove();
}, LONG_MS);

const join_ = (token: string, body: Row = {}) =>
  cluster.node(loner).ask("POST", "/v1/cluster/join", { token, ...body });

describe("joining with a token that is not good", { timeout: LONG_MS }, () => {
  it("says what is wrong with a text that is no token, or was cut", async () => {
    expect(await join_("hello")).toMatchObject({
      status: 401,
      body: { code: "join_token_invalid" },
    });
    const token = await cluster.token();
    const cut = await join_(token.slice(0, -20));
    expect(cut).toMatchObject({ status: 401, body: { code: "join_token_invalid" } });
  });

  it("refuses a token that was used up, or revoked", async () => {
    const created = await cluster.node(0).ask("POST", "/v1/cluster/join-tokens", {});
    const { token, token_id } = created.body as { token: string; token_id: string };
    const gone = await cluster.node(1).ask("DELETE", `/v1/cluster/join-tokens/${token_id}`);
    expect(gone.status).toBe(204);
    // Another is alive, so that the stranger may knock at all.
    await cluster.token();
    const refused = await join_(token);
    expect(refused.body["code"]).toBe("join_token_invalid");
    expect((await cluster.node(loner).get("/v1/cluster"))["clustered"]).toBe(false);
  });

  it("refuses a node with a used name, and a token that has no uses left", async () => {
    const twin = await cluster.addAlone(["--node-id", "node-0"]);
    const token = await cluster.token();
    const refused = await cluster.node(twin).ask("POST", "/v1/cluster/join", { token });
    expect(refused).toMatchObject({ status: 409, body: { code: "node_name_taken" } });
    await cluster.token();
    expect((await join_(token)).status).toBe(202);
    await cluster.until(loner, "it to be a member", (state) => state.clustered);
    const used = await cluster.node(twin).ask("POST", "/v1/cluster/join", { token });
    expect(used.body["code"]).toMatch(/node_name_taken|join_token_used/);
    const again = await join_(token);
    expect(again).toMatchObject({ status: 409, body: { code: "already_clustered" } });
  });
});

describe("a node that is taken out", { timeout: LONG_MS }, () => {
  it("is refused by the others, which say so in its log, and can join anew", async () => {
    await cluster.inSync([0, 1, 2]);
    const name = TestCluster.nodeId(loner);
    const removed = await cluster.node(0).ask("DELETE", `/v1/nodes/${name}`);
    expect(removed.status).toBe(204);
    await cluster.until(1, "the member to be gone", ({ members }) =>
      members.every((member) => member.node_id !== name),
    );
    await waitFor(
      "it to be told",
      () => cluster.node(loner).output.includes("this node is not welcome at a peer"),
      100_000,
    );
    const refused = await cluster.node(loner).ask("POST", "/v1/templates/from-image", {
      source_image_ref: "oci:/nowhere:demo",
      writable_layer_size: "64Mi",
    });
    expect(refused.body["code"]).toMatch(/no_quorum|no_template_nodes/);
    const left = await cluster.node(loner).ask("POST", "/v1/cluster/leave");
    expect(left.status).toBeLessThan(300);
    await cluster.until(loner, "it to be alone", (state) => !state.clustered);
    await cluster.join(loner);
    await cluster.inSync([0, 1, 2]);
  });
});

describe("a data directory", { timeout: LONG_MS }, () => {
  it("that was copied from another node is refused, and the message says what to do", async () => {
    const dir = await mkdtemp(join(tmpdir(), "tc-copied-"));
    const copy = await TestDaemon.make("rootfs", ["--node-id", TestCluster.nodeId(1)]);
    try {
      await cluster.node(1).stop();
      await cp(cluster.node(1).dataDir, copy.dataDir, {
        recursive: true,
        filter: (path) => !path.endsWith(".sock") && !path.endsWith("daemon.json"),
      });
      await cluster.node(1).start();
      await expect(copy.start()).rejects.toThrow(/identity_copied|belongs to/);
      expect(copy.output).toContain("identity.key");
    } finally {
      await copy.remove();
      await rm(dir, { recursive: true, force: true });
    }
  });

  it("keeps its keys from other users", async () => {
    for (const name of ["identity.key", "cluster.json"]) {
      const path = join(cluster.node(0).dataDir, name);
      expect((await stat(path)).mode & 0o777).toBe(0o600);
    }
    const file = await readFile(join(cluster.node(0).dataDir, "cluster.json"), "utf8");
    expect(JSON.parse(file)).toMatchObject({ state: "member" });
  });
});
