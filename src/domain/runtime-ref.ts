/**
 * Runtime refs (spec §7): "this sandbox runs on that snapshot's memory". A ref is kept on the
 * sandbox's own node, its single writer; others know a summary of it (the fact `refs`) and ask for
 * the rest. The word snapshot stands for templates too: their sandboxes run on a snapshot as well.
 */
import { z } from "zod";

const shortText = z.string().max(256);
const rfc3339 = z.iso.datetime({ offset: true });

export const MEMORY_BACKING = "memory_backing";
export const RUNTIME_REF_STATUSES = ["ACTIVE", "RELEASED"] as const;

export const runtimeRefSchema = z.looseObject({
  /** Counted by the node, from 1. */
  id: z.number().int().positive(),
  snapshot_id: shortText,
  sandbox_id: shortText,
  node_id: shortText,
  node_ip: shortText,
  binding_type: shortText,
  /** Rises with each rollback of the sandbox; a late answer of a lower one is out of date. */
  sandbox_gen: z.number().int().nonnegative(),
  status: z.enum(RUNTIME_REF_STATUSES),
  release_reason: z.string().optional(),
  attached_at: z.string(),
  released_at: z.string().optional(),
  last_seen_at: z.string(),
  last_error: z.string(),
  /** `driver`: of this daemon's own sandboxes; `runtime`: told by a runtime beside it. */
  source: z.enum(["driver", "runtime"]),
});
export type RuntimeRef = z.infer<typeof runtimeRefSchema>;

export const acquireRefSchema = z.strictObject({
  snapshot_id: z.string().trim().min(1, "must not be blank").max(256),
  sandbox_id: z.string().trim().min(1, "must not be blank").max(256),
  /** The sandbox's node; this one when it is absent. */
  node_id: shortText.optional(),
  binding_type: shortText.optional(),
  sandbox_gen: z.number().int().nonnegative().optional(),
  attached_at: rfc3339.optional(),
});
export type AcquireRefRequest = z.infer<typeof acquireRefSchema>;

/** What a runtime saw running on its node; a row with a blank id is passed over. */
export const observedRefSchema = z.strictObject({
  snapshot_id: shortText,
  sandbox_id: shortText,
  binding_type: shortText.optional(),
  sandbox_gen: z.number().int().nonnegative().optional(),
  attached_at: rfc3339.optional(),
});
export type ObservedRef = z.infer<typeof observedRefSchema>;

export const observedRefsSchema = z.union([
  z.strictObject({ observed: z.array(observedRefSchema).max(10_000) }),
  z.strictObject({ error: z.string().min(1).max(4_096) }),
]);
export type ObservedRefs = z.infer<typeof observedRefsSchema>;

export const RELEASE_REASONS = {
  switched: "switched runtime ref",
  reconciled: "reconciled runtime ref",
  unobserved: "runtime ref not observed on node",
  destroyed: "sandbox destroyed",
} as const;

/** Where a ref is, and when: what its node adds to a request. */
export interface RefContext {
  readonly nodeId: string;
  readonly nodeIp: string;
  readonly source: RuntimeRef["source"];
  /** RFC 3339. */
  readonly now: string;
  /** The id of the next ref; called once for each that is made. */
  readonly nextId: () => number;
}

const newRef = (
  ref: ObservedRef | AcquireRefRequest,
  { nodeId, nodeIp, source, now, nextId }: RefContext,
): RuntimeRef => ({
  id: nextId(),
  snapshot_id: ref.snapshot_id,
  sandbox_id: ref.sandbox_id,
  node_id: nodeId,
  node_ip: nodeIp,
  binding_type: ref.binding_type ?? MEMORY_BACKING,
  sandbox_gen: ref.sandbox_gen ?? 0,
  status: "ACTIVE",
  attached_at: ref.attached_at ?? now,
  last_seen_at: now,
  last_error: "",
  source,
});

export const releaseRef = (ref: RuntimeRef, reason: string, now: string): RuntimeRef => ({
  ...ref,
  status: "RELEASED",
  release_reason: reason,
  released_at: now,
});

const isSameBinding = (a: RuntimeRef, b: ObservedRef): boolean =>
  a.sandbox_id === b.sandbox_id && a.binding_type === (b.binding_type ?? MEMORY_BACKING);

/**
 * Rows to write so that the sandbox has this ref and no other of its binding (spec §7, Acquire).
 * @param active refs that are ACTIVE on this node
 */
export function acquireRows(
  active: Iterable<RuntimeRef>,
  request: AcquireRefRequest,
  context: RefContext,
): { made: RuntimeRef; released: RuntimeRef[] } {
  const released = [...active]
    .filter((ref) => isSameBinding(ref, request))
    .map((ref) => releaseRef(ref, RELEASE_REASONS.switched, context.now));
  return { made: newRef(request, context), released };
}

/**
 * Rows to write after a runtime has said what runs (spec §7, RefreshFromNode). Only refs of the
 * context's source are compared: two runtimes on one host do not free each other's.
 */
export function refreshRows(
  active: readonly RuntimeRef[],
  observed: readonly ObservedRef[],
  context: RefContext,
): RuntimeRef[] {
  const own = active.filter((ref) => ref.source === context.source);
  const rows = new Map<number, RuntimeRef>();
  const seen = new Set<number>();
  for (const one of observed) {
    if (one.snapshot_id === "" || one.sandbox_id === "") continue;
    const bound = own.filter((ref) => isSameBinding(ref, one) && !seen.has(ref.id));
    const same = bound.find((ref) => ref.snapshot_id === one.snapshot_id);
    for (const ref of bound) {
      seen.add(ref.id);
      if (ref !== same) rows.set(ref.id, releaseRef(ref, RELEASE_REASONS.reconciled, context.now));
    }
    if (same === undefined) {
      const made = newRef(one, context);
      rows.set(made.id, made);
      continue;
    }
    rows.set(same.id, {
      ...same,
      sandbox_gen: Math.max(same.sandbox_gen, one.sandbox_gen ?? 0),
      last_seen_at: context.now,
      last_error: "",
    });
  }
  for (const ref of own) {
    if (seen.has(ref.id)) continue;
    rows.set(ref.id, releaseRef(ref, RELEASE_REASONS.unobserved, context.now));
  }
  return [...rows.values()];
}

/** One more than any generation the sandbox had, at least 1 (spec §4.8). */
export const nextGeneration = (generations: readonly number[]): number =>
  Math.max(0, ...generations) + 1;

const SNAPSHOT_ANNOTATION = "cube.master.runtime.snapshot.id";
const ATTACHED_ANNOTATION = "cube.master.runtime.snapshot.attached_at";

/**
 * The ref that a sandbox's data tells of (spec §7, FromSandboxData); undefined when its annotations
 * name no snapshot. A time that does not read is left out.
 */
export function refFromSandboxData(sandbox: {
  readonly sandbox_id: string;
  readonly annotations?: Readonly<Record<string, string>>;
}): ObservedRef | undefined {
  const snapshot = (sandbox.annotations?.[SNAPSHOT_ANNOTATION] ?? "").trim();
  if (snapshot === "") return undefined;
  const attached = sandbox.annotations?.[ATTACHED_ANNOTATION] ?? "";
  return {
    snapshot_id: snapshot,
    sandbox_id: sandbox.sandbox_id,
    ...(rfc3339.safeParse(attached).success ? { attached_at: attached } : {}),
  };
}
