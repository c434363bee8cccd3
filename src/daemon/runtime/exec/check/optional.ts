/** Rules of what an executable may leave out: live snapshots, rollback, transfer, remove. */
import { SCHEMA_VERSION } from "../contract.ts";
import { assertRefused, refusalOf } from "./calls.ts";
import {
  FROZEN,
  Violation,
  type Check,
  type CheckContext,
  type Frozen,
  type Running,
} from "./context.ts";
import { assertListed } from "./guests.ts";

const LIVE_CHECKS: readonly Check[] = [
  {
    id: "live-runs-on",
    rule: "an instance runs on after a live snapshot",
    needs: "live_snapshot",
    async run(on) {
      const one = await on.running();
      await on.ready(one);
      await on.note(one, "live");
      await on.freeze(one.instance, true);
      await assertListed(on, one, 1);
      await on.assertNote(one, "live", "after the snapshot");
      await on.stop(one.instance);
    },
  },
  {
    id: "live-state",
    rule: "a live snapshot holds the instance's state of that moment",
    needs: "live_snapshot",
    async run(on) {
      const one = await on.running();
      await on.ready(one);
      await on.note(one, "then");
      const made = await on.freeze(one.instance, true);
      await on.note(one, "later");
      const two = await on.restore(made);
      await on.assertNote(two, "then", "in what was started from it");
      for (const { instance } of [one, two]) await on.stop(instance);
    },
  },
  {
    id: "recover-idle",
    rule: "recover changes nothing where nothing was cut off",
    needs: "live_snapshot",
    async run(on) {
      const one = await on.running();
      if ((await recover(on, one)).generation !== 1) throw new Violation("it is not generation 1");
      await assertListed(on, one, 1);
      await on.stop(one.instance);
    },
  },
];

async function recover(on: CheckContext, { instance }: Running) {
  const told = await on.executable.call("recover", { instance }, { dir: instance.dir });
  if (told.instance === null) throw new Violation("recover says that it does not run");
  return told.instance;
}

const rollbackRequest = (on: CheckContext, one: Running, from: Frozen, generation: number) => ({
  ...on.restoreRequest(one.instance, from, generation),
  ports: one.ports,
});

async function rollBack(on: CheckContext, one: Running, generation: number): Promise<Running> {
  const request = rollbackRequest(on, one, await on.template(), generation);
  const began = on.clock.monotonic();
  const told = await on.executable.call("rollback", request, { dir: one.instance.dir });
  on.rollbackMs = on.clock.monotonic() - began;
  return { instance: one.instance, ...told.instance };
}

/** One that has moved on since its snapshot. */
async function movedOn(on: CheckContext): Promise<Running> {
  const one = await on.running();
  await on.ready(one);
  await on.note(one, "later");
  return one;
}

const ROLLBACK_CHECKS: readonly Check[] = [
  {
    id: "rollback",
    rule: "rollback puts the state back, with the same host ports and the new generation",
    needs: "rollback",
    async run(on) {
      const one = await movedOn(on);
      const back = await rollBack(on, one, 2);
      await on.assertNote(back, FROZEN, "after the rollback");
      await assertListed(on, one, 2);
      await on.stop(one.instance);
    },
  },
  {
    id: "rollback-unusable",
    rule: "an instance runs on as it was when the snapshot is not whole",
    needs: "rollback",
    async run(on) {
      const one = await movedOn(on);
      const from = await on.damaged(await on.template());
      const request = rollbackRequest(on, one, from, 2);
      const outcome = await refusalOf(on, "rollback", request, one.instance.dir);
      assertRefused(outcome, "snapshot_unusable");
      await assertListed(on, one, 1);
      await on.assertNote(one, "later", "after the refusal");
      await on.stop(one.instance);
    },
  },
  {
    id: "rollback-cut",
    rule: "recover puts a rollback that was cut off to one side or the other, and says which",
    needs: "rollback",
    async run(on) {
      const one = await movedOn(on);
      await rollBack(on, one, 2);
      for (const [index, share] of [0.25, 0.5, 0.75].entries()) {
        await on.ready(one);
        await on.note(one, "later");
        const before = (await on.listed(one.instance))[0]?.generation ?? 0;
        const generation = 3 + index;
        const from = await on.template();
        const request = rollbackRequest(on, one, from, generation);
        const limitMs = Math.max(1, Math.round(on.rollbackMs * share));
        const input = { schema_version: SCHEMA_VERSION, ...request };
        await on.executable.run("rollback", input, { dir: one.instance.dir, limitMs });
        const found = (await recover(on, one)).generation;
        if (found !== before && found !== generation) {
          throw new Violation(`recover says generation ${found}, which is on neither side`);
        }
        await assertListed(on, one, found);
        await on.assertNote(one, found === generation ? FROZEN : "later", "after recover");
      }
      await on.stop(one.instance);
    },
  },
];

const TRANSFER_CHECKS: readonly Check[] = [
  {
    id: "transfer",
    rule: "what was exported is imported in another folder, and started there",
    needs: "transfer",
    async run(on) {
      const made = await on.template();
      const { files, description } = await on.executable.call("export", { snapshot: made });
      const there = await on.copied({ ...made, files, description });
      const request = { snapshot: there, rootfs_path: on.rootfsPath };
      const told = await on.executable.call("import", request);
      const one = await on.restore({ dir: there.dir, ...told });
      await on.assertNote(one, FROZEN, "in what was imported");
      await on.stop(one.instance);
    },
  },
  {
    id: "import-unusable",
    rule: "import refuses files that are not whole",
    needs: "transfer",
    async run(on) {
      const snapshot = await on.damaged(await on.template());
      const request = { snapshot, rootfs_path: on.rootfsPath };
      assertRefused(await refusalOf(on, "import", request, on.dir), "snapshot_unusable");
    },
  },
];

const REMOVE_CHECKS: readonly Check[] = [
  {
    id: "remove",
    rule: "remove may come twice",
    needs: "remove_snapshot",
    async run(on) {
      const snapshot = await on.copied(await on.template());
      await on.executable.call("remove", { snapshot });
      await on.executable.call("remove", { snapshot });
    },
  },
];

export const OPTIONAL_CHECKS: readonly Check[] = [
  ...LIVE_CHECKS,
  ...ROLLBACK_CHECKS,
  ...TRANSFER_CHECKS,
  ...REMOVE_CHECKS,
];
