/**
 * What the cluster needs done for itself, by one node at a time: voters are chosen and replaced,
 * and tokens that can't be used any more are dropped. Leadership is claimed only when there is
 * work.
 */
import {
  CLUSTER_CHORES,
  CONFIG_ID,
  LIMITS,
  errorText,
  nextVoters,
  untilTick,
  type ClusterConfig,
  type VoterCandidate,
} from "../domain/index.ts";
import { keptTokens } from "./admit.ts";
import type { Leadership, Lease, Liveness, Parts, Registers } from "./ports.ts";

export interface ChoresParts extends Parts {
  readonly registers: Registers;
  readonly leadership: Leadership;
  readonly liveness: Liveness;
}

const ROUND_MS = 5_000;
/** Soon after the members or their health have changed. */
const SETTLE_MS = 300;

export function createChores(parts: ChoresParts): { start(): void; stop(): void } {
  const { members, liveness, leadership, registers, clock, log } = parts;
  const off: (() => void)[] = [];
  let timer: { cancel(): void } | undefined;
  /** By this node's monotonic clock: a clock that jumps must not cost a voter its vote. */
  const deadAt = new Map<string, number>();
  let stopped = false;
  let isWorking = false;

  const candidates = (config: ClusterConfig): VoterCandidate[] =>
    Object.values(config.members).map(({ node_id: nodeId, drained }) => ({
      nodeId,
      isUp: liveness.isUp(nodeId),
      isLost:
        liveness.stateOf(nodeId) === "dead" &&
        clock.monotonic() - (deadAt.get(nodeId) ?? Infinity) > LIMITS.voterReplacedAfterMs,
      isDrained: drained,
    }));

  /** The configuration as it should be next; undefined when nothing is to be done. */
  const next = (config: ClusterConfig): ClusterConfig | undefined => {
    const nodes = nextVoters(candidates(config), config.voters.nodes);
    const tokens = keptTokens(config.tokens, clock.now());
    const isSame = Object.keys(tokens).length === Object.keys(config.tokens).length;
    if (nodes === undefined && isSame) return undefined;
    const { number, nodes: previous } = config.voters;
    return {
      ...config,
      tokens,
      voters:
        nodes === undefined ? config.voters : { number: number + 1, nodes: [...nodes], previous },
    };
  };

  const work = async (lease: Lease): Promise<void> => {
    for (let turn = 0; turn < 8 && lease.isValid() && !stopped; turn++) {
      const before = members.config();
      if (before === undefined || next(before) === undefined) return;
      // Accepted by a majority of active voters only: the change before this one is finished then.
      await registers.update("cluster", CONFIG_ID, (current) =>
        current === undefined || !lease.isValid() ? undefined : next(current),
      );
    }
  };

  const round = async (): Promise<void> => {
    const config = members.config();
    if (isWorking || stopped || config === undefined || next(config) === undefined) return;
    isWorking = true;
    try {
      const lease = await leadership.acquire(CLUSTER_CHORES);
      if (lease === undefined) return;
      await work(lease);
      await leadership.release(CLUSTER_CHORES);
    } catch (error) {
      log.debug("the cluster's chores have to wait", { reason: errorText(error) });
    } finally {
      isWorking = false;
    }
  };

  const plan = (milliseconds: number): void => {
    timer?.cancel();
    if (stopped) return;
    timer = clock.after(milliseconds, () => {
      void round();
      plan(untilTick(clock, ROUND_MS));
    });
  };

  return {
    start() {
      off.push(members.onChange(() => plan(SETTLE_MS)));
      off.push(
        liveness.onChange((nodeId, state) => {
          if (state === "dead") deadAt.set(nodeId, clock.monotonic());
          else deadAt.delete(nodeId);
          plan(SETTLE_MS);
        }),
      );
      off.push(
        leadership.onOpportunity((templateId) => {
          if (templateId === CLUSTER_CHORES) plan(0);
        }),
      );
      plan(SETTLE_MS);
    },
    stop() {
      stopped = true;
      timer?.cancel();
      for (const unsubscribe of off) unsubscribe();
    },
  };
}
