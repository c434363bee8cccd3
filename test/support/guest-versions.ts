/** Guest assets of one test node, whose versions a test changes as an upgrade would. */
import { cpSync, mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { guestDir } from "./daemon.ts";

const RECORD = "guest.json";

export interface GuestVersions {
  guest_image_version: string;
  agent_version: string;
  kernel_version: string;
}

/** A folder that is used with `--guest-dir`: the host's own assets under versions of its own. */
export class TestGuestDir {
  readonly dir: string;

  constructor(dir: string) {
    this.dir = dir;
    mkdirSync(dir, { recursive: true });
    for (const name of ["vmlinuz", "initramfs.cpio"]) {
      symlinkSync(join(guestDir, name), join(dir, name));
    }
    cpSync(join(guestDir, RECORD), join(dir, RECORD));
  }

  get versions(): GuestVersions {
    return JSON.parse(readFileSync(join(this.dir, RECORD), "utf8")) as GuestVersions;
  }

  /** The next boot is with these, as after `guest install --refresh`. */
  set(versions: Partial<GuestVersions>): void {
    const path = join(this.dir, RECORD);
    writeFileSync(`${path}.new`, JSON.stringify({ ...this.versions, ...versions }));
    renameSync(`${path}.new`, path);
  }

  /** Without its record nothing can be booted from it. */
  hide(): void {
    renameSync(join(this.dir, RECORD), join(this.dir, "hidden"));
  }

  show(): void {
    renameSync(join(this.dir, "hidden"), join(this.dir, RECORD));
  }
}
