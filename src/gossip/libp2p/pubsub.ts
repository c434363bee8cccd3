/**
 * Gossipsub as this project uses it: few topics, signed messages, members only. It carries what
 * `DirectStreams` cannot bring to everybody.
 */
import { TopicValidatorResult, gossipsub, type GossipSub } from "@chainsafe/libp2p-gossipsub";
import type { PeerId, Topic, Verdict } from "../ports.ts";
import { TOPICS } from "./protocols.ts";

export const TOPIC_PREFIX = "/templatecenter/1/";
const VERDICTS: Readonly<Record<Verdict, TopicValidatorResult>> = {
  accept: TopicValidatorResult.Accept,
  ignore: TopicValidatorResult.Ignore,
  reject: TopicValidatorResult.Reject,
};
/**
 * Score of who is no member: below every threshold, so that gossip neither goes there nor comes.
 */
const STRANGER_SCORE = -1_000_000;
/**
 * Whoever publishes sends to everybody, and what is lost all the same is pulled after a comparison
 * of state hashes. So the mesh is a second way for peers that see only a part of the others: a few
 * neighbours do, and looking after it is not urgent.
 */
const MESH = { D: 3, Dlo: 2, Dhi: 5, Dscore: 2, Dout: 1, Dlazy: 3 } as const;
const HEARTBEAT_MS = 5_000;
/** No score decays: who is a member decides. */
const DECAY_MS = 10 * 60_000;
/** "Do not send me that" to each neighbour costs more than the few copies of a small message. */
const UNWANTED_BYTES = 32 * 1024;

/** A copy of a message is known by this before its signature is looked at. */
const nameOf = ({ from, seqno }: { from?: Uint8Array; seqno?: Uint8Array }): string =>
  Buffer.concat([from ?? new Uint8Array(), seqno ?? new Uint8Array()]).toString("latin1");

export const pubsub = (isMember: (peer: PeerId) => boolean) =>
  gossipsub({
    globalSignaturePolicy: "StrictSign",
    allowPublishToZeroTopicPeers: true,
    floodPublish: true,
    fastMsgIdFn: nameOf,
    // Encoded once for all of them.
    batchPublish: true,
    emitSelf: false,
    ...MESH,
    heartbeatInterval: HEARTBEAT_MS,
    idontwantMinDataSize: UNWANTED_BYTES,
    doPX: false,
    fallbackToFloodsub: false,
    canRelayMessage: false,
    allowedTopics: TOPICS.map((topic) => TOPIC_PREFIX + topic),
    maxInboundDataLength: 4 * 1024 * 1024,
    maxOutboundBufferSize: 16 * 1024 * 1024,
    scoreParams: {
      decayInterval: DECAY_MS,
      appSpecificScore: (peer) => (isMember(peer) ? 0 : STRANGER_SCORE),
      appSpecificWeight: 1,
      // Members of a fleet share hosts and networks.
      IPColocationFactorWeight: 0,
      behaviourPenaltyWeight: 0,
    },
  });

/** Has every message judged, whose signature is good, before it is passed on. */
export function followTopics(
  service: GossipSub,
  judge: (topic: Topic, from: PeerId, body: Uint8Array) => Verdict,
): void {
  for (const topic of TOPICS) {
    service.topicValidators.set(TOPIC_PREFIX + topic, (_neighbour, message) => {
      const from = message.type === "signed" ? message.from.toString() : "";
      return VERDICTS[judge(topic, from, message.data)];
    });
    service.subscribe(TOPIC_PREFIX + topic);
  }
}

/** Gossip keeps for a heartbeat what it thinks of a peer; it may be a member by now. */
export function forgetScores(service: GossipSub): void {
  const { score } = service as unknown as { score: { scoreCache: Map<string, unknown> } };
  score.scoreCache.clear();
}
