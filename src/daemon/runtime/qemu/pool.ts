/**
 * QEMU processes that wait for a snapshot's state, so that a restore does not wait for a process.
 * One shelf per snapshot and set of guest ports; what is taken is replaced in the background.
 */
import { join } from "node:path";
import type { Clock, DriverSnapshot, GuestSpec, Log } from "../../../domain/index.ts";
import { endMachine } from "./machine.ts";
import type { Waiting } from "./restore.ts";
import { rm } from "node:fs/promises";

interface Shelf {
  readonly dir: string;
  readonly size: number;
  readonly start: (dir: string) => Promise<Waiting>;
  /** Oldest first; each settles when its process waits. */
  readonly waiting: Promise<Waiting | undefined>[];
}

const shelfKey = (snapshot: DriverSnapshot, guest: GuestSpec): string =>
  JSON.stringify([snapshot.dir, [...guest.exposedPorts].sort((a, b) => a - b)]);

export class Pool {
  readonly #folder: string;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #shelves = new Map<string, Shelf>();
  #started = 0;
  #closed = false;

  /** @param folder where the waiting processes have their folders; nothing else lies there */
  constructor(folder: string, clock: Clock, log: Log) {
    this.#folder = folder;
    this.#clock = clock;
    this.#log = log;
  }

  /** Resolves when `size` processes wait, or could not be started. */
  async fill(
    snapshot: DriverSnapshot,
    guest: GuestSpec,
    size: number,
    start: (dir: string) => Promise<Waiting>,
  ): Promise<void> {
    const key = shelfKey(snapshot, guest);
    const waiting = this.#shelves.get(key)?.waiting ?? [];
    const shelf: Shelf = { dir: snapshot.dir, size, start, waiting };
    this.#shelves.set(key, shelf);
    await Promise.all(waiting.splice(size).map((one) => this.#end(one)));
    this.#refill(shelf);
    await Promise.all([...shelf.waiting]);
  }

  /** A process that waits for that snapshot, or undefined when there is none alive. */
  async take(snapshot: DriverSnapshot, guest: GuestSpec): Promise<Waiting | undefined> {
    const shelf = this.#shelves.get(shelfKey(snapshot, guest));
    while (shelf !== undefined && shelf.waiting.length > 0) {
      const next = shelf.waiting.splice(0, 1);
      const [found] = await Promise.all(next);
      if (found?.machine.process.alive() === true) return found;
      await Promise.all(next.map((one) => this.#end(one)));
    }
    return undefined;
  }

  /** Starts what `take` took away. Call it when the restore is done: they would compete. */
  replenish(snapshot: DriverSnapshot, guest: GuestSpec): void {
    const shelf = this.#shelves.get(shelfKey(snapshot, guest));
    if (shelf !== undefined) this.#refill(shelf);
  }

  /** Ends all that wait for the snapshot, and keeps none from now on. */
  async drop(snapshotDir: string): Promise<void> {
    for (const [key, shelf] of [...this.#shelves]) {
      if (shelf.dir !== snapshotDir) continue;
      this.#shelves.delete(key);
      await Promise.all(shelf.waiting.splice(0).map((one) => this.#end(one)));
    }
  }

  /** Processes that wait now. */
  get size(): number {
    return [...this.#shelves.values()].reduce((sum, { waiting }) => sum + waiting.length, 0);
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const { dir } of [...this.#shelves.values()]) await this.drop(dir);
  }

  #refill(shelf: Shelf): void {
    while (!this.#closed && shelf.waiting.length < shelf.size) {
      const starting = shelf
        .start(join(this.#folder, String(++this.#started)))
        .catch((error: unknown) => {
          this.#log.warn("no VM could be kept waiting", { err: error });
          const at = shelf.waiting.indexOf(starting);
          if (at >= 0) void shelf.waiting.splice(at, 1);
          return undefined;
        });
      shelf.waiting.push(starting);
    }
  }

  async #end(starting: Promise<Waiting | undefined>): Promise<void> {
    const waiting = await starting;
    if (waiting === undefined) return;
    await endMachine(waiting.machine, this.#clock);
    await rm(waiting.machine.dir, { recursive: true, force: true });
  }
}
