/**
 * The guest's kernel and initial root, made once per host from the distribution's own packages and
 * our init. They need neither root nor an installed package: packages are downloaded and unpacked
 * into a scratch folder. The versions recorded here are what compat compares (spec §5.1).
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, readFile, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { execa } from "execa";
import { z } from "zod";
import { AppError, type ComponentVersions, type Log } from "../../domain/index.ts";
import { FILE_TYPE, makeCpio } from "./cpio.ts";
import { agentProgram, agentVersion } from "./guest-agent.ts";
import { GUEST_MODULES, INIT_SCRIPT } from "./guest-init.ts";

const KERNEL = "vmlinuz";
const INITRAMFS = "initramfs.cpio";
const RECORD = "guest.json";
/** Downloading 27 MB over a slow line, or unpacking it on a slow disk. */
const COMMAND_TIMEOUT_MS = 10 * 60_000;
/** Said by whoever finds no guest assets. */
export const INSTALL_HINT = "run: templatecenter guest install";

const fileSchema = z.object({ sha256: z.string(), size_bytes: z.number() });
const recordSchema = z.object({
  format: z.literal(1),
  guest_image_version: z.string(),
  agent_version: z.string(),
  kernel_version: z.string(),
  architecture: z.string(),
  /** Hash of our init, agent and module list: another one here means to install again. */
  recipe: z.string(),
  files: z.object({ [KERNEL]: fileSchema, [INITRAMFS]: fileSchema }),
});

export type GuestRecord = z.infer<typeof recordSchema>;

export interface GuestAssets {
  /** Paths of the two files. */
  readonly kernel: string;
  readonly initramfs: string;
  readonly versions: Pick<
    ComponentVersions,
    "guest_image_version" | "agent_version" | "kernel_version"
  >;
  readonly record: GuestRecord;
}

export interface InstallOptions {
  readonly dir: string;
  readonly log: Log;
  /** Makes them again even if what is there is whole. */
  readonly refresh?: boolean;
  readonly signal?: AbortSignal;
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

const recipe = (): string =>
  sha256(Buffer.concat([Buffer.from(INIT_SCRIPT + GUEST_MODULES.join()), agentProgram()]));

async function hashFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}

const missing = (dir: string, cause?: unknown): AppError =>
  new AppError("guest_assets_missing", `no guest kernel and initramfs in ${dir}; ${INSTALL_HINT}`, {
    meta: { guest_dir: dir },
    cause,
  });

/**
 * The installed assets, checked by size.
 * @throws AppError guest_assets_missing with the command that installs them
 */
export async function readGuestAssets(dir: string): Promise<GuestAssets> {
  try {
    const text = await readFile(join(dir, RECORD), "utf8");
    const record = recordSchema.parse(JSON.parse(text));
    for (const name of [KERNEL, INITRAMFS] as const) {
      const { size } = await stat(join(dir, name));
      if (size !== record.files[name].size_bytes) throw new Error(`${name} has another size`);
    }
    const { guest_image_version, agent_version, kernel_version } = record;
    return {
      kernel: join(dir, KERNEL),
      initramfs: join(dir, INITRAMFS),
      versions: { guest_image_version, agent_version, kernel_version },
      record,
    };
  } catch (cause) {
    throw missing(dir, cause);
  }
}

/** True when every file has its recorded SHA-256 and they were made by this version of the init. */
async function isWhole(dir: string): Promise<boolean> {
  try {
    const { record } = await readGuestAssets(dir);
    if (record.recipe !== recipe()) return false;
    for (const name of [KERNEL, INITRAMFS] as const) {
      if ((await hashFile(join(dir, name))) !== record.files[name].sha256) return false;
    }
    return true;
  } catch {
    return false;
  }
}

/**
 * Makes the assets in `dir` unless they are there and whole. Two installs at once: the later rename
 * wins, and both are whole.
 * @throws AppError guest_assets_missing when a package cannot be had, driver_unavailable on another
 *   architecture
 */
export async function installGuestAssets(
  options: InstallOptions,
): Promise<GuestAssets & { readonly installed: boolean }> {
  const { dir, log, signal } = options;
  if (options.refresh !== true && (await isWhole(dir))) {
    return { ...(await readGuestAssets(dir)), installed: false };
  }
  await mkdir(dirname(dir), { recursive: true });
  const scratch = await mkdtemp(join(dirname(dir), ".guest-"));
  try {
    const architecture = await run("dpkg", ["--print-architecture"], scratch, signal);
    if (architecture !== "amd64") {
      throw new AppError("driver_unavailable", `no guest for architecture ${architecture} yet`);
    }
    const kernel = await unpackKernel(scratch, log, signal);
    const busybox = await staticBusybox(scratch, log, signal);
    const made = join(scratch, "made");
    await mkdir(made, { mode: 0o755 });
    await writeAssets(made, { architecture, kernel, busybox });
    await replaceFolder(made, dir, scratch);
  } catch (cause) {
    if (cause instanceof AppError || signal?.aborted === true) throw cause;
    throw new AppError("guest_assets_missing", "the guest assets could not be installed", {
      meta: { guest_dir: dir },
      cause,
    });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  const assets = await readGuestAssets(dir);
  log.info("guest assets installed", { dir, ...assets.versions });
  return { ...assets, installed: true };
}

/** Answers standard output, trimmed. */
async function run(
  program: string,
  args: readonly string[],
  cwd: string,
  signal?: AbortSignal,
): Promise<string> {
  const { stdout } = await execa(program, args, {
    cwd,
    timeout: COMMAND_TIMEOUT_MS,
    env: { LC_ALL: "C" },
    ...(signal === undefined ? {} : { cancelSignal: signal }),
  });
  return stdout.trim();
}

/** Downloads a package of the distribution and unpacks its files; answers their folder. */
async function unpackPackage(name: string, scratch: string, signal?: AbortSignal): Promise<string> {
  const folder = join(scratch, name);
  await mkdir(folder);
  // As root, apt would drop to a user that may not write here, and warn.
  const args = ["-o", "APT::Sandbox::User=root", "download", name];
  await run("apt-get", args, folder, signal);
  const packages = (await readdir(folder)).filter((file) => file.endsWith(".deb"));
  const [file] = packages;
  if (file === undefined) throw new Error(`apt-get downloaded no ${name}`);
  await run("dpkg-deb", ["-x", file, "files"], folder, signal);
  return join(folder, "files");
}

interface Kernel {
  readonly release: string;
  readonly image: Buffer;
  readonly modules: readonly { readonly name: string; readonly content: Buffer }[];
}

async function unpackKernel(scratch: string, log: Log, signal?: AbortSignal): Promise<Kernel> {
  const meta = await run("apt-cache", ["show", "linux-image-cloud-amd64"], scratch, signal);
  const name = /^Depends:.*\b(linux-image-[\w.+-]+-cloud-amd64)\b/m.exec(meta)?.[1];
  if (name === undefined) {
    throw new AppError(
      "guest_assets_missing",
      "apt knows no linux-image-cloud-amd64; run: apt-get update",
    );
  }
  log.info("downloading the guest kernel", { package: name });
  const files = await unpackPackage(name, scratch, signal);
  const release = name.slice("linux-image-".length);
  const image = await readFile(join(files, "boot", `vmlinuz-${release}`));
  const root = join(files, "lib/modules", release);
  const paths = (await readFile(join(root, "modules.builtin"), "utf8")).split("\n");
  const builtIn = new Set(paths.map(moduleName));
  const found = new Map<string, string>();
  for (const path of await readdir(join(root, "kernel"), { recursive: true })) {
    if (path.endsWith(".ko")) found.set(moduleName(path), join(root, "kernel", path));
  }
  const modules: { name: string; content: Buffer }[] = [];
  for (const module of GUEST_MODULES) {
    const path = found.get(module.replaceAll("-", "_"));
    if (path !== undefined) modules.push({ name: module, content: await readFile(path) });
    else if (!builtIn.has(module.replaceAll("-", "_"))) {
      throw new Error(`package ${name} has no module ${module}`);
    }
  }
  return { release, image, modules };
}

/** `drivers/char/hw_random/virtio-rng.ko` → `virtio_rng`: the kernel does not tell them apart. */
const moduleName = (path: string): string =>
  (path.split("/").at(-1) ?? "").replace(/\.ko$/, "").replaceAll("-", "_");

/** The host's busybox when it is static, else the one of the package. */
async function staticBusybox(scratch: string, log: Log, signal?: AbortSignal): Promise<Buffer> {
  const installed = await readFile("/bin/busybox").catch(() => undefined);
  if (installed !== undefined && isStatic(installed)) return installed;
  log.info("downloading busybox", { package: "busybox-static" });
  const files = await unpackPackage("busybox-static", scratch, signal);
  for (const path of ["bin/busybox", "usr/bin/busybox"]) {
    const content = await readFile(join(files, path)).catch(() => undefined);
    if (content !== undefined && isStatic(content)) return content;
  }
  throw new Error("package busybox-static has no static busybox");
}

/** A 64-bit ELF executable that names no interpreter (program header type 3). */
export function isStatic(elf: Buffer): boolean {
  if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2) return false;
  const at = Number(elf.readBigUInt64LE(32));
  const size = elf.readUInt16LE(54);
  for (let index = 0; index < elf.readUInt16LE(56); index++) {
    if (elf.readUInt32LE(at + index * size) === 3) return false;
  }
  return true;
}

function makeInitramfs(kernel: Kernel, busybox: Buffer): Buffer {
  const folders = ["bin", "dev", "guest", "image", "modules", "proc", "sys"];
  const file = (path: string, mode: number, content: Uint8Array) => ({
    path,
    mode: FILE_TYPE.file | mode,
    content,
  });
  return makeCpio([
    ...folders.map((path) => ({ path, mode: FILE_TYPE.folder | 0o755 })),
    // The kernel opens it for process 1 before anything is mounted.
    { path: "dev/console", mode: FILE_TYPE.character | 0o600, device: { major: 5, minor: 1 } },
    file("bin/busybox", 0o755, busybox),
    file("agent", 0o755, agentProgram()),
    file("init", 0o755, Buffer.from(INIT_SCRIPT)),
    ...kernel.modules.map(({ name, content }) => file(`modules/${name}.ko`, 0o644, content)),
  ]);
}

async function writeAssets(
  dir: string,
  parts: { architecture: string; kernel: Kernel; busybox: Buffer },
): Promise<void> {
  // Not compressed: the guest would need longer to inflate it than the host to read it.
  const initramfs = makeInitramfs(parts.kernel, parts.busybox);
  const entry = (bytes: Buffer) => ({ sha256: sha256(bytes), size_bytes: bytes.length });
  const record: GuestRecord = {
    format: 1,
    guest_image_version: `1.0.0+${sha256(initramfs).slice(0, 12)}`,
    agent_version: agentVersion(),
    kernel_version: parts.kernel.release,
    architecture: parts.architecture,
    recipe: recipe(),
    files: { [KERNEL]: entry(parts.kernel.image), [INITRAMFS]: entry(initramfs) },
  };
  await writeFile(join(dir, KERNEL), parts.kernel.image, { mode: 0o644, flush: true });
  await writeFile(join(dir, INITRAMFS), initramfs, { mode: 0o644, flush: true });
  const json = `${JSON.stringify(record, undefined, 2)}\n`;
  await writeFile(join(dir, RECORD), json, { mode: 0o644, flush: true });
}

/** Puts a finished folder in place of another; what was there goes with the scratch folder. */
async function replaceFolder(made: string, dir: string, scratch: string): Promise<void> {
  await rename(dir, join(scratch, "old")).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  });
  await rename(made, dir);
}
