/**
 * The resident agent of a guest. A restored guest wakes up with the clock and the random state of
 * the moment it was snapshotted. With the restore the host sends one message to the agent's serial
 * port; the agent sets the clock, adds the entropy to the kernel's pool and makes the generator
 * take a new key from the pool at once (ioctls RNDADDENTROPY and RNDRESEEDCRNG, random(4)), so that
 * no two sandboxes go on with one state. Programs that keep random state of their own in memory
 * must notice by themselves; docs/guest.md says so.
 *
 * The other thing that it can be asked for is `sync`: what the guest's programs have written is
 * then on its disk, for whoever gets that disk without the guest's memory.
 *
 * It is a program and not a script because busybox has no ioctl, and because its 15 system calls
 * are done before a shell would have started its first command.
 */
import { createHash } from "node:crypto";

/** Name of the virtio-serial port between host and agent. */
export const AGENT_PORT = "templatecenter.agent";
/** The agent's words, one byte each: it is listening; it has obeyed a message. */
export const AGENT_READY = "r";
export const AGENT_DONE = "k";
/** Bytes of fresh entropy in a message. */
export const ENTROPY_BYTES = 64;

/** The machine code of assets/agent-x86-64.s (a test assembles that file and compares). */
const CODE_X86_64 =
  "488b7c24104881ec800000004989e7be02000000b8020000000f054989c5488d3deb000000be02000000b8020000000f05" +
  "4989c64c09e80f88b7000000488d35d9000000e89b0000004531e44489ef4b8d3427ba580000004429e231c00f054885c0" +
  "7e6b4901c44983fc5872df49837f08ff743c31ff4c89feb8e30000000f054489f7be03520840498d5710b8100000000f05" +
  "4489f7be07520000b8100000000f05488d3575000000e836000000eb99b8a20000000f054489ef498d7710ba04000000b8" +
  "010000000f05e97affffff488d3d2a00000031f6b8230000000f05e965ffffff4489efba01000000b8010000000f05c3bf" +
  "01000000b83c0000000f05010000000000000000000000000000002f6465762f7572616e646f6d00726b";

/** The agent as a static ELF executable with one loadable segment. */
export function agentProgram(): Buffer {
  const code = Buffer.from(CODE_X86_64, "hex");
  const headers = Buffer.alloc(64 + 56);
  const base = 0x400000n;
  const size = BigInt(headers.length + code.length);
  headers.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0]);
  headers.writeUInt16LE(2, 16); // executable
  headers.writeUInt16LE(62, 18); // x86-64
  headers.writeUInt32LE(1, 20);
  headers.writeBigUInt64LE(base + BigInt(headers.length), 24); // entry
  headers.writeBigUInt64LE(64n, 32); // program headers
  headers.writeUInt16LE(64, 52);
  headers.writeUInt16LE(56, 54);
  headers.writeUInt16LE(1, 56);
  headers.writeUInt32LE(1, 64); // loadable
  headers.writeUInt32LE(5, 68); // read and execute
  headers.writeBigUInt64LE(base, 80);
  headers.writeBigUInt64LE(base, 88);
  headers.writeBigUInt64LE(size, 96);
  headers.writeBigUInt64LE(size, 104);
  headers.writeBigUInt64LE(0x1000n, 112);
  return Buffer.concat([headers, code]);
}

/** Version of the agent, with a hash so that no change of its bytes goes unseen by compat. */
export function agentVersion(): string {
  return `1.1.0+${createHash("sha256").update(agentProgram()).digest("hex").slice(0, 8)}`;
}

/** Whether an agent of that version, as `agentVersion` tells it, knows `syncMessage`: from 1.1. */
export function canSync(version: string): boolean {
  const [, major = "0", minor = "0"] = /^(\d+)\.(\d+)\./.exec(version) ?? [];
  return Number(major) > 1 || (major === "1" && minor !== "0");
}

/**
 * What the agent reads: a `struct timespec`, then a `struct rand_pool_info` (bits of entropy,
 * bytes, data), little-endian.
 * @param epochMs the time it is when the guest runs on
 */
export function restoreMessage(epochMs: number, entropy: Uint8Array): Buffer {
  if (entropy.length !== ENTROPY_BYTES) throw new RangeError("the agent takes 64 bytes of entropy");
  const message = Buffer.alloc(24 + ENTROPY_BYTES);
  const seconds = Math.floor(epochMs / 1_000);
  message.writeBigInt64LE(BigInt(seconds), 0);
  message.writeBigInt64LE(BigInt(Math.floor((epochMs - seconds * 1_000) * 1e6)), 8);
  message.writeInt32LE(ENTROPY_BYTES * 8, 16);
  message.writeInt32LE(ENTROPY_BYTES, 20);
  message.set(entropy, 24);
  return message;
}

/** Bytes that the agent sends back when it has flushed. */
export const SYNC_WORD_BYTES = 4;

/**
 * Asks the agent to flush the guest's file systems. The time is none, so that an agent that does
 * not know this refuses it, and so is the number of bits of entropy.
 * @param token `SYNC_WORD_BYTES` long, by which the answer is told from a late one
 * @returns the message, and what the agent answers it with: no byte of it is another word's
 */
export function syncMessage(token: Uint8Array): { message: Buffer; answer: Buffer } {
  const answer = Buffer.alloc(SYNC_WORD_BYTES);
  for (let at = 0; at < SYNC_WORD_BYTES; at++) answer[at] = (token[at] ?? 0) | 0x80;
  const message = Buffer.alloc(24 + ENTROPY_BYTES);
  message.writeBigInt64LE(-1n, 8);
  message.set(answer, 16);
  return { message, answer };
}
