/** A template's one boot by an exec driver: boot, readiness, snapshot, stop, publish. */
import { mkdir, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  AppError,
  errorText,
  type Clock,
  type ComponentVersions,
  type DriverSnapshot,
  type GuestLog,
  type GuestSpec,
  type Log,
} from "../../../domain/index.ts";
import { awaitReady } from "../readiness.ts";
import type { Executable } from "./call.ts";
import { guestOf } from "./contract.ts";
import { meaningOf } from "./failure.ts";
import { instanceOf } from "./sandbox-folder.ts";
import { publishSnapshot, workFolder } from "./snapshot-folder.ts";

export interface TemplateBoot {
  readonly executable: Executable;
  readonly runtime: string;
  readonly templateId: string;
  readonly rootfsPath: string;
  readonly guest: GuestSpec;
  /** The folder the snapshot gets; it is made under another name first. */
  readonly dir: string;
  readonly versions: ComponentVersions;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly onLog: GuestLog;
  readonly onStep: (step: string) => void;
}

/**
 * On failure nothing is left, neither files nor the instance.
 * @throws AppError guest_boot_failed, guest_probe_failed, snapshot_failed, with `console_tail`
 */
export async function bootTemplate(boot: TemplateBoot): Promise<DriverSnapshot> {
  const { executable, log } = boot;
  const work = workFolder(boot.dir);
  const instance = instanceOf(`boot-${basename(boot.dir)}`, work);
  await clearAway(boot, work);
  await mkdir(instance.dir, { recursive: true, mode: 0o750 });
  const stop = () => executable.call("stop", { instance }, { dir: instance.dir });
  try {
    return await bootAndFreeze(boot, work);
  } catch (error) {
    const isStopped = await stop().then(
      () => true,
      (failed: unknown) => {
        log.error("a template's instance is not ended", { dir: work, reason: errorText(failed) });
        return false;
      },
    );
    // Its folder is what a later start finds it by.
    if (isStopped) await rm(work, { recursive: true, force: true });
    if (boot.signal.aborted) throw boot.signal.reason;
    throw error;
  }
}

/** What an attempt before has left, whose instance may still run. */
async function clearAway({ executable, dir }: TemplateBoot, work: string): Promise<void> {
  if ((await stat(work).catch(() => undefined)) === undefined) return;
  const instance = instanceOf(`boot-${basename(dir)}`, work);
  await executable.call("stop", { instance }, { dir: instance.dir });
  await rm(work, { recursive: true, force: true });
}

async function bootAndFreeze(boot: TemplateBoot, work: string): Promise<DriverSnapshot> {
  const { executable, clock, signal, guest, templateId, rootfsPath, versions } = boot;
  const instance = instanceOf(`boot-${basename(boot.dir)}`, work);
  const console_tail: string[] = [];
  const onLine = (line: string) => {
    console_tail.push(line);
    if (console_tail.length > 20) console_tail.shift();
    boot.onLog(line);
  };
  const options = { signal, onLine, dir: instance.dir };
  const rootfs = await stat(rootfsPath).catch(() => undefined);
  if (rootfs === undefined || rootfs.size === 0) {
    throw new AppError("guest_boot_failed", "the root filesystem is not there");
  }
  const began = clock.monotonic();
  const wrap =
    (code: "guest_boot_failed" | "snapshot_failed", what: string) => (error: unknown) => {
      const meant = meaningOf(error, code, what);
      if (!(meant instanceof AppError)) throw meant;
      throw new AppError(meant.code, meant.message, {
        cause: meant.cause,
        meta: { ...meant.meta, console_tail },
      });
    };
  boot.onStep(`booting with ${boot.runtime}`);
  const started = await executable
    .call(
      "boot",
      {
        instance,
        generation: 1,
        template_id: templateId,
        rootfs_path: rootfsPath,
        guest: guestOf(guest),
      },
      options,
    )
    .catch(wrap("guest_boot_failed", "the guest did not start"));
  const booted = clock.monotonic();
  await ready(boot, started.instance.ports);
  const answered = clock.monotonic();
  boot.onStep(`ready ${Math.round(answered - began)} ms after the boot; taking the snapshot`);
  const target = join(work, "snapshot");
  await mkdir(target, { mode: 0o750 });
  const frozen = await executable
    .call("snapshot", { instance, snapshot: { dir: target }, live: false }, options)
    .catch(wrap("snapshot_failed", "the guest could not be frozen"));
  const saved = clock.monotonic();
  await executable.call("stop", { instance }, { dir: instance.dir });
  signal.throwIfAborted();
  const bytes = await publishSnapshot(target, boot.dir, {
    runtime: boot.runtime,
    rootfs_path: rootfsPath,
    description: frozen.description,
    versions,
    files: frozen.files,
  }).catch(wrap("snapshot_failed", "the guest's snapshot is not what was told of it"));
  await rm(work, { recursive: true, force: true });
  const timings = {
    ...frozen.timings,
    booted_ms: Math.round(booted - began),
    first_answer_ms: Math.round(answered - began),
    snapshot_ms: Math.round(saved - answered),
    flush_ms: Math.round(clock.monotonic() - saved),
  };
  return { templateId, driver: "exec", dir: boot.dir, versions, bytes, timings };
}

/** The daemon asks the guest itself, through the port that the executable has told. */
async function ready(
  { guest, clock, signal, onStep }: TemplateBoot,
  ports: Readonly<Record<string, { host: string; port: number }>>,
): Promise<void> {
  const missing = guest.exposedPorts.find((port) => ports[port] === undefined);
  if (missing !== undefined) {
    throw new AppError("guest_boot_failed", `the executable tells no address of port ${missing}`);
  }
  const { probe } = guest;
  const target = probe === undefined ? undefined : ports[probe.port];
  if (probe === undefined || target === undefined) return;
  onStep(`started; asking GET :${probe.port}${probe.path}`);
  await awaitReady(probe, target, { clock, signal });
}
