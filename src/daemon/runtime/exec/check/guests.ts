/** Rules of booting, freezing, restoring and ending. */
import { join } from "node:path";
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

/** @throws Violation unless `list` tells of it by that generation, with the same ports */
export async function assertListed(
  on: CheckContext,
  { instance, ports }: Running,
  generation: number,
): Promise<void> {
  const other = { id: "check-other", dir: join(on.dir, "instances/check-other/instance") };
  const [found, ...more] = await on.listed(instance, other);
  if (found?.id !== instance.id) throw new Violation("list does not tell of one that runs");
  if (more.length > 0) throw new Violation(`list tells of ${more[0]?.id ?? ""}, which never ran`);
  if (found.generation !== generation) {
    throw new Violation(`list tells generation ${found.generation}, not ${generation}`);
  }
  for (const port of on.guest.exposedPorts) {
    const [is, was] = [found.ports[port], ports[port]];
    if (is?.host === was?.host && is?.port === was?.port) continue;
    throw new Violation(`list tells another address of port ${port}`);
  }
}

async function assertNotListed(on: CheckContext, running: Running, when: string): Promise<void> {
  for (let tries = 50; tries > 0; tries--) {
    if ((await on.listed(running.instance)).length === 0) return;
    await on.clock.sleep(100);
  }
  throw new Violation(`list tells of one that was ${when}`);
}

const hashOf = (on: CheckContext, { dir, files }: Frozen) =>
  on.hashOf(...files.map((name) => join(dir, name)));

const BOOT_CHECKS: readonly Check[] = [
  {
    id: "boot",
    rule: "boots a guest, and tells where each of its ports is reached",
    run: (on) => on.booted(),
  },
  {
    id: "boot-runs-on",
    rule: "a guest runs on after its call, and answers HTTP",
    run: async (on) => on.ready(await on.booted()),
  },
  {
    id: "list",
    rule: "list tells of those that run, with generation and ports, and of no other",
    run: async (on) => assertListed(on, await on.booted(), 1),
  },
  {
    id: "usage",
    rule: "usage counts processes and memory",
    async run(on) {
      const { instance } = await on.booted();
      const told = await on.executable.call("usage", { instances: [instance] });
      if (told.processes > 0 && told.memory_bytes > 0) return;
      throw new Violation(`${told.processes} processes with ${told.memory_bytes} bytes`);
    },
  },
  {
    id: "snapshot",
    rule: "snapshot tells all files that it made, and only those",
    run: (on) => on.template(),
  },
  {
    id: "stop",
    rule: "stop leaves no process of an instance",
    async run(on) {
      await on.template();
      await on.assertNoProcess((await on.booted()).instance.dir, "after stop");
    },
  },
  {
    id: "stop-again",
    rule: "stop of an instance that does not run, or never did, is no error",
    async run(on) {
      await on.template();
      await on.stop((await on.booted()).instance);
      await on.stop(await on.instance());
    },
  },
  {
    id: "not-running",
    rule: "snapshot of an instance that does not run is not_running",
    async run(on) {
      const instance = await on.instance();
      const snapshot = { dir: join(instance.dir, "..") };
      const request = { instance, snapshot, live: false };
      assertRefused(await refusalOf(on, "snapshot", request, instance.dir), "not_running");
    },
  },
];

const RESTORE_CHECKS: readonly Check[] = [
  {
    id: "restore",
    rule: "restore starts the guest as it was frozen, also when the folder has moved",
    async run(on) {
      const one = await on.running();
      await on.assertNote(one, FROZEN, "after the restore");
      await on.stop(one.instance);
    },
  },
  {
    id: "side-by-side",
    rule: "several run from one snapshot, started at the same time, each with its own state",
    async run(on) {
      const from = await on.template();
      const [one, two] = await Promise.all([on.restore(from), on.restore(from)]);
      await on.ready(one);
      await on.ready(two);
      await on.note(one, "one");
      await on.note(two, "two");
      await on.assertNote(one, "one", "with another beside it");
      for (const { instance } of [one, two]) await on.stop(instance);
    },
  },
  {
    id: "snapshot-unchanged",
    rule: "guests change nothing of the snapshot they were started from",
    async run(on) {
      const from = await on.template();
      const before = await hashOf(on, from);
      const one = await on.running();
      await on.ready(one);
      await on.note(one, "changed");
      await on.stop(one.instance);
      if ((await hashOf(on, from)) !== before) throw new Violation("its files have changed");
    },
  },
  {
    id: "killed",
    rule: "list does not tell of a guest that has ended by itself",
    async run(on) {
      const one = await on.running();
      if (one.pid === undefined) return;
      process.kill(one.pid, "SIGKILL");
      await assertNotListed(on, one, "killed");
      await on.stop(one.instance);
    },
  },
  {
    id: "unusable",
    rule: "restore refuses a snapshot whose files are not whole, and leaves nothing running",
    async run(on) {
      const instance = await on.instance();
      const request = on.restoreRequest(instance, await on.damaged(await on.template()));
      assertRefused(await refusalOf(on, "restore", request, instance.dir), "snapshot_unusable");
      await on.assertNoProcess(instance.dir, "after the refusal");
    },
  },
  {
    id: "terminate",
    rule: "gives a call up within 5 s of SIGTERM",
    async run(on) {
      const { outcome } = await cutBoot(on);
      if (outcome.signal === "SIGKILL") throw new Violation("it had to be killed");
    },
  },
  {
    id: "cut-off",
    rule: "stop leaves no process of a boot that was cut off",
    async run(on) {
      const { instance } = await cutBoot(on);
      await on.stop(instance);
      await on.assertNoProcess(instance.dir, "after stop");
    },
  },
];

/** A boot that is ended after half of the time that it takes. */
async function cutBoot(on: CheckContext) {
  await on.booted();
  const instance = await on.instance();
  const request = { schema_version: SCHEMA_VERSION, ...on.bootRequest(instance) };
  const limitMs = Math.max(1, Math.round(on.bootMs / 2));
  const outcome = await on.executable.run("boot", request, { dir: instance.dir, limitMs });
  return { instance, outcome };
}

export const GUEST_CHECKS: readonly Check[] = [...BOOT_CHECKS, ...RESTORE_CHECKS];
