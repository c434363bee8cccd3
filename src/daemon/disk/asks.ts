/** What nodes ask each other about their disks. */
import { z } from "zod";
import { AppError, storageSchema, type NodeStorage } from "../../domain/index.ts";
import type { Members, Transport } from "../../gossip/index.ts";

const ASK_TIMEOUT_MS = 3_000;

const questionSchema = z.discriminatedUnion("what", [
  z.looseObject({ v: z.literal(1), what: z.literal("measure") }),
]);
type Question = z.infer<typeof questionSchema>;

const measuredSchema = z.looseObject({ storage: storageSchema });

/** Answers of this node. */
export interface DiskAnswers {
  measure(): Promise<NodeStorage>;
}

/** The same of any member, this node among them. @throws AppError peer_unreachable, wire_invalid */
export interface DiskAsks {
  measure(nodeId: string): Promise<NodeStorage>;
}

const encode = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

function decode<T>(schema: z.ZodType<T>, body: Uint8Array): T {
  try {
    return schema.parse(JSON.parse(new TextDecoder().decode(body)));
  } catch (cause) {
    throw new AppError("wire_invalid", "a message about storage does not fit its schema", {
      cause,
    });
  }
}

export function createDiskAsks(parts: {
  readonly transport: Transport;
  readonly members: Members;
  readonly own: DiskAnswers;
}): DiskAsks {
  const { transport, members, own } = parts;
  transport.handle("storage", async (_from, body) => {
    decode(questionSchema, body);
    return encode({ v: 1, storage: await own.measure() });
  });

  const ask = async <T>(nodeId: string, question: Question, schema: z.ZodType<T>): Promise<T> => {
    const peer = members.peerOf(nodeId);
    if (peer === undefined) throw new AppError("peer_unreachable", `${nodeId} is no member`);
    const options = { timeoutMs: ASK_TIMEOUT_MS };
    return decode(schema, await transport.request(peer, "storage", encode(question), options));
  };
  return {
    async measure(nodeId) {
      if (nodeId === members.self) return own.measure();
      return (await ask(nodeId, { v: 1, what: "measure" }, measuredSchema)).storage;
    },
  };
}
