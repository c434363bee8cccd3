/**
 * Which runtime driver this host gets: the one that is asked for, else QEMU where it can run, else
 * root filesystems only.
 */
import { readFile } from "node:fs/promises";
import { execa } from "execa";
import {
  AppError,
  errorText,
  type Clock,
  type Log,
  type Random,
  type RuntimeDriver,
} from "../../domain/index.ts";
import { ExecDriver } from "./exec/driver.ts";
import { readGuestAssets } from "./guest-assets.ts";
import { QemuDriver } from "./qemu/driver.ts";
import { createRootfsDriver } from "./rootfs.ts";

export interface DriverOptions {
  readonly requested: "auto" | "qemu" | "rootfs" | "exec";
  /** Absolute path of the exec driver's executable; blank without one. */
  readonly execDriver?: string;
  readonly guestDir: string;
  /** The data directory: the KVM trial's outcome is kept there. */
  readonly stateDir: string;
  readonly sandboxesDir: string;
  readonly templatesDir: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface SelectedDriver {
  readonly driver: RuntimeDriver;
  /** Why this one, in words; may be settled after the driver. */
  readonly detail: () => string;
  /** Why it does not answer, while it does not. */
  readonly failure?: () => string | undefined;
}

const PROGRAMS: Readonly<Record<string, string>> = { x64: "qemu-system-x86_64" };

/** @throws AppError driver_unavailable, driver_failed when what was asked for cannot run */
export async function createDriver(options: DriverOptions): Promise<SelectedDriver> {
  if (options.requested === "rootfs") {
    return { driver: createRootfsDriver(options), detail: () => "asked for by the configuration" };
  }
  if (options.requested === "exec") {
    const driver = await ExecDriver.open({ ...options, path: options.execDriver ?? "" });
    return { driver, detail: () => driver.detail(), failure: () => driver.failure() };
  }
  try {
    return await createQemu(options);
  } catch (cause) {
    if (options.requested === "qemu") {
      throw new AppError("driver_unavailable", `the qemu driver cannot run: ${errorText(cause)}`, {
        cause,
      });
    }
    const why = errorText(cause);
    options.log.warn("no micro-VMs on this host: root filesystems only", { why });
    return { driver: createRootfsDriver(options), detail: () => why };
  }
}

async function createQemu(options: DriverOptions): Promise<SelectedDriver> {
  const program = PROGRAMS[process.arch];
  if (program === undefined) {
    throw new AppError("driver_unavailable", `no microvm machine for ${process.arch}`);
  }
  const assets = await readGuestAssets(options.guestDir);
  const asked = await execa(program, ["--version"], { reject: false, timeout: 10_000 });
  const qemuVersion = /version (\S+)/.exec(asked.stdout)?.[1];
  if (asked.failed || qemuVersion === undefined) {
    throw new AppError("driver_unavailable", `${program} does not run: install qemu-system-x86`);
  }
  const cpuinfo = await readFile("/proc/cpuinfo", "utf8");
  const driver = new QemuDriver({ ...options, program, qemuVersion, cpuinfo, assets });
  return { driver, detail: () => driver.detail() };
}
