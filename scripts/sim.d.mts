export interface Found {
  readonly scenario: string;
  readonly seed: number;
  readonly violation: string;
}
export interface Ran {
  readonly ran: number;
  readonly totals: Readonly<Record<string, number>>;
  readonly found?: Found;
  readonly traceHash?: number;
}
export const SCENARIOS: readonly string[];
export function runSeeds(scenario: string, first: number, count: number): Promise<Ran>;
export function runFresh(
  scenarios: readonly string[],
  options: { from: number; seeds?: number; minutes?: number },
  jobs: number,
): Promise<{ failed?: Found; totals: Readonly<Record<string, number>> }>;
/** Names of the slips that were not noticed. */
export function runMutants(jobs: number): Promise<string[]>;
