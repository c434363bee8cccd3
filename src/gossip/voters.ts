/**
 * Changing who votes (design §4). A configuration k names its voters and those of k − 1.
 *
 * - The value with configuration k + 1 is chosen in the register `cluster/config` by a majority of
 *   voters that are *active* in k; so there is one k + 1, and it begins only when k is finished.
 * - A voter that hears of k *installs* it: durable before anything else, and from then on it serves
 *   nothing older. It hears of k only after k was chosen, never of what was merely accepted.
 * - It becomes *active* in k when it has asked a majority of the voters of k − 1, each of which
 *   installs k before it answers, and has merged, per register, the value of the highest ballot and
 *   the highest promise. One that never was active in k − 1 counts too: k was chosen by a majority
 *   that was, and any majority meets that one.
 *
 * Why no chosen value is lost: a value chosen under k − 1 was accepted by a majority of its voters
 * before each of these installed k. Every voter active in k has read a majority of k − 1 after they
 * had installed k; both majorities share a voter, so it has read that value, or one with a higher
 * ballot, which was made from it. Nothing is chosen under k − 1 after that: a majority of its
 * voters refuses. Promises are carried along, so ballots of k are above all that were prepared with
 * a majority before, and an old value that only a minority accepted can never outrank a later one.
 * What was taken over is not counted as accepted in k: voters that were asked by others may have
 * taken over a higher value, so a reader has a majority of k accept it first.
 * A voter that lost its disk lost its catalog's name too and does not start as that voter again.
 */
import {
  errorText,
  isAppError,
  majorityOf,
  type Clock,
  type Log,
  type RegisterRow,
  type VoterConfig,
} from "../domain/index.ts";
import { toAccepted, toBallot, type Acceptor } from "./acceptor.ts";
import type { RegisterAnswer } from "./register-messages.ts";

export interface VotersParts {
  readonly nodeId: string;
  readonly acceptor: Acceptor;
  readonly clock: Clock;
  readonly log: Log;
  /** A page of what a former voter holds. @throws AppError peer_unreachable */
  readonly askDump: (voter: string, voters: VoterConfig, after: string) => Promise<RegisterAnswer>;
}

const RETRY_MS = { first: 50, most: 2_000 } as const;

export class Voters {
  readonly #parts: VotersParts;
  #activating: Promise<void> | undefined;
  #stopped = false;

  constructor(parts: VotersParts) {
    this.#parts = parts;
  }

  /** Called with every configuration that is heard of; resolves when it is installed. */
  async hear(voters: VoterConfig): Promise<void> {
    const { acceptor, log } = this.#parts;
    try {
      if (await acceptor.install(voters)) {
        const fields = { number: voters.number, voters: voters.nodes.join(",") };
        log.info("a configuration of voters is installed", fields);
      }
    } finally {
      // Also when it could not be written: activating tries that again.
      this.resume();
    }
  }

  /** Goes on with becoming active, when this node votes and is not yet. */
  resume(): void {
    if (this.#stopped || this.#activating !== undefined || !this.#isWanted()) return;
    this.#activating = this.#activate().finally(() => {
      this.#activating = undefined;
      if (this.#isWanted()) this.resume();
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#activating;
  }

  #isWanted(): boolean {
    const { acceptor, nodeId } = this.#parts;
    const { installed } = acceptor;
    if (this.#stopped || installed === undefined) return false;
    return installed.nodes.includes(nodeId) && !acceptor.isActive(installed.number);
  }

  async #activate(): Promise<void> {
    const { acceptor, clock, log } = this.#parts;
    for (let pauseMs: number = RETRY_MS.first; this.#isWanted();) {
      const voters = acceptor.installed;
      if (voters === undefined) return;
      try {
        // Its write may have failed, or be under way: nothing older may be served from here on.
        await acceptor.install(voters);
        const dumps = await this.#dumps(voters);
        if (dumps.length >= neededDumps(voters)) {
          await acceptor.activate(voters.number, dumps);
          if (acceptor.isActive(voters.number)) {
            log.info("this node votes", { number: voters.number });
            continue;
          }
        }
      } catch (error) {
        if (isAppError(error, "catalog_unavailable")) return;
        log.warn("this voter could not become active yet", { reason: errorText(error) });
      }
      await clock.sleep(pauseMs);
      pauseMs = Math.min(pauseMs * 2, RETRY_MS.most);
    }
  }

  /** What former voters hold, of as many as answer; a majority of them is enough. */
  async #dumps(voters: VoterConfig): Promise<ReadonlyMap<string, RegisterRow>[]> {
    const asked = voters.previous.map((voter) => this.#dumpOf(voter, voters));
    return new Promise((resolve) => {
      const dumps: ReadonlyMap<string, RegisterRow>[] = [];
      let left = asked.length;
      if (left === 0) resolve(dumps);
      const done = () => {
        left--;
        if (dumps.length >= neededDumps(voters) || left === 0) resolve([...dumps]);
      };
      for (const one of asked) {
        one.then((dump) => {
          if (dump !== undefined) dumps.push(dump);
          done();
        }, done);
      }
    });
  }

  async #dumpOf(
    voter: string,
    voters: VoterConfig,
  ): Promise<ReadonlyMap<string, RegisterRow> | undefined> {
    const rows = new Map<string, RegisterRow>();
    for (let after = ""; !this.#stopped;) {
      const answer = await this.#parts.askDump(voter, voters, after);
      if (!answer.served || answer.rows === undefined) {
        if (answer.voters !== undefined) await this.#parts.acceptor.install(answer.voters);
        return undefined;
      }
      for (const { k, p, a } of answer.rows) {
        rows.set(k, { promised: toBallot(p), accepted: toAccepted(a) });
      }
      if (answer.next === undefined) return rows;
      after = answer.next;
    }
    return undefined;
  }
}

/** The first configuration has nobody to ask: its voter brings what it held while it was alone. */
const neededDumps = ({ previous }: VoterConfig): number =>
  previous.length === 0 ? 0 : majorityOf(previous.length);
