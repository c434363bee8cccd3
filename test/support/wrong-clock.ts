/**
 * The wall clock of a process as a test wants it, by the library of Debian's faketime: the offset
 * is read from a file at every look at the clock. Monotonic clocks and times of files stay true,
 * as on a host whose clock is set.
 */
import { mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

async function library(): Promise<string> {
  for (const name of await readdir("/usr/lib")) {
    const folder = join("/usr/lib", name, "faketime");
    const files = await readdir(folder).catch((): string[] => []);
    if (files.includes("libfaketimeMT.so.1")) return join(folder, "libfaketimeMT.so.1");
  }
  throw new Error("please install Debian's faketime (npm test does)");
}

export class WrongClock {
  readonly #folder: string;
  readonly env: Readonly<Record<string, string>>;

  private constructor(folder: string, path: string) {
    this.#folder = folder;
    this.env = {
      LD_PRELOAD: path,
      FAKETIME_TIMESTAMP_FILE: join(folder, "offset"),
      FAKETIME_NO_CACHE: "1",
      DONT_FAKE_MONOTONIC: "1",
      NO_FAKE_STAT: "1",
    };
  }

  static async make(offset = "+0"): Promise<WrongClock> {
    const clock = new WrongClock(await mkdtemp(join(tmpdir(), "tc-clock-")), await library());
    await clock.jump(offset);
    return clock;
  }

  /** @param offset from the true time: `+2h`, `-1h`, `+0` */
  async jump(offset: string): Promise<void> {
    const path = join(this.#folder, "offset");
    await writeFile(`${path}.new`, `${offset}\n`);
    await rename(`${path}.new`, path);
  }

  remove(): Promise<void> {
    return rm(this.#folder, { recursive: true, force: true });
  }
}
