/** Which generation of a template's replica sandboxes run on: a redo removes no other. */
import { rm } from "node:fs/promises";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import type { DriverSnapshot } from "../../../src/domain/index.ts";
import { startNode, startWithSandbox } from "../../support/snapshot-node.ts";
import { templateValue } from "../../support/storage.ts";

let setup: Awaited<ReturnType<typeof startWithSandbox>>;
beforeEach(async () => {
  setup = await startWithSandbox("sb-1");
  const { dir } = setup;
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
});

const run = (sandbox_id: string, generation: number | undefined, more = {}) => {
  const request = { template_id: "tpl-1", sandbox_id };
  const snapshot = { templateId: "tpl-1", dir: "template", ...more } as DriverSnapshot;
  return setup.node.sandboxes.run({
    ...{ request, templateId: "tpl-1", effective: request, snapshot },
    ...(generation === undefined ? {} : { generation }),
  });
};
const generationsInUse = (sandboxes = setup.node.sandboxes) =>
  [0, 1, 2, 3].filter((generation) => sandboxes.runsOn("tpl-1", generation));

describe("what sandboxes run on", () => {
  it("may be any generation for one that does not say", () => {
    expect(generationsInUse()).toEqual([0, 1, 2, 3]);
  });

  it("is the generation that each began with, until its last sandbox has ended", async () => {
    const { sandboxes } = setup.node;
    await run("sb-2", 1);
    await run("sb-3", 2);
    await run("sb-4", 2);
    await sandboxes.remove("sb-1");
    expect(generationsInUse()).toEqual([1, 2]);
    expect(sandboxes.runsOn("tpl-2", 1)).toBe(false);
    await sandboxes.remove("sb-3");
    expect(generationsInUse()).toEqual([1, 2]);
    await sandboxes.remove("sb-4");
    expect(generationsInUse()).toEqual([1]);
  });

  it("is known again after a restart of the daemon", async () => {
    await run("sb-2", 2);
    await setup.node.sandboxes.remove("sb-1");
    const again = await startNode(setup.catalog, setup.fake, setup.dir);
    expect(generationsInUse(again.sandboxes)).toEqual([2]);
  });

  it("is nothing of the template for one that runs on a snapshot", async () => {
    await setup.node.sandboxes.remove("sb-1");
    await setup.node.records.update("template", "snap-1", () => templateValue("snap-1"));
    await run("sb-2", 1, { snapshotId: "snap-1" });
    expect(generationsInUse()).toEqual([]);
  });

  it("is not held by one that did not start", async () => {
    await setup.node.sandboxes.remove("sb-1");
    await expect(run("sb-2", 1, { dir: "broken" })).rejects.toThrow();
    expect(generationsInUse()).toEqual([]);
  });
});
