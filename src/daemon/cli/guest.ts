/** `templatecenter guest install|info`: the kernel and initial root that guests boot with. */
import { resolve } from "node:path";
import type { Command } from "commander";
import type { Log } from "../../domain/index.ts";
import { installGuestAssets, readGuestAssets, type GuestAssets } from "../runtime/guest-assets.ts";
import type { CliIo } from "./io.ts";

const DEFAULT_DIR = "/var/lib/templatecenter/guest";

export function registerGuest(program: Command, io: CliIo): void {
  const guest = program.command("guest").description("the guest's kernel and initial root");
  const dirOf = (dir: string | undefined) =>
    resolve(dir ?? io.env["TEMPLATECENTER_GUEST_DIR"] ?? DEFAULT_DIR);
  const show = (dir: string, assets: GuestAssets, json: boolean | undefined) => {
    const shown = { dir, ...assets.versions };
    io.out(
      json === true
        ? `${JSON.stringify(shown, null, 2)}\n`
        : Object.entries(shown)
            .map(([key, value]) => `${key}: ${value}\n`)
            .join(""),
    );
  };
  guest
    .command("install")
    .description(
      "make them from the distribution's packages (Debian, Ubuntu); installs nothing else",
    )
    .option("--dir <dir>", `where to (default ${DEFAULT_DIR})`)
    .option("--json", "print JSON")
    .action(async (options: { dir?: string; json?: boolean }) => {
      const dir = dirOf(options.dir);
      const assets = await installGuestAssets({ dir, log: talk(io), signal: io.interrupted });
      show(dir, assets, options.json);
    });
  guest
    .command("info")
    .description("what is installed")
    .option("--dir <dir>", `where (default ${DEFAULT_DIR})`)
    .option("--json", "print JSON")
    .action(async (options: { dir?: string; json?: boolean }) => {
      const dir = dirOf(options.dir);
      show(dir, await readGuestAssets(dir), options.json);
    });
}

/** Steps as talk on standard error. */
const talk = (io: CliIo): Log => {
  const say = (message: string, fields: Record<string, unknown> = {}) =>
    io.err(`${message} ${Object.keys(fields).length === 0 ? "" : JSON.stringify(fields)}\n`);
  return { debug: say, info: say, warn: say, error: say, child: () => talk(io) };
};
