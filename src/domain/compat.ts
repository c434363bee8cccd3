export const COMPAT_STATUSES = ["OK", "STALE", "UNKNOWN", "MISSING"] as const;
export const COMPAT_POLICIES = ["STRICT", "GUEST_ONLY"] as const;
export type CompatStatus = (typeof COMPAT_STATUSES)[number];
export type CompatPolicy = (typeof COMPAT_POLICIES)[number];

/** The versions compat compares. Blank means unknown. */
export interface ComponentVersions {
  readonly guest_image_version: string;
  readonly agent_version: string;
  readonly kernel_version: string;
  /** More that memory snapshots depend on: QEMU version, machine type, CPU model. */
  readonly extra: Readonly<Record<string, string>>;
}

/** Blank or the word "unknown" in any case is no version (spec §5.1). */
export function normalizeVersion(text: string | undefined): string {
  const version = (text ?? "").trim();
  return version.toLowerCase() === "unknown" ? "" : version;
}

type Bound = Pick<ComponentVersions, "guest_image_version" | "agent_version">;

/**
 * Bound against current versions (spec §5.2): a difference wins over a missing version, a missing
 * one over agreement.
 */
export function evaluateCompat(
  bound: Bound,
  current: Bound | undefined,
  policy: CompatPolicy,
): "OK" | "STALE" | "UNKNOWN" {
  const dimensions: (keyof Bound)[] =
    policy === "GUEST_ONLY" ? ["guest_image_version"] : ["guest_image_version", "agent_version"];
  let unknown = false;
  for (const dimension of dimensions) {
    const was = normalizeVersion(bound[dimension]);
    const is = normalizeVersion(current?.[dimension]);
    if (was === "" || is === "") unknown = true;
    else if (was !== is) return "STALE";
  }
  return unknown ? "UNKNOWN" : "OK";
}
