/**
 * Compat (spec §5): the versions a replica was snapshotted with against those its node would boot
 * now. A memory snapshot only resumes under the hypervisor that wrote it, and its guest talks to
 * the agent it was frozen with.
 */
export const COMPAT_STATUSES = ["OK", "STALE", "UNKNOWN", "MISSING"] as const;
export const COMPAT_POLICIES = ["STRICT", "GUEST_ONLY"] as const;
export type CompatStatus = (typeof COMPAT_STATUSES)[number];
export type CompatPolicy = (typeof COMPAT_POLICIES)[number];
/** What an evaluation gives; MISSING is the matrix's word for no READY replica. */
export type Evaluated = Exclude<CompatStatus, "MISSING">;

/** The versions compat compares. Blank means unknown. */
export interface ComponentVersions {
  readonly guest_image_version: string;
  readonly agent_version: string;
  readonly kernel_version: string;
  /** More that memory snapshots depend on: QEMU version, machine type, CPU model. */
  readonly extra: Readonly<Record<string, string>>;
}

/** The same as replicas and nodes publish them; blank or absent means unknown. */
export interface PublishedVersions {
  readonly guest_image_version?: string | undefined;
  readonly agent_version?: string | undefined;
  readonly kernel_version?: string | undefined;
  readonly versions_extra?: Readonly<Record<string, string>> | undefined;
}

/** One component whose version differs, or is known on one side only. */
export interface VersionDelta {
  /** `guest_image`, `agent`, `kernel`, or a name of `versions_extra`. */
  readonly component: string;
  readonly bound: string;
  readonly current: string;
  /** True when this one alone makes the replica stale. */
  readonly is_stale: boolean;
}

/** Blank or the word "unknown" in any case is no version (spec §5.1). */
export function normalizeVersion(text: string | undefined): string {
  const version = (text ?? "").trim();
  return version.length === 7 && version.toLowerCase() === "unknown" ? "" : version;
}

const NAMED = [
  ["guest_image", "guest_image_version"],
  ["agent", "agent_version"],
] as const;

/**
 * Bound against current versions (spec §5.2): a difference wins over a missing version, a missing
 * one over agreement. Under STRICT what the driver reports besides is compared too, as far as both
 * sides have it: older replicas lack it and must go on working. The kernel is never compared: the
 * frozen guest has its own in memory.
 */
export function evaluateCompat(
  bound: PublishedVersions,
  current: PublishedVersions | undefined,
  policy: CompatPolicy,
): Evaluated {
  let isUnknown = false;
  for (const [component, key] of NAMED) {
    if (component === "agent" && policy === "GUEST_ONLY") continue;
    const was = normalizeVersion(bound[key]);
    const is = normalizeVersion(current?.[key]);
    if (was === "" || is === "") isUnknown = true;
    else if (was !== is) return "STALE";
  }
  if (policy === "STRICT") {
    const extra = current?.versions_extra;
    for (const name in bound.versions_extra) {
      const was = normalizeVersion(bound.versions_extra[name]);
      const is = normalizeVersion(extra?.[name]);
      if (was !== "" && is !== "" && was !== is) return "STALE";
    }
  }
  return isUnknown ? "UNKNOWN" : "OK";
}

/** What differs between the two sides, in words for an operator; empty when nothing does. */
export function versionDeltas(
  bound: PublishedVersions,
  current: PublishedVersions | undefined,
  policy: CompatPolicy,
): VersionDelta[] {
  const isStrict = policy === "STRICT";
  const deltas: VersionDelta[] = [];
  const compare = (component: string, isCompared: boolean, left?: string, right?: string) => {
    const was = normalizeVersion(left);
    const is = normalizeVersion(right);
    if (was === is) return;
    const is_stale = isCompared && was !== "" && is !== "";
    deltas.push({ component, bound: was, current: is, is_stale });
  };
  compare("guest_image", true, bound.guest_image_version, current?.guest_image_version);
  compare("agent", isStrict, bound.agent_version, current?.agent_version);
  compare("kernel", false, bound.kernel_version, current?.kernel_version);
  const was = bound.versions_extra ?? {};
  const is = current?.versions_extra ?? {};
  for (const name of Object.keys({ ...was, ...is }).sort()) {
    compare(name, isStrict, was[name], is[name]);
  }
  return deltas;
}

/** True when the node says what it would boot: both versions that are always compared. */
export const hasVersions = (versions: PublishedVersions): boolean =>
  normalizeVersion(versions.guest_image_version) !== "" &&
  normalizeVersion(versions.agent_version) !== "";

interface Judged extends PublishedVersions {
  readonly status: string;
  readonly compat_status?: CompatStatus | undefined;
  readonly compat_policy?: CompatPolicy | undefined;
}
interface Judge extends PublishedVersions {
  readonly healthy: boolean;
}

const storedCompat = (replica: Judged): Evaluated =>
  replica.compat_status === "OK" || replica.compat_status === "STALE"
    ? replica.compat_status
    : "UNKNOWN";

/** Live evaluation where the node is known and healthy, else what is stored (spec §5.2). */
export function effectiveCompat(replica: Judged, node: Judge | undefined): Evaluated {
  if (node?.healthy !== true) return storedCompat(replica);
  return evaluateCompat(replica, node, replica.compat_policy ?? "STRICT");
}

/**
 * What a scan finds (spec §5.3). Of a node that is down nobody can tell any more, except that what
 * was stale has not become better; it cannot write that itself, so that readers see it so. The same
 * goes for a node that does not know its versions.
 */
export function scanCompat(replica: Judged, node: Judge | undefined): Evaluated {
  const wasStale = storedCompat(replica) === "STALE";
  if (node?.healthy !== true) return wasStale ? "STALE" : "UNKNOWN";
  const live = effectiveCompat(replica, node);
  return live === "UNKNOWN" && wasStale && !hasVersions(node) ? "STALE" : live;
}

/**
 * The versions that a READY replica of unknown origin takes over from its node; undefined when it
 * must not: one that is stale needs redo, and an unknown version is no baseline (spec §5.4).
 */
export function adoptedBaseline(
  replica: Judged,
  node: Judge,
): (Required<PublishedVersions> & { readonly compat_status: "OK" }) | undefined {
  if (replica.status !== "READY" || !node.healthy || !hasVersions(node)) return undefined;
  if (storedCompat(replica) === "STALE" || effectiveCompat(replica, node) !== "UNKNOWN") {
    return undefined;
  }
  return {
    guest_image_version: normalizeVersion(node.guest_image_version),
    agent_version: normalizeVersion(node.agent_version),
    kernel_version: normalizeVersion(node.kernel_version),
    versions_extra: { ...node.versions_extra },
    compat_status: "OK",
  };
}

const BOUND = [
  "guest_image_version",
  "agent_version",
  "kernel_version",
  "versions_extra",
  "compat_status",
  "compat_policy",
  "compat_checked_unix",
] as const;

/**
 * The replica to store: one that says nothing of versions does not erase what is known of them
 * (spec §1.2), such as a failed delivery that is written later.
 */
export function keepBound<T extends Judged>(stored: T | undefined, incoming: T): T {
  const saysVersions = [
    incoming.guest_image_version,
    incoming.agent_version,
    incoming.kernel_version,
  ].some((version) => normalizeVersion(version) !== "");
  const saysStatus = (incoming.compat_status ?? "UNKNOWN") !== "UNKNOWN";
  if (stored === undefined || saysVersions || saysStatus) return incoming;
  const before = stored as Readonly<Record<string, unknown>>;
  const kept = BOUND.flatMap((key) => (before[key] === undefined ? [] : [[key, before[key]]]));
  return { ...incoming, ...(Object.fromEntries(kept) as Partial<T>) };
}
