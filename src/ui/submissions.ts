/** A form carries a key made by the server: a double click or a reload cannot act twice. */

const KEPT = 1_000;

export interface Submissions<T> {
  /**
   * Runs the act once per key and answers every later call with its result; a failed act leaves the
   * key free, so that the form can be sent again.
   */
  once(key: string, act: () => Promise<T>): Promise<T>;
}

export function createSubmissions<T>(kept = KEPT): Submissions<T> {
  const results = new Map<string, Promise<T>>();
  return {
    once(key, act) {
      if (key === "") return act();
      const before = results.get(key);
      if (before !== undefined) return before;
      const result = act();
      results.set(key, result);
      result.catch(() => results.delete(key));
      for (const oldest of results.keys()) {
        if (results.size <= kept) break;
        results.delete(oldest);
      }
      return result;
    },
  };
}
