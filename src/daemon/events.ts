/**
 * Everything that changes, numbered within one start of the daemon, with a ring of the latest for
 * readers that come back. An id is `<boot>.<sequence>`: after a restart the old ids are unknown,
 * and the reader loads the whole state again.
 */
import { LIMITS } from "../domain/index.ts";
import type { Catalog, ChangeEvent, Clock, Entry, Random } from "../domain/index.ts";

export interface EventHub {
  publish(type: ChangeEvent["type"], subject: string, data: Record<string, unknown>): void;
  subscribe(listener: (event: ChangeEvent) => void): () => void;
  since(id: string): readonly ChangeEvent[] | undefined;
  lastId(): string;
}

export function createEventHub(clock: Clock, random: Random): EventHub {
  const boot = random.uuid().slice(0, 8);
  const ring: ChangeEvent[] = [];
  const listeners = new Set<(event: ChangeEvent) => void>();
  let sequence = 0;
  return {
    publish(type, subject, data) {
      const at = new Date(clock.now()).toISOString();
      const event = { id: `${boot}.${++sequence}`, at, type, subject, data };
      ring.push(event);
      if (ring.length > LIMITS.eventRing) ring.shift();
      for (const listener of listeners) listener(event);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    since(id) {
      const [ofBoot, text] = id.split(".");
      const last = Number(text);
      if (ofBoot !== boot || !Number.isInteger(last) || last > sequence) return undefined;
      const first = sequence - ring.length;
      return last < first ? undefined : ring.slice(last - first);
    },
    lastId: () => `${boot}.${sequence}`,
  };
}

/** Too many or of no use to a reader; the cluster as a whole has an event of its own. */
const NOT_TOLD: ReadonlySet<string> = new Set(["holding", "refs", "session", "leader", "cluster"]);

/** Replicated entries as events; a replica's subject is its template. */
export function publishEntries(catalog: Catalog, hub: EventHub): () => void {
  return catalog.subscribe((entry: Entry) => {
    if (NOT_TOLD.has(entry.kind)) return;
    const data = (entry.value ?? { deleted: true }) as Record<string, unknown>;
    hub.publish(
      entry.kind as ChangeEvent["type"],
      entry.id,
      entry.kind === "job" ? withoutRequest(data) : data,
    );
  });
}

const withoutRequest = ({ request, ...rest }: Record<string, unknown>) => rest;
