/**
 * Questions that one daemon asks another about what only that one knows: lines of a job's log, and
 * registry credentials that were given to it with a request (kept in memory, used, never stored).
 */
import { z } from "zod";
import {
  AppError,
  isActiveJob,
  logLineSchema,
  type JobLogLine,
  type JobRecord,
  type RegistryCredentials,
} from "../domain/index.ts";
import { decodeJson, encodeJson, type Members, type Transport } from "../gossip/index.ts";
import { askMember } from "./ask-member.ts";
import type { JobLog } from "./job-log.ts";
import type { Records } from "./records.ts";

const ASK_TIMEOUT_MS = 3_000;
/** Answers stay below the transport's frame limit. */
const MOST_LINES = 2_000;

const questionSchema = z.discriminatedUnion("what", [
  z.looseObject({ v: z.literal(1), what: z.literal("credentials"), job_id: z.string() }),
  z.looseObject({
    v: z.literal(1),
    what: z.literal("job-log"),
    job_id: z.string(),
    after: z.number().int().nonnegative().optional(),
    limit: z.number().int().positive().max(MOST_LINES).optional(),
  }),
]);
type Question = z.infer<typeof questionSchema>;
const linesSchema = z.looseObject({ lines: z.array(logLineSchema) });
const credentialsSchema = z.looseObject({
  credentials: z.object({ username: z.string(), password: z.string() }).optional(),
});

export interface Asks {
  jobLog(
    nodeId: string,
    jobId: string,
    options: { after?: number; limit?: number },
  ): Promise<readonly JobLogLine[]>;
  credentials(job: JobRecord): Promise<RegistryCredentials | undefined>;
}

export function createAsks(parts: {
  readonly transport: Transport;
  readonly members: Members;
}): Asks {
  const ask = <T>(nodeId: string, question: Question, answer: z.ZodType<T>): Promise<T> =>
    askMember(parts, nodeId, { protocol: "ask", question, answer, timeoutMs: ASK_TIMEOUT_MS });
  return {
    async jobLog(nodeId, jobId, options) {
      const question = { v: 1, what: "job-log", job_id: jobId, ...options } as const;
      return (await ask(nodeId, question, linesSchema)).lines;
    },
    async credentials(job) {
      if (job.submitted_to === undefined) return undefined;
      const question = { v: 1, what: "credentials", job_id: job.job_id } as const;
      return (await ask(job.submitted_to, question, credentialsSchema)).credentials;
    },
  };
}

/** Answers the others' questions. Credentials are given only to who leads the job's template. */
export function answerAsks(parts: {
  readonly transport: Transport;
  readonly members: Members;
  readonly records: Records;
  readonly jobLog: JobLog;
  readonly credentialsOf: (jobId: string) => RegistryCredentials | undefined;
}): void {
  const { transport, members, records, jobLog } = parts;
  transport.handle("ask", async (from, body) => {
    const question = decodeJson(questionSchema, body, "the question");
    if (question.what === "job-log") {
      const { after, limit } = question;
      const lines = await jobLog.read(question.job_id, {
        limit: limit ?? MOST_LINES,
        ...(after === undefined ? {} : { after }),
      });
      return encodeJson({ v: 1, lines });
    }
    const job = records.get("job", question.job_id);
    const leader = records.get("leader", job?.template_id ?? "")?.node_id;
    if (job === undefined || !isActiveJob(job) || leader !== members.nodeOf(from)) {
      throw new AppError("not_leader", `job ${question.job_id} is not led by who asks`);
    }
    return encodeJson({ v: 1, credentials: parts.credentialsOf(job.job_id) });
  });
}
