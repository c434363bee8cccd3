/**
 * What members of a cluster share about the cluster itself: the configuration with members and
 * voters, sessions, leaders; and the views of it. Same rules as in schema.ts: these schemas
 * validate, give the types and make openapi.json.
 */
import { z } from "zod";

const shortText = z.string().max(256);
const text = z.string().max(4_096);
const rfc3339 = z.string();
const count = z.number().int().nonnegative();

/* ---- records --------------------------------------------------------------------------------- */

export const memberSchema = z.looseObject({
  node_id: shortText,
  /** The libp2p peer id that belongs to the node's identity key. */
  peer_id: shortText,
  /** Multiaddrs at which others reach it. */
  addresses: z.array(text).max(32),
  joined_at: rfc3339,
  /** Leads nothing and gets nothing new. */
  drained: z.boolean(),
});
export type Member = z.infer<typeof memberSchema>;

/**
 * Who votes. `number` rises by one with each change of `nodes`; `previous` are the voters of
 * `number` − 1, whose registers a voter must have merged before it serves this configuration
 * (design §4). The first configuration has no previous voters.
 */
export const voterConfigSchema = z.object({
  number: z.number().int().positive(),
  nodes: z.array(shortText).min(1).max(7),
  previous: z.array(shortText).max(7),
});
export type VoterConfig = z.infer<typeof voterConfigSchema>;

export const joinTokenSchema = z.looseObject({
  token_id: shortText,
  /** Hex SHA-256 of the secret: the secret itself is in the token only. */
  secret_sha256: shortText,
  created_at: rfc3339,
  expires_at: rfc3339,
  uses_left: count,
  /** It admits nobody any more; kept so that who comes with it is told. */
  revoked_at: rfc3339.optional(),
});
export type JoinTokenRecord = z.infer<typeof joinTokenSchema>;

/** The record `cluster/config`; its id is always CONFIG_ID. */
export const clusterConfigSchema = z.looseObject({
  cluster_id: shortText,
  created_at: rfc3339,
  /** By node id. */
  members: z.record(shortText, memberSchema),
  voters: voterConfigSchema,
  /** By peer id: who was removed, so that it is told why it is refused. */
  removed: z.record(shortText, z.object({ node_id: shortText, at: rfc3339 })),
  /** By token id. */
  tokens: z.record(shortText, joinTokenSchema),
});
export type ClusterConfig = z.infer<typeof clusterConfigSchema>;

export const CONFIG_ID = "config";

/** The record `session/<node>`: alive as long as `beat` moves. */
export const sessionSchema = z.looseObject({
  node_id: shortText,
  /** Rises by one when the node starts a new session, or another node ends this one. */
  incarnation: z.number().int().positive(),
  /** Rises by one with each renewal of an incarnation. */
  beat: count,
  term_ms: z.number().int().positive(),
  ended: z.boolean(),
});
export type SessionRecord = z.infer<typeof sessionSchema>;

/** The record `leader/<template>`. Epochs of a template rise by one with each claim. */
export const leaderSchema = z.looseObject({
  template_id: shortText,
  node_id: shortText,
  incarnation: z.number().int().positive(),
  epoch: z.number().int().positive(),
  /** Given up: anybody may claim at once. */
  released: z.boolean(),
  since: rfc3339,
});
export type LeaderRecord = z.infer<typeof leaderSchema>;

/** The template id under which the cluster's own chores are led. */
export const CLUSTER_CHORES = "@cluster";

/** A node's fact: what of a template is in use there. The whole list is asked for when wanted. */
export const refsSchema = z.looseObject({
  template_id: shortText,
  count,
  /** The first few. */
  sandboxes: z.array(shortText).max(5),
  /** When the last of them was taken or released there. */
  last_used_at: rfc3339.optional(),
});
export type RefsFact = z.infer<typeof refsSchema>;

/* ---- views ----------------------------------------------------------------------------------- */

export const LIVENESS_STATES = ["alive", "suspect", "dead"] as const;
export type LivenessState = (typeof LIVENESS_STATES)[number];

export const memberViewSchema = memberSchema.extend({
  self: z.boolean(),
  voter: z.boolean(),
  liveness: z.enum(LIVENESS_STATES),
  /** Since when, as this node saw it. */
  liveness_since: rfc3339,
  connected: z.boolean(),
  /** Templates wanted there, and those that are READY there; 100 % when none is wanted. */
  wanted: count,
  ready: count,
  coverage_pct: z.number(),
  /** Filled once since it joined or came back: it counts as ready. */
  warm: z.boolean(),
  /** Equal state hashes when last compared; null before the first comparison. */
  in_sync: z.boolean().nullable(),
  compared_at: rfc3339.optional(),
  /** How old the newest change was when it arrived from there, as a moving median. */
  lag_ms: z.number().nonnegative().optional(),
  leads: count,
  version: z.string(),
});
export type MemberView = z.infer<typeof memberViewSchema>;

export const divergenceSchema = z.object({
  node_id: z.string(),
  since: rfc3339,
  /** How many entries differ, and the first few of them. */
  count,
  entries: z.array(
    z.object({
      owner: z.string(),
      kind: z.string(),
      id: z.string(),
      /** Version here and there; 0: not held. */
      here: count,
      there: count,
    }),
  ),
});
export type Divergence = z.infer<typeof divergenceSchema>;

/** Between this node and another: something that an operator has to mend. */
export const clusterWarningSchema = z.object({
  /** An error code: node_removed, cluster_mismatch, identity_copied, clock_skew, … */
  code: z.string(),
  /** The other node. */
  node_id: z.string(),
  detail: z.string(),
  /** What to do. */
  advice: z.string(),
  since: rfc3339,
});
export type ClusterWarning = z.infer<typeof clusterWarningSchema>;

export const clusterViewSchema = z.object({
  /** False: a lone node, its own quorum. */
  clustered: z.boolean(),
  cluster_id: z.string(),
  node_id: z.string(),
  peer_id: z.string(),
  /** This node's own multiaddrs. */
  addresses: z.array(z.string()),
  state_hash: z.string(),
  quorum: z.object({
    available: z.boolean(),
    /** Why not, or what an operator should know: two nodes need both. */
    note: z.string(),
    number: count,
    voters: z.array(z.string()),
    /** Voters that this node believes alive. */
    alive: z.array(z.string()),
    changing: z.boolean(),
  }),
  members: z.array(memberViewSchema),
  leaders: z.array(
    z.object({
      template_id: z.string(),
      node_id: z.string(),
      epoch: count,
      since: z.string(),
      valid: z.boolean(),
    }),
  ),
  sessions: z.array(sessionSchema),
  divergence: z.array(divergenceSchema),
  warnings: z.array(clusterWarningSchema),
  tokens: z.array(joinTokenSchema.omit({ secret_sha256: true })),
  /** Messages of gossip and requests since start, by outcome: accepted, rejected:<reason>, … */
  messages: z.record(z.string(), count),
});
export type ClusterView = z.infer<typeof clusterViewSchema>;

/** The distribution of one artifact as this node knows it. */
export const swarmViewSchema = z.object({
  artifact_id: z.string(),
  digest: z.string(),
  size_bytes: z.number(),
  /** Chunks that are not holes. */
  chunk_count: count,
  nodes: z.array(
    z.object({
      node_id: z.string(),
      have_chunks: count,
      complete: z.boolean(),
      /** Chunks that it found in other artifacts it holds. */
      reused_chunks: count,
      /** Node id → bytes received from there. */
      sources: z.record(z.string(), z.number()),
      sent_bytes: z.number(),
      down_bps: z.number(),
      up_bps: z.number(),
    }),
  ),
});
export type SwarmView = z.infer<typeof swarmViewSchema>;

export const createTokenSchema = z.strictObject({
  /** Seconds until it expires. */
  ttl_seconds: z
    .number()
    .int()
    .min(10)
    .max(30 * 24 * 3_600)
    .default(3_600),
  uses: z.number().int().min(1).max(1_000).default(1),
});
export type CreateTokenRequest = z.input<typeof createTokenSchema>;

export const createdTokenSchema = z.object({
  token_id: z.string(),
  token: z.string(),
  expires_at: rfc3339,
  uses_left: count,
});
export type CreatedToken = z.infer<typeof createdTokenSchema>;

export const joinSchema = z.strictObject({
  token: z.string().trim().min(1, "must not be blank").max(8_192),
  /** A node that has templates of its own joins only when they may be dropped. */
  discard: z.boolean().default(false),
});
export type JoinRequest = z.input<typeof joinSchema>;
