/**
 * QEMU's command line. A boot and a restore must describe the same machine, or no state fits; they
 * differ in where memory, disk and state lie. Paths are written as JSON where QEMU takes JSON, so
 * that no comma in a folder's name can add an option.
 */
import type { GuestSpec } from "../../../domain/index.ts";
import { AGENT_PORT } from "../guest-agent.ts";

export type Accelerator = "kvm" | "tcg";

/** Files in a VM's folder. */
export const VM_FILES = {
  memory: "memory",
  disk: "disk.qcow2",
  layer: "layer.qcow2",
  devices: "devices",
  state: "state",
  log: "qemu.log",
  qmp: "qmp.sock",
  agent: "agent.sock",
  incoming: "state.sock",
  record: "vm.json",
} as const;

/** What a sandbox was started from, linked into its folder, and named so there. */
export const ORIGIN_FILES = {
  memory: "origin-memory",
  disk: "origin-disk.qcow2",
  state: "origin-state",
} as const;

/** Descriptors that QEMU inherits behind the standard three. */
export const VM_FDS = { state: 3, qmp: 4, agent: 5, console: 6 } as const;

/** A kernel needs this much to unpack itself and its initial root. */
const MIN_MEMORY_MIB = 128;

/** What a snapshot is bound to: a restored machine must be the one that was booted. */
export interface Shape {
  readonly memoryMib: number;
  readonly cpus: number;
}

export const shapeOf = (guest: GuestSpec): Shape => ({
  memoryMib: Math.max(MIN_MEMORY_MIB, Math.ceil(guest.memoryMib / 2) * 2),
  cpus: Math.max(1, Math.ceil(guest.cpuMillis / 1_000)),
});

/** Recorded in a replica's versions: memory snapshots depend on it. */
export const MACHINE = "microvm";
const CPU_MODEL = "max";

export interface DiskLayer {
  readonly path: string;
  readonly format: "raw" | "qcow2";
}

export interface VmOptions {
  readonly name: string;
  readonly accelerator: Accelerator;
  readonly shape: Shape;
  /** `share`: writes reach the file; otherwise they are copied away from it. */
  readonly memory: { readonly path: string; readonly share: boolean };
  /** The overlay that is written, and what it lies on, topmost first: never what a header says. */
  readonly diskPath: string;
  readonly below: readonly DiskLayer[];
  readonly guestPorts: readonly number[];
  /** User-mode networking would let a guest reach the host's own loopback at 10.0.2.2. */
  readonly isolated: boolean;
  readonly start:
    | { readonly boot: { kernel: string; initrd: string; tscKhz: number | undefined } }
    /** Waits for its state, and for being told to read it. */
    | "incoming";
}

/** `microvm` has few devices and a firmware of milliseconds; PIT and PIC for the kernel's clock. */
export const machineArguments = (accelerator: Accelerator, more = ""): string[] => [
  ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"],
  ...["-M", `${MACHINE},pit=on,pic=on,rtc=on,accel=${accelerator}${more}`, "-cpu", CPU_MODEL],
  // What a guest that broke out of QEMU could not do either.
  ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
];

/**
 * The microvm's ACPI is hardware-reduced: its kernel has no timer interrupt until it knows the
 * frequency of its time stamp counter, and measuring that against the PIT fails on a busy host
 * (then it waits for a tick for ever). So the frequency is given when it is known.
 */
export const kernelCommandLine = (
  accelerator: Accelerator,
  tscKhz: number | undefined,
  ...more: string[]
): string =>
  ["console=ttyS0", "reboot=t", "panic=-1", "random.trust_cpu=on"]
    // Against flaws of processors: an emulated one has not got them, and pays for each defence.
    .concat(accelerator === "tcg" ? ["mitigations=off"] : [])
    .concat(tscKhz === undefined ? [] : [`tsc_early_khz=${tscKhz}`], more)
    .join(" ");

/** Name of the node that the guest's disk is, or that a layer above it lies on. */
export const DISK_NODE = "disk";

function backingOf([top, ...below]: readonly DiskLayer[]): unknown {
  if (top === undefined) return null;
  return {
    driver: top.format,
    "read-only": true,
    file: { driver: "file", filename: top.path },
    ...(top.format === "raw" ? {} : { backing: backingOf(below) }),
  };
}

/** Arguments for a process whose working directory is the VM's own folder. */
export function vmArguments(vm: VmOptions): string[] {
  const memory = {
    "qom-type": "memory-backend-file",
    id: "ram",
    size: vm.shape.memoryMib * 1_048_576,
    "mem-path": vm.memory.path,
    share: vm.memory.share,
  };
  const disk = {
    driver: "qcow2",
    "node-name": DISK_NODE,
    discard: "unmap",
    // A sandbox's disk does not outlive its process, and a template's is flushed when it is done.
    cache: { direct: false, "no-flush": true },
    file: { driver: "file", filename: vm.diskPath },
    backing: backingOf(vm.below),
  };
  // Port 0: the system picks a free one, and no other process can come between.
  const forwards = vm.guestPorts.map((port) => `,hostfwd=tcp:127.0.0.1:0-:${port}`).join("");
  return [
    ...["-name", `guest=templatecenter-${vm.name}`],
    ...machineArguments(vm.accelerator, ",memory-backend=ram"),
    ...["-smp", String(vm.shape.cpus), "-m", `${vm.shape.memoryMib}M`],
    ...["-object", JSON.stringify(memory), "-blockdev", JSON.stringify(disk)],
    // The first control channel ends with the daemon; the second is there for the next one.
    ...["-chardev", `socket,id=qmp,fd=${VM_FDS.qmp}`, "-mon", "chardev=qmp,mode=control"],
    ...["-qmp", `unix:${VM_FILES.qmp},server=on,wait=off`],
    ...["-device", `virtio-blk-device,drive=${DISK_NODE}`],
    ...["-netdev", `user,id=net,restrict=${vm.isolated ? "on" : "off"}${forwards}`],
    ...["-device", "virtio-net-device,netdev=net"],
    ...["-device", "virtio-rng-device", "-device", "virtio-serial-device"],
    ...["-chardev", `socket,id=agent,fd=${VM_FDS.agent}`],
    ...["-device", `virtserialport,chardev=agent,name=${AGENT_PORT}`],
    ...(vm.start !== "incoming"
      ? [
          ...["-kernel", vm.start.boot.kernel, "-initrd", vm.start.boot.initrd],
          ...["-append", kernelCommandLine(vm.accelerator, vm.start.boot.tscKhz, "quiet")],
          ...["-chardev", `socket,id=console,fd=${VM_FDS.console}`],
        ]
      : [
          // A state that was saved of a running guest must not run before it is told to.
          ...["-S", "-incoming", "defer"],
          // Bounded: a sandbox cannot fill the host's disk with its console.
          ...["-chardev", "ringbuf,id=console,size=65536"],
        ]),
    ...["-serial", "chardev:console"],
  ];
}
