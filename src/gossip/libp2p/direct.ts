/**
 * Messages for everybody on a kept stream to each member. The connection says who sends, so that
 * nothing is signed, and everybody hears it once. That is enough as long as each member is
 * connected to each other; when one is out of reach gossip finds a way round.
 */
import type { Stream } from "@libp2p/interface";
import type { Clock } from "../../domain/index.ts";
import type { PeerId, Topic } from "../ports.ts";
import { FrameWriter, MESSAGE, encodeFrame, followMessages } from "./frames.ts";
import { TOPICS } from "./protocols.ts";

/** What may wait for a peer that reads slowly; it misses what comes then, and pulls it. */
const WAITING_BYTES = 1024 * 1024;
/** Messages that wait for a stream that is being opened. */
const WAITING_MOST = 64;
/** After a stream could not be opened: the peer may be of a version that does not know it. */
const RETRY_MS = 5_000;
/**
 * A peer that was not heard of for so long may sit behind a link that is cut, with a connection
 * that does not know it yet. The failure detector asks one peer a second, so that in a large
 * cluster two that are well meet as seldom as that.
 */
const SILENT_MS = { least: 30_000, perPeer: 2_000 } as const;

export interface Message {
  readonly topic: Topic;
  readonly body: Uint8Array;
}

export interface DirectParts {
  readonly clock: Clock;
  /** A new stream to that peer. @throws when there is none */
  readonly open: (peer: PeerId) => Promise<Stream>;
  /** A peer got no stream: what waited for it has to go another way. */
  readonly onUnsent: (message: Message) => void;
}

export class DirectStreams {
  readonly #parts: DirectParts;
  readonly #writers = new Map<PeerId, FrameWriter>();
  /** Streams that are being opened, and what waits for them. */
  readonly #opening = new Map<PeerId, Message[]>();
  /** Peers that got none a moment ago. */
  readonly #refused = new Set<PeerId>();
  /** Connected peers, with the time at which they were heard of last (monotonic). */
  readonly #heard = new Map<PeerId, number>();

  constructor(parts: DirectParts) {
    this.#parts = parts;
  }

  /** Something came from that peer. */
  heard(peer: PeerId): void {
    if (this.#heard.has(peer)) this.#heard.set(peer, this.#parts.clock.monotonic());
  }

  onPeer(peer: PeerId, connected: boolean): void {
    if (connected) this.#heard.set(peer, this.#parts.clock.monotonic());
    else this.#heard.delete(peer);
  }

  /** Sends to all of them, or to nobody when one is out of reach: then the answer is false. */
  publish(message: Message, peers: readonly PeerId[]): boolean {
    const silentMs = Math.max(SILENT_MS.least, SILENT_MS.perPeer * peers.length);
    const since = this.#parts.clock.monotonic() - silentMs;
    const isInReach = (peer: PeerId) =>
      (this.#heard.get(peer) ?? -Infinity) >= since && !this.#refused.has(peer);
    if (!peers.every(isInReach)) return false;
    // Encoded once for all of them.
    const frame = encodeFrame(MESSAGE, TOPICS.indexOf(message.topic), message.body);
    for (const peer of peers) {
      const writer = this.#writers.get(peer);
      if (writer?.isOpen === true) writer.offer(frame, WAITING_BYTES);
      else this.#wait(peer, message);
    }
    return true;
  }

  /** Calls back with what comes in on a stream that a peer has opened. */
  receive(stream: Stream, limit: () => number, onMessage: (message: Message) => void): void {
    followMessages(stream, limit, (number, body) => {
      const topic = TOPICS[number];
      if (topic !== undefined) onMessage({ topic, body });
    });
  }

  #wait(peer: PeerId, message: Message): void {
    const waiting = this.#opening.get(peer);
    if (waiting === undefined) void this.#open(peer, [message]);
    else if (waiting.length < WAITING_MOST) waiting.push(message);
  }

  async #open(peer: PeerId, waiting: Message[]): Promise<void> {
    this.#opening.set(peer, waiting);
    try {
      const stream = await this.#parts.open(peer);
      const writer = new FrameWriter(stream);
      this.#writers.set(peer, writer);
      const forget = () => {
        if (this.#writers.get(peer) === writer) this.#writers.delete(peer);
      };
      stream.addEventListener("close", forget, { once: true });
      for (const { topic, body } of waiting) {
        writer.offer(encodeFrame(MESSAGE, TOPICS.indexOf(topic), body), WAITING_BYTES);
      }
    } catch {
      this.#refused.add(peer);
      this.#parts.clock.after(RETRY_MS, () => this.#refused.delete(peer));
      for (const message of waiting) this.#parts.onUnsent(message);
    } finally {
      this.#opening.delete(peer);
    }
  }
}
