/**
 * A hash of a set that does not depend on the order in which its members came: the SHA-256 of each
 * member is taken as eight 32-bit numbers, which are added up lane by lane. Adding and taking away
 * a member are both cheap, so the hash of the whole catalog is kept up to date with each change.
 */
import { hash } from "node:crypto";
import type { Entry } from "../domain/index.ts";

const LANES = 8;

type Hashed = Pick<Entry, "owner" | "kind" | "id" | "version">;

export interface StateHash {
  add(entry: Hashed): void;
  remove(entry: Hashed): void;
  /** 64 hex digits; all zeros for the empty set. */
  hex(): string;
}

export function createStateHash(): StateHash {
  const lanes = new Uint32Array(LANES);
  const mix = ({ owner, kind, id, version }: Hashed, sign: 1 | -1): void => {
    const digest = hash("sha256", JSON.stringify([owner, kind, id, version]), "buffer");
    for (let i = 0; i < LANES; i++) {
      lanes[i] = (lanes[i] ?? 0) + sign * digest.readUInt32BE(i * 4);
    }
  };
  return {
    add: (entry) => mix(entry, 1),
    remove: (entry) => mix(entry, -1),
    hex: () => [...lanes].map((lane) => lane.toString(16).padStart(8, "0")).join(""),
  };
}
