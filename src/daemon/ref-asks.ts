/**
 * Runtime refs over the whole cluster: each node keeps its own, so that whoever is asked asks the
 * nodes that are concerned. A node that does not answer is named: its refs count as held.
 */
import { z } from "zod";
import {
  AppError,
  acquireRefSchema,
  errorText,
  runtimeRefSchema,
  type AcquireRefRequest,
  type RuntimeRef,
} from "../domain/index.ts";
import { decodeJson, encodeJson, type Members, type Transport } from "../gossip/index.ts";
import { askMember } from "./ask-member.ts";
import type { Nodes } from "./nodes.ts";
import type { RuntimeRefs } from "./runtime-refs.ts";

const ASK_TIMEOUT_MS = 3_000;
/** Refs of one answer: below the transport's frame limit. */
const MOST_REFS = 5_000;

const id = z.string().min(1).max(256);
const version = z.number().int().positive().optional();
const questionSchema = z.discriminatedUnion("what", [
  z.looseObject({
    v: z.literal(1),
    what: z.literal("list"),
    snapshot_id: id.optional(),
    sandbox_id: id.optional(),
  }),
  z.looseObject({ v: z.literal(1), what: z.literal("acquire"), request: acquireRefSchema }),
  z.looseObject({
    v: z.literal(1),
    what: z.literal("release"),
    sandbox_id: id,
    reason: z.string().max(1_024),
  }),
  z.looseObject({ v: z.literal(1), what: z.literal("fence"), snapshot_id: id, version }),
  z.looseObject({ v: z.literal(1), what: z.literal("unfence"), snapshot_id: id, version }),
]);
type Question = z.infer<typeof questionSchema>;

const answerSchema = z.looseObject({
  refs: z.array(runtimeRefSchema).default([]),
  count: z.number().int().nonnegative().default(0),
});
type Answer = z.infer<typeof answerSchema>;

export interface FoundRefs {
  readonly refs: readonly RuntimeRef[];
  /** All of them; `refs` has the first few thousand of each node. */
  readonly count: number;
  /** Nodes that did not answer, and why: they may have more. */
  readonly unanswered: readonly { readonly node_id: string; readonly reason: string }[];
}

export interface ClusterRefs {
  /** ACTIVE refs on all nodes, by node, then oldest first. */
  find(filter: { snapshotId?: string; sandboxId?: string }): Promise<FoundRefs>;
  /** On the node that the request names, or here. @throws AppError node_not_found, as acquire */
  acquire(request: AcquireRefRequest): Promise<RuntimeRef>;
  /** @throws AppError peer_unreachable when a node that may have one did not answer */
  release(sandboxId: string, reason: string): Promise<number>;
  /**
   * Every node in `nodes` gives no ref any more; answers those that there are.
   * @param version of the record that says DELETING
   * @throws AppError peer_unreachable
   */
  fence(
    snapshotId: string,
    nodes: readonly string[],
    version?: number,
  ): Promise<readonly RuntimeRef[]>;
  /** As far as the nodes can be reached; the others lift it when they see the record again. */
  unfence(snapshotId: string, nodes: readonly string[], version?: number): Promise<void>;
}

export interface ClusterRefParts {
  readonly refs: RuntimeRefs;
  readonly transport: Transport;
  readonly members: Members;
  readonly nodes: Nodes;
  /** @throws AppError template_has_no_ready_replica */
  readonly assertReplica: (snapshotId: string) => void;
}

export function createClusterRefs(parts: ClusterRefParts): ClusterRefs {
  const { refs, transport, members, nodes } = parts;

  const answer = async (question: Question): Promise<Partial<Answer>> => {
    switch (question.what) {
      case "list": {
        const found = refs.active({
          ...(question.snapshot_id === undefined ? {} : { snapshotId: question.snapshot_id }),
          ...(question.sandbox_id === undefined ? {} : { sandboxId: question.sandbox_id }),
        });
        return { refs: found.slice(0, MOST_REFS), count: found.length };
      }
      case "acquire": {
        parts.assertReplica(question.request.snapshot_id);
        return { refs: [await refs.acquire(question.request, "runtime")], count: 1 };
      }
      case "release":
        return { count: await refs.releaseBySandbox(question.sandbox_id, question.reason) };
      case "fence": {
        const held = await refs.fence(question.snapshot_id, question.version);
        return { refs: held.slice(0, MOST_REFS), count: held.length };
      }
      case "unfence":
        await refs.unfence(question.snapshot_id, question.version);
        return {};
    }
  };
  transport.handle("refs", async (_from, body) =>
    encodeJson({
      v: 1,
      ...(await answer(decodeJson(questionSchema, body, "a question about runtime refs"))),
    }),
  );

  const ask = async (nodeId: string, question: Question): Promise<Answer> => {
    if (nodeId === members.self) return answerSchema.parse(await answer(question));
    return askMember(parts, nodeId, {
      protocol: "refs",
      question,
      answer: answerSchema,
      timeoutMs: ASK_TIMEOUT_MS,
    });
  };
  const askAll = async (nodeIds: readonly string[], question: Question) => {
    const asked = await Promise.allSettled(nodeIds.map((nodeId) => ask(nodeId, question)));
    const answers: Answer[] = [];
    const unanswered: { node_id: string; reason: string }[] = [];
    asked.forEach((one, index) => {
      if (one.status === "fulfilled") answers.push(one.value);
      else unanswered.push({ node_id: nodeIds[index] ?? "", reason: errorText(one.reason) });
    });
    return { answers, unanswered };
  };
  const assertAll = (unanswered: readonly { node_id: string; reason: string }[], what: string) => {
    const [first] = unanswered;
    if (first === undefined) return;
    const names = unanswered.map(({ node_id }) => node_id).sort();
    throw new AppError("peer_unreachable", `${what}: no answer from ${names.join(", ")}`, {
      meta: { nodes: names },
      cause: new Error(first.reason),
    });
  };

  return {
    async find({ snapshotId, sandboxId }) {
      const question: Question = {
        v: 1,
        what: "list",
        ...(snapshotId === undefined ? {} : { snapshot_id: snapshotId }),
        ...(sandboxId === undefined ? {} : { sandbox_id: sandboxId }),
      };
      const { answers, unanswered } = await askAll(members.nodes(), question);
      return {
        refs: answers.flatMap((one) => one.refs),
        count: answers.reduce((sum, one) => sum + one.count, 0),
        unanswered,
      };
    },
    async acquire({ node_id: wanted, ...request }) {
      const nodeId = wanted ?? members.self;
      const known = nodes.all().find((node) => node.node_id === nodeId || node.node_ip === nodeId);
      if (known === undefined) {
        throw new AppError("node_not_found", `node ${JSON.stringify(nodeId)} not found`);
      }
      const { refs: made } = await ask(known.node_id, { v: 1, what: "acquire", request });
      const [ref] = made;
      if (ref === undefined) throw new AppError("wire_invalid", `${nodeId} made no runtime ref`);
      return ref;
    },
    async release(sandboxId, reason) {
      const own = await refs.releaseBySandbox(sandboxId, reason);
      if (own > 0) return own;
      const question: Question = { v: 1, what: "release", sandbox_id: sandboxId, reason };
      const { answers, unanswered } = await askAll(members.others(), question);
      const count = answers.reduce((sum, one) => sum + one.count, 0);
      // A sandbox has its refs on one node.
      if (count === 0) assertAll(unanswered, `the refs of ${sandboxId} may not be released`);
      return count;
    },
    async fence(snapshotId, nodeIds, version) {
      const question: Question = { v: 1, what: "fence", snapshot_id: snapshotId, version };
      const { answers, unanswered } = await askAll(nodeIds, question);
      assertAll(unanswered, `${snapshotId} could not be fenced everywhere`);
      return answers.flatMap((one) => one.refs);
    },
    async unfence(snapshotId, nodeIds, version) {
      await askAll(nodeIds, { v: 1, what: "unfence", snapshot_id: snapshotId, version });
    },
  };
}
