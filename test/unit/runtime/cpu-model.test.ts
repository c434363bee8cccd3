import { describe, expect, it } from "vitest";
import { cpuModel } from "../../../src/daemon/runtime/qemu/cpu-model.ts";
import { evaluateCompat, versionDeltas } from "../../../src/domain/index.ts";

const cpuinfo = (change: Readonly<Record<string, string>> = {}): string => {
  const fields: Readonly<Record<string, string>> = {
    processor: "0",
    vendor_id: "GenuineIntel",
    "cpu family": "6",
    model: "85",
    "model name": "Intel(R) Xeon(R) Processor @ 2.90GHz",
    stepping: "7",
    "cpu MHz": "2893.202",
    flags: "fpu vme sse2 avx2 avx512f",
    ...change,
  };
  const block = Object.entries(fields).map(([name, value]) => `${name}\t: ${value}\n`);
  return `${block.join("")}\n${block.join("").replace("processor\t: 0", "processor\t: 1")}\n`;
};
const QEMU = "7.2.22";
const kvm = (change?: Readonly<Record<string, string>>) =>
  cpuModel("kvm", { qemuVersion: QEMU, cpuinfo: cpuinfo(change) });

describe("the CPU that a guest sees", () => {
  it("under KVM is the host's: vendor, family, model, stepping and a digest of its flags", () => {
    expect(kvm()).toMatch(/^max of GenuineIntel 6\/85\/7 flags [0-9a-f]{16}$/);
  });

  it.each([
    ["vendor", { vendor_id: "AuthenticAMD" }],
    ["family", { "cpu family": "25" }],
    ["model", { model: "106" }],
    ["stepping", { stepping: "4" }],
    ["flags", { flags: "fpu vme sse2 avx2" }],
  ])("under KVM differs between hosts of another %s", (_what, change) => {
    expect(kvm(change)).not.toBe(kvm());
  });

  it("under KVM is the same whatever the clock rate is, and however the flags are ordered", () => {
    const same = { "cpu MHz": "1200.000", flags: "avx512f avx2 sse2 vme fpu", processor: "3" };
    expect(kvm(same)).toBe(kvm());
  });

  it("under TCG is QEMU's own, the same on every host with that QEMU", () => {
    const other = cpuinfo({ vendor_id: "AuthenticAMD" });
    const tcg = cpuModel("tcg", { qemuVersion: QEMU, cpuinfo: cpuinfo() });
    expect(tcg).toBe("max of QEMU 7.2.22");
    expect(cpuModel("tcg", { qemuVersion: QEMU, cpuinfo: other })).toBe(tcg);
    expect(cpuModel("tcg", { qemuVersion: "8.0.0", cpuinfo: other })).not.toBe(tcg);
  });

  it("is unknown before the accelerator is, and where the host does not tell", () => {
    expect(cpuModel(undefined, { qemuVersion: QEMU, cpuinfo: cpuinfo() })).toBe("");
    expect(cpuModel("kvm", { qemuVersion: QEMU, cpuinfo: "" })).toBe("");
  });
});

describe("memory and CPUs", () => {
  const versions = (cpu_model: string) => ({
    guest_image_version: "g1",
    agent_version: "a1",
    versions_extra: { accelerator: "kvm", cpu_model },
  });

  it("memory of one kind of host is stale on another", () => {
    const amd = kvm({ vendor_id: "AuthenticAMD" });
    expect(evaluateCompat(versions(kvm()), versions(kvm()), "STRICT")).toBe("OK");
    expect(evaluateCompat(versions(kvm()), versions(amd), "STRICT")).toBe("STALE");
  });

  it("a replica whose CPU was published as plain max is stale, and that is told", () => {
    const old = versions("max");
    expect(evaluateCompat(old, versions(kvm()), "STRICT")).toBe("STALE");
    expect(versionDeltas(old, versions(kvm()), "STRICT")).toEqual([
      { component: "cpu_model", bound: "max", current: kvm(), is_stale: true },
    ]);
  });
});
