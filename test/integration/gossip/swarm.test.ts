import { randomBytes } from "node:crypto";
import { open, readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CHUNK_SIZE_BYTES, type AppError } from "../../../src/domain/index.ts";
import { zlibCompressor } from "../../../src/gossip/swarm.ts";
import { realClock } from "../../support/real-clock.ts";
import { imageBytes, waitFor, withFolder } from "../../support/storage.ts";
import { SwarmNet, type SwarmNode } from "../../support/swarm.ts";

const MIB = 1024 * 1024;

async function withNet<T>(work: (net: SwarmNet) => Promise<T>): Promise<T> {
  return withFolder(async (root) => {
    const net = new SwarmNet(root);
    try {
      return await work(net);
    } finally {
      await net.close();
    }
  });
}

/** Its clocks run a hundred times as fast. */
const withFastNet = (work: (net: SwarmNet) => Promise<void>): Promise<void> =>
  withFolder(async (root) => {
    const speed = 100;
    const net = new SwarmNet(root, {
      now: () => Date.now(),
      monotonic: () => performance.now() * speed,
      sleep: (ms, options) => realClock.sleep(ms / speed, options),
      after: (ms, callback) => realClock.after(ms / speed, callback),
    });
    try {
      await work(net);
    } finally {
      await net.close();
    }
  });

const never = new AbortController().signal;

async function expectBytes(node: SwarmNode, artifactId: string, bytes: Uint8Array): Promise<void> {
  const found = node.store.find(artifactId);
  expect(found).toBeDefined();
  expect((await readFile(found?.path ?? "")).equals(bytes)).toBe(true);
}

const openAll = (net: SwarmNet, ids: string[], options: Parameters<SwarmNet["open"]>[1] = {}) =>
  Promise.all(ids.map((id) => net.open(id, options)));

const countOf = (net: SwarmNet, id: string) => net.nodes.get(id)?.swarm.counters();

describe("the swarm", () => {
  it("brings an artifact with holes to several nodes, and they say that they hold it", () =>
    withNet(async (net) => {
      const [builder, ...others] = await openAll(net, ["a", "b", "c", "d"]);
      if (builder === undefined) throw new Error("no builder");
      const bytes = imageBytes(1, 60);
      const artifact = await net.seed(builder, "rfs-1", bytes);
      const seen: number[] = [];
      const onProgress = (done: number) => seen.push(done);
      await Promise.all(others.map((n) => n.swarm.fetch(artifact, { signal: never, onProgress })));
      for (const node of others) {
        await expectBytes(node, "rfs-1", bytes);
        expect(net.holdings.get("rfs-1")?.get(node.id)?.complete).toBe(true);
        expect(await readdir(join(net.root, node.id, "artifacts", "partial"))).toEqual([]);
      }
      expect(Math.max(...seen)).toBe(41 * CHUNK_SIZE_BYTES);
      const before = countOf(net, "b");
      await others[0]?.swarm.fetch(artifact, { signal: never });
      expect(countOf(net, "b")).toEqual(before);
    }));

  it("row 64: given an artifact without digest or size, then nobody is asked and the error lists them", () =>
    withNet(async (net) => {
      const [builder, other] = await openAll(net, ["a", "b"]);
      if (builder === undefined || other === undefined) throw new Error("no nodes");
      const artifact = await net.seed(builder, "rfs-1", imageBytes(1, 4));
      const lacking = { ...artifact, digest: "", ext4_size_bytes: 0 };
      await expect(other.swarm.fetch(lacking, { signal: never })).rejects.toMatchObject({
        code: "artifact_not_ready",
        message: "artifact rfs-1 lacks a digest and a size",
      });
      expect(builder.sentBytes).toBe(0);
      await other.swarm.fetch(artifact, { signal: never });
    }));

  it("has the builder send little more than one copy to many, within its upload limit", () =>
    withNet(async (net) => {
      const limit = 4 * MIB;
      const ids = ["a", "b", "c", "d", "e", "f"];
      const [builder, ...others] = await openAll(net, ids, { uploadLimitBps: limit });
      if (builder === undefined) throw new Error("no builder");
      const bytes = randomBytes(8 * MIB + 17);
      const artifact = await net.seed(builder, "rfs-1", bytes);
      const start = performance.now();
      await Promise.all(others.map((node) => node.swarm.fetch(artifact, { signal: never })));
      const seconds = (performance.now() - start) / 1_000;
      for (const node of others) await expectBytes(node, "rfs-1", bytes);
      const sent = countOf(net, "a")?.["sent_bytes"] ?? 0;
      expect(sent / bytes.length).toBeLessThanOrEqual(1.5);
      for (const { swarm } of [builder, ...others]) {
        const { sent_bytes = 0 } = swarm.counters();
        expect(sent_bytes).toBeLessThanOrEqual(limit * (seconds + 0.05) + 16 * CHUNK_SIZE_BYTES);
      }
    }));

  it("copies the chunks that it holds already, and fetches the others only", () =>
    withNet(async (net) => {
      const [a, b] = await openAll(net, ["a", "b"]);
      if (a === undefined || b === undefined) throw new Error("no nodes");
      const bytes = randomBytes(6 * MIB);
      const first = await net.seed(a, "rfs-1", bytes);
      await b.swarm.fetch(first, { signal: never });
      const before = countOf(net, "b")?.["received_bytes"] ?? 0;
      const changed = Uint8Array.from(bytes);
      for (const chunk of [3, 50, 77]) changed[chunk * CHUNK_SIZE_BYTES + 5] = 1 ^ (bytes[5] ?? 0);
      const second = await net.seed(a, "rfs-2", changed);
      await b.swarm.fetch(second, { signal: never });
      await expectBytes(b, "rfs-2", changed);
      const received = (countOf(net, "b")?.["received_bytes"] ?? 0) - before;
      expect(received).toBeLessThanOrEqual(3 * CHUNK_SIZE_BYTES);
      const view = b.swarm.views().find(({ artifact_id }) => artifact_id === "rfs-2");
      expect(view?.nodes.find(({ node_id }) => node_id === "b")?.reused_chunks).toBe(93);
    }));

  it("asks a peer that sends wrong chunks no more, and gets them elsewhere", () =>
    withNet(async (net) => {
      const [good, bad, taker] = await openAll(net, ["good", "bad", "taker"]);
      if (good === undefined || bad === undefined || taker === undefined) throw new Error("none");
      const bytes = randomBytes(4 * MIB);
      const artifact = await net.seed(good, "rfs-1", bytes);
      await net.seed(bad, "rfs-1", bytes);
      net.tamper = (from, _to, answer) => {
        if (from !== "bad" || answer.length < CHUNK_SIZE_BYTES) return answer;
        const changed = Uint8Array.from(answer);
        changed[changed.length - 1] = (changed[changed.length - 1] ?? 0) ^ 1;
        return changed;
      };
      await taker.swarm.fetch(artifact, { signal: never });
      await expectBytes(taker, "rfs-1", bytes);
      expect(countOf(net, "taker")?.["chunk_mismatch"]).toBeGreaterThanOrEqual(1);
    }));

  it("is not held up by a peer that never sends what it was asked for", () =>
    withNet(async (net) => {
      // The silent one gives its share of fresh chunks, and nothing that is asked for by index.
      const good = await net.open("good", { uploadLimitBps: MIB });
      const [silent, taker] = await openAll(net, ["silent", "taker"]);
      if (silent === undefined || taker === undefined) throw new Error("none");
      const bytes = randomBytes(4 * MIB);
      const artifact = await net.seed(good, "rfs-1", bytes);
      await net.seed(silent, "rfs-1", bytes);
      let swallowed = 0;
      let exhausted = false;
      net.tamper = (from, _to, answer) => {
        if (from !== "silent") return answer;
        if (exhausted && answer.length > CHUNK_SIZE_BYTES) {
          swallowed++;
          return undefined;
        }
        exhausted ||= Buffer.from(answer.subarray(0, 400)).includes('"exhausted":true');
        return answer;
      };
      net.timeouts = false;
      await taker.swarm.fetch(artifact, { signal: never });
      await expectBytes(taker, "rfs-1", bytes);
      expect(swallowed).toBeGreaterThan(0);
    }));

  it("goes on without the builder when the receivers have all chunks between them", () =>
    withNet(async (net) => {
      const options = { uploadLimitBps: 2 * MIB };
      const [builder, ...others] = await openAll(net, ["a", "b", "c", "d"], options);
      if (builder === undefined) throw new Error("no builder");
      const bytes = randomBytes(4 * MIB);
      const artifact = await net.seed(builder, "rfs-1", bytes);
      const fetches = others.map((node) => node.swarm.fetch(artifact, { signal: never }));
      await waitFor(() => (countOf(net, "a")?.["sent_bytes"] ?? 0) >= bytes.length);
      // Sent, not yet arrived: what the receivers got of it decides.
      await waitFor(() => {
        const got = others.map(({ swarm }) => {
          const view = swarm.views()[0]?.nodes.find(({ sources }) => "a" in sources);
          return view?.sources["a"] ?? 0;
        });
        return got.reduce((sum, one) => sum + one, 0) >= bytes.length;
      });
      net.hold("a", "rfs-1", undefined);
      await builder.kill();
      await Promise.all(fetches);
      for (const node of others) await expectBytes(node, "rfs-1", bytes);
    }));

  it("waits for a builder that went away with chunks that nobody else has", () =>
    withNet(async (net) => {
      const options = { uploadLimitBps: 2 * MIB };
      const [builder, ...others] = await openAll(net, ["a", "b", "c"], options);
      if (builder === undefined) throw new Error("no builder");
      const bytes = randomBytes(4 * MIB);
      const artifact = await net.seed(builder, "rfs-1", bytes);
      const fetches = others.map((node) => node.swarm.fetch(artifact, { signal: never }));
      await waitFor(() => (countOf(net, "a")?.["sent_bytes"] ?? 0) >= MIB);
      await builder.kill();
      await net.open("a", options);
      await Promise.all(fetches);
      for (const node of others) await expectBytes(node, "rfs-1", bytes);
    }));

  it("resumes from what it had when it was stopped", () =>
    withNet(async (net) => {
      const builder = await net.open("a", { uploadLimitBps: 2 * MIB });
      const taker = await net.open("b");
      const bytes = randomBytes(4 * MIB);
      const artifact = await net.seed(builder, "rfs-1", bytes);
      const fetching = taker.swarm.fetch(artifact, { signal: never });
      const failed = expect(fetching).rejects.toMatchObject({ code: "daemon_draining" });
      await waitFor(() => (countOf(net, "b")?.["received_bytes"] ?? 0) >= 2 * MIB);
      await taker.kill();
      await failed;
      const again = await net.open("b");
      await again.swarm.fetch(artifact, { signal: never });
      await expectBytes(again, "rfs-1", bytes);
      expect(countOf(net, "b")?.["received_bytes"]).toBeLessThanOrEqual(2.5 * MIB);
    }));

  it("stops when it is told to, and can be asked again", () =>
    withNet(async (net) => {
      const builder = await net.open("a", { uploadLimitBps: MIB });
      const taker = await net.open("b");
      const bytes = randomBytes(2 * MIB);
      const artifact = await net.seed(builder, "rfs-1", bytes);
      const abort = new AbortController();
      const fetching = taker.swarm.fetch(artifact, { signal: abort.signal });
      const failed = expect(fetching).rejects.toThrow("enough");
      await waitFor(() => (countOf(net, "b")?.["received_bytes"] ?? 0) > 0);
      abort.abort(new Error("enough"));
      await failed;
      await taker.swarm.fetch(artifact, { signal: never });
      await expectBytes(taker, "rfs-1", bytes);
    }));

  it("gives up when the catalog has named no holder for a minute", () =>
    withFastNet(async (net) => {
      const [a, b] = await openAll(net, ["a", "b"]);
      if (a === undefined || b === undefined) throw new Error("no nodes");
      const artifact = await net.seed(a, "rfs-1", randomBytes(MIB));
      net.hold("a", "rfs-1", undefined);
      const start = net.clock.monotonic();
      await expect(b.swarm.fetch(artifact, { signal: never })).rejects.toMatchObject({
        code: "fetch_failed",
        message: "no node that is up has the chunk manifest of artifact rfs-1",
      });
      expect(net.clock.monotonic() - start).toBeGreaterThanOrEqual(60_000);
    }));

  it("gives up when only a dead member has what lacks, and says what lacks and who has it", () =>
    withFastNet(async (net) => {
      const [dead, ...others] = await openAll(net, ["dead", "b", "c"]);
      if (dead === undefined) throw new Error("no nodes");
      const artifact = await net.seed(dead, "rfs-1", randomBytes(4 * MIB));
      let told = 0;
      let killed: Promise<void> | undefined;
      net.tamper = (from, _to, answer) => {
        if (from === "dead") told += answer.length;
        if (told < MIB) return answer;
        killed ??= dead.kill();
        return from === "dead" ? undefined : answer;
      };
      const start = net.clock.monotonic();
      const fetches = others.map(({ swarm }) => swarm.fetch(artifact, { signal: never }));
      for (const outcome of await Promise.allSettled(fetches)) {
        expect(outcome).toMatchObject({
          reason: {
            code: "fetch_failed",
            message: expect.stringMatching(
              /^no node that is up has \d+ chunks \(.*\) of artifact rfs-1; .* dead, which /,
            ) as string,
            meta: { artifact_id: "rfs-1", unreachable_holders: ["dead"] },
          },
        });
        const { meta } = (outcome as PromiseRejectedResult).reason as AppError<"fetch_failed">;
        expect(meta["missing_chunks"]).toBeGreaterThanOrEqual(48);
      }
      expect(net.clock.monotonic() - start).toBeGreaterThanOrEqual(60_000);
      await killed;
    }));

  it("deflates what deflates", () =>
    withNet(async (net) => {
      const [a, b] = await openAll(net, ["a", "b"], { compress: zlibCompressor });
      if (a === undefined || b === undefined) throw new Error("no nodes");
      const bytes = imageBytes(1, 60);
      const artifact = await net.seed(a, "rfs-1", bytes);
      await b.swarm.fetch(artifact, { signal: never });
      await expectBytes(b, "rfs-1", bytes);
      expect(countOf(net, "b")?.["received_bytes"]).toBeLessThan(bytes.length / 4);
    }));

  it("repairs damaged bytes from a peer, fetching the damaged chunks only", () =>
    withNet(async (net) => {
      const [a, b] = await openAll(net, ["a", "b"]);
      if (a === undefined || b === undefined) throw new Error("no nodes");
      const bytes = randomBytes(4 * MIB);
      const artifact = await net.seed(a, "rfs-1", bytes);
      await b.swarm.fetch(artifact, { signal: never });
      const before = countOf(net, "b")?.["received_bytes"] ?? 0;
      const file = await open(b.store.find("rfs-1")?.path ?? "", "r+");
      await file.write(Buffer.from([1 ^ (bytes[700_000] ?? 0)]), 0, 1, 700_000);
      await file.close();
      await expect(b.store.verify(artifact.digest)).rejects.toMatchObject({
        code: "artifact_corrupt",
      });
      await b.swarm.fetch(artifact, { signal: never });
      await expectBytes(b, "rfs-1", bytes);
      await b.store.verify(artifact.digest);
      expect((countOf(net, "b")?.["received_bytes"] ?? 0) - before).toBe(CHUNK_SIZE_BYTES);
    }));
});
