/** The nodes that one fetch talks to, and how many of them have each chunk. */
import type { Clock, LackingChunks } from "../../domain/index.ts";
import type { Holders } from "./holders.ts";
import { Neighbour } from "./neighbour.ts";

/** Neighbours at once: enough to find every chunk, few enough that have-maps stay cheap. */
const NEIGHBOURS_MAX = 16;
const FAILURES_MAX = 3;

export class Neighbours {
  readonly #holders: Holders;
  readonly #clock: Clock;
  readonly #byNode = new Map<string, Neighbour>();
  readonly availability: Uint16Array;

  constructor(holders: Holders, clock: Clock, chunks: number) {
    this.#holders = holders;
    this.#clock = clock;
    this.availability = new Uint16Array(chunks);
  }

  [Symbol.iterator](): Iterator<Neighbour> {
    return this.#byNode.values();
  }

  get(nodeId: string): Neighbour | undefined {
    return this.#byNode.get(nodeId);
  }

  get hasPartial(): boolean {
    for (const { have, complete } of this) if (have !== undefined && !complete) return true;
    return false;
  }

  drop(nodeId: string): void {
    this.#byNode.get(nodeId)?.forget();
    this.#byNode.delete(nodeId);
  }

  /** Takes in others up to the limit; half of the places are for those that are complete. */
  meet(missing: LackingChunks): void {
    const now = this.#clock.monotonic();
    for (const { nodeId, failures, requests, notBefore } of [...this]) {
      if (failures >= FAILURES_MAX && requests === 0 && notBefore < now) this.drop(nodeId);
    }
    let complete = [...this].filter((one) => one.complete).length;
    for (const candidate of this.#holders.candidates()) {
      const { nodeId, peerId } = candidate;
      if (this.#byNode.has(nodeId)) continue;
      if (candidate.complete && complete >= NEIGHBOURS_MAX / 2) continue;
      if (this.#byNode.size >= NEIGHBOURS_MAX && !this.#makeRoom(missing)) return;
      if (candidate.complete) complete++;
      const about = { nodeId, peerId, clock: this.#clock, availability: this.availability };
      this.#byNode.set(nodeId, new Neighbour(about));
    }
  }

  /** One that has told what it has, and has nothing of what lacks, goes. */
  #makeRoom(missing: LackingChunks): boolean {
    for (const neighbour of this) {
      const { have, requests, polling } = neighbour;
      if (have === undefined || requests > 0 || polling || neighbour.hasAnyOf(missing)) continue;
      this.drop(neighbour.nodeId);
      return true;
    }
    return false;
  }

  /** Somebody who is up has told that it has a chunk that lacks. */
  isAnyWithin(missing: LackingChunks): boolean {
    for (const neighbour of this) {
      if (this.#holders.isUp(neighbour.nodeId) && neighbour.hasAnyOf(missing)) return true;
    }
    return false;
  }
}
