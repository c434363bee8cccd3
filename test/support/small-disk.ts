/** A file system of a few MiB on a loop device, for a daemon whose disk is to run full. */
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, open, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const run = (program: string, ...args: string[]): void =>
  void execFileSync(program, args, { stdio: "pipe" });

export class SmallDisk {
  readonly #folder: string;
  readonly path: string;

  private constructor(folder: string) {
    this.#folder = folder;
    this.path = join(folder, "mount");
  }

  static async make(bytes: number): Promise<SmallDisk> {
    const disk = new SmallDisk(await mkdtemp(join(tmpdir(), "tc-disk-")));
    const image = join(disk.#folder, "image");
    await mkdir(disk.path);
    await (await open(image, "w")).close();
    await truncate(image, bytes);
    run("mkfs.ext4", "-q", "-m", "0", image);
    run("mount", "-o", "loop", image, disk.path);
    return disk;
  }

  /** Not a byte is left. */
  async fill(): Promise<void> {
    const file = await open(join(this.path, "filler"), "a");
    try {
      for (let bytes = 1024 * 1024; bytes >= 1;) {
        const { bytesWritten } = await file
          .write(Buffer.alloc(bytes, 1))
          .catch(() => ({ bytesWritten: 0 }));
        if (bytesWritten === 0) bytes = bytes === 1 ? 0 : Math.ceil(bytes / 8);
      }
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async free(): Promise<void> {
    await rm(join(this.path, "filler"), { force: true });
  }

  async remove(): Promise<void> {
    run("umount", "--lazy", this.path);
    await rm(this.#folder, { recursive: true, force: true });
  }
}
