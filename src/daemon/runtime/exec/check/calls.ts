/** Rules of every call. */
import { EXIT, SCHEMA_VERSION, errorAnswerSchema, type Verb } from "../contract.ts";
import type { Outcome } from "../call.ts";
import { Violation, type Check, type CheckContext } from "./context.ts";

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** @throws Violation unless it was refused as unknown */
function assertUnknown({ exitCode, output, ended }: Outcome): void {
  if (ended !== undefined) throw new Violation(ended);
  if (exitCode !== EXIT.unknown) throw new Violation(`exit code ${exitCode ?? "?"}, not 2`);
  if (!errorAnswerSchema.safeParse(parse(output)).success) {
    throw new Violation("there is no error answer on standard output");
  }
}

/** @throws Violation unless it was refused with an error answer, of that code when one is given */
export function assertRefused(outcome: Outcome, code?: string): void {
  if (outcome.ended !== undefined) throw new Violation(outcome.ended);
  if (outcome.exitCode !== EXIT.failed) {
    throw new Violation(`exit code ${outcome.exitCode ?? "?"}, not 1`);
  }
  const answer = errorAnswerSchema.safeParse(parse(outcome.output));
  if (!answer.success) throw new Violation("there is no error answer on standard output");
  const said = answer.data.error.code;
  if (code !== undefined && said !== code) throw new Violation(`the error is ${said}, not ${code}`);
}

/** A call whose answer is to be an error. */
export const refusalOf = (
  on: CheckContext,
  verb: Verb,
  request: Readonly<Record<string, unknown>>,
  dir: string,
): Promise<Outcome> =>
  on.executable.run(verb, { schema_version: SCHEMA_VERSION, ...request }, { dir });

export const CALL_CHECKS: readonly Check[] = [
  {
    id: "capabilities",
    rule: "answers capabilities with one JSON object of schema version 1, alone",
    run: (on) => on.capabilities(),
  },
  {
    id: "unknown-verb",
    rule: "refuses an unknown verb with exit code 2 and an error answer",
    run: async (on) =>
      assertUnknown(await on.executable.run("no-such-verb", { schema_version: 1 })),
  },
  {
    id: "unknown-schema",
    rule: "refuses an unknown schema version with exit code 2 and an error answer",
    run: async (on) =>
      assertUnknown(await on.executable.run("list", { schema_version: 999, instances: [] })),
  },
  {
    id: "bad-input",
    rule: "refuses input that is no JSON with exit code 2 and an error answer",
    run: async (on) => assertUnknown(await on.executable.run("list", "this is no JSON")),
  },
  {
    id: "later-members",
    rule: "ignores members of a request that it does not know",
    async run(on) {
      await on.executable.call("list", { instances: [], of_a_later_version: { deep: [1] } });
    },
  },
  {
    id: "probe",
    rule: "says that it can be used here",
    async run(on) {
      const { available, detail } = await on.executable.call("probe", {});
      if (!available) throw new Violation(`it is not available: ${detail}`);
    },
  },
  {
    id: "versions",
    rule: "tells the same versions twice",
    async run(on) {
      const [first, second] = [
        await on.executable.call("versions", {}),
        await on.executable.call("versions", {}),
      ].map((versions) => JSON.stringify(versions));
      if (first !== second) throw new Violation(`${first ?? ""}, then ${second ?? ""}`);
    },
  },
];
