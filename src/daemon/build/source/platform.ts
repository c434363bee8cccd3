/** Which manifest of an index fits a platform. */
import { AppError } from "../../../domain/index.ts";
import type { Platform } from "../../../domain/index.ts";

/** What an index says of one of its manifests. */
export interface PlatformEntry {
  readonly platform?:
    | { readonly os: string; readonly architecture: string; readonly variant?: string | undefined }
    | undefined;
  readonly annotations?: Readonly<Record<string, string>> | null | undefined;
}

/** Variants that run where no variant was asked for; for other architectures any does. */
const BASELINE: Readonly<Record<string, readonly string[]>> = {
  amd64: ["", "v1"],
  arm64: ["", "v8"],
  arm: ["", "v7", "v6", "v5"],
};

export const platformText = (platform: {
  os: string;
  architecture: string;
  variant?: string | undefined;
}): string => [platform.os, platform.architecture, platform.variant].filter(Boolean).join("/");

/** Variants that run on the platform, best first. A CPU of level n runs what is below n too. */
function acceptableVariants(platform: Platform): readonly string[] | undefined {
  const asked = platform.variant ?? "";
  if (asked === "") return BASELINE[platform.architecture];
  const level = /^v([1-9])$/.exec(asked)?.[1];
  const below = Array.from({ length: Number(level ?? 1) - 1 }, (_, index) => `v${index + 1}`);
  return [asked, ...below.reverse(), ""];
}

/** Attestations travel in image indexes as manifests for a platform that does not exist. */
const isAttestation = (descriptor: PlatformEntry): boolean =>
  descriptor.annotations?.["vnd.docker.reference.type"] === "attestation-manifest" ||
  (descriptor.platform?.os === "unknown" && descriptor.platform.architecture === "unknown");

/**
 * The descriptor whose platform fits best. A sole descriptor without a platform is taken as it is:
 * the image's config is checked afterwards in any case.
 * @throws AppError image_platform_missing, with what there is in `meta.available`
 */
export function choosePlatform<Entry extends PlatformEntry>(
  descriptors: readonly Entry[],
  platform: Platform,
): Entry {
  const images = descriptors.filter((descriptor) => !isAttestation(descriptor));
  const fitting = images.filter(
    ({ platform: at }) => at?.os === platform.os && at.architecture === platform.architecture,
  );
  const variants = acceptableVariants(platform);
  if (variants === undefined && fitting[0] !== undefined) return fitting[0];
  for (const variant of variants ?? []) {
    const found = fitting.find((descriptor) => (descriptor.platform?.variant ?? "") === variant);
    if (found !== undefined) return found;
  }
  const unnamed = images.filter((descriptor) => descriptor.platform === undefined);
  if (unnamed.length === 1 && unnamed[0] !== undefined) return unnamed[0];
  throw platformMissing(
    platform,
    images.map(({ platform: at }) => (at === undefined ? "unnamed" : platformText(at))),
  );
}

export const platformMissing = (platform: Platform, available: readonly string[]): AppError => {
  const shown = [...new Set(available)].slice(0, 50);
  const there = shown.length === 0 ? "nothing" : shown.join(", ");
  return new AppError(
    "image_platform_missing",
    `the image has no variant for ${platformText(platform)}; there is ${there}`,
    { meta: { platform: platformText(platform), available: shown } },
  );
};
