/**
 * What was frozen of a sandbox, as other nodes get it: its snapshot's files, each an artifact that
 * the swarm carries like any other, and all that must fit for a guest to go on from them. Pure.
 */
import { z } from "zod";
import { evaluateCompat, versionDeltas, type PublishedVersions } from "./compat.ts";

const shortText = z.string().max(256);

export const frozenSchema = z.looseObject({
  /** Of the record: a redo asks for later ones, which are booted. */
  generation: z.number().int().nonnegative(),
  /** Of which template's sandbox it was; blank when it is that template's own by now. */
  template_id: shortText,
  driver: shortText,
  guest_image_version: shortText,
  agent_version: shortText,
  kernel_version: shortText,
  versions_extra: z.record(shortText, shortText),
  /** The driver's own, see `SnapshotExport`. */
  description: z.record(shortText, z.number()),
  files: z.array(z.looseObject({ name: shortText, artifact_id: shortText })),
});
export type Frozen = z.infer<typeof frozenSchema>;

/** The artifact that one of its files is. */
export const frozenArtifactId = (id: string, fileName: string): string => `${id}.${fileName}`;

interface Holder {
  readonly kind: "template" | "snapshot";
  readonly frozen?: Frozen | undefined;
}

/** What a replica of that generation is made of; undefined: it is booted. */
export const frozenFor = (template: Holder, generation: number): Frozen | undefined =>
  template.kind === "snapshot" || template.frozen?.generation === generation
    ? template.frozen
    : undefined;

/**
 * Why a guest frozen with those versions cannot go on under these; undefined: it can. What is not
 * known fits nothing: memory is not tried out.
 */
export function misfit(
  frozen: PublishedVersions & { readonly driver: string },
  host: PublishedVersions & { readonly driver: string },
): string | undefined {
  if (frozen.driver !== host.driver) {
    return `it was frozen by the driver ${frozen.driver}, and ${host.driver} runs there`;
  }
  if (evaluateCompat(frozen, host, "STRICT") === "OK") return undefined;
  const differing = versionDeltas(frozen, host, "STRICT")
    .filter(({ component }) => component !== "kernel")
    .map(({ component, bound, current }) => `${component} ${said(bound)} and not ${said(current)}`);
  return `it needs ${differing.join(", ") || "versions that are not known"}`;
}

const said = (version: string): string => (version === "" ? "(unknown)" : version);
