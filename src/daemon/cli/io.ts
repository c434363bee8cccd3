/** What the client commands are given from outside, so that they run in a test as in a shell. */
import type { Clock } from "../../domain/index.ts";

export interface CliIo {
  /** Data: one call may carry several lines. */
  out(text: string): void;
  /** Talk: progress, hints, errors. */
  err(text: string): void;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** True when a person sees `err`: progress is drawn in place. */
  readonly isTty: boolean;
  /** Columns of the terminal; 0 when it is none. */
  readonly columns: number;
  /** The whole standard input, for `--registry-password-stdin`. */
  readStdin(): Promise<string>;
  /** Standard input as it comes, for `import -`. */
  stdin(): AsyncIterable<Uint8Array>;
  /** Bytes to standard output; resolves when there is room for more. */
  write(bytes: Uint8Array): Promise<void>;
  /** Aborts on Ctrl-C. */
  readonly interrupted: AbortSignal;
  readonly clock: Clock;
}

export const wantsColor = (io: CliIo): boolean =>
  io.isTty && (io.env["NO_COLOR"] ?? "") === "" && io.env["TERM"] !== "dumb";
