/** `WWW-Authenticate` as RFC 9110 §11.6.1 has it: several challenges may share one header. */

export interface Challenge {
  /** Lower case. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: ReadonlyMap<string, string>;
}

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const SPACE = /[ \t]*/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/y;
const BARE = /[^\s,"]*/y;

/** What cannot be read is left out, never thrown: the caller falls back to "not allowed". */
export function parseChallenges(headers: readonly string[]): readonly Challenge[] {
  return headers.flatMap((header) => parseHeader(header));
}

function parseHeader(text: string): Challenge[] {
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  let at = 0;
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match !== null) at = pattern.lastIndex;
    return match;
  };
  while (at < text.length) {
    take(SPACE);
    if (text[at] === ",") {
      at += 1;
      continue;
    }
    const name = take(TOKEN)?.[0];
    if (name === undefined) break;
    take(SPACE);
    // A name with `=` is a parameter of the last challenge; without it a new challenge begins.
    if (text[at] !== "=") {
      challenges.push({ scheme: name.toLowerCase(), parameters: new Map() });
      continue;
    }
    at += 1;
    take(SPACE);
    const quoted = take(QUOTED)?.[1];
    const value = quoted === undefined ? (take(BARE)?.[0] ?? "") : quoted.replace(/\\(.)/g, "$1");
    if (text[at] === '"') break;
    challenges.at(-1)?.parameters.set(name.toLowerCase(), value);
  }
  return challenges;
}
