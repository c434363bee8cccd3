/**
 * What passes between the daemon and the executable of an exec driver. docs/exec-driver.md has the
 * contract in words; conformance.ts checks an executable against it.
 */
import { z } from "zod";
import type { GuestSpec } from "../../../domain/index.ts";

export const SCHEMA_VERSION = 1;

/** What an executable may leave out. */
export const CAPABILITIES = ["live_snapshot", "rollback", "transfer", "remove_snapshot"] as const;
export type Capability = (typeof CAPABILITIES)[number];

/** Exit codes: an answer, an error answer, and a request that the executable does not know. */
export const EXIT = { done: 0, failed: 1, unknown: 2 } as const;

/** Bytes of an answer; the call is ended when more come. */
export const ANSWER_BYTES = 1024 * 1024;
/** Lines of standard error taken of one call; more are dropped. */
export const LOG_LINES = 10_000;
/** From the polite signal to the sure one. */
export const TERMINATE_GRACE_MS = 5_000;
/** What an executable has left running may hold its output open for so long after its end. */
export const CLOSE_GRACE_MS = 2_000;

export const FILE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const word = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,63}$/);
const version = z.string().max(200);
const numbers = z.record(z.string().max(64), z.number());
const pid = z.int().positive();

const portsSchema = z.record(
  z.string().regex(/^\d{1,5}$/),
  z.object({ host: z.string().min(1).max(255), port: z.int().min(1).max(65_535) }),
);
const instanceSchema = z.object({
  generation: z.int().positive(),
  pid: pid.exactOptional(),
  ports: portsSchema,
});
export type InstanceAnswer = z.output<typeof instanceSchema>;

const answer = <T extends z.ZodRawShape>(shape: T) =>
  z.object({ schema_version: z.literal(SCHEMA_VERSION), ...shape });
const running = answer({ instance: instanceSchema });
const filesAnswer = answer({
  files: z.array(z.string().regex(FILE_NAME)).min(1).max(64),
  description: numbers.default({}),
  timings: numbers.default({}),
});

/** Each verb: how long a call may take, what it needs of the capabilities, and what it answers. */
export const VERBS = {
  capabilities: {
    limitMs: 5_000,
    answer: answer({
      name: word,
      version: z.string().min(1).max(64),
      capabilities: z.array(z.string().max(64)).max(64),
    }),
  },
  probe: {
    limitMs: 60_000,
    answer: answer({
      available: z.boolean(),
      detail: z.string().max(500),
      accelerator: z.enum(["kvm", "tcg"]).exactOptional(),
    }),
  },
  versions: {
    limitMs: 10_000,
    answer: answer({
      guest_image_version: version,
      agent_version: version,
      kernel_version: version,
      extra: z.record(z.string().max(64), version).default({}),
    }),
  },
  boot: { limitMs: 120_000, answer: running },
  restore: { limitMs: 60_000, answer: running },
  rollback: { limitMs: 120_000, needs: ["rollback"], answer: running },
  recover: {
    limitMs: 60_000,
    needs: ["live_snapshot", "rollback"],
    answer: answer({ instance: instanceSchema.nullable() }),
  },
  snapshot: { limitMs: 300_000, answer: filesAnswer },
  stop: { limitMs: 60_000, answer: answer({ ended: z.array(pid).default([]) }) },
  list: {
    limitMs: 20_000,
    answer: answer({ instances: z.array(instanceSchema.extend({ id: z.string() })) }),
  },
  usage: {
    limitMs: 20_000,
    answer: answer({ processes: z.int().min(0), memory_bytes: z.int().min(0) }),
  },
  export: { limitMs: 300_000, needs: ["transfer"], answer: filesAnswer },
  import: { limitMs: 300_000, needs: ["transfer"], answer: filesAnswer },
  remove: { limitMs: 60_000, needs: ["remove_snapshot"], answer: answer({}) },
} as const satisfies Record<
  string,
  { limitMs: number; needs?: readonly Capability[]; answer: z.ZodType }
>;
export type Verb = keyof typeof VERBS;
export type Answer<V extends Verb> = z.output<(typeof VERBS)[V]["answer"]>;

/** An instance is a guest that runs: its name, and a folder for whatever belongs to it. */
export interface Instance {
  readonly id: string;
  readonly dir: string;
}

/** What an executable says when it fails; failure.ts has the codes that mean more than `failed`. */
export const errorAnswerSchema = answer({
  error: z.object({
    code: z.string().max(64),
    message: z.string().min(1).max(4_096),
  }),
});

/** The guest as a request has it: the daemon itself asks the readiness probe. */
export const guestOf = (guest: GuestSpec) => ({
  command: guest.command,
  args: guest.args,
  env: guest.env,
  working_dir: guest.workingDir,
  cpu_millis: guest.cpuMillis,
  memory_mib: guest.memoryMib,
  exposed_ports: guest.exposedPorts,
  isolated: guest.isolated === true,
});
