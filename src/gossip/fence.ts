/**
 * Fencing (design §4): what leaders command and write carries the epoch of their leadership. A node
 * obeys a command only when its (epoch, operation) is above every one it has seen of the template;
 * the epoch alone would let a leader's own late duplicate pass.
 */
import { AppError, type Catalog, type RecordKind } from "../domain/index.ts";
import type { Change, FenceToken, Lease } from "./ports.ts";

const isAbove = (token: FenceToken, highest: FenceToken): boolean =>
  token.epoch > highest.epoch ||
  (token.epoch === highest.epoch && token.operation > highest.operation);

export interface Fence {
  /**
   * True when the command is to be obeyed; the pair is durable before that is said.
   * @throws AppError catalog_degraded
   */
  admit(templateId: string, token: FenceToken): Promise<boolean>;
}

export function createFence(catalog: Catalog): Fence {
  const table = catalog.table("setting");
  const queues = new Map<string, Promise<unknown>>();
  const decide = async (templateId: string, token: FenceToken): Promise<boolean> => {
    const key = `fence/${templateId}`;
    const highest = (await table.get(key)) as FenceToken | undefined;
    if (highest !== undefined && !isAbove(token, highest)) return false;
    await table.put(key, { epoch: token.epoch, operation: token.operation });
    return true;
  };
  return {
    admit(templateId, token) {
      const before = queues.get(templateId) ?? Promise.resolve();
      const result = before.then(() => decide(templateId, token));
      const settled = result.catch(() => undefined);
      queues.set(templateId, settled);
      void settled.then(() => {
        if (queues.get(templateId) === settled) queues.delete(templateId);
      });
      return result;
    },
  };
}

/**
 * The change as a leader makes it: refused when the leadership has ended or the record was written
 * by a later one; the new value carries the epoch.
 * @throws (from the change) AppError leadership_lost, fenced
 */
export const fenced =
  <K extends RecordKind>(lease: Lease, change: Change<K>): Change<K> =>
  (current) => {
    if (!lease.isValid()) {
      throw new AppError("leadership_lost", `the leadership of ${lease.templateId} has ended`);
    }
    const epoch = (current as { readonly epoch?: number } | undefined)?.epoch ?? 0;
    if (epoch > lease.epoch) {
      throw new AppError("fenced", `${lease.templateId} was written by epoch ${epoch}`);
    }
    const next = change(current);
    // Same shape with one field set: the type of a generic record cannot say so.
    return next === null || next === undefined ? next : { ...next, epoch: lease.epoch };
  };
