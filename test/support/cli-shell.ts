/** Command lines against the socket of a daemon's HTTP side over the fake service. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCli } from "../../src/daemon/cli/run.ts";
import type { CliIo } from "../../src/daemon/cli/io.ts";
import { listen } from "../../src/daemon/http/server.ts";
import { httpFixture, realClock, type HttpFixture } from "./http-app.ts";

export interface CliShell {
  readonly fixture: HttpFixture;
  /** The same over TCP. */
  readonly url: string;
  /** Runs one line, split at blanks. */
  run(
    line: string | readonly string[],
    stdin?: string,
  ): Promise<{ code: number; out: string; err: string }>;
  close(): Promise<void>;
}

export async function openCliShell(): Promise<CliShell> {
  const dir = await mkdtemp(join(tmpdir(), "tc-cli-"));
  const fixture = httpFixture();
  const { log, clock } = fixture.deps;
  const socketPath = join(dir, "templatecenter.sock");
  const server = await listen({
    app: fixture.app,
    host: "127.0.0.1",
    port: 0,
    socketPath,
    log,
    clock,
  });
  return {
    fixture,
    url: server.url,
    async run(line, stdin = "") {
      const ran = { code: -1, out: "", err: "" };
      const io: CliIo = {
        out: (text) => void (ran.out += text),
        err: (text) => void (ran.err += text),
        env: { TEMPLATECENTER_DATA_DIR: dir },
        isTty: false,
        columns: 0,
        readStdin: async () => stdin,
        async *stdin() {
          yield Buffer.from(stdin);
        },
        write: async (bytes) => void (ran.out += Buffer.from(bytes).toString("latin1")),
        interrupted: new AbortController().signal,
        clock: realClock,
      };
      const words = typeof line === "string" ? line.split(" ") : line;
      ran.code = await runCli(words, io, { version: "1.2.3" });
      return ran;
    },
    async close() {
      await server.close(0);
      await rm(dir, { recursive: true });
    },
  };
}
