/** `runtime check`: an executable against each rule of docs/exec-driver.md, one after the other. */
import { errorText } from "../../../../domain/index.ts";
import { CALL_CHECKS } from "./calls.ts";
import { CheckContext, Unreached, Violation, type Check, type CheckParts } from "./context.ts";
import { GUEST_CHECKS } from "./guests.ts";
import { OPTIONAL_CHECKS } from "./optional.ts";

export interface CheckResult {
  readonly id: string;
  readonly rule: string;
  readonly result: "ok" | "failed" | "not offered" | "not reached";
  /** What was found, and what the executable said. */
  readonly detail: string;
  readonly milliseconds: number;
}

/** Of the whole: they come last, when everything was stopped. */
const LAST_CHECKS: readonly Check[] = [
  {
    id: "nothing-left",
    rule: "when all instances were stopped, no process is left",
    async run(on) {
      await on.template();
      await on.clear();
      await on.assertNoProcess(on.dir, "at the end");
    },
  },
  {
    id: "rootfs-unchanged",
    rule: "the root filesystem is not written to",
    async run(on) {
      await on.template();
      const hash = await on.hashOf(on.rootfsPath);
      if (hash !== on.rootfsHash) throw new Violation("its bytes have changed");
    },
  },
];

export const CHECKS: readonly Check[] = [
  ...CALL_CHECKS,
  ...GUEST_CHECKS,
  ...OPTIONAL_CHECKS,
  ...LAST_CHECKS,
];

/**
 * @param options.only ids of checks; default: all
 * @param options.onResult told each as it comes
 */
export async function runChecks(
  parts: CheckParts,
  options: {
    only?: readonly string[];
    signal?: AbortSignal;
    onResult?: (result: CheckResult) => void;
  } = {},
): Promise<CheckResult[]> {
  const on = new CheckContext(parts);
  await on.remember();
  const results: CheckResult[] = [];
  try {
    for (const check of CHECKS) {
      options.signal?.throwIfAborted();
      if (options.only !== undefined && !options.only.includes(check.id)) continue;
      const result = await runOne(check, on);
      results.push(result);
      options.onResult?.(result);
    }
    return results;
  } finally {
    await on.clear();
    await on.killLeft();
  }
}

async function runOne({ id, rule, needs, run }: Check, on: CheckContext): Promise<CheckResult> {
  const began = on.clock.monotonic();
  const as = (result: CheckResult["result"], detail: string): CheckResult => {
    return { id, rule, result, detail, milliseconds: Math.round(on.clock.monotonic() - began) };
  };
  try {
    if (needs !== undefined && !(await on.offers(needs))) return as("not offered", needs);
    await run(on);
    return as("ok", "");
  } catch (error) {
    return as(error instanceof Unreached ? "not reached" : "failed", errorText(error));
  }
}
