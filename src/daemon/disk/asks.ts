/** What nodes ask each other about their disks. */
import { z } from "zod";
import { storageSchema, wasteSchema, type NodeStorage, type Waste } from "../../domain/index.ts";
import { decodeJson, encodeJson, type Members, type Transport } from "../../gossip/index.ts";
import { askMember } from "../ask-member.ts";

const ASK_TIMEOUT_MS = 3_000;
/** Removing gigabytes takes its time. */
const SWEEP_TIMEOUT_MS = 60_000;

const id = z.string().min(1).max(256);
const questionSchema = z.discriminatedUnion("what", [
  z.looseObject({ v: z.literal(1), what: z.literal("measure") }),
  z.looseObject({ v: z.literal(1), what: z.literal("holds"), artifact_id: id, digest: id }),
  z.looseObject({ v: z.literal(1), what: z.literal("waste"), sweep: z.boolean() }),
]);
type Question = z.infer<typeof questionSchema>;

const measuredSchema = z.looseObject({ storage: storageSchema });
const holdsSchema = z.looseObject({ holds: z.boolean() });

/** Answers of this node. */
export interface DiskAnswers {
  measure(): Promise<NodeStorage>;
  /** All of the artifact is here, and nothing is known against it. */
  holds(artifactId: string, digest: string): boolean;
  /** What it could do without; `sweep` removes the orphans that are due. */
  waste(sweep: boolean): Promise<Waste>;
}

/** The same of any member, this node among them. */
export interface DiskAsks {
  /** @throws AppError peer_unreachable, wire_invalid */
  measure(nodeId: string): Promise<NodeStorage>;
  /** @throws AppError peer_unreachable, wire_invalid */
  holds(nodeId: string, artifactId: string, digest: string): Promise<boolean>;
  /** @throws AppError peer_unreachable, wire_invalid */
  waste(nodeId: string, sweep: boolean): Promise<Waste>;
}

export function createDiskAsks(parts: {
  readonly transport: Transport;
  readonly members: Members;
  readonly own: DiskAnswers;
}): DiskAsks {
  const { transport, members, own } = parts;
  const answer = async (question: Question): Promise<object> => {
    switch (question.what) {
      case "measure":
        return { storage: await own.measure() };
      case "holds":
        return { holds: own.holds(question.artifact_id, question.digest) };
      case "waste":
        return own.waste(question.sweep);
    }
  };
  transport.handle("storage", async (_from, body) =>
    encodeJson({
      v: 1,
      ...(await answer(decodeJson(questionSchema, body, "a question about storage"))),
    }),
  );

  const ask = <T>(nodeId: string, question: Question, answerSchema: z.ZodType<T>): Promise<T> => {
    const isLong = question.what === "waste" && question.sweep;
    return askMember(parts, nodeId, {
      protocol: "storage",
      question,
      answer: answerSchema,
      timeoutMs: isLong ? SWEEP_TIMEOUT_MS : ASK_TIMEOUT_MS,
    });
  };
  return {
    async measure(nodeId) {
      if (nodeId === members.self) return own.measure();
      return (await ask(nodeId, { v: 1, what: "measure" }, measuredSchema)).storage;
    },
    async holds(nodeId, artifactId, digest) {
      const question: Question = { v: 1, what: "holds", artifact_id: artifactId, digest };
      return (await ask(nodeId, question, holdsSchema)).holds;
    },
    waste: (nodeId, sweep) =>
      nodeId === members.self
        ? own.waste(sweep)
        : ask(nodeId, { v: 1, what: "waste", sweep }, wasteSchema),
  };
}
