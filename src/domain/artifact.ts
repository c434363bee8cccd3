import { defineMachine } from "./machine.ts";

export const ARTIFACT_STATUSES = [
  "PENDING",
  "BUILDING",
  "READY",
  "FAILED",
  "CLEANUP_PENDING",
  "ORPHANED",
] as const;
export type ArtifactStatus = (typeof ARTIFACT_STATUSES)[number];

/** Life of a root filesystem artifact (spec §1.3). */
export const artifactMachine = defineMachine("artifact", {
  PENDING: { build: "BUILDING", fail: "FAILED", orphan: "ORPHANED" },
  BUILDING: { ready: "READY", fail: "FAILED", build: "BUILDING", orphan: "ORPHANED" },
  READY: { renew: "READY", release: "CLEANUP_PENDING", build: "BUILDING", fail: "FAILED" },
  FAILED: { build: "BUILDING", release: "CLEANUP_PENDING" },
  CLEANUP_PENDING: { renew: "READY", build: "BUILDING", fail: "FAILED" },
  ORPHANED: { build: "BUILDING", release: "CLEANUP_PENDING" },
});

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

/**
 * `20Gi`, `20G`, `20` (Gi) or `2048Mi` in bytes (spec §3.10).
 * @returns undefined when the text is no positive size.
 */
export function parseSizeBytes(text: string): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(Ki|Mi|Gi|Ti|K|M|G|T)?B?\s*$/.exec(text);
  if (match === null) return undefined;
  const unit = { K: 1024, M: MIB, G: GIB, T: 1024 * GIB }[(match[2] ?? "G").charAt(0)] ?? GIB;
  const bytes = Math.round(Number(match[1]) * unit);
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined;
}

/** The integer number of Gi a size needs, rounded up: annotation system_disk_size (spec §3.10). */
export const sizeInGib = (bytes: number): number => Math.ceil(bytes / GIB);

/**
 * The fields of the template-spec fingerprint in their order; empty ones are left out (spec §3.4).
 * The fingerprint is the lower-case hex SHA-256 of this text.
 */
export function fingerprintInput(spec: {
  source_image_digest: string;
  writable_layer_size: string;
  exposed_ports: readonly number[];
  instance_type: string;
  network_type: string;
  container_overrides?: unknown;
  cube_egress_ca_fingerprint?: string;
  envd_binary_sha256?: string;
}): string {
  return JSON.stringify({
    source_image_digest: spec.source_image_digest,
    writable_layer_size: spec.writable_layer_size,
    ...(spec.exposed_ports.length === 0 ? {} : { exposed_ports: spec.exposed_ports }),
    instance_type: spec.instance_type,
    network_type: spec.network_type,
    ...(spec.container_overrides === undefined
      ? {}
      : { container_overrides: sortKeys(spec.container_overrides) }),
    ...(spec.cube_egress_ca_fingerprint
      ? { cube_egress_ca_fingerprint: spec.cube_egress_ca_fingerprint }
      : {}),
    ...(spec.envd_binary_sha256 ? { envd_binary_sha256: spec.envd_binary_sha256 } : {}),
  });
}

/** Object keys in code-unit order at every depth, so that equal values have equal JSON. */
export function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
      .map(([key, member]) => [key, sortKeys(member)]),
  );
}
