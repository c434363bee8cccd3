/** Messages and bytes by channel and direction. */
import type { Traffic } from "../ports.ts";

interface Sum {
  messages: number;
  bytes: number;
}

export class TrafficMeter {
  readonly #sums = new Map<Traffic["channel"], Record<Traffic["direction"], Sum>>();

  add(channel: Traffic["channel"], direction: Traffic["direction"], body: Uint8Array): void {
    let sums = this.#sums.get(channel);
    if (sums === undefined) {
      sums = { sent: { messages: 0, bytes: 0 }, received: { messages: 0, bytes: 0 } };
      this.#sums.set(channel, sums);
    }
    sums[direction].messages++;
    sums[direction].bytes += body.length;
  }

  all(): readonly Traffic[] {
    return [...this.#sums].flatMap(([channel, { sent, received }]) => [
      { channel, direction: "sent" as const, ...sent },
      { channel, direction: "received" as const, ...received },
    ]);
  }
}
