/**
 * Operations on their way to one voter. What comes up while messages are under way goes together in
 * the next one: under load that makes few, larger messages, and one flush of the voter's disk for
 * many operations; a single operation goes at once. What waits is bounded: for a voter that is down
 * it would only grow, and the oldest is the one whose update gives up first.
 */
import { AppError, type VoterConfig } from "../domain/index.ts";
import type { WireOperation, WireResult } from "./register-messages.ts";

interface Waiting {
  readonly voters: VoterConfig;
  readonly operation: WireOperation;
  readonly resolve: (result: WireResult | undefined) => void;
  readonly reject: (error: unknown) => void;
}

type Send = (
  voters: VoterConfig,
  operations: readonly WireOperation[],
) => Promise<readonly WireResult[] | undefined>;

/** Messages under way at once: a lost one must not hold up the others until it times out. */
const MESSAGES_AT_ONCE = 4;
const OPERATIONS_A_MESSAGE = 500;
/** Twenty full messages: more than a voter that answers at all leaves waiting. */
const OPERATIONS_WAITING = 10_000;

export class Outbox {
  readonly #send: Send;
  #waiting: Waiting[] = [];
  #underWay = 0;
  #scheduled = false;

  /** @param send resolves with one result for each operation, undefined when they are not served */
  constructor(send: Send) {
    this.#send = send;
  }

  /** @throws what sending throws; AppError peer_unreachable after close, or when too many wait */
  ask(voters: VoterConfig, operation: WireOperation): Promise<WireResult | undefined> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ voters, operation, resolve, reject });
      if (this.#waiting.length > OPERATIONS_WAITING) this.#waiting.shift()?.reject(tooMany());
      if (this.#scheduled) return;
      this.#scheduled = true;
      // Operations of the same moment go together.
      void Promise.resolve().then(() => {
        this.#scheduled = false;
        this.#pump();
      });
    });
  }

  close(): void {
    const reason = new AppError("peer_unreachable", "this node is stopping");
    for (const { reject } of this.#waiting.splice(0)) reject(reason);
  }

  #pump(): void {
    while (this.#underWay < MESSAGES_AT_ONCE && this.#waiting.length > 0) {
      const { voters } = this.#waiting[0] as Waiting;
      const isTogether = (one: Waiting) => one.voters.number === voters.number;
      const message = this.#waiting.filter(isTogether).slice(0, OPERATIONS_A_MESSAGE);
      const chosen = new Set(message);
      this.#waiting = this.#waiting.filter((one) => !chosen.has(one));
      this.#underWay++;
      void this.#deliver(voters, message).finally(() => {
        this.#underWay--;
        this.#pump();
      });
    }
  }

  async #deliver(voters: VoterConfig, message: readonly Waiting[]): Promise<void> {
    try {
      const results = await this.#send(
        voters,
        message.map(({ operation }) => operation),
      );
      message.forEach(({ resolve }, index) => resolve(results?.[index]));
    } catch (error) {
      for (const { reject } of message) reject(error);
    }
  }
}

const tooMany = (): AppError =>
  new AppError(
    "peer_unreachable",
    `the voter does not keep up: more than ${OPERATIONS_WAITING} operations wait for it`,
  );
