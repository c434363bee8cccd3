/** Protocol ids: what a stream is for. */
import type { Protocol, Topic } from "../ports.ts";

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
/** In a frame each stands by its place here: new ones come last. */
export const TOPICS: readonly Topic[] = ["changes", "liveness"];
/** What goes to everybody, without an answer. */
export const MESSAGES = "messages";

export const protocolId = (protocol: Protocol | typeof MESSAGES): string =>
  `/templatecenter/${protocol}/1`;
