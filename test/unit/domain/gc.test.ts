import { describe, expect, test } from "vitest";
import {
  applyGcStep,
  gcStep,
  referencesByArtifact,
  type ArtifactRecord,
  type ArtifactReference,
  type ArtifactSight,
  type JobRecord,
  type TemplateRecord,
} from "../../../src/domain/index.ts";

const NOW = 1_000_000;
const TIMES = { nowMs: NOW * 1_000, ttlMs: 7_000_000, graceMs: 60_000 };
const used: ArtifactReference = { kind: "template", id: "tpl-1", status: "READY", why: "" };
const wanted: ArtifactReference = { kind: "job", id: "j-1", status: "RUNNING", why: "" };

const artifact = (change: Partial<ArtifactRecord> = {}): ArtifactRecord => ({
  artifact_id: "rfs-1",
  template_spec_fingerprint: "f",
  build_key: "b",
  source_image_ref: "image",
  source_image_digest: "sha256:0",
  digest: "sha256:1",
  ext4_size_bytes: 10,
  data_bytes: 5,
  entries: 1,
  writable_layer_size: "1Gi",
  status: "READY",
  last_error: "",
  gc_deadline: NOW + 100,
  cube_egress_ca_baked: false,
  cube_egress_ca_fingerprint: "",
  cube_egress_ca_targets_written: 0,
  download_token: "t",
  created_at: "2026-01-01T00:00:00.000Z",
  updated_at: "2026-01-01T00:00:00.000Z",
  ...change,
});
const sight = (change: Partial<ArtifactSight> = {}): ArtifactSight => ({
  references: [],
  isBuilding: false,
  holders: ["a", "b"],
  nowSeconds: NOW,
  graceLeftMs: 1,
  ...change,
});
const since = { unreferenced_at: "2026-01-01T00:00:00.000Z" };

describe("what is to be done with an artifact", () => {
  const cases: [string, Partial<ArtifactRecord>, Partial<ArtifactSight>, string][] = [
    [
      "row 42, claimed by a build: deletion backs off",
      { status: "BUILDING" },
      { isBuilding: true },
      "none",
    ],
    ["used: nothing", {}, { references: [used] }, "none"],
    ["used past its deadline: renewed", { gc_deadline: 1 }, { references: [used] }, "renew"],
    ["unused: its grace begins", {}, {}, "grace"],
    ["unused past the old deadline: first its grace", { gc_deadline: 1 }, {}, "grace"],
    ["in its grace: nothing", since, {}, "none"],
    ["used again in its grace: renewed", since, { references: [used] }, "renew"],
    ["after its grace: released", since, { graceLeftMs: 0 }, "release"],
    ["in its grace, over by another's clock: nothing", { ...since, gc_deadline: 1 }, {}, "none"],
    ["unused and urgent: released", {}, { isUrgent: true }, "release"],
    ["used and urgent: nothing", {}, { isUrgent: true, references: [used] }, "none"],
    ["failed, after its grace", { ...since, status: "FAILED" }, { graceLeftMs: 0 }, "release"],
    ["orphaned, after its grace", { ...since, status: "ORPHANED" }, { graceLeftMs: 0 }, "release"],
    ["being built: nothing", { status: "BUILDING" }, { isBuilding: true }, "none"],
    ["a job waits: nothing", { status: "BUILDING" }, { references: [wanted] }, "none"],
    ["nobody builds, only a template", { status: "BUILDING" }, { references: [used] }, "orphan"],
    ["going, still held: nothing", { status: "CLEANUP_PENDING" }, {}, "none"],
    ["going, held nowhere", { status: "CLEANUP_PENDING" }, { holders: [] }, "forget"],
    [
      "row 88: a reference appears before the end",
      { status: "CLEANUP_PENDING", cleaned_by: ["a"] },
      { references: [used] },
      "renew",
    ],
    [
      "used, and every copy is being removed",
      { status: "CLEANUP_PENDING", cleaned_by: ["a", "b"] },
      { references: [used] },
      "lost",
    ],
  ];
  test.each(cases)("%s", (_name, record, seen, step) => {
    expect(gcStep(artifact(record), sight(seen))).toBe(step);
  });

  test("the grace is counted from when nobody was found to use it", () => {
    const next = applyGcStep(artifact(), "grace", TIMES);
    expect(next).toMatchObject({ status: "READY", gc_deadline: NOW + 60 });
    expect(next?.unreferenced_at).toBe(new Date(TIMES.nowMs).toISOString());
  });
  test("renewing takes it back and remembers whose copies are going", () => {
    const going = artifact({ ...since, status: "CLEANUP_PENDING", cleaned_by: ["a"] });
    const next = applyGcStep(going, "renew", TIMES);
    expect(next).toMatchObject({ status: "READY", gc_deadline: NOW + 7_000, cleaned_by: ["a"] });
    expect(next?.unreferenced_at).toBeUndefined();
  });
  test("release, loss and end", () => {
    expect(applyGcStep(artifact(), "release", TIMES)?.status).toBe("CLEANUP_PENDING");
    const going = artifact({ status: "CLEANUP_PENDING" });
    expect(applyGcStep(going, "lost", TIMES)).toMatchObject({ status: "FAILED" });
    expect(applyGcStep(going, "forget", TIMES)).toBeNull();
    expect(applyGcStep(going, "none", TIMES)).toBeUndefined();
    const orphan = applyGcStep(artifact({ status: "BUILDING" }), "orphan", TIMES);
    expect(orphan?.status).toBe("ORPHANED");
  });
});

describe("references", () => {
  const template = (change: Partial<TemplateRecord>) =>
    ({
      template_id: "tpl-1",
      kind: "template",
      status: "READY",
      request: {},
      ...change,
    }) as TemplateRecord;
  const job = (change: Partial<JobRecord>) =>
    ({ job_id: "j-1", status: "RUNNING", phase: "PULLING", ...change }) as JobRecord;
  const of = (templates: TemplateRecord[], jobs: JobRecord[], except = {}) =>
    (referencesByArtifact({ templates, jobs }, except).get("rfs-1") ?? []).map(
      ({ kind, id }) => `${kind} ${id}`,
    );

  test("templates, snapshots and active jobs count; ended jobs do not", () => {
    const templates = [
      template({ artifact_id: "rfs-1" }),
      template({ template_id: "snap-1", kind: "snapshot", artifact_id: "rfs-1" }),
      template({ template_id: "tpl-2", artifact_id: "rfs-2" }),
    ];
    const jobs = [
      job({ artifact_id: "rfs-1" }),
      job({ job_id: "j-2", artifact_id: "rfs-1", status: "FAILED" }),
    ];
    expect(of(templates, jobs)).toEqual(["template tpl-1", "snapshot snap-1", "job j-1"]);
    expect(of(templates, jobs, { templateId: "tpl-1", jobId: "j-1" })).toEqual(["snapshot snap-1"]);
  });
  test("a stored request that names exactly the id counts", () => {
    const request = { containers: [{ image: { image: "rfs-1" } }] };
    expect(of([template({ request })], [])).toEqual(["template tpl-1"]);
    const other = { containers: [{ image: { image: "rfs-12" } }], annotations: {} };
    expect(of([template({ request: other })], [])).toEqual([]);
  });
  test("a template whose failed build took its artifact along does not count", () => {
    const failed = template({ artifact_id: "rfs-1", artifact_released: true, status: "FAILED" });
    expect(of([failed], [])).toEqual([]);
  });
});
