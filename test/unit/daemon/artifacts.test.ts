import { beforeEach, expect, it } from "vitest";
import { isHeldByPeer } from "../../../src/daemon/build/builder.ts";
import { createArtifacts, type Artifacts } from "../../../src/daemon/build/artifacts.ts";
import { KeyedQueue, createFacts, createRecords } from "../../../src/daemon/records.ts";
import {
  AppError,
  CLUSTER,
  type ArtifactRecord,
  type ArtifactStore,
  type RootfsBuilder,
  type RootfsBuildResult,
} from "../../../src/domain/index.ts";
import { openCatalog, type OpenedCatalog } from "../../../src/storage/index.ts";
import { imageOf } from "../../support/resolved-image.ts";
import { manualClock, memoryDatabase, realClock, recordedLog } from "../../support/storage.ts";

const BAKE = { inputs: {}, caFingerprint: "", envdSha256: "" };
const REQUEST = { source_image_ref: "test", writable_layer_size: "64Mi" };
const AT = "2026-01-01T00:00:00.000Z";
const THERE = { node_id: "there", template_id: "tpl-there", epoch: 1 };
const HERE = { node_id: "here", template_id: "tpl-here", epoch: 1 };
const { image } = imageOf([]);
type Change = (current: ArtifactRecord | undefined) => ArtifactRecord | null | undefined;

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

let catalog: OpenedCatalog;
let artifacts: Artifacts;
/** What a quorum holds, whatever has reached the catalog here. */
let chosen: ArtifactRecord | undefined;
/** Does a quorum know the other's leadership as lasting; this node has not heard of it. */
let lasts: boolean;
let asked: number;
let builds: number;
/** The record when it was last built. */
let atBuild: ArtifactRecord | undefined;

/** What a build comes to; absent: it fails. */
let built: RootfsBuildResult | undefined;
/** Called ahead of each change of the record. */
let between: (next: ArtifactRecord | null | undefined) => void;

const builder: RootfsBuilder = {
  async build() {
    builds++;
    atBuild = chosen;
    if (built === undefined) throw new Error("built here");
    return built;
  },
};

beforeEach(async () => {
  chosen = undefined;
  lasts = true;
  asked = 0;
  builds = 0;
  built = undefined;
  between = () => undefined;
  const log = recordedLog();
  catalog = await openCatalog({
    dir: "unused",
    log,
    clock: realClock,
    openDatabase: async () => memoryDatabase(),
  });
  const update = async (_kind: string, id: string, change: Change) => {
    const next = change(chosen);
    between(next);
    if (next !== undefined) chosen = next ?? undefined;
    return { owner: CLUSTER, kind: "artifact", id, version: 1, value: chosen };
  };
  const clock = { ...manualClock(Date.parse(AT)), sleep: turn };
  artifacts = createArtifacts({
    catalog,
    records: createRecords(catalog, { update } as never),
    facts: createFacts(catalog, clock, "here"),
    store: {
      find: () => undefined,
      scratchPath: () => "/nonexistent",
      publish: () => Promise.resolve({}),
    } as unknown as ArtifactStore,
    folders: { remove: () => Promise.resolve() },
    builder,
    clock,
    random: { uuid: () => "token" } as never,
    log,
    cleanup: { release: () => Promise.resolve() },
    files: new KeyedQueue(),
    holdSpace: async () => ({ wrote: () => undefined, release: () => undefined }),
    isBuilding: () => false,
    askBuilding: () => {
      asked++;
      return Promise.resolve(lasts);
    },
    isHeldElsewhere: (artifact) =>
      isHeldByPeer(artifact, { catalog, nowMs: clock.now(), isUp: (id) => id === "there" }),
  });
});

const spec = () => artifacts.specOf(image, REQUEST, BAKE);
const record = (more: Partial<ArtifactRecord>): ArtifactRecord => ({
  artifact_id: spec().artifactId,
  template_spec_fingerprint: spec().fingerprint,
  build_key: spec().buildKey,
  source_image_ref: "test",
  source_image_digest: image.digest,
  digest: "",
  ext4_size_bytes: 0,
  data_bytes: 0,
  entries: 0,
  writable_layer_size: "64Mi",
  image_config: image.config as NonNullable<ArtifactRecord["image_config"]>,
  status: "BUILDING",
  last_error: "",
  gc_deadline: 0,
  cube_egress_ca_baked: false,
  cube_egress_ca_fingerprint: "",
  cube_egress_ca_targets_written: 0,
  download_token: "token",
  created_at: AT,
  updated_at: AT,
  ...more,
});
const made = () => record({ status: "READY", digest: "sha256:00", built_on: "there" });
const ensure = (signal: AbortSignal = new AbortController().signal) =>
  artifacts.ensure(spec(), image, REQUEST, BAKE, {
    signal,
    builder: HERE,
    onLog: () => undefined,
    onProgress: () => undefined,
  });

it("waits for a builder whose leadership is not heard of here, and takes what it made", async () => {
  chosen = record({ builder: THERE });
  const ended = ensure();
  while (asked < 3) await turn();
  chosen = made();
  expect(await ended).toMatchObject({ fresh: false, artifact: { built_on: "there" } });
  expect(builds).toBe(0);
});

it("builds itself what is left of a leadership that has ended, as a quorum knows", async () => {
  chosen = record({ builder: THERE });
  lasts = false;
  await expect(ensure()).rejects.toThrow("built here");
  expect(chosen).toMatchObject({ status: "FAILED", builder: HERE });
});

it("says that it holds what it has built, also when it does not hear that the record is READY", async () => {
  built = {
    ...{ digest: "sha256:01", sizeBytes: 1, dataBytes: 1, entries: 1, timings: {} },
    manifest: { sizeBytes: 1, chunkSizeBytes: 65_536, hashes: new Uint8Array(32) },
    bake: { ca_baked: false, ca_seeded: false, ca_targets_written: 0, envd_installed: false },
  };
  between = (next) => {
    if (next?.status === "READY") throw new AppError("no_quorum", "no answer in time");
  };
  await expect(ensure()).rejects.toMatchObject({ code: "no_quorum" });
  const held = catalog.get("here", "holding", spec().artifactId)?.value;
  expect(held).toMatchObject({ digest: "sha256:01", complete: true });
});

it("counts on the maker's copy until the maker is heard of, and a minute at most", async () => {
  chosen = made();
  expect((await ensure()).fresh).toBe(false);
  const holding = { artifact_id: chosen.artifact_id, digest: "sha256:00", size_bytes: 0 };
  const say = (version: number, complete: boolean) =>
    catalog.merge([
      {
        owner: "there",
        kind: "holding",
        id: holding.artifact_id,
        version,
        value: { ...holding, complete },
      },
    ]);
  await say(1, true);
  expect((await ensure()).fresh).toBe(false);
  await say(2, false);
  await expect(ensure()).rejects.toThrow("built here");
});

it("does not count on a maker that is down or was not heard of for long", () => {
  const sight = { catalog, nowMs: Date.parse(AT), isUp: () => true };
  expect(isHeldByPeer(made(), sight)).toBe(true);
  expect(isHeldByPeer(made(), { ...sight, isUp: () => false })).toBe(false);
  expect(isHeldByPeer(made(), { ...sight, nowMs: Date.parse(AT) + 60_001 })).toBe(false);
  expect(isHeldByPeer(record({ status: "READY" }), sight)).toBe(false);
});

it("row 39: given a READY record without what the request is generated from, then it is rebuilt", async () => {
  const { image_config: _lost, ...rest } = made();
  chosen = rest;
  await expect(ensure()).rejects.toThrow("built here");
  expect(builds).toBe(1);
});

it("row 41: given a record with the expected id but another fingerprint, then an error, and it stays", async () => {
  const other = { ...made(), template_spec_fingerprint: "another" };
  chosen = other;
  await expect(ensure()).rejects.toThrow("belongs to another fingerprint");
  expect([chosen, builds]).toEqual([other, 0]);
});

it("row 42: given a CLEANUP_PENDING record, when a build claims it, then it is BUILDING", async () => {
  chosen = { ...made(), status: "CLEANUP_PENDING", cleaned_by: ["there"] };
  await expect(ensure()).rejects.toThrow("built here");
  expect(atBuild).toMatchObject({ status: "BUILDING", builder: HERE, digest: "" });
});

it("row 73: given it became READY while a redo waits to build it, then it is kept with its token", async () => {
  chosen = record({ builder: THERE, download_token: "before" });
  const ended = ensure();
  while (asked < 1) await turn();
  chosen = { ...made(), download_token: "fresh" };
  const { artifact, fresh } = await ended;
  expect([artifact.download_token, fresh, builds]).toEqual(["fresh", false, 0]);
});
