/** What the process gives a daemon. */
import type { Clock, Log, Random } from "../domain/index.ts";
import type { Config } from "./config.ts";
import type { Health } from "./health.ts";
import type { Metrics } from "./metrics.ts";

export interface DaemonParts {
  readonly config: Config;
  readonly version: string;
  readonly log: Log;
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: Metrics;
  readonly health: Health;
}
