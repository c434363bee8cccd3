/** Records over a catalog in memory, as a lone node writes them: a change is one more version. */
import { createRecords, KeyedQueue, type Records } from "../../src/daemon/records.ts";
import { CLUSTER, type Catalog, type Entry } from "../../src/domain/index.ts";
import type { Registers } from "../../src/gossip/index.ts";

/** `beforeWrite` is called ahead of each change, so that a test can come in between. */
export function memoryRecords(
  catalog: Catalog,
  beforeWrite: (kind: string, id: string) => Promise<void> | void = () => undefined,
): Records {
  const inOrder = new KeyedQueue();
  const update: Registers["update"] = async (kind, id, change) => {
    await beforeWrite(kind, id);
    return inOrder.run(`${kind}/${id}`, async () => {
      const current = catalog.get(CLUSTER, kind, id);
      const next = change(current?.value);
      if (next === undefined) return current;
      const entry = {
        owner: CLUSTER,
        kind,
        id,
        version: (current?.version ?? 0) + 1,
        ...(next === null ? {} : { value: next }),
      } as Entry;
      await catalog.merge([entry]);
      return catalog.get(CLUSTER, kind, id);
    });
  };
  return createRecords(catalog, { update });
}
