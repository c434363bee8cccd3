/**
 * Leaderships as the workers of this node use them: several may work under one lease, and it is
 * given up a while after the last of them has ended, so that the next piece of work of the same
 * template does not have to claim it again.
 */
import type { Clock, Log } from "../domain/index.ts";
import { errorText } from "../domain/index.ts";
import type { Leadership, Lease } from "../gossip/index.ts";

/** How long a lease that nobody uses is kept. */
const LINGER_MS = 3_000;

export interface Leases {
  /**
   * Runs `work` under the template's leadership; undefined when another node leads it or is to
   * lead it.
   * @throws AppError no_quorum, and what `work` throws
   */
  use<T>(
    templateId: string,
    work: (lease: Lease) => Promise<T>,
  ): Promise<{ readonly result: T } | undefined>;
  /** Calls back when a template that another led may be free for this node. */
  onOpportunity(listener: (templateId: string) => void): () => void;
}

export function createLeases(leadership: Leadership, clock: Clock, log: Log): Leases {
  const users = new Map<string, number>();
  const leave = (templateId: string) => {
    const left = (users.get(templateId) ?? 1) - 1;
    if (left > 0) return void users.set(templateId, left);
    users.delete(templateId);
    clock.after(LINGER_MS, () => {
      if (users.has(templateId)) return;
      leadership.release(templateId).catch((error: unknown) => {
        // It ends with the session at the latest.
        log.debug("a leadership could not be given up", {
          template_id: templateId,
          reason: errorText(error),
        });
      });
    });
  };
  return {
    async use(templateId, work) {
      users.set(templateId, (users.get(templateId) ?? 0) + 1);
      try {
        const lease = await leadership.acquire(templateId);
        return lease === undefined ? undefined : { result: await work(lease) };
      } finally {
        leave(templateId);
      }
    },
    onOpportunity: (listener) => leadership.onOpportunity(listener),
  };
}
