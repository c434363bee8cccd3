/** What a cluster refuses, with an error that says why, on both sides. */
import { createHash } from "node:crypto";
import { cp, mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodeJoinToken, encodeJoinToken, type JoinToken } from "../../src/gossip/join-token.ts";
import { TestCluster } from "../support/cluster.ts";
import { TestDaemon, waitFor, type Row } from "../support/daemon.ts";

const LONG_MS = 240_000;
let cluster: TestCluster;
let other: TestCluster;
let loner: number;

beforeAll(async () => {
  [cluster, other] = await Promise.all([TestCluster.make(2), TestCluster.make(1)]);
  loner = await cluster.addAlone();
}, LONG_MS);

afterAll(async () => {
  await Promise.all([cluster.remove(), other.remove()]);
}, LONG_MS);

const join_ = (token: string, index = loner) =>
  cluster.node(index).ask("POST", "/v1/cluster/join", { token });

const make = async (request: Row = {}, from = cluster) => {
  const { status, body } = await from.node(0).ask("POST", "/v1/cluster/join-tokens", request);
  expect(status).toBe(201);
  return body as { token: string; token_id: string; expires_at: string };
};

/** What the members have logged of a node that was refused since `from`. */
const refusals = (code: string): string[] =>
  cluster.nodes
    .slice(0, 2)
    .flatMap((node) => node.output.split("\n"))
    .filter((line) => line.includes("wants to join was refused") && line.includes(code));

/** Refused with that code at the node that asks, and in the log of the one that was asked. */
async function expectRefused(token: string, code: string, index = loner): Promise<void> {
  const { status, body } = await join_(token, index);
  expect(body).toMatchObject({ code, status });
  expect(status).toBeGreaterThanOrEqual(400);
  const name = TestCluster.nodeId(index);
  await waitFor(`a member to log ${code}`, () => refusals(code).length > 0);
  expect(refusals(code).join("\n")).toContain(name);
  expect((await cluster.node(index).get("/v1/cluster"))["clustered"]).toBe(false);
}

const sha256Hex = (text: string) => createHash("sha256").update(text).digest("hex");
const changed = (token: string, change: (content: JoinToken) => JoinToken): string =>
  encodeJoinToken(change(decodeJoinToken(token, sha256Hex)), sha256Hex);

describe("joining with a token that is not good", { timeout: LONG_MS }, () => {
  it("says what is wrong with a text that is no token, or was cut", async () => {
    expect(await join_("hello")).toMatchObject({
      status: 401,
      body: { code: "join_token_invalid" },
    });
    const { token } = await make();
    const cut = await join_(token.slice(0, -20));
    expect(cut).toMatchObject({ status: 401, body: { code: "join_token_invalid" } });
    const shown = await cluster.node(loner).cli(["cluster", "join", token.slice(0, -20)]);
    expect(shown).toMatchObject({ code: 8 });
    expect(shown.stderr).toContain("cut or mistyped");
  });

  it("says of a token that was revoked, expired or never made what became of it", async () => {
    const { token, token_id } = await make({ ttl_seconds: 10 });
    const expired = await make({ ttl_seconds: 10 });
    const gone = await cluster.node(1).ask("DELETE", `/v1/cluster/join-tokens/${token_id}`);
    expect(gone.status).toBe(204);
    await expectRefused(token, "join_token_revoked");
    const forged = changed(expired.token, (content) => ({ ...content, secret: "x".repeat(32) }));
    await expectRefused(forged, "join_token_invalid");
    await waitFor("it to expire", () => Date.now() > Date.parse(expired.expires_at));
    await expectRefused(expired.token, "join_token_expired");
    const listed = await cluster.node(0).cli(["cluster", "tokens"]);
    expect(listed.stdout).toMatch(new RegExp(`${token_id} +REVOKED`));
    expect(listed.stdout).toMatch(new RegExp(`${expired.token_id} +EXPIRED`));
  });

  it("says of a token whose cluster is another now that it is another", async () => {
    // The address of the other cluster's node is that of this one's, as after a host was reused.
    const { token } = await make({}, other);
    const refused = await join_(token);
    expect(refused).toMatchObject({ status: 409, body: { code: "cluster_mismatch" } });
    expect(String(refused.body["detail"])).toContain("another cluster");
    await waitFor("the node there to log it", () =>
      cluster.node(0).output.includes("another network key"),
    );
  });

  it("refuses a node with a used name, and a token that has no uses left", async () => {
    const twin = await cluster.addAlone(["--node-id", "node-0"]);
    const { token } = await make();
    const { status, body } = await join_(token, twin);
    expect({ status, body }).toMatchObject({ status: 409, body: { code: "node_name_taken" } });
    expect(refusals("node_name_taken").join("\n")).toContain("the node name node-0 is taken");
    const shown = await cluster.node(twin).cli(["cluster", "join", token]);
    expect(shown.stderr).toContain("--node-id");
    expect((await join_(token)).status).toBe(202);
    await cluster.until(loner, "it to be a member", (state) => state.clustered);
    const third = await cluster.addAlone();
    await expectRefused(token, "join_token_used", third);
    expect(await join_(token)).toMatchObject({ status: 409, body: { code: "already_clustered" } });
  });
});

describe("a node that is taken out", { timeout: LONG_MS }, () => {
  it("is refused by the others, which say so on both sides, and can join anew", async () => {
    await cluster.inSync([0, 1, 2]);
    const name = TestCluster.nodeId(loner);
    const removed = await cluster.node(0).ask("DELETE", `/v1/nodes/${name}`);
    expect(removed.status).toBe(204);
    await cluster.until(1, "the member to be gone", ({ members }) =>
      members.every((member) => member.node_id !== name),
    );
    const told = await cluster.until(loner, "it to be told", ({ warnings }) =>
      warnings.some(({ code }) => code === "node_removed"),
    );
    expect(told.quorum).toMatchObject({ available: false });
    expect(told.quorum.note).toContain("cluster leave");
    await waitFor("the others to log what it still sends", () =>
      cluster.nodes.slice(0, 2).some(({ output }) => output.includes(`${name} was removed at`)),
    );
    const refused = await cluster.node(loner).ask("POST", "/v1/templates/from-image", {
      source_image_ref: "oci:/nowhere:demo",
      writable_layer_size: "64Mi",
    });
    expect(refused.body["code"]).toMatch(/no_quorum|no_template_nodes/);
    const doctor = await cluster.node(loner).cli(["doctor"]);
    expect(doctor.code).toBe(1);
    expect(doctor.stdout).toContain("this node was removed");
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
