/** Real transports on loopback, several in one process. */
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Log, Random } from "../../src/domain/index.ts";
import { connectPeers } from "../../src/gossip/connect.ts";
import type { PeerId, Transport } from "../../src/gossip/ports.ts";
import { realClock } from "./real-clock.ts";

const KEY = "ab".repeat(32);

export const quietLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => quietLog,
};

const random: Random = {
  bytes: (count) => new Uint8Array(randomBytes(count)),
  uuid: () => randomUUID(),
};

export interface PeerChoices {
  readonly presharedKey?: string;
  readonly admitStrangers?: () => boolean;
  readonly listen?: readonly string[];
}

/** Every transport and folder that it made is gone after `end`. */
export class PeerWorld {
  readonly #open: Transport[] = [];
  readonly #folders: string[] = [];

  async folder(): Promise<string> {
    const folder = await mkdtemp(join(tmpdir(), "tc-p2p-"));
    this.#folders.push(folder);
    return folder;
  }

  async peer(choices: PeerChoices = {}): Promise<Transport> {
    const transport = await connectPeers({
      dataDir: await this.folder(),
      nodeId: `n${this.#open.length}`,
      hostMark: "here",
      presharedKey: choices.presharedKey ?? KEY,
      listen: choices.listen ?? ["/ip4/127.0.0.1/tcp/0"],
      announce: [],
      admitStrangers: choices.admitStrangers ?? (() => false),
      log: quietLog,
      clock: realClock,
      random,
    });
    this.#open.push(transport);
    return transport;
  }

  /** As many peers as asked for, all of them members and connected with each other. */
  async cluster(size: number): Promise<Transport[]> {
    const peers: Transport[] = [];
    for (let at = 0; at < size; at++) peers.push(await this.peer());
    makeMembers(peers);
    await until(() => peers.every((peer) => peer.connections().length === size - 1));
    return peers;
  }

  async end(): Promise<void> {
    await Promise.all(this.#open.splice(0).map((transport) => transport.close()));
    for (const folder of this.#folders.splice(0)) await rm(folder, { recursive: true });
  }
}

export const addressBook = (peers: readonly Transport[]): Map<PeerId, readonly string[]> =>
  new Map(peers.map((peer) => [peer.peerId, peer.addresses()]));

export function makeMembers(
  peers: readonly Transport[],
  removed: ReadonlyMap<PeerId, string> = new Map(),
): void {
  const book = addressBook(peers);
  for (const peer of peers) peer.setMembers(book, removed);
}

/** @throws when it has not become true within the time */
export async function until(
  isTrue: () => boolean | Promise<boolean>,
  timeoutMs = 15_000,
): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!(await isTrue())) {
    if (performance.now() > end)
      throw new Error(`not so within ${timeoutMs} ms: ${isTrue.toString()}`);
    await realClock.sleep(10);
  }
}

export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
export const text = (body: Uint8Array): string => new TextDecoder().decode(body);
