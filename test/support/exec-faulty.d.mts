/** Fault → the check that is to notice it, and what is broken. */
export const FAULTS: Readonly<Record<string, readonly [check: string, ...rest: unknown[]]>>;
