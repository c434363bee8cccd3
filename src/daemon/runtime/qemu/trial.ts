/**
 * What this host can do, found out by booting a trial guest and remembered for this boot of the
 * host. KVM: `/dev/kvm` can be there, open, and yet hang every guest, so a guest gets a time limit.
 * TCG: the frequency of the time stamp counter, which a guest that boots on a busy host fails to
 * measure (and then hangs, see command.ts); the trial tries until one guest has measured it.
 */
import { access, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { constants } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import type { Clock, Log } from "../../../domain/index.ts";
import type { GuestAssets } from "../guest-assets.ts";
import { TRIAL_MARK } from "../guest-init.ts";
import {
  VM_FDS,
  VM_FILES,
  kernelCommandLine,
  machineArguments,
  type Accelerator,
} from "./command.ts";
import { readConsole } from "./console.ts";
import { endProcess, spawnVm } from "./vm-process.ts";

const TRIAL_MS = 5_000;
const MEASUREMENTS = 12;
const MEASURED = /tsc: Detected ([\d.]+) MHz/;
const NOT_MEASURED = /tsc: (Unable to calibrate|Marking TSC unstable)/;

const outcomeSchema = z.object({
  key: z.string(),
  accelerator: z.enum(["kvm", "tcg"]),
  tsc_khz: z.number().optional(),
  detail: z.string(),
});

export interface Chosen {
  readonly accelerator: Accelerator;
  /** Absent with KVM, which tells its guests itself. */
  readonly tscKhz: number | undefined;
  readonly detail: string;
}

export interface TrialParts {
  readonly program: string;
  readonly qemuVersion: string;
  readonly assets: GuestAssets;
  /** The outcome is kept here, in `qemu-trial.json`. */
  readonly stateDir: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** Takes seconds the first time after a boot of the host, else none. */
export async function chooseAccelerator(parts: TrialParts, signal: AbortSignal): Promise<Chosen> {
  const boot = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  const key = [boot, parts.qemuVersion, parts.assets.versions.guest_image_version].join(" ");
  const path = join(parts.stateDir, "qemu-trial.json");
  const known = await readFile(path, "utf8").then(
    (text) => outcomeSchema.safeParse(JSON.parse(text)).data,
    () => undefined,
  );
  if (known?.key === key) {
    return { accelerator: known.accelerator, tscKhz: known.tsc_khz, detail: known.detail };
  }
  const chosen = await tryHost(parts, signal);
  const outcome: z.infer<typeof outcomeSchema> = {
    key,
    accelerator: chosen.accelerator,
    detail: chosen.detail,
    ...(chosen.tscKhz === undefined ? {} : { tsc_khz: chosen.tscKhz }),
  };
  await writeFile(`${path}.new`, `${JSON.stringify(outcome)}\n`, { mode: 0o640 });
  await rename(`${path}.new`, path);
  return chosen;
}

async function tryHost(parts: TrialParts, signal: AbortSignal): Promise<Chosen> {
  const usable = await access("/dev/kvm", constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  let why = "/dev/kvm cannot be opened";
  if (usable) {
    const { heard, ended, log } = await boot(parts, "kvm", [TRIAL_MARK], signal);
    if (heard !== undefined) {
      return { accelerator: "kvm", tscKhz: undefined, detail: "kvm: a trial guest booted with it" };
    }
    why = ended
      ? `QEMU ended in a trial boot with /dev/kvm${log === "" ? "" : ` (${log})`}`
      : `/dev/kvm did not boot a trial guest in ${TRIAL_MS / 1_000} s`;
  }
  const tscKhz = await measureTsc(parts, signal);
  return { accelerator: "tcg", tscKhz, detail: `tcg: ${why}` };
}

async function measureTsc(parts: TrialParts, signal: AbortSignal): Promise<number | undefined> {
  for (let attempt = 0; attempt < MEASUREMENTS; attempt++) {
    const { heard } = await boot(parts, "tcg", [MEASURED, NOT_MEASURED], signal);
    const megahertz = Number(MEASURED.exec(heard ?? "")?.[1]);
    if (megahertz > 0) return Math.round(megahertz * 1_000);
  }
  // As a rule the same number, but on a host that changes its clock it is the present one.
  const cpus = await readFile("/proc/cpuinfo", "utf8");
  const megahertz = Number(/^cpu MHz\s*:\s*([\d.]+)/m.exec(cpus)?.[1]);
  parts.log.warn("the time stamp counter was not measured by a trial guest", { megahertz });
  return megahertz > 0 ? Math.round(megahertz * 1_000) : undefined;
}

interface TrialBoot {
  /** The first console line that matched. */
  readonly heard: string | undefined;
  /** QEMU ended by itself. */
  readonly ended: boolean;
  /** The first line QEMU complained with, or blank. */
  readonly log: string;
}

/** Boots kernel and initial root without disk, until the console says what is wanted. */
async function boot(
  parts: TrialParts,
  accelerator: Accelerator,
  wanted: readonly (string | RegExp)[],
  signal: AbortSignal,
): Promise<TrialBoot> {
  const { program, assets, clock } = parts;
  await mkdir(join(parts.stateDir, "work"), { recursive: true });
  const dir = await mkdtemp(join(parts.stateDir, "work/trial-"));
  const more = ["earlyprintk=ttyS0", "loglevel=7", "templatecenter.trial"];
  const args = [
    ...["-name", "guest=templatecenter-trial", ...machineArguments(accelerator), "-m", "128M"],
    ...["-kernel", assets.kernel, "-initrd", assets.initramfs],
    ...["-append", kernelCommandLine(accelerator, undefined, ...more)],
    ...["-chardev", `socket,id=console,fd=${VM_FDS.console}`, "-serial", "chardev:console"],
  ];
  let heard: string | undefined;
  try {
    signal.throwIfAborted();
    const vm = await spawnVm(program, args, dir, "ignore");
    readConsole(vm.console, (line) => {
      const matches = wanted.some((one) =>
        typeof one === "string" ? line.includes(one) : one.test(line),
      );
      if (matches) heard ??= line;
    });
    const until = clock.monotonic() + TRIAL_MS;
    while (heard === undefined && vm.alive() && clock.monotonic() < until && !signal.aborted) {
      await clock.sleep(20);
    }
    const ended = !vm.alive();
    await endProcess(vm.id, clock);
    for (const channel of [vm.console, vm.qmp, vm.agent]) channel.destroy();
    signal.throwIfAborted();
    const [log = ""] = (await readFile(join(dir, VM_FILES.log), "utf8")).split("\n");
    return { heard, ended, log: log.trim().slice(0, 200) };
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
