/** A guest's serial console as lines, with the last ones kept for error reports. */
import type { Duplex } from "node:stream";

const TAIL_LINES = 40;
/** A longer line is cut into pieces: a guest may write without ever ending a line. */
const LINE_LIMIT = 2_048;

export interface GuestConsole {
  /** The last lines, oldest first. */
  tail(): readonly string[];
}

/** Calls `onLine` for each line that is not blank, without control characters. */
export function readConsole(stream: Duplex, onLine: (line: string) => void): GuestConsole {
  const tail: string[] = [];
  let partial = "";
  const say = (text: string) => {
    const line = text.replace(/\u001b\[[0-9;?]*[A-Za-z]|[\u0000-\u0008\u000b-\u001f\u007f]/g, "");
    if (line.trim() === "") return;
    tail.push(line);
    if (tail.length > TAIL_LINES) tail.shift();
    onLine(line);
  };
  stream.setEncoding("utf8");
  stream.on("data", (text: string) => {
    partial += text;
    const lines = partial.split("\n");
    partial = lines.pop() ?? "";
    for (const line of lines) say(line);
    while (partial.length > LINE_LIMIT) {
      say(partial.slice(0, LINE_LIMIT));
      partial = partial.slice(LINE_LIMIT);
    }
  });
  stream.on("end", () => {
    say(partial);
    partial = "";
  });
  return { tail: () => [...tail] };
}
