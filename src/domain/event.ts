/** What is told as it happens: lines of a job's log, and changes. */
import { z } from "zod";

export const logLineSchema = z.object({
  sequence: z.number().int(),
  at: z.string(),
  level: z.enum(["debug", "info", "warn", "error"]),
  message: z.string(),
});
export type JobLogLine = z.infer<typeof logLineSchema>;

/** What changed, for pages and scripts: the kinds of entries and local things. */
export const eventSchema = z.object({
  id: z.string(),
  at: z.string(),
  type: z.enum([
    "template",
    "job",
    "job-progress",
    "job-log",
    "artifact",
    "replica",
    "node",
    "sandbox",
    "cluster",
    "swarm",
    "resnapshot",
    "tag",
  ]),
  subject: z.string(),
  data: z.record(z.string(), z.unknown()),
});
export type ChangeEvent = z.infer<typeof eventSchema>;
