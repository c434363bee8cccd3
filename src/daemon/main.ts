#!/usr/bin/env node
/** The executable: the service and its client in one. */
import { once, setMaxListeners } from "node:events";
import { readFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import { registerDaemon } from "./cli/daemon.ts";
import { registerGuest } from "./cli/guest.ts";
import { registerImage } from "./cli/image.ts";
import type { CliIo } from "./cli/io.ts";
import { runCli } from "./cli/run.ts";
import { registerRuntime } from "./cli/runtime.ts";
import { registerUnits } from "./cli/units.ts";
import { realClock } from "./effects/clock.ts";
import { realRandom } from "./effects/random.ts";

// A piece of work has one signal and as many waits as it has requests under way.
setMaxListeners(1_000);

const manifest = JSON.parse(
  readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
) as { version: string };
const ports = { clock: realClock, random: realRandom, version: manifest.version };
const argv = process.argv.slice(2);
const interrupted = new AbortController();
// The daemon stops by its own rules; a client command is interrupted.
if (argv[0] !== "daemon") process.once("SIGINT", () => interrupted.abort());
const io: CliIo = {
  out: (chunk) => void process.stdout.write(chunk),
  err: (chunk) => void process.stderr.write(chunk),
  env: process.env,
  isTty: process.stderr.isTTY,
  columns: process.stderr.isTTY ? process.stderr.columns : 0,
  readStdin: () => text(process.stdin),
  stdin: () => process.stdin,
  write: async (bytes) => {
    if (!process.stdout.write(bytes)) await once(process.stdout, "drain");
  },
  interrupted: interrupted.signal,
  clock: realClock,
};
const code = await runCli(argv, io, {
  version: ports.version,
  extraCommands(program) {
    registerDaemon(program, io, ports);
    registerImage(program, io, ports);
    registerGuest(program, io);
    registerRuntime(program, io);
    registerUnits(program, io);
  },
});
// Output to a pipe is asynchronous: leave when it is out.
process.exitCode = code;
if (process.stdout.writableLength > 0) process.stdout.once("drain", () => process.exit(code));
else process.exit(code);
