/**
 * Periodic work is in no hurry, and to wake an idle process costs more than most of what is done
 * then. So such work waits for the process's next ticks, at which all of it is done together.
 */
import type { Clock } from "./ports.ts";

const TICK_MS = 1_000;

/**
 * Milliseconds until the tick that is nearest to `ms` from now; `ms` is a second or more.
 * @returns a whole number, at most half a second off
 */
export function untilTick({ monotonic }: Pick<Clock, "monotonic">, ms: number): number {
  const now = monotonic();
  return Math.ceil(Math.round((now + ms) / TICK_MS) * TICK_MS - now);
}
