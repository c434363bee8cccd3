/**
 * Group commit: whatever is submitted while a commit is under way goes together into the next one,
 * so that many callers share one flush of the disk. Commits run one at a time, in order.
 */
import { AppError } from "../domain/index.ts";

/** A commit takes at most so many submissions, so that none waits long for the others' bytes. */
const GROUP_MAX = 1_024;
/** Above this the callers are clearly faster than the disk; more waiting only costs memory. */
const WAITING_MAX = 100_000;

interface Waiting<T, R> {
  readonly item: T;
  readonly resolve: (result: R) => void;
  readonly reject: (error: unknown) => void;
}

export class GroupWriter<T, R> {
  readonly #commit: (group: readonly T[]) => Promise<readonly R[]>;
  #waiting: Waiting<T, R>[] = [];
  #running: Promise<void> | undefined;

  /** @param commit makes a group durable; answers one result for each item, or throws for all. */
  constructor(commit: (group: readonly T[]) => Promise<readonly R[]>) {
    this.#commit = commit;
  }

  /** @throws AppError too_many_requests, and what `commit` throws */
  submit(item: T): Promise<R> {
    if (this.#waiting.length >= WAITING_MAX) {
      return Promise.reject(
        new AppError("too_many_requests", `${WAITING_MAX} catalog writes are waiting already`),
      );
    }
    return new Promise<R>((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject });
      this.#running ??= this.#run();
    });
  }

  /** Resolves when everything submitted so far is committed or refused. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  async #run(): Promise<void> {
    // One turn of the microtask queue: callers of the same moment get into the first group.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const group = this.#waiting.splice(0, GROUP_MAX);
      try {
        const results = await this.#commit(group.map(({ item }) => item));
        group.forEach(({ resolve }, index) => resolve(results[index] as R));
      } catch (error) {
        for (const { reject } of group) reject(error);
      }
    }
    this.#running = undefined;
  }
}
