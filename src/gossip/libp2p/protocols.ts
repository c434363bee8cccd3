/** Protocol ids: what a stream is for. */
import type { Protocol } from "../ports.ts";

/** Those on which peers ask each other. */
export const PROTOCOLS: readonly Protocol[] = [
  "join",
  "probe",
  "register",
  "feed",
  "swarm",
  "ask",
  "refs",
  "compat",
  "storage",
  "bundle",
];
/** What goes to everybody, without an answer. */
export const MESSAGES = "messages";

export const protocolId = (protocol: Protocol | typeof MESSAGES): string =>
  `/templatecenter/${protocol}/1`;
