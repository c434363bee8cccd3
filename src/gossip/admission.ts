/**
 * Who belongs to the cluster: tokens, joining, leaving and removal, as changes of the one record
 * `cluster/config`, so that a quorum decides them; and `hello`, by which a node that starts learns
 * whether it is still a member and whether its identity runs twice.
 */
import { z } from "zod";
import {
  AppError,
  CONFIG_ID,
  CLUSTER,
  clusterConfigSchema,
  type ClusterConfig,
  type CreatedToken,
  type Entry,
} from "../domain/index.ts";
import { decodeJoinToken, encodeJoinToken, type Sha256Hex } from "./join-token.ts";
import type { Parts, PeerId, Registers, RequestOptions } from "./ports.ts";

const WIRE = { min: 1, max: 1 } as const;
/** Beyond this, expiry times and shown times mean nothing. */
const SKEW_MS = 5 * 60_000;
const REMOVED_KEPT = 1_000;
const BODY_BYTES = 65_536;
/** Boot ids remembered of each peer. */
const BOOTS_KEPT = 8;
const JOIN_TIMEOUT_MS = 10_000;

const joinSchema = z.looseObject({
  v: z.literal(1),
  type: z.literal("join"),
  cluster_id: z.string().max(256),
  token_id: z.string().max(256),
  secret: z.string().max(256),
  node_id: z.string().min(1).max(256),
  addresses: z.array(z.string().max(1_024)).max(32),
  wire: z.object({ min: z.number(), max: z.number() }),
  now: z.number(),
});
const helloSchema = z.looseObject({
  v: z.literal(1),
  type: z.literal("hello"),
  cluster_id: z.string().max(256),
  boot_id: z.string().max(64),
});
const requestSchema = z.discriminatedUnion("type", [joinSchema, helloSchema]);
type JoinBody = z.infer<typeof joinSchema>;
const joinedSchema = z.looseObject({
  v: z.literal(1),
  version: z.number().int().positive(),
  config: clusterConfigSchema,
  now: z.number(),
});
const helloAnswerSchema = z.looseObject({
  v: z.literal(1),
  status: z.enum(["member", "removed", "unknown"]),
  cluster_id: z.string(),
  boot_id: z.string(),
  conflict: z.boolean(),
});
export type HelloAnswer = z.infer<typeof helloAnswerSchema>;

export interface Self {
  readonly nodeId: string;
  readonly peerId: PeerId;
  readonly addresses: readonly string[];
}
type ConfigEntry = Entry<"cluster">;

export interface AdmissionParts extends Parts {
  readonly registers: Registers;
  readonly sha256Hex: Sha256Hex;
  /** Random with each start of the daemon. */
  readonly bootId: string;
  /** The network's key in base64url, which tokens carry. */
  readonly psk: () => string;
}

export interface Admission {
  createToken(options: { ttlSeconds: number; uses: number }): Promise<CreatedToken>;
  /** @throws AppError join_token_not_found */
  revokeToken(tokenId: string): Promise<void>;
  /** @throws AppError join_token_*, cluster_mismatch, clock_skew, node_name_taken, no_quorum */
  join(token: string, self: Self, options?: RequestOptions): Promise<ConfigEntry>;
  /** @throws AppError node_removed, cluster_mismatch, identity_copied, peer_unreachable */
  hello(peer: PeerId, options?: RequestOptions): Promise<HelloAnswer>;
  leave(): Promise<void>;
  removeMember(nodeId: string): Promise<void>;
  setDrained(nodeId: string, drained: boolean): Promise<void>;
  /** @throws AppError already_clustered */
  bootstrap(first: Self & { readonly clusterId: string }): Promise<ConfigEntry>;
  updateAddresses(addresses: readonly string[]): Promise<void>;
}

const encode = (body: object) => new TextEncoder().encode(JSON.stringify({ v: 1, ...body }));

function decode<T>(schema: z.ZodType<T>, body: Uint8Array, limit: number): T {
  try {
    if (body.length > limit) throw new RangeError("too large");
    return schema.parse(JSON.parse(new TextDecoder().decode(body)));
  } catch (error) {
    throw new AppError("wire_invalid", "an admission message is not valid", { cause: error });
  }
}

const without = <T>(from: Readonly<Record<string, T>>, key: string): Record<string, T> =>
  Object.fromEntries(Object.entries(from).filter(([name]) => name !== key));

/** @throws AppError clock_skew with both times, in milliseconds since the epoch */
function checkSkew(here: number, there: number): void {
  const skew = there - here;
  if (Math.abs(skew) <= SKEW_MS) return;
  const seconds = Math.round(Math.abs(skew) / 1_000);
  throw new AppError("clock_skew", `the clocks are ${seconds} s apart`, {
    meta: {
      here: new Date(here).toISOString(),
      there: new Date(there).toISOString(),
      difference_ms: skew,
    },
  });
}

/** The configuration with the joiner in it. @throws AppError when the token does not allow it */
function admit(
  config: ClusterConfig,
  from: PeerId,
  body: JoinBody,
  secretHash: string,
  nowMs: number,
): ClusterConfig | undefined {
  if (config.cluster_id !== body.cluster_id) throw new AppError("cluster_mismatch");
  const token = config.tokens[body.token_id];
  if (token === undefined || token.secret_sha256 !== secretHash) {
    throw new AppError("join_token_invalid", "the join token is unknown here or was revoked");
  }
  const named = config.members[body.node_id];
  if (named !== undefined) {
    if (named.peer_id === from) return undefined;
    throw new AppError("node_name_taken", `the node name ${body.node_id} is taken`);
  }
  const other = Object.values(config.members).find(({ peer_id }) => peer_id === from);
  if (other !== undefined) {
    throw new AppError("identity_copied", `this identity is already the node ${other.node_id}`);
  }
  if (config.voters.nodes.includes(body.node_id)) {
    // A new node must not be taken for the voter that had its name, and whose promises it lacks.
    throw new AppError(
      "node_name_taken",
      `the former ${body.node_id} still counts as a voter: try again when it has been replaced`,
    );
  }
  if (Date.parse(token.expires_at) <= nowMs) throw new AppError("join_token_expired");
  if (token.uses_left < 1) throw new AppError("join_token_used");
  const member = {
    node_id: body.node_id,
    peer_id: from,
    addresses: body.addresses,
    joined_at: new Date(nowMs).toISOString(),
    drained: false,
  };
  return {
    ...config,
    members: { ...config.members, [body.node_id]: member },
    removed: without(config.removed, from),
    tokens: { ...config.tokens, [body.token_id]: { ...token, uses_left: token.uses_left - 1 } },
  };
}

/** The configuration without the member. @throws AppError node_not_found */
function remove(config: ClusterConfig, nodeId: string, at: string): ClusterConfig {
  const member = config.members[nodeId];
  if (member === undefined) throw new AppError("node_not_found", `node ${nodeId} not found`);
  const removed = [
    ...Object.entries(without(config.removed, member.peer_id)),
    [member.peer_id, { node_id: nodeId, at }] as const,
  ]
    .sort(([, a], [, b]) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0))
    .slice(-REMOVED_KEPT);
  return {
    ...config,
    members: without(config.members, nodeId),
    removed: Object.fromEntries(removed),
  };
}

/** Takes the handler of protocol "join". */
export function createAdmission(parts: AdmissionParts): Admission {
  const { transport, members, clock, registers, sha256Hex } = parts;
  const hellos = new Map<PeerId, readonly string[]>();
  const stamp = () => new Date(clock.now()).toISOString();

  const change = async (
    apply: (config: ClusterConfig) => ClusterConfig | undefined,
  ): Promise<ConfigEntry> => {
    const entry = await registers.update("cluster", CONFIG_ID, (current) => {
      if (current === undefined) throw new AppError("not_clustered");
      return apply(current);
    });
    if (entry === undefined) throw new AppError("not_clustered");
    return entry;
  };
  const editMember = async (nodeId: string, edit: { drained?: boolean; addresses?: string[] }) => {
    await change((config) => {
      const member = config.members[nodeId];
      if (member === undefined) throw new AppError("node_not_found", `node ${nodeId} not found`);
      return { ...config, members: { ...config.members, [nodeId]: { ...member, ...edit } } };
    });
  };
  const removeMember = async (nodeId: string) => {
    // A voter first stops voting: its vote, and its share of what the next voters must read, can't
    // be asked for any more once it is no member, and of two voters both are needed.
    await change((config) => {
      const member = config.members[nodeId];
      if (member === undefined) throw new AppError("node_not_found", `node ${nodeId} not found`);
      const { number, nodes: previous } = config.voters;
      const nodes = previous.filter((node) => node !== nodeId);
      if (nodes.length === 0 || nodes.length === previous.length) return undefined;
      const members = { ...config.members, [nodeId]: { ...member, drained: true } };
      return { ...config, members, voters: { number: number + 1, nodes, previous } };
    });
    await change((config) => remove(config, nodeId, stamp()));
  };

  const onJoin = async (from: PeerId, body: JoinBody): Promise<Uint8Array> => {
    if (body.wire.min > WIRE.max || body.wire.max < WIRE.min) {
      throw new AppError("wire_invalid", "the nodes' versions speak no common wire format");
    }
    checkSkew(clock.now(), body.now);
    const hash = sha256Hex(body.secret);
    const entry = await change((config) => admit(config, from, body, hash, clock.now()));
    return encode({ version: entry.version, config: entry.value, now: clock.now() });
  };

  const onHello = (from: PeerId, body: z.infer<typeof helloSchema>): Uint8Array => {
    const config = members.config();
    const boots = hellos.get(from) ?? [];
    // A restarted daemon has a new boot id and never an earlier one again: two that take turns do.
    const conflict = boots.slice(0, -1).includes(body.boot_id);
    const known = members.nodeOf(from) !== undefined;
    // Only of members, so that strangers cannot fill the map.
    if (known && !boots.includes(body.boot_id)) {
      hellos.set(from, [...boots, body.boot_id].slice(-BOOTS_KEPT));
    }
    const status = known ? "member" : config?.removed[from] !== undefined ? "removed" : "unknown";
    return encode({
      status,
      cluster_id: config?.cluster_id ?? "",
      boot_id: parts.bootId,
      conflict,
    });
  };

  transport.handle("join", async (from, bytes) => {
    const body = decode(requestSchema, bytes, BODY_BYTES);
    return body.type === "join" ? onJoin(from, body) : onHello(from, body);
  });

  return {
    async createToken({ ttlSeconds, uses }) {
      const tokenId = parts.random.uuid();
      const secret = Buffer.from(parts.random.bytes(24)).toString("base64url");
      const expires = new Date(clock.now() + ttlSeconds * 1_000).toISOString();
      const record = {
        token_id: tokenId,
        secret_sha256: sha256Hex(secret),
        created_at: stamp(),
        expires_at: expires,
        uses_left: uses,
      };
      const entry = await change((config) => ({
        ...config,
        // Expired ones go with the next that is made, so that the record stays small.
        tokens: {
          ...Object.fromEntries(
            Object.entries(config.tokens).filter(([, { expires_at }]) => expires_at > stamp()),
          ),
          [tokenId]: record,
        },
      }));
      const token = encodeJoinToken(
        {
          cluster_id: entry.value?.cluster_id ?? "",
          psk: parts.psk(),
          token_id: tokenId,
          secret,
          addresses: transport.addresses().map((at) => `${at}/p2p/${transport.peerId}`),
          expires_at: expires,
        },
        sha256Hex,
      );
      return { token_id: tokenId, token, expires_at: expires, uses_left: uses };
    },
    async revokeToken(tokenId) {
      await change((config) => {
        if (config.tokens[tokenId] === undefined) throw new AppError("join_token_not_found");
        return { ...config, tokens: without(config.tokens, tokenId) };
      });
    },
    async join(text, self, options = { timeoutMs: JOIN_TIMEOUT_MS }) {
      const token = decodeJoinToken(text, sha256Hex);
      const peer = await transport.dial(token.addresses, options);
      const body = encode({
        type: "join",
        cluster_id: token.cluster_id,
        token_id: token.token_id,
        secret: token.secret,
        node_id: self.nodeId,
        addresses: self.addresses,
        wire: WIRE,
        now: clock.now(),
      });
      const answer = await transport.request(peer, "join", body, options);
      const joined = decode(joinedSchema, answer, 4 * 1024 * 1024);
      checkSkew(clock.now(), joined.now);
      const { version, config } = joined;
      return { owner: CLUSTER, kind: "cluster", id: CONFIG_ID, version, value: config };
    },
    async hello(peer, options = { timeoutMs: JOIN_TIMEOUT_MS }) {
      const clusterId = members.config()?.cluster_id ?? "";
      const body = encode({ type: "hello", cluster_id: clusterId, boot_id: parts.bootId });
      const bytes = await transport.request(peer, "join", body, options);
      const answer = decode(helloAnswerSchema, bytes, BODY_BYTES);
      if (answer.status === "removed") throw new AppError("node_removed");
      if (answer.cluster_id !== clusterId) throw new AppError("cluster_mismatch");
      if (answer.conflict) {
        throw new AppError("identity_copied", "another daemon runs with this node's identity");
      }
      return answer;
    },
    leave: () => removeMember(members.self),
    removeMember,
    setDrained: (nodeId, drained) => editMember(nodeId, { drained }),
    async bootstrap({ clusterId, nodeId, peerId, addresses }) {
      const at = stamp();
      const member = { node_id: nodeId, peer_id: peerId, addresses: [...addresses] };
      const entry = await registers.update("cluster", CONFIG_ID, (current) => {
        if (current !== undefined) throw new AppError("already_clustered");
        return {
          cluster_id: clusterId,
          created_at: at,
          members: { [nodeId]: { ...member, joined_at: at, drained: false } },
          voters: { number: 1, nodes: [nodeId], previous: [] },
          removed: {},
          tokens: {},
        };
      });
      if (entry === undefined) throw new AppError("not_clustered");
      return entry;
    },
    updateAddresses: (addresses) => editMember(members.self, { addresses: [...addresses] }),
  };
}
