/** A bundle that the node that is asked for it lacks: passed on from one that holds it. */
import { randomBytes, randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { createRelay, type RelayParts } from "../../../src/daemon/bundle/relay.ts";
import type { Export } from "../../../src/daemon/bundle/exports.ts";
import { AppError, isAppError } from "../../../src/domain/index.ts";
import { aManifest, sparseFile, type TestFile } from "../../support/bundle.ts";
import { PeerWorld } from "../../support/p2p.ts";
import { realClock } from "../../support/real-clock.ts";
import { waitFor } from "../../support/storage.ts";

const MIB = 1024 ** 2;
/** What the holder hands out, and whether it has let go of it. */
const pieces = [randomBytes(10), randomBytes(3 * MIB), randomBytes(MIB / 2), randomBytes(7)];
let file: TestFile;
let world: PeerWorld;
let closed: number;
let up: Set<string>;
let holder: RelayParts["open"];
let relay: { open: RelayParts["open"] };

const missing = (holders: readonly string[]) =>
  new AppError("artifact_source_missing", "it is not on this node", { meta: { holders } });

async function* body(fail?: Error) {
  try {
    for (const piece of pieces) yield piece;
    if (fail !== undefined) throw fail;
  } finally {
    closed++;
  }
}
const exported = (fail?: Error): Export => ({ manifest: aManifest(file), body: body(fail) });

beforeAll(async () => void (file = await sparseFile()));
afterAll(() => file.close());

beforeEach(async () => {
  world = new PeerWorld();
  closed = 0;
  up = new Set(["n0", "n1"]);
  holder = async () => exported();
  const transports = await world.cluster(2);
  const made = transports.map((transport, at) =>
    createRelay({
      transport,
      members: {
        peerOf: (id: string) => transports[Number(id.slice(1))]?.peerId,
      } as RelayParts["members"],
      clock: realClock,
      random: { uuid: () => randomUUID(), bytes: (count) => randomBytes(count) },
      isUp: (id) => up.has(id),
      open: (id, signal) => (at === 1 ? holder(id, signal) : Promise.reject(missing(["n1"]))),
    }),
  );
  relay = made[0] as typeof relay;
});
afterEach(() => world.end());

it("is what the holder exports, byte for byte, and the holder lets go of its files", async () => {
  const { manifest, body: bytes } = await relay.open("tpl-1");
  expect(manifest).toEqual(aManifest(file));
  const got: Uint8Array[] = [];
  for await (const piece of bytes) got.push(piece);
  expect(Buffer.concat(got).equals(Buffer.concat(pieces))).toBe(true);
  await waitFor(() => closed === 1);
});

it("is let go at the holder when the reader gives up", async () => {
  const { body: bytes } = await relay.open("tpl-1");
  await bytes.next();
  await bytes.return?.();
  await waitFor(() => closed === 1);
  expect(await bytes.next()).toEqual({ done: true, value: undefined });
});

it("is cut short with the holder's error", async () => {
  holder = async () => exported(new AppError("artifact_corrupt", "chunk 3 is damaged"));
  const { body: bytes } = await relay.open("tpl-1");
  const reading = (async () => {
    for await (const piece of bytes) expect(piece.length).toBeGreaterThan(0);
  })();
  await expect(reading).rejects.toMatchObject({ code: "artifact_corrupt" });
  await waitFor(() => closed === 1);
});

it("is refused with the first reason and what each holder said", async () => {
  holder = () => Promise.reject(missing(["n0"]));
  const refused = await relay.open("tpl-1").catch((error: unknown) => error);
  expect(isAppError(refused, "artifact_source_missing")).toBe(true);
  expect(String(refused)).toMatch(/not on this node \(n1: .*not on this node/);
  expect((refused as AppError).meta["holders"]).toEqual(["n1"]);
});

it("is not asked for at a node that is down", async () => {
  up.delete("n1");
  let asked = 0;
  holder = async () => {
    asked++;
    return exported();
  };
  await expect(relay.open("tpl-1")).rejects.toThrow("it is not on this node");
  expect(asked).toBe(0);
});
