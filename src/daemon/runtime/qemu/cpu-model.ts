/**
 * The CPU that a guest sees, as compat compares it. `-cpu max` is a different one on each kind of
 * host under KVM, and is QEMU's own under TCG; a guest's memory holds what its kernel and programs
 * chose by the CPU's features, and goes on only where they are the same.
 */
import { createHash } from "node:crypto";
import type { Accelerator } from "./command.ts";

const IDENTITY = ["vendor_id", "cpu family", "model", "stepping"];

/** @param cpuinfo `/proc/cpuinfo`, or what there is of it */
export function cpuModel(
  accelerator: Accelerator | undefined,
  { qemuVersion, cpuinfo }: { readonly qemuVersion: string; readonly cpuinfo: string },
): string {
  if (accelerator === undefined) return "";
  return accelerator === "tcg" ? `max of QEMU ${qemuVersion}` : hostCpu(cpuinfo);
}

/** Blank, which is an unknown version, when the host does not say what CPU it has. */
function hostCpu(cpuinfo: string): string {
  const [first = ""] = cpuinfo.split(/\n\s*\n/);
  const fields = new Map(
    first.split("\n").map((line) => {
      const [name = "", value = ""] = line.split(/:(.*)/);
      return [name.trim(), value.trim()] as const;
    }),
  );
  const flags = fields.get("flags");
  if (flags === undefined) return "";
  const [vendor, ...numbers] = IDENTITY.map((name) => fields.get(name) ?? "?");
  // In what order the kernel prints them means nothing.
  const sorted = [...new Set(flags.split(/\s+/))].sort().join(" ");
  const digest = createHash("sha256").update(sorted).digest("hex").slice(0, 16);
  return `max of ${vendor} ${numbers.join("/")} flags ${digest}`;
}
