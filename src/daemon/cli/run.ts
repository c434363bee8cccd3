/** The command line: groups, global options, and what becomes of an error. */
import { Command, CommanderError } from "commander";
import { ERRORS, errorText, isAppError } from "../../domain/index.ts";
import { registerArtifact } from "./artifact.ts";
import { registerImport } from "./bundle.ts";
import { registerCluster } from "./cluster.ts";
import { registerCompat } from "./compat.ts";
import { createContext, Interrupted } from "./context.ts";
import { registerDoctor } from "./doctor.ts";
import { registerGc } from "./gc.ts";
import type { CliIo } from "./io.ts";
import { registerJob } from "./job.ts";
import { registerNode } from "./node.ts";
import { registerResolve } from "./resolve.ts";
import { registerRetention } from "./retention.ts";
import { registerSandbox } from "./sandbox.ts";
import { registerSnapshot } from "./snapshot.ts";
import { plain } from "./table.ts";
import { registerStorage } from "./storage.ts";
import { registerTag } from "./tag.ts";
import { registerTemplate } from "./template.ts";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const EXIT_INTERRUPTED = 130;

const EXAMPLES = `
Examples:
  templatecenter daemon                     run the service in the foreground
  templatecenter tpl create-from-image --image docker.io/library/nginx:1.27 --expose-port 80
  templatecenter tpl list                   what there is
  templatecenter sandbox run TEMPLATE       start a sandbox from its snapshot
  templatecenter snapshot create SANDBOX    freeze it; rollback puts it back
  templatecenter cluster token              make a cluster, or let another node join it
  templatecenter --server http://10.0.0.5:7330 --token-file token tpl list
`;

export interface CliOptions {
  readonly version: string;
  /**
   * Adds the commands that need no daemon. Their `--data-dir` is the program's own option: read it
   * with `command.optsWithGlobals()`.
   */
  readonly extraCommands?: (program: Command) => void;
}

/**
 * Runs one command line, without the executable's own words.
 * @returns the exit code of the error table; 2 for wrong usage, 130 after Ctrl-C
 */
export async function runCli(
  argv: readonly string[],
  io: CliIo,
  options: CliOptions,
): Promise<number> {
  const program = createProgram(io, options);
  try {
    if (argv.length === 0) {
      program.outputHelp();
      return EXIT_USAGE;
    }
    await program.parseAsync([...argv], { from: "user" });
    return 0;
  } catch (error) {
    return report(error, io);
  }
}

function createProgram(io: CliIo, options: CliOptions): Command {
  const program = new Command("templatecenter");
  program
    .description("sandbox templates without a centre")
    .version(options.version)
    .option("--data-dir <dir>", "data directory of the local daemon")
    .option("--server <url>", "talk to this address instead of the local socket")
    .option("--token <token>", "bearer token for --server")
    .option("--token-file <file>", "read the bearer token from a file")
    .addHelpText("before", EXAMPLES)
    .configureOutput({
      writeOut: (text) => io.out(text),
      writeErr: (text) => io.err(text),
      getOutHelpWidth: () => io.columns || 100,
      getErrHelpWidth: () => io.columns || 100,
    })
    .exitOverride();
  const context = createContext(io);
  registerTemplate(program, context);
  registerTag(program, context);
  registerJob(program, context);
  registerArtifact(program, context);
  registerSandbox(program, context);
  registerSnapshot(program, context);
  registerImport(program, context);
  registerNode(program, context);
  registerCluster(program, context);
  registerStorage(program, context);
  registerGc(program, context);
  registerRetention(program, context);
  registerCompat(program, context);
  registerDoctor(program, context);
  registerResolve(program, context);
  options.extraCommands?.(program);
  inheritSettings(program);
  return program;
}

/** Commands made by others carry neither our output nor exitOverride; commander copies at birth. */
function inheritSettings(command: Command): void {
  for (const child of command.commands) {
    child.copyInheritedSettings(command);
    inheritSettings(child);
  }
}

function report(error: unknown, io: CliIo): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
  if (error instanceof Interrupted) {
    io.err(`\n${error.message}\n`);
    return EXIT_INTERRUPTED;
  }
  if (!isAppError(error)) {
    if (io.interrupted.aborted) return EXIT_INTERRUPTED;
    io.err(`error: ${plain(errorText(error))}\n`);
    return EXIT_FAILED;
  }
  const { meta } = error;
  // The daemon's problem has no cause; ours names what the system said.
  const text = error.code === "daemon_unreachable" ? error.message : errorText(error);
  io.err(`error: ${plain(text)}\n`);
  for (const { pointer, detail } of meta.errors ?? []) {
    io.err(`  ${plain(pointer)}: ${plain(detail)}\n`);
  }
  const hint = typeof meta["hint"] === "string" ? meta["hint"] : HINTS[error.code];
  if (hint !== undefined) io.err(`hint: ${plain(hint)}\n`);
  if (error.code === "internal" && typeof meta["request_id"] === "string") {
    io.err(`request id: ${plain(meta["request_id"])}\n`);
  }
  return ERRORS[error.code].exit;
}

/** What to do next, where the message alone does not say. */
const HINTS: Partial<Record<string, string>> = {
  template_not_found: "see what there is: templatecenter tpl list",
  job_not_found: "see what there is: templatecenter job list",
  sandbox_not_found: "see what there is: templatecenter sandbox list",
  artifact_not_found: "see what there is: templatecenter artifact list",
  unauthorized: "pass --token-file FILE, or leave --server out to use the local socket",
  no_quorum: "see who is missing: templatecenter cluster status",
  not_clustered: "make a cluster with: templatecenter cluster token",
  already_clustered: "leave it first: templatecenter cluster leave",
  node_has_templates: "join with --discard to drop them",
  join_token_expired: "make another: templatecenter cluster token",
  join_token_used: "make another: templatecenter cluster token",
  join_token_revoked: "make another: templatecenter cluster token",
  node_name_taken: "choose another with --node-id, or take the other out: cluster remove NODE",
  clock_skew: "set both clocks by NTP, then try again",
  node_removed: "make it a node of its own again: templatecenter cluster leave",
  template_in_use: "end its sandboxes first: templatecenter sandbox list",
  template_protected: "let it be deleted first: templatecenter tpl unprotect TEMPLATE",
  tag_not_found: "see what there is: templatecenter tag list",
  tag_moved: "see where it points: templatecenter tag info TAG",
  name_taken: "move a name from one template to another: templatecenter tag promote NAME TEMPLATE",
  template_stale_needs_redo: "see which versions differ: templatecenter compat matrix",
  template_has_no_ready_replica: "see why: templatecenter tpl info TEMPLATE",
};
