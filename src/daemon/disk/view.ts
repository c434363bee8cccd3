/**
 * The storage of all nodes, as any node answers it: from their facts, and from what they said when
 * they were asked. Facts are told again only when much has changed, so that what is old is asked
 * for.
 */
import {
  errorText,
  isWritable,
  needsRefresh,
  unknownStorage,
  type Clock,
  type NodeStorage,
  type StorageList,
} from "../../domain/index.ts";
import type { Nodes } from "../nodes.ts";
import type { DiskAsks } from "./asks.ts";

export interface StorageView {
  /** What is known now, by node id. */
  list(): StorageList;
  /** After asking the nodes whose state is old or unknown; all of them when forced. */
  refresh(options: { force: boolean }): Promise<StorageList>;
}

export function createStorageView(parts: {
  readonly nodes: Pick<Nodes, "all">;
  readonly asks: Pick<DiskAsks, "measure">;
  readonly clock: Pick<Clock, "now">;
}): StorageView {
  const { nodes, asks, clock } = parts;
  const heard = new Map<string, NodeStorage>();
  const asking = new Map<string, Promise<string | undefined>>();

  const newest = (nodeId: string, told: NodeStorage): NodeStorage => {
    const asked = heard.get(nodeId);
    return asked === undefined || asked.last_updated_at < told.last_updated_at ? told : asked;
  };
  const list = (): StorageList => ({
    items: nodes
      .all()
      .map(({ node_id, node_ip, healthy, storage: told }) => {
        const storage = newest(node_id, told);
        return { node_id, node_ip, healthy, writable: isWritable(storage.mode), ...storage };
      })
      .sort((a, b) => (a.node_id < b.node_id ? -1 : 1)),
  });
  /** Answers what went wrong. */
  const ask = async (nodeId: string, last: NodeStorage): Promise<string | undefined> => {
    const at = () => Math.floor(clock.now() / 1_000);
    try {
      heard.set(nodeId, await asks.measure(nodeId));
      return undefined;
    } catch (error) {
      heard.set(nodeId, unknownStorage(errorText(error), at(), last));
      return `${nodeId}: ${errorText(error)}`;
    }
  };
  const askOnce = (nodeId: string, last: NodeStorage): Promise<string | undefined> => {
    const running = asking.get(nodeId);
    if (running !== undefined) return running;
    const one = ask(nodeId, last).finally(() => asking.delete(nodeId));
    asking.set(nodeId, one);
    return one;
  };

  return {
    list,
    async refresh({ force }) {
      const now = Math.floor(clock.now() / 1_000);
      const due = nodes.all().flatMap(({ node_id, storage: told }) => {
        const last = newest(node_id, told);
        return force || needsRefresh(last, now) ? [askOnce(node_id, last)] : [];
      });
      const error = (await Promise.all(due)).find((text) => text !== undefined);
      return { ...list(), ...(error === undefined ? {} : { error }) };
    },
  };
}
