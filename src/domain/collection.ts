/** What garbage collection answers: why something is still here or not there, what would go. */
import { z } from "zod";
import { ARTIFACT_STATUSES } from "./artifact.ts";
import { evictionSchema } from "./eviction.ts";

const text = z.string();
const bytes = z.number().nonnegative();

export const artifactReferenceSchema = z.object({
  kind: z.enum(["template", "snapshot", "job"]),
  id: text,
  status: text,
  why: text,
});

export const artifactWhySchema = z.object({
  artifact_id: text,
  status: z.enum(ARTIFACT_STATUSES),
  /** The answer in one line. */
  why: text,
  references: z.array(artifactReferenceSchema),
  unreferenced_at: text.optional(),
  /** When it goes, or is looked at again when it is used. */
  kept_until: text,
  nodes: z.array(
    z.object({
      node_id: text,
      /** False: it was removed from the cluster, its copy does not count. */
      is_member: z.boolean(),
      healthy: z.boolean(),
      holding: z.enum(["complete", "partial", "none"]),
      size_bytes: bytes,
      /** It has begun to remove its copy. */
      is_removing: z.boolean(),
      replicas: z.array(text),
      runtime_ref_count: z.number().int().nonnegative(),
      /** Some of those that run on it. */
      sandboxes: z.array(text),
    }),
  ),
});
export type ArtifactWhy = z.infer<typeof artifactWhySchema>;

export const templateWhySchema = z.object({
  template_id: text,
  kind: z.enum(["template", "snapshot"]),
  status: text,
  last_error: text,
  artifact_id: text,
  artifact_status: text,
  /** What stands in the way of its deletion. */
  references: z.array(z.object({ kind: z.enum(["job", "sandbox"]), id: text, node_id: text })),
  /** Nodes that did not answer: what they hold counts as held. */
  unanswered: z.array(z.object({ node_id: text, reason: text })),
  nodes: z.array(
    z.object({
      node_id: text,
      ready: z.boolean(),
      /** Blank when it is ready. */
      why: text,
      phase: text,
      error_message: text,
      healthy: z.boolean(),
      drained: z.boolean(),
      in_scope: z.boolean(),
      wanted: z.boolean(),
      driver: text,
      compat_status: text,
      storage_mode: text,
      free_bytes: bytes,
      holds_artifact: z.boolean(),
    }),
  ),
});
export type TemplateWhy = z.infer<typeof templateWhySchema>;

/** Files on one node that no record, fact or row knows. */
export const orphanSchema = z.object({
  node_id: text,
  /** Below the node's data folder. */
  folder: text,
  name: text,
  /** On disk, holes not counted. */
  bytes,
  changed_at: text,
  /** When it goes, unless it changes or becomes known. */
  due_at: text,
  removed: z.boolean(),
  /** Why it could not be removed. */
  error: text.optional(),
});
export type Orphan = z.infer<typeof orphanSchema>;

/** What one node could do without. */
export const wasteSchema = z.object({
  orphans: z.array(orphanSchema),
  evictions: z.array(evictionSchema),
});
export type Waste = z.infer<typeof wasteSchema>;

export const gcReportSchema = z.object({
  dry_run: z.boolean(),
  /** False: this node does not agree with the others yet, so that nothing is taken away. */
  in_touch: z.boolean(),
  items: z.array(
    z.object({
      artifact_id: text,
      status: z.enum(ARTIFACT_STATUSES),
      /** `none`: not yet; it is in its grace, or its copies are being removed. */
      step: z.enum(["none", "grace", "renew", "orphan", "release", "lost", "forget"]),
      why: text,
      /** When it goes at the earliest. */
      due_at: text,
      /** Bytes of the files in it: its holes take no space. */
      nodes: z.array(z.object({ node_id: text, bytes })),
      /** Why a step that was tried did not succeed. */
      error: text.optional(),
    }),
  ),
  /** What would be free again on each node, bytes that others share not counted. */
  nodes: z.array(z.object({ node_id: text, artifacts: z.number().int(), bytes })),
  bytes,
  /** Files that nothing knows, on all nodes. */
  orphans: z.array(orphanSchema),
  /** Copies that go before their time, on nodes whose disks are short of room. */
  evictions: z.array(evictionSchema),
  /** Nodes that did not say what lies on their disks. */
  unanswered: z.array(z.object({ node_id: text, reason: text })),
});
export type GcReport = z.infer<typeof gcReportSchema>;
