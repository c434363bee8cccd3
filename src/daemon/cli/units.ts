/** `templatecenter install-units`: the service's files, copied to where systemd looks. */
import type { Command } from "commander";
import { installUnits } from "../units.ts";
import type { CliIo } from "./io.ts";

export function registerUnits(program: Command, io: CliIo): void {
  program
    .command("install-units")
    .description("copy the systemd unit and its files, and say what to run next")
    .option("--prefix <dir>", "units go below its lib folder", "/usr/local")
    .option("--config-dir <dir>", "the example configuration goes here", "/etc/templatecenter")
    .option("--json", "print JSON")
    .action(async (options: { prefix: string; configDir: string; json?: boolean }) => {
      const done = await installUnits(options);
      if (options.json === true) return io.out(`${JSON.stringify(done, null, 2)}\n`);
      for (const path of done.written) io.out(`wrote ${path}\n`);
      for (const path of done.kept) io.out(`kept ${path}\n`);
      io.err(`next, as root:\n${done.next.map((line) => `  ${line}\n`).join("")}`);
    });
}
