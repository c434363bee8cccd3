import { describe, expect, test } from "vitest";
import {
  AppError,
  ERRORS,
  artifactMachine,
  decodeChunkManifest,
  encodeChunkManifest,
  errorText,
  isActiveJob,
  isHole,
  jobMachine,
  sharedChunkRatio,
  supersedes,
  templateMachine,
  toMermaid,
} from "../../../src/domain/index.ts";

describe("state machines", () => {
  test("READY and FAILED jobs take no event", () => {
    expect(jobMachine.isTerminal("READY")).toBe(true);
    expect(jobMachine.isTerminal("FAILED")).toBe(true);
    expect(() => jobMachine.next("j1", "READY", "fail")).toThrow(/j1 is READY/);
  });
  test("an illegal pair names subject, state and what is allowed", () => {
    try {
      templateMachine.next("tpl-1", "PENDING", "delete");
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({ code: "wrong_status", meta: { actual: "PENDING" } });
    }
  });
  test("a build may claim an artifact from any status but PENDING cleanup leaves it READY", () => {
    for (const status of ["PENDING", "FAILED", "CLEANUP_PENDING", "READY"] as const) {
      expect(artifactMachine.next("rfs-1", status, "build")).toBe("BUILDING");
    }
  });
  test("a machine prints as mermaid", () => {
    expect(toMermaid(jobMachine)).toContain("RUNNING --> READY: finish");
    expect(toMermaid(jobMachine)).toContain("READY --> [*]");
  });
  test("a job is active iff PENDING or RUNNING, in any case", () => {
    expect(
      ["pending", "RUNNING", "READY", "FAILED"].map((s) => isActiveJob({ status: s })),
    ).toEqual([true, true, false, false]);
  });
});

describe("chunk manifest", () => {
  const hashes = new Uint8Array(3 * 32);
  hashes.fill(1, 0, 32);
  hashes.fill(2, 64, 96);
  const manifest = { sizeBytes: 150_000, chunkSizeBytes: 65_536, hashes };
  test("is read back as it was written", () => {
    expect(decodeChunkManifest(encodeChunkManifest(manifest))).toEqual(manifest);
    expect([0, 1, 2].map((i) => isHole(manifest, i))).toEqual([false, true, false]);
  });
  test("bytes that are none are refused", () => {
    expect(() => decodeChunkManifest(new Uint8Array(10))).toThrow(RangeError);
    expect(() => decodeChunkManifest(encodeChunkManifest(manifest).subarray(0, 90))).toThrow(
      RangeError,
    );
  });
  test("sharing counts content wherever it is, and no holes", () => {
    const moved = { ...manifest, hashes: hashes.slice() };
    moved.hashes.fill(2, 0, 32);
    moved.hashes.fill(9, 64, 96);
    expect(sharedChunkRatio(manifest, moved)).toBe(0.5);
    expect(sharedChunkRatio(manifest, manifest)).toBe(1);
  });
});

describe("errors", () => {
  test("a problem has code, status and the request's id, and never the cause", () => {
    const error = new AppError("template_not_found", "template tpl-1 not found", {
      cause: new Error("secret"),
    });
    const problem = error.toProblem("req-1");
    expect(problem).toMatchObject({ code: "template_not_found", status: 404, instance: "req-1" });
    expect(JSON.stringify(problem)).not.toContain("secret");
    expect(errorText(error)).toBe("template tpl-1 not found: secret");
  });
  test("every row has a sane status and exit code", () => {
    for (const [code, row] of Object.entries(ERRORS)) {
      expect(row.status, code).toBeGreaterThanOrEqual(400);
      expect(row.exit, code).toBeGreaterThan(0);
    }
  });
});

test("merge rule: only a higher version replaces", () => {
  expect(supersedes({ version: 1 }, undefined)).toBe(true);
  expect(supersedes({ version: 1 }, { version: 1 })).toBe(false);
  expect(supersedes({ version: 2 }, { version: 1 })).toBe(true);
});
