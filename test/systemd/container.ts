/**
 * A container that boots this machine's own root file system, with a writable layer in memory,
 * under real systemd: PID 1 of the machine itself need not be systemd. boot.sh of the fixtures
 * mounts and starts it; commands are run in it from outside.
 */
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { chmod, cp, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { buildExecutable } from "../support/build.ts";
import { waitFor } from "../support/daemon.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "../..");
export const fixtures = join(root, "test/fixtures/systemd");

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The tarball that would be published, of the sources as they are now. @returns its path */
async function packTarball(dir: string): Promise<string> {
  const stage = join(dir, "stage");
  const built = dirname(dirname(dirname(await buildExecutable())));
  await cp(join(built, "dist"), join(stage, "dist"), { recursive: true });
  await chmod(join(stage, "dist/daemon/main.js"), 0o755);
  for (const name of ["package.json", "systemd", "openapi.json", "CHANGELOG.md"]) {
    await cp(join(root, name), join(stage, name), { recursive: true });
  }
  await run("npm", ["pack", "--ignore-scripts", "--pack-destination", dir], { cwd: stage });
  const name = (await readdir(dir)).find((it) => it.endsWith(".tgz"));
  return join(dir, name ?? "no tarball");
}

/**
 * The command that boots it, for a container of its own mount namespace.
 * @param files path in the container → content
 * @param folders path in the container → folder to copy there
 */
export async function prepareContainer(input: {
  files: Readonly<Record<string, string>>;
  folders: Readonly<Record<string, string>>;
}): Promise<{ command: string[]; remove: () => Promise<void> }> {
  const work = await mkdtemp(join(tmpdir(), "tc-systemd-"));
  const payload = join(work, "payload");
  const scratch = join(work, "scratch");
  await mkdir(scratch, { mode: 0o755 });
  for (const [path, content] of Object.entries(input.files)) {
    await mkdir(dirname(join(payload, path)), { recursive: true });
    await writeFile(join(payload, path), content);
  }
  for (const [path, folder] of Object.entries(input.folders)) {
    await cp(folder, join(payload, path), { recursive: true });
  }
  await run("chmod", ["-R", "a+rX", payload]);
  const tarball = await packTarball(work);
  const boot = ["bash", join(fixtures, "boot.sh"), scratch, root, tarball, payload];
  return {
    // An orderly end when the test's own process is killed.
    command: [
      ...["setpriv", "--pdeathsig", "TERM", "--"],
      ...["unshare", "-m", "--propagation", "private", ...boot],
    ],
    remove: () => rm(work, { recursive: true, force: true }),
  };
}

/** A container that idles at `probe.target`. */
export class Container {
  readonly #process: ChildProcess;
  readonly #remove: () => Promise<void>;
  #leader = 0;
  #console = "";

  private constructor(process: ChildProcess, remove: () => Promise<void>) {
    this.#process = process;
    this.#remove = remove;
  }

  static async boot(input: Parameters<typeof prepareContainer>[0]): Promise<Container> {
    const { command, remove } = await prepareContainer(input);
    const [file = "", ...args] = command;
    const container = new Container(
      spawn(file, args, { stdio: ["ignore", "pipe", "pipe"] }),
      remove,
    );
    await container.#booted().catch(async (error: unknown) => {
      await container.end();
      throw new Error(`the container did not boot: ${container.#console}`, { cause: error });
    });
    return container;
  }

  async #booted(): Promise<void> {
    const { pid, stdout, stderr } = this.#process;
    for (const stream of [stdout, stderr]) {
      stream?.on("data", (bytes: Buffer) => (this.#console += bytes.toString()));
    }
    await waitFor("the container", async () => {
      if (this.#process.exitCode !== null) throw new Error("it ended");
      const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "");
      for (const child of children.trim().split(" ").map(Number).filter(Boolean)) {
        const name = await readFile(`/proc/${child}/comm`, "utf8").catch(() => "");
        if (name.trim() !== "systemd") continue;
        this.#leader = child;
        return (await this.run("systemctl", ["is-active", "probe.target"])).code === 0;
      }
      return false;
    });
  }

  /** Runs a command in it, as root. */
  run(file: string, args: readonly string[]): Promise<Outcome> {
    const inside = ["-t", String(this.#leader), "-a", "--", file, ...args];
    const env = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" };
    return new Promise((resolve) => {
      execFile("nsenter", inside, { env, timeout: 120_000 }, (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
        resolve({ code, stdout, stderr });
      });
    });
  }

  /** Standard output of a command that must not fail. */
  async output(file: string, ...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(file, args);
    if (code !== 0) throw new Error(`${file} ${args.join(" ")}: ${code} ${stdout} ${stderr}`);
    return stdout.trim();
  }

  /** All its processes and mounts end with its first process. */
  async end(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      if (this.#leader > 0) process.kill(this.#leader, "SIGKILL");
      else this.#process.kill("SIGKILL");
      await ended;
    }
    await this.#remove();
  }
}
