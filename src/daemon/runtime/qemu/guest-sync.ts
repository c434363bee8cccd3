/**
 * Flushes a running guest's file systems. What its programs have written and the guest has not put
 * on its disk yet is in its memory alone: whoever gets the disk without that would miss it.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { errorText, type Clock, type Random } from "../../../domain/index.ts";
import { AGENT_PORT, SYNC_WORD_BYTES, canSync, syncMessage } from "../guest-agent.ts";
import { VM_FILES } from "./command.ts";
import { connectUnix, type Qmp } from "./qmp.ts";

/** A guest with much to flush takes long; it is frozen all the same after this. */
export const SYNC_TIMEOUT_MS = 20_000;

export interface GuestSync {
  readonly qmp: Pick<Qmp, "execute" | "monitor">;
  readonly vmDir: string;
  /** Of the agent that the guest was booted with. */
  readonly agentVersion: string;
  /** The host's end of the agent's port; absent when another daemon has started the guest. */
  readonly agent: Duplex | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
}

/**
 * @returns blank when all is on the disk; else why not, for people
 * @throws the signal's reason
 */
export async function syncGuest(guest: GuestSync): Promise<string> {
  const { agentVersion: version, agent, signal } = guest;
  signal.throwIfAborted();
  if (!canSync(version)) return `the guest's agent ${version} cannot flush, from 1.1.0 on it can`;
  let own: Duplex | undefined;
  try {
    if (!(await isListening(guest.qmp))) return "the guest's agent does not run";
    const channel = agent === undefined || agent.destroyed ? (own = await reach(guest)) : agent;
    return await ask(guest, channel);
  } catch (error) {
    signal.throwIfAborted();
    return `the guest's agent was not reached: ${errorText(error)}`;
  } finally {
    own?.destroy();
  }
}

/** Whether a program in the guest has the agent's port open. */
async function isListening(qmp: GuestSync["qmp"]): Promise<boolean> {
  const tree = await qmp.monitor("info qtree");
  const [, port = ""] = tree.split(`name = "${AGENT_PORT}"`);
  return /\bguest on\b/.test(port.slice(0, 400));
}

/** A second way to the agent's port: the one that QEMU inherited has ended with its daemon. */
async function reach({ qmp, vmDir }: GuestSync): Promise<Duplex> {
  const path = join(vmDir, VM_FILES.agent);
  // It stays where it is once it is there: QEMU would take the new one away with the old.
  const there = await connectUnix(path).catch(() => undefined);
  if (there !== undefined) return there;
  await rm(path, { force: true });
  const address = { type: "unix", data: { path: VM_FILES.agent } };
  await qmp.execute("chardev-change", {
    id: "agent",
    backend: { type: "socket", data: { addr: address, server: true, wait: false } },
  });
  return connectUnix(path);
}

function ask({ clock, random, signal }: GuestSync, channel: Duplex): Promise<string> {
  const { message, answer } = syncMessage(random.bytes(SYNC_WORD_BYTES));
  return new Promise((resolve, reject) => {
    let heard = Buffer.alloc(0);
    const end = (settle: () => void) => {
      timer.cancel();
      channel.off("data", onData);
      channel.off("close", onClose);
      signal.removeEventListener("abort", onAbort);
      settle();
    };
    const onData = (bytes: Buffer) => {
      heard = Buffer.concat([heard, bytes]);
      if (heard.includes(answer)) end(() => resolve(""));
    };
    const onClose = () => end(() => resolve("the way to the guest's agent has ended"));
    const onAbort = () => end(() => reject(signal.reason as Error));
    const timer = clock.after(SYNC_TIMEOUT_MS, () =>
      end(() => resolve(`the guest did not flush within ${SYNC_TIMEOUT_MS / 1_000} s`)),
    );
    channel.on("data", onData);
    channel.on("close", onClose);
    signal.addEventListener("abort", onAbort);
    channel.on("error", () => undefined);
    channel.write(message);
  });
}
