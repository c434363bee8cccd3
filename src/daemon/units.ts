/** The files that make the package a systemd service, put where systemd looks for them. */
import { constants } from "node:fs";
import { copyFile, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { AppError } from "../domain/index.ts";

const SHIPPED = fileURLToPath(new URL("../../systemd", import.meta.url));

export interface InstalledUnits {
  /** Paths that were written. */
  readonly written: readonly string[];
  /** Paths that were there and are the administrator's: left alone. */
  readonly kept: readonly string[];
  /** What to run next, as root. */
  readonly next: readonly string[];
}

/**
 * Copies unit, sysusers and tmpfiles files below `<prefix>/lib`, replacing those of an earlier
 * version, and the commented example configuration to `configDir` when there is none yet.
 * @throws AppError config_invalid when a folder or file cannot be written
 */
export async function installUnits(options: {
  prefix: string;
  configDir: string;
}): Promise<InstalledUnits> {
  const { prefix, configDir } = options;
  const copies = {
    "templatecenter.service": join(prefix, "lib/systemd/system/templatecenter.service"),
    "templatecenter.sysusers.conf": join(prefix, "lib/sysusers.d/templatecenter.conf"),
    "templatecenter.tmpfiles.conf": join(prefix, "lib/tmpfiles.d/templatecenter.conf"),
  };
  const written: string[] = [];
  for (const [name, path] of Object.entries(copies)) {
    await copy(name, path, 0);
    written.push(path);
  }
  const config = join(configDir, "config.toml");
  const isNew = await copy("config.toml", config, constants.COPYFILE_EXCL);
  return {
    written: isNew ? [...written, config] : written,
    kept: isNew ? [] : [config],
    next: [
      "systemd-sysusers",
      "systemd-tmpfiles --create",
      "templatecenter guest install",
      "systemctl daemon-reload",
      "systemctl enable --now templatecenter",
    ],
  };
}

/** False when the file is there already and may not be replaced. */
async function copy(name: string, path: string, mode: number): Promise<boolean> {
  try {
    await mkdir(dirname(path), { recursive: true });
    await copyFile(join(SHIPPED, name), path, mode);
    return true;
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "EEXIST") return false;
    throw new AppError("config_invalid", `${path} cannot be written`, { cause });
  }
}
