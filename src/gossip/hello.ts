/**
 * `hello`, two members' first words to each other and again from time to time: whether the one is
 * still a member to the other, whether its identity runs twice, and how far their clocks are apart.
 */
import { z } from "zod";
import { AppError } from "../domain/index.ts";
import { checkSkew } from "./admit.ts";
import { decodeAdmission, encodeAdmission } from "./admission-messages.ts";
import type { Parts, PeerId, RequestOptions } from "./ports.ts";

/** Boot ids remembered of each peer. */
const BOOTS_KEPT = 8;
/** Whoever is there answers at once. */
const CHECK_TIMEOUT_MS = 2_000;

export const helloSchema = z.looseObject({
  v: z.literal(1),
  type: z.literal("hello"),
  cluster_id: z.string().max(256),
  boot_id: z.string().max(64),
  /** Wall clock, milliseconds. Absent: a version that did not tell. */
  now: z.number().optional(),
});
type HelloBody = z.infer<typeof helloSchema>;
const answerSchema = z.looseObject({
  v: z.literal(1),
  status: z.enum(["member", "removed", "unknown"]),
  cluster_id: z.string(),
  boot_id: z.string(),
  /** Another daemon runs with the asker's identity; it was there before when `newcomer`. */
  conflict: z.boolean(),
  newcomer: z.boolean().optional(),
  now: z.number().optional(),
});
export type HelloAnswer = z.infer<typeof answerSchema>;

export interface HelloParts extends Parts {
  /** Random with each start of the daemon. */
  readonly bootId: string;
}

export interface Hello {
  /**
   * @throws AppError node_removed, cluster_mismatch, identity_copied, clock_skew, not_a_member,
   *   peer_unreachable
   */
  ask(peer: PeerId, options: RequestOptions): Promise<HelloAnswer>;
  answer(from: PeerId, body: HelloBody): Promise<Uint8Array>;
  /** Called with what was found about a member that said hello: undefined when all is well. */
  onHeard: (peer: PeerId, problem: AppError | undefined) => void;
}

export function createHello(parts: HelloParts): Hello {
  const { transport, members, clock } = parts;
  const boots = new Map<PeerId, readonly string[]>();

  const exchange = async (peer: PeerId, options: RequestOptions): Promise<HelloAnswer> => {
    const clusterId = members.config()?.cluster_id ?? "";
    const body = { type: "hello", cluster_id: clusterId, boot_id: parts.bootId, now: clock.now() };
    const bytes = await transport.request(peer, "join", encodeAdmission(body), options);
    return decodeAdmission(answerSchema, bytes);
  };

  /** Whether another daemon runs with the identity of the one that says hello, and which is new. */
  const twin = async (peer: PeerId, bootId: string): Promise<"older" | "newer" | undefined> => {
    const known = boots.get(peer) ?? [];
    const last = known.at(-1);
    if (last === bootId) return undefined;
    boots.set(peer, [...known.filter((boot) => boot !== bootId), bootId].slice(-BOOTS_KEPT));
    // A restarted daemon has a new boot id and never an earlier one again: two that take turns do.
    if (known.includes(bootId)) return "newer";
    if (last === undefined) return undefined;
    // The former life of a restarted daemon answers nothing any more.
    const other = await exchange(peer, { timeoutMs: CHECK_TIMEOUT_MS }).catch(() => undefined);
    return other !== undefined && other.boot_id !== bootId ? "older" : undefined;
  };

  const problemOf = (from: PeerId, body: HelloBody, conflict: boolean): AppError | undefined => {
    if (conflict) {
      const node = members.nodeOf(from) ?? from;
      return new AppError("identity_copied", `two daemons run with the identity of ${node}`);
    }
    try {
      if (body.now !== undefined) checkSkew(clock.now(), body.now);
      return undefined;
    } catch (error) {
      return error as AppError;
    }
  };

  const hello: Hello = {
    onHeard: () => undefined,
    async ask(peer, options) {
      const answer = await exchange(peer, options);
      if (answer.status === "removed") {
        throw new AppError("node_removed", "this node was removed from the cluster");
      }
      const clusterId = members.config()?.cluster_id ?? "";
      if (answer.cluster_id !== clusterId) throw new AppError("cluster_mismatch");
      if (answer.conflict) {
        throw new AppError("identity_copied", "another daemon runs with this node's identity", {
          meta: { newcomer: answer.newcomer === true },
        });
      }
      if (answer.now !== undefined) checkSkew(clock.now(), answer.now);
      return answer;
    },
    async answer(from, body) {
      const config = members.config();
      // Only of members, so that strangers cannot fill the map.
      const isKnown = members.nodeOf(from) !== undefined;
      const other = isKnown ? await twin(from, body.boot_id) : undefined;
      const conflict = other !== undefined;
      if (isKnown) hello.onHeard(from, problemOf(from, body, conflict));
      const isRemoved = config?.removed[from] !== undefined;
      return encodeAdmission({
        status: isKnown ? "member" : isRemoved ? "removed" : "unknown",
        cluster_id: config?.cluster_id ?? "",
        boot_id: parts.bootId,
        conflict,
        newcomer: other === "older",
        now: clock.now(),
      });
    },
  };
  return hello;
}
