/**
 * The asking side of the registers. An update asks a majority what they accepted last, applies the
 * change, and has a majority accept the result; a proposer that was the last to write a register
 * has their promise for its next ballot already and does not ask first.
 */
import {
  AppError,
  EMPTY_ROW,
  firstBallot,
  LIMITS,
  isSameBallot,
  latestAccepted,
  majorityOf,
  type Accepted,
  type Ballot,
  type Clock,
  type Random,
  type VoterConfig,
} from "../domain/index.ts";
import { fromAccepted, fromBallot, toAccepted, toBallot } from "./acceptor.ts";
import type { WireOperation, WireResult } from "./register-messages.ts";

export interface ProposerParts {
  readonly nodeId: string;
  readonly clock: Clock;
  readonly random: Random;
  /** The newest configuration known here. @throws AppError no_quorum when there is none */
  readonly voters: () => VoterConfig;
  /** The voters that a register's value names, when it is the one that names them. */
  readonly votersIn: (key: string, value: unknown) => VoterConfig | undefined;
  /** Called with voters that have been chosen; resolves when they are known here. */
  readonly learn: (voters: VoterConfig) => Promise<void>;
  /** One operation at one voter; undefined when it does not serve `voters`. @throws no answer */
  readonly ask: (
    voter: string,
    voters: VoterConfig,
    operation: WireOperation,
  ) => Promise<WireResult | undefined>;
}

export interface Decision {
  readonly version: number;
  readonly value?: unknown;
  /** False when the register holds what it held before. */
  readonly changed: boolean;
}

/** The new value, null for a tombstone, undefined to leave the register alone. */
export type RegisterChange = (current: unknown) => unknown;

/** What a majority promised to this node with its last write. */
interface Promised {
  readonly number: number;
  readonly ballot: Ballot;
  readonly accepted: Accepted;
  /** Monotonic; a promise of long ago may have been forgotten with a purged tombstone. */
  readonly atMs: number;
}

interface Round {
  readonly key: string;
  readonly voters: VoterConfig;
  readonly untilMs: number;
  readonly everywhere: boolean;
  /** Nobody else knows of the register yet, and nothing was proposed for it. */
  readonly isNew: boolean;
  /** Whether a voter answered the last time that it was asked in this update. */
  readonly answered: Map<string, boolean>;
}

const BACK_OFF_MS = { first: 10, most: 400 } as const;
/** Registers whose promise is remembered; the oldest go. */
const PROMISES_KEPT = 20_000;

class Refused extends Error {}

export class Proposer {
  readonly #parts: ProposerParts;
  readonly #promised = new Map<string, Promised>();
  /**
   * With a part that no other life of this node has: a ballot that was used before a restart must
   * not be used again for another value.
   */
  readonly #name: string;
  /** The highest counter seen anywhere, so that a new ballot has a chance. */
  #highest = firstBallot("").counter;

  constructor(parts: ProposerParts) {
    this.#parts = parts;
    this.#name = `${parts.nodeId}#${parts.random.uuid().slice(0, 13)}`;
  }

  /**
   * @param untilMs monotonic time after which it is given up
   * @param everywhere what is found is accepted anew by all that answer, so that a voter with
   *   another value of its own, which few accepted, has none any more
   * @param isNew the caller has made the register's name for this update: nobody is asked first
   * @throws AppError no_quorum, what `change` throws, and the signal's reason
   */
  async update(
    key: string,
    change: RegisterChange,
    options: { untilMs: number; signal?: AbortSignal; everywhere?: boolean; isNew?: boolean },
  ): Promise<Decision> {
    const { clock } = this.#parts;
    let pauseMs: number = BACK_OFF_MS.first;
    const answered = new Map<string, boolean>();
    let isNew = options.isNew === true;
    for (;;) {
      options.signal?.throwIfAborted();
      const voters = this.#parts.voters();
      const { untilMs, everywhere = false } = options;
      const round: Round = { key, voters, untilMs, everywhere, isNew, answered };
      isNew = false;
      try {
        return await this.#attempt(round, change);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        this.#promised.delete(key);
        if (clock.monotonic() + pauseMs >= options.untilMs) throw noQuorum(round, error);
      }
      // Half of it by chance, so that two who want the same register do not meet again and again.
      await clock.sleep(pauseMs / 2 + this.#chance() * (pauseMs / 2), options);
      pauseMs = Math.min(pauseMs * 2, BACK_OFF_MS.most);
    }
  }

  /** Promises of another configuration, or of a node that has stopped, are worth nothing. */
  forget(): void {
    this.#promised.clear();
  }

  async #attempt(round: Round, change: RegisterChange): Promise<Decision> {
    const promised = this.#promised.get(round.key);
    if (promised?.number === round.voters.number && this.#isFresh(promised)) {
      // What is held here may be out of date: a refusal by the change must not rest on it.
      const next = tryChange(change, promised.accepted);
      if (next !== undefined) {
        return this.#write(round, promised.ballot, promised.accepted.version, next.value);
      }
      this.#promised.delete(round.key);
    }
    if (round.isNew) {
      const first = change(undefined);
      if (first !== undefined) return this.#write(round, firstBallot(this.#name), 0, first);
    }
    const ballot: Ballot = { counter: this.#nextCounter(), node: this.#name };
    const answers = await this.#gather(round, { k: round.key, p: fromBallot(ballot) });
    const reports = answers.map(({ accepted, in: acceptedIn }) => ({
      accepted: accepted === undefined ? EMPTY_ROW.accepted : toAccepted(accepted),
      acceptedIn,
    }));
    const latest = latestAccepted(reports.map(({ accepted: one }) => one));
    this.#highest = Math.max(this.#highest, latest.ballot.counter);
    const later = this.#parts.votersIn(round.key, latest.value);
    if (later !== undefined && later.number > round.voters.number) {
      // Whoever proposed them is gone, perhaps before a majority had accepted. They are chosen now;
      // what is wanted here is decided among them, so that no change begins before this one ended.
      await this.#accept(round, { ...latest, ballot });
      await this.#parts.learn(later);
      throw new Refused("the voters have changed");
    }
    const next = change(latest.value);
    if (next !== undefined) return this.#write(round, ballot, latest.version, next);
    // Only what was accepted in this configuration counts: see RegisterRow.acceptedIn.
    const agreeing = reports.filter(
      ({ accepted: one, acceptedIn }) =>
        isSameBallot(one.ballot, latest.ballot) && acceptedIn === round.voters.number,
    );
    const isChosen = agreeing.length >= majorityOf(round.voters.nodes.length);
    if (isChosen && !round.everywhere) return decision(latest, false);
    // It may have been accepted by a few only: it is what it is once a majority has it.
    if (latest.version === 0 && !round.everywhere) return decision(latest, false);
    const accepted = { ...latest, ballot };
    await this.#accept(round, accepted);
    return decision(accepted, false);
  }

  async #write(
    round: Round,
    ballot: Ballot,
    formerVersion: number,
    value: unknown,
  ): Promise<Decision> {
    // A register that was forgotten after its tombstone must not begin below what it was once.
    const version = formerVersion === 0 ? this.#firstVersion() : formerVersion + 1;
    const accepted = { ballot, version, ...(value === null ? {} : { value }) };
    await this.#accept(round, accepted);
    const later = this.#parts.votersIn(round.key, value);
    if (later !== undefined && later.number > round.voters.number) {
      // The change after this one is for its voters alone: no promise of these may be used for it.
      this.#promised.delete(round.key);
      await this.#parts.learn(later);
    }
    return decision(accepted, true);
  }

  #isFresh({ atMs }: Promised): boolean {
    return this.#parts.clock.monotonic() - atMs < LIMITS.promiseKeptMs;
  }

  /**
   * Above everything seen here, and above every ballot of long ago: voters forget those of purged
   * tombstones one after the other, and one who still knows it must not outrank what is new. Holds
   * as long as clocks differ by less than a tombstone's age.
   */
  #nextCounter(): number {
    const microseconds = Math.floor(this.#parts.clock.now() * 1_000);
    this.#highest = Math.max(this.#highest + 1, microseconds);
    return this.#highest;
  }

  #firstVersion(): number {
    return Math.max(1, Math.floor(this.#parts.clock.now()));
  }

  async #accept(round: Round, accepted: Accepted): Promise<void> {
    const { key, voters } = round;
    const next: Ballot = { counter: accepted.ballot.counter + 1, node: this.#name };
    this.#highest = Math.max(this.#highest, next.counter);
    const operation = { k: key, a: fromAccepted(accepted), next: fromBallot(next) };
    const atMs = this.#parts.clock.monotonic();
    await this.#gather(round, operation);
    this.#promised.delete(key);
    this.#promised.set(key, { number: voters.number, ballot: next, accepted, atMs });
    const oldest = this.#promised.keys().next().value;
    if (this.#promised.size > PROMISES_KEPT && oldest !== undefined) this.#promised.delete(oldest);
  }

  /** Results of a majority. @throws Refused when there can be none, or not in time */
  #gather({ voters, untilMs, answered }: Round, operation: WireOperation): Promise<WireResult[]> {
    const { clock, ask } = this.#parts;
    const needed = majorityOf(voters.nodes.length);
    return new Promise((resolve, reject) => {
      const results: WireResult[] = [];
      const silent = new Set(voters.nodes);
      let failed = 0;
      const timer = clock.after(Math.max(1, untilMs - clock.monotonic()), () =>
        reject(new Refused(`no answer from ${[...silent].join(", ")}`)),
      );
      const fail = () => {
        if (++failed <= voters.nodes.length - needed) return;
        timer.cancel();
        reject(new Refused(`not served by ${[...silent].join(", ")}`));
      };
      for (const voter of voters.nodes) {
        ask(voter, voters, operation).then(
          (result) => {
            answered.set(voter, true);
            if (result?.promised !== undefined) {
              this.#highest = Math.max(this.#highest, toBallot(result.promised).counter);
            }
            if (result?.ok !== true) return fail();
            silent.delete(voter);
            results.push(result);
            if (results.length !== needed) return;
            timer.cancel();
            resolve(results);
          },
          () => {
            answered.set(voter, false);
            fail();
          },
        );
      }
    });
  }

  #chance(): number {
    const [byte = 0] = this.#parts.random.bytes(1);
    return byte / 256;
  }
}

/** The change applied to what may be old; undefined when only a fresh value can tell. */
function tryChange(change: RegisterChange, accepted: Accepted): { value: unknown } | undefined {
  try {
    const value = change(accepted.value);
    return value === undefined ? undefined : { value };
  } catch {
    return undefined;
  }
}

const decision = ({ version, value }: Accepted, changed: boolean): Decision => ({
  version,
  changed,
  ...(value === undefined ? {} : { value }),
});

/** Names the voters that did not answer: who is asked to help must know where to look. */
function noQuorum({ key, voters, answered }: Round, cause: Error): AppError {
  const silent = voters.nodes.filter((voter) => answered.get(voter) !== true);
  const missing = silent.length === 0 ? "" : `; no answer from ${silent.join(", ")}`;
  return new AppError(
    "no_quorum",
    `no majority of the ${voters.nodes.length} voters (${voters.nodes.join(", ")}) ` +
      `agreed on ${key} in time${missing}`,
    { cause, meta: { voters: voters.nodes, silent } },
  );
}
