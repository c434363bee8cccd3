import { isAppError } from "../../domain/index.ts";
import type { Facts } from "../records.ts";

/**
 * Drops this node's replica, and says so first: no sandbox is sent to files that are going. One
 * that started meanwhile keeps them; whether it is time is looked at again later.
 */
export async function cleanReplica(
  parts: { readonly facts: Facts; readonly inUse: (templateId: string) => boolean },
  templateId: string,
  drop: () => Promise<void>,
): Promise<void> {
  const { facts, inUse } = parts;
  const before = facts.get("replica", templateId);
  const cleaning = { status: "FAILED", phase: "CLEANING", cleanup_required: true } as const;
  const telling = facts.update("replica", templateId, (now) => ({ ...now, ...cleaning }));
  await telling.catch((error: unknown) => {
    // On a full disk it can't be told, and is what makes room.
    if (!isAppError(error, "catalog_degraded")) throw error;
  });
  if (inUse(templateId)) await facts.put("replica", templateId, before);
  else await drop();
}
