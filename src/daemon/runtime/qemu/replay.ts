/**
 * A running guest's filesystem, as it is on its disk, has a journal that is to be played back. Its
 * own kernel does that, in a guest that does nothing else: this host reads nothing of what a
 * sandbox's programs may have made of their disk.
 */
import { mkdir, open, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../../domain/index.ts";
import { FILE_TYPE, makeCpio } from "../cpio.ts";
import type { GuestAssets } from "../guest-assets.ts";
import { GUEST_MODULES } from "../guest-init.ts";
import { writeOverlay } from "../qcow2.ts";
import { VM_FILES } from "./command.ts";
import { readConsole } from "./console.ts";
import { endMachine, startMachine } from "./machine.ts";
import type { Chosen } from "./trial.ts";
import type { Spawned } from "./vm-process.ts";

export interface ReplayParts {
  readonly program: string;
  readonly chosen: Chosen;
  readonly assets: GuestAssets;
  readonly clock: Clock;
  /** Told the process while it runs, so that nobody takes it for a leftover. */
  readonly onProcess: (spawned: Spawned) => void;
}

const REPLAY_MS = 120_000;
const POLL_MS = 10;
const PLAYED_MARK = "templatecenter: the journal is played back";
const INITRD = "initrd";
/** The least that a kernel unpacks itself in. */
const SHAPE = { memoryMib: 128, cpus: 1 };

const SCRIPT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
for module in ${GUEST_MODULES.join(" ")}; do
  [ ! -f /modules/$module.ko ] || insmod /modules/$module.ko
done
n=0
until [ -e /dev/vda ] || [ $n -ge 500 ]; do n=$((n + 1)); usleep 10000; done
mount -t ext4 -o rw,noatime /dev/vda /image && umount /image && echo "${PLAYED_MARK}"
poweroff -f
`;

/** In the superblock: what is in the journal is not in its place yet. */
const NEEDS_RECOVERY = 0x4;
const CLEAN = 1;

/** Whether nothing is to be played back, no file is half removed, and the kernel saw no error. */
export async function isClean(path: string): Promise<boolean> {
  const file = await open(path, "r");
  try {
    const block = Buffer.alloc(1_024);
    await file.read(block, 0, block.length, 1_024);
    if (block.readUInt16LE(56) !== 0xef53) return false;
    const isPlayed = (block.readUInt32LE(96) & NEEDS_RECOVERY) === 0;
    return isPlayed && block.readUInt16LE(58) === CLEAN && block.readUInt32LE(232) === 0;
  } finally {
    await file.close();
  }
}

/**
 * Plays the journal of the filesystem in `rootfsPath` back; that itself is not written to.
 * @param dir for the guest, not there yet; the caller removes it
 * @returns an overlay over `rootfsPath` in `dir` with what has changed
 * @throws Error when that kernel does not mount it, or takes too long; the signal's reason
 */
export async function replayJournal(
  parts: ReplayParts,
  input: { readonly rootfsPath: string; readonly diskBytes: number; readonly dir: string },
  signal: AbortSignal,
): Promise<string> {
  const { program, chosen, assets, clock } = parts;
  const { rootfsPath, diskBytes, dir } = input;
  await mkdir(dir, { mode: 0o750 });
  const below = { path: rootfsPath, format: "raw" } as const;
  const overlay = join(dir, VM_FILES.disk);
  await writeOverlay(overlay, diskBytes, below);
  const init = { path: "init", mode: FILE_TYPE.file | 0o755, content: Buffer.from(SCRIPT) };
  // The later of two files of one name is the one that stays.
  const initrd = Buffer.concat([await readFile(assets.initramfs), makeCpio([init])]);
  await writeFile(join(dir, INITRD), initrd, { mode: 0o640 });
  const machine = await startMachine(
    program,
    {
      name: "replay",
      accelerator: chosen.accelerator,
      shape: SHAPE,
      isolated: true,
      memory: { path: VM_FILES.memory, share: true },
      diskPath: VM_FILES.disk,
      below: [below],
      guestPorts: [],
      start: { boot: { kernel: assets.kernel, initrd: INITRD, tscKhz: chosen.tscKhz } },
    },
    ...([dir, undefined, clock, signal] as const),
  );
  try {
    parts.onProcess(machine.process);
    let isPlayed = false;
    const console = readConsole(machine.process.console, (line) => {
      if (line.includes(PLAYED_MARK)) isPlayed = true;
    });
    const until = clock.monotonic() + REPLAY_MS;
    // Its end says that all of it is in the overlay, and its last words may come after that.
    while (machine.process.alive() && clock.monotonic() < until) {
      await clock.sleep(POLL_MS, { signal });
    }
    await clock.sleep(isPlayed ? 0 : 20);
    if (isPlayed && !machine.process.alive()) return overlay;
    throw new Error(`the filesystem was not mounted: ${console.tail().slice(-3).join("; ")}`);
  } finally {
    await endMachine(machine, clock);
    await rm(join(dir, VM_FILES.memory), { force: true });
  }
}
