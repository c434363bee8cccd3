/** Numbers by name that only grow, since the process started. */
export class Counts {
  readonly #byName = new Map<string, number>();

  add(name: string, by = 1): void {
    this.#byName.set(name, (this.#byName.get(name) ?? 0) + by);
  }

  /** Sorted by name. */
  all(): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.#byName].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}
