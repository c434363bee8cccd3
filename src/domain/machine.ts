import { AppError } from "./errors.ts";

/** States, each with the events it takes and where they lead. */
export type MachineTable = Readonly<Record<string, Readonly<Record<string, string>>>>;

export interface Machine<T extends MachineTable> {
  readonly name: string;
  readonly table: T;
  /**
   * @throws AppError wrong_status {subject, actual, event, allowed} when the pair is not in the
   * table.
   */
  next(subject: string, state: keyof T & string, event: string): keyof T & string;
  isTerminal(state: keyof T & string): boolean;
}

/** One table per state machine; `npm run docs` prints it as mermaid into docs/states.md. */
export function defineMachine<const T extends MachineTable>(name: string, table: T): Machine<T> {
  return {
    name,
    table,
    next(subject, state, event) {
      const target = table[state]?.[event];
      if (target === undefined) {
        throw new AppError("wrong_status", `${subject} is ${state} and does not take "${event}"`, {
          meta: { subject, actual: state, event, allowed: Object.keys(table[state] ?? {}) },
        });
      }
      return target;
    },
    isTerminal: (state) => Object.keys(table[state] ?? {}).length === 0,
  };
}

/** Mermaid text of a machine, states and events in the table's order. */
export function toMermaid(machine: { readonly table: MachineTable }): string {
  const lines = ["stateDiagram-v2"];
  for (const [state, events] of Object.entries(machine.table)) {
    if (Object.keys(events).length === 0) lines.push(`  ${state} --> [*]`);
    for (const [event, target] of Object.entries(events)) {
      lines.push(`  ${state} --> ${target}: ${event}`);
    }
  }
  return lines.join("\n");
}
