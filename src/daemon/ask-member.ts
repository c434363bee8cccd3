/** One question to the daemon of another member, and its answer. */
import type { z } from "zod";
import { AppError } from "../domain/index.ts";
import { decodeJson, encodeJson, type Members, type Transport } from "../gossip/index.ts";

export interface MemberQuestion<T> {
  readonly protocol: Parameters<Transport["request"]>[1];
  readonly question: object;
  readonly answer: z.ZodType<T>;
  readonly timeoutMs: number;
}

/** @throws AppError peer_unreachable, wire_invalid; and what the handler there threw */
export async function askMember<T>(
  { transport, members }: { readonly transport: Transport; readonly members: Members },
  nodeId: string,
  { protocol, question, answer, timeoutMs }: MemberQuestion<T>,
): Promise<T> {
  const peer = members.peerOf(nodeId);
  if (peer === undefined) throw new AppError("peer_unreachable", `${nodeId} is no member`);
  const body = await transport.request(peer, protocol, encodeJson(question), { timeoutMs });
  return decodeJson(answer, body, `the answer of ${nodeId}`);
}
