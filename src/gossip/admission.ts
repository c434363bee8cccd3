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
  errorText,
  isAppError,
  type ClusterConfig,
  type CreatedToken,
  type Entry,
} from "../domain/index.ts";
import { decodeAdmission, encodeAdmission } from "./admission-messages.ts";
import { admit, checkSkew, keptTokens, removeMember, revokeToken } from "./admit.ts";
import { createHello, helloSchema, type HelloAnswer, type Hello } from "./hello.ts";
import { decodeJoinToken, encodeJoinToken, type JoinToken, type Sha256Hex } from "./join-token.ts";
import type { Parts, PeerId, Registers, RequestOptions } from "./ports.ts";
import { createThrottle } from "./throttle.ts";

const WIRE = { min: 1, max: 1 } as const;
const JOINED_BYTES = 4 * 1024 * 1024;
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
const requestSchema = z.discriminatedUnion("type", [joinSchema, helloSchema]);
type JoinBody = z.infer<typeof joinSchema>;
const joinedSchema = z.looseObject({
  v: z.literal(1),
  version: z.number().int().positive(),
  config: clusterConfigSchema,
  now: z.number(),
});

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
  /**
   * @throws AppError join_token_*, cluster_mismatch, clock_skew, node_name_taken, no_quorum,
   *   peer_unreachable
   */
  join(token: string, self: Self, options?: RequestOptions): Promise<ConfigEntry>;
  /**
   * @throws AppError node_removed, cluster_mismatch, identity_copied, clock_skew, not_a_member,
   *   peer_unreachable
   */
  hello(peer: PeerId, options?: RequestOptions): Promise<HelloAnswer>;
  /** Called with what is wrong with a member that said hello; undefined when nothing is. */
  onHello(listener: Hello["onHeard"]): void;
  leave(): Promise<void>;
  removeMember(nodeId: string): Promise<void>;
  setDrained(nodeId: string, drained: boolean): Promise<void>;
  /** @throws AppError already_clustered */
  bootstrap(first: Self & { readonly clusterId: string }): Promise<ConfigEntry>;
  updateAddresses(addresses: readonly string[]): Promise<void>;
}

/** Takes the handler of protocol "join". */
export function createAdmission(parts: AdmissionParts): Admission {
  const { transport, members, clock, log, registers, sha256Hex } = parts;
  const hello = createHello(parts);
  const mayTell = createThrottle(clock);
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
  const takeOut = async (nodeId: string) => {
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
    await change((config) => removeMember(config, nodeId, stamp()));
  };

  const onJoin = async (from: PeerId, body: JoinBody): Promise<Uint8Array> => {
    if (body.wire.min > WIRE.max || body.wire.max < WIRE.min) {
      throw new AppError("wire_invalid", "the nodes' versions speak no common wire format");
    }
    checkSkew(clock.now(), body.now);
    const applicant = {
      clusterId: body.cluster_id,
      peerId: from,
      nodeId: body.node_id,
      addresses: body.addresses,
      tokenId: body.token_id,
      secretSha256: sha256Hex(body.secret),
    };
    const entry = await change((config) => admit(config, applicant, clock.now()));
    log.info("a node was admitted", { node: body.node_id, peer: from, token_id: body.token_id });
    return encodeAdmission({ version: entry.version, config: entry.value, now: clock.now() });
  };

  const refused = (from: PeerId, body: JoinBody, error: unknown): void => {
    const code = isAppError(error) ? error.code : "internal";
    if (!mayTell(`${from} ${code}`)) return;
    log.warn("a node that wants to join was refused", {
      node: body.node_id,
      peer: from,
      token_id: body.token_id,
      code,
      reason: errorText(error),
    });
  };

  transport.handle("join", async (from, bytes) => {
    const body = decodeAdmission(requestSchema, bytes);
    if (body.type === "hello") return hello.answer(from, body);
    try {
      return await onJoin(from, body);
    } catch (error) {
      refused(from, body, error);
      throw error;
    }
  });

  /** Nobody let this node in: perhaps because its token has not been good for long. */
  const knock = async (token: JoinToken, options: RequestOptions): Promise<PeerId> => {
    try {
      return await transport.dial(token.addresses, options);
    } catch (error) {
      if (!isAppError(error, "peer_unreachable") || Date.parse(token.expires_at) > clock.now()) {
        throw error;
      }
      const text = `the join token expired at ${token.expires_at}, and nobody lets this node in`;
      throw new AppError("join_token_expired", text, { cause: error });
    }
  };

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
        // Old ones go with the next that is made, so that the record stays small.
        tokens: {
          ...keptTokens(config.tokens, clock.now()),
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
      await change((config) => revokeToken(config, tokenId, stamp()));
    },
    async join(text, self, options = { timeoutMs: JOIN_TIMEOUT_MS }) {
      const token = decodeJoinToken(text, sha256Hex);
      const peer = await knock(token, options);
      const body = encodeAdmission({
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
      const joined = decodeAdmission(joinedSchema, answer, JOINED_BYTES);
      checkSkew(clock.now(), joined.now);
      const { version, config } = joined;
      return { owner: CLUSTER, kind: "cluster", id: CONFIG_ID, version, value: config };
    },
    hello: (peer, options = { timeoutMs: JOIN_TIMEOUT_MS }) => hello.ask(peer, options),
    onHello: (listener) => void (hello.onHeard = listener),
    leave: () => takeOut(members.self),
    removeMember: takeOut,
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
