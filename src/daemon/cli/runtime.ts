/** `templatecenter runtime check`: an exec driver's executable against its contract. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { InvalidArgumentError, type Command } from "commander";
import { AppError, type Log } from "../../domain/index.ts";
import { assertExecutable, Executable } from "../runtime/exec/call.ts";
import { DEFAULT_GUEST, checkGuest, writeGuestRootfs } from "../runtime/exec/check/guest-rootfs.ts";
import { CHECKS, runChecks, type CheckResult } from "../runtime/exec/check/run.ts";
import type { CliIo } from "./io.ts";
import { json, plain } from "./table.ts";

interface Options {
  readonly rootfs?: string;
  readonly port: number;
  readonly path: string;
  readonly notePath: string;
  readonly memory: number;
  readonly timeout: number;
  readonly only?: readonly string[];
  readonly json?: boolean;
}

const SILENT: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => SILENT,
};

const whole = (most: number) => (text: string) => {
  const value = /^\d+$/.test(text) ? Number(text) : 0;
  if (value < 1 || value > most) throw new InvalidArgumentError(`must be 1 to ${most}.`);
  return value;
};

function ids(text: string): string[] {
  const asked = text.split(",").filter(Boolean);
  const unknown = asked.find((id) => !CHECKS.some((check) => check.id === id));
  if (unknown !== undefined) throw new InvalidArgumentError(`there is no check ${unknown}.`);
  return asked;
}

export function registerRuntime(program: Command, io: CliIo): void {
  const runtime = program.command("runtime").description("runtime drivers of your own");
  runtime
    .command("check <executable> [command...]")
    .description("check an exec driver's executable against each rule of its contract")
    .option("--rootfs <file>", "ext4 file to boot (default: busybox with a page and a note)")
    .option("--port <port>", "the guest's HTTP port", whole(65_535), DEFAULT_GUEST.port)
    .option("--path <path>", "answered when the guest is ready", DEFAULT_GUEST.path)
    .option("--note-path <path>", "answers a note, sets it by query", DEFAULT_GUEST.notePath)
    .option("--memory <MiB>", "the guest's memory", whole(1_048_576), 256)
    .option("--timeout <seconds>", "a guest is ready within this", whole(3_600), 120)
    .option("--only <checks>", "ids of checks, comma-separated", ids)
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      "\nCOMMAND is what the guest runs, after --. The contract is in docs/exec-driver.md." +
        "\nExit code 1 when a rule is not kept.",
    )
    .action((executable: string, command: readonly string[], options: Options) =>
      check(resolve(executable), command, options, io),
    );
}

async function check(
  path: string,
  command: readonly string[],
  options: Options,
  io: CliIo,
): Promise<void> {
  await assertExecutable(path);
  const dir = await mkdtemp(join(tmpdir(), "templatecenter-check-"));
  try {
    const rootfsPath = join(dir, "rootfs.ext4");
    if (options.rootfs === undefined) await writeGuestRootfs(rootfsPath);
    const results = await runChecks(
      {
        executable: new Executable(path, io.clock, SILENT),
        clock: io.clock,
        dir,
        rootfsPath: options.rootfs === undefined ? rootfsPath : resolve(options.rootfs),
        guest: checkGuest({
          ...options,
          command: command.length === 0 ? DEFAULT_GUEST.command : command,
          memoryMib: options.memory,
          timeoutMs: options.timeout * 1_000,
        }),
      },
      {
        signal: io.interrupted,
        ...(options.only === undefined ? {} : { only: options.only }),
        onResult(result) {
          if (options.json !== true) io.out(lineOf(result));
        },
      },
    );
    if (options.json === true) io.out(json({ executable: path, items: results }));
    conclude(results, options, io);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

const RESULT_WIDTH = "not reached".length;

const lineOf = ({ id, rule, result, detail }: CheckResult): string => {
  const found = detail === "" || result === "not offered" ? "" : `    ${plain(detail)}\n`;
  return `${result.padEnd(RESULT_WIDTH)}  ${id}: ${rule}\n${found}`;
};

function conclude(results: readonly CheckResult[], options: Options, io: CliIo): void {
  const count = (result: CheckResult["result"]) =>
    results.filter((one) => one.result === result).length;
  const bad = count("failed") + count("not reached");
  const left = count("not offered");
  const text = `${count("ok")} of ${results.length} rules kept${left === 0 ? "" : `, ${left} not offered`}`;
  if (bad > 0)
    throw new AppError("driver_failed", `${bad} of ${results.length} rules are not kept`);
  if (options.json !== true) io.out(`${text}\n`);
}
