/**
 * The log behind the `Log` port: `<priority>text key=value` lines for journald, coloured lines on a
 * terminal, JSON elsewhere. Values of keys that name secrets are never printed; an error is
 * printed with its chain of causes, and with its stack when it is no expected failure.
 */
import { fstatSync } from "node:fs";
import { pino, type DestinationStream } from "pino";
import { errorText, isAppError, type Clock, type Log, type LogFields } from "../domain/index.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";
export type LogFormat = "auto" | "json" | "pretty" | "journal";
const LEVELS: Readonly<Record<LogLevel, { priority: number; colour: number }>> = {
  debug: { priority: 7, colour: 90 },
  info: { priority: 6, colour: 36 },
  warn: { priority: 4, colour: 33 },
  error: { priority: 3, colour: 31 },
};
const SECRET = /password|secret|token|authorization|cookie|credential/i;

/** Fields within fields are looked at this deep for secrets; what lies deeper is not printed. */
const MAX_DEPTH = 4;

/** Secrets and errors in a form that may be printed. */
export function printable(fields: LogFields, depth = 0): LogFields {
  return Object.fromEntries(
    Object.entries(fields).flatMap(([key, value]): [string, unknown][] => {
      if (SECRET.test(key)) return [[key, "[hidden]"]];
      if (!(value instanceof Error)) return [[key, printableValue(value, depth)]];
      const text: [string, unknown] = [key, errorText(value)];
      if (isAppError(value)) return [text, ["code", value.code]];
      return [text, ["stack", value.stack]];
    }),
  );
}

function printableValue(value: unknown, depth: number): unknown {
  if (typeof value === "bigint") return String(value);
  if (typeof value !== "object" || value === null || "toJSON" in value) return value;
  if (depth === MAX_DEPTH) return "[deep]";
  if (value instanceof Error) return errorText(value);
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (Array.isArray(value)) return value.map((item) => printableValue(item, depth + 1));
  return printable(value as LogFields, depth + 1);
}

const CONTROL = /[\u0000-\u001f\u007f-\u009f]/g;
/** A terminal or the journal must not obey what an image or a client has sent. */
const visible = (text: string): string =>
  text.replaceAll(CONTROL, (it) => `\\x${it.charCodeAt(0).toString(16).padStart(2, "0")}`);

const pair = ([key, value]: [string, unknown]): string => {
  const text = (typeof value === "string" ? value : JSON.stringify(value)) ?? "";
  return `${key}=${/[\s"=]/.test(text) || text === "" ? JSON.stringify(text) : text}`;
};

/** One line of text from a JSON line of pino. */
function textLine(line: string, journal: boolean): string {
  const { level, time, msg, ...rest } = JSON.parse(line) as Record<string, unknown>;
  const { priority, colour } = LEVELS[level as LogLevel];
  const fields = Object.entries(rest).map(pair).join(" ");
  const text = visible(`${String(msg)}${fields === "" ? "" : ` ${fields}`}`);
  if (journal) return `<${priority}>${text}\n`;
  const clock = String(time).slice(11, 23);
  return `\x1b[90m${clock}\x1b[0m \x1b[${colour}m${String(level).padEnd(5)}\x1b[0m ${text}\n`;
}

/** `auto`: the journal when standard error is connected to it, colours on a terminal, else JSON. */
export function chooseFormat(
  format: LogFormat,
  output: { fd: number; isTTY?: boolean },
  journalStream: string | undefined,
): Exclude<LogFormat, "auto"> {
  if (format !== "auto") return format;
  const { dev, ino } = fstatSync(output.fd);
  if (journalStream === `${dev}:${ino}`) return "journal";
  return output.isTTY === true ? "pretty" : "json";
}

export interface LevelledLog extends Log {
  /** From now on, for this log and all its children. */
  setLevel(level: LogLevel): void;
}

export function createLog(options: {
  level: LogLevel;
  format: Exclude<LogFormat, "auto">;
  clock: Clock;
  write: (line: string) => void;
}): LevelledLog {
  const { format, clock, write } = options;
  const stream: DestinationStream = {
    write: format === "json" ? write : (line) => write(textLine(line, format === "journal")),
  };
  const logger = pino(
    {
      // Children of pino keep the level of their birth: ours is looked at for each line.
      level: "debug",
      base: null,
      timestamp: () => `,"time":"${new Date(clock.now()).toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    stream,
  );
  let least = LEVELS[options.level].priority;
  const wrap = (target: typeof logger): Log => {
    const at =
      (level: LogLevel) =>
      (message: string, fields: LogFields = {}) => {
        if (LEVELS[level].priority <= least) target[level](printable(fields), message);
      };
    return {
      debug: at("debug"),
      info: at("info"),
      warn: at("warn"),
      error: at("error"),
      child: (fields) => wrap(target.child(printable(fields))),
    };
  };
  return { ...wrap(logger), setLevel: (level) => (least = LEVELS[level].priority) };
}
