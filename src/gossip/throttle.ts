/** Lets a thing be said once in a while: a peer that repeats itself must not fill the log. */
import type { Clock } from "../domain/index.ts";

/** More keys than that are forgotten, oldest first: who invents names must not fill the memory. */
const KEYS_KEPT = 256;

/** @returns true for a key at most once in `periodMs` */
export function createThrottle(clock: Clock, periodMs = 60_000): (key: string) => boolean {
  const said = new Map<string, number>();
  return (key) => {
    const now = clock.monotonic();
    const last = said.get(key);
    if (last !== undefined && now - last < periodMs) return false;
    said.delete(key);
    said.set(key, now);
    const oldest = said.keys().next().value;
    if (said.size > KEYS_KEPT && oldest !== undefined) said.delete(oldest);
    return true;
  };
}
