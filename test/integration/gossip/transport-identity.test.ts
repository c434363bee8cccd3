import { chmod, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { openIdentity } from "../../../src/gossip/libp2p/index.ts";
import { PeerWorld } from "../../support/p2p.ts";

const world = new PeerWorld();
afterEach(() => world.end());

const input = async () => ({ dataDir: await world.folder(), nodeId: "n1", hostMark: "here" });
const modeOf = async (dataDir: string) => (await stat(join(dataDir, "identity.key"))).mode & 0o777;

test("the identity is made once, for the owner alone, and is the same afterwards", async () => {
  const where = await input();
  const made = await openIdentity(where);
  expect(await modeOf(where.dataDir)).toBe(0o600);
  expect((await openIdentity(where)).equals(made)).toBe(true);
  const stored = JSON.parse(await readFile(join(where.dataDir, "identity.key"), "utf8")) as object;
  expect(stored).toMatchObject({ version: 1, node_id: "n1", host_mark: "here" });
});

test("a wider mode is made narrow again", async () => {
  const where = await input();
  await openIdentity(where);
  await chmod(join(where.dataDir, "identity.key"), 0o644);
  await openIdentity(where);
  expect(await modeOf(where.dataDir)).toBe(0o600);
});

test.each([
  { other: { nodeId: "n2" }, says: "node n1, and this one is n2" },
  { other: { hostMark: "there" }, says: "on another host or in another folder" },
])("an identity of elsewhere is refused: $says", async ({ other, says }) => {
  const where = await input();
  await openIdentity(where);
  const refusal = await openIdentity({ ...where, ...other }).catch((error: unknown) => error);
  expect(refusal).toMatchObject({ code: "identity_copied" });
  expect(String(refusal)).toContain(says);
  expect(String(refusal)).toContain("remove identity.key and cluster.json");
});

test("a damaged identity is refused and not replaced", async () => {
  const where = await input();
  await writeFile(join(where.dataDir, "identity.key"), "{}");
  await expect(openIdentity(where)).rejects.toMatchObject({ code: "config_invalid" });
  expect(await readFile(join(where.dataDir, "identity.key"), "utf8")).toBe("{}");
});
