/**
 * The resident agent of a guest. A restored guest wakes up with the clock and the random state of
 * the moment it was snapshotted. With the restore the host sends one message to the agent's serial
 * port; the agent sets the clock, adds the entropy to the kernel's pool and makes the generator
 * take a new key from the pool at once (ioctls RNDADDENTROPY and RNDRESEEDCRNG, random(4)), so that
 * no two sandboxes go on with one state. Programs that keep random state of their own in memory
 * must notice by themselves; docs/guest.md says so.
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
  "488b7c24104881ec800000004989e7be02000000b8020000000f054989c5488d3dc2000000be02000000b8020000000f05" +
  "4989c64c09e80f888e000000488d35b0000000e8720000004531e44489ef4b8d3427ba580000004429e231c00f054885c0" +
  "7e454901c44983fc5872df31ff4c89feb8e30000000f054489f7be03520840498d5710b8100000000f054489f7be075200" +
  "00b8100000000f05488d3553000000e814000000eba0488d3d2700000031f6b8230000000f05eb8e4489efba01000000b8" +
  "010000000f05c3bf01000000b83c0000000f05010000000000000000000000000000002f6465762f7572616e646f6d0072" +
  "6b";

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
  return `1.0.0+${createHash("sha256").update(agentProgram()).digest("hex").slice(0, 8)}`;
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
