/**
 * Every replicated entry is (owner, kind, id) → (version, value or tombstone), and the one merge
 * rule is: the higher version wins (design §3). A record's owner is the cluster and its version
 * comes from a quorum; a fact's owner is the only node that writes it.
 */
import {
  artifactRecordSchema,
  holdingSchema,
  jobProgressSchema,
  jobRecordSchema,
  nodeFactSchema,
  replicaSchema,
  templateRecordSchema,
  type ArtifactRecord,
  type Holding,
  type JobProgress,
  type JobRecord,
  type NodeFact,
  type ReplicaStatus,
  type TemplateRecord,
} from "./schema.ts";
import {
  clusterConfigSchema,
  leaderSchema,
  refsSchema,
  sessionSchema,
  type ClusterConfig,
  type LeaderRecord,
  type RefsFact,
  type SessionRecord,
} from "./cluster.ts";
import { resnapshotSchema, type ResnapshotRecord } from "./resnapshot.ts";
import { tagRecordSchema, type TagRecord } from "./tag.ts";

export const CLUSTER = "@cluster";

export interface RecordValues {
  template: TemplateRecord;
  job: JobRecord;
  artifact: ArtifactRecord;
  cluster: ClusterConfig;
  session: SessionRecord;
  leader: LeaderRecord;
  resnapshot: ResnapshotRecord;
  tag: TagRecord;
}

export interface FactValues {
  node: NodeFact;
  replica: ReplicaStatus;
  holding: Holding;
  "job-progress": JobProgress;
  refs: RefsFact;
}

export type EntryValues = RecordValues & FactValues;
export type RecordKind = keyof RecordValues;
export type FactKind = keyof FactValues;
export type EntryKind = keyof EntryValues;

/** The schema that a value must pass when it is written and when it is read back. */
export const ENTRY_SCHEMAS = {
  template: templateRecordSchema,
  job: jobRecordSchema,
  artifact: artifactRecordSchema,
  node: nodeFactSchema,
  replica: replicaSchema,
  holding: holdingSchema,
  "job-progress": jobProgressSchema,
  cluster: clusterConfigSchema,
  session: sessionSchema,
  leader: leaderSchema,
  tag: tagRecordSchema,
  refs: refsSchema,
  resnapshot: resnapshotSchema,
} as const satisfies Record<EntryKind, unknown>;

/** Kinds whose owner is the cluster; a version of any other is its owner's own counter. */
export const RECORD_KINDS = [
  "template",
  "job",
  "artifact",
  "cluster",
  "session",
  "leader",
  "resnapshot",
  "tag",
] as const satisfies readonly RecordKind[];

export const isRecordKind = (kind: string): kind is RecordKind =>
  (RECORD_KINDS as readonly string[]).includes(kind);

export interface Entry<K extends EntryKind = EntryKind> {
  readonly owner: string;
  readonly kind: K;
  readonly id: string;
  /** Positive; rises by one with each change of a record, and with each of a node's own facts. */
  readonly version: number;
  /** Absent: a tombstone. */
  readonly value?: EntryValues[K];
}

/** True when `incoming` replaces `current`: the one merge rule. */
export const supersedes = (
  incoming: { readonly version: number },
  current: { readonly version: number } | undefined,
): boolean => current === undefined || incoming.version > current.version;
