/** Gossipsub as this project uses it: few topics, signed messages, members only. */
import { gossipsub } from "@chainsafe/libp2p-gossipsub";
import type { PeerId } from "../ports.ts";

export const TOPIC_PREFIX = "/templatecenter/1/";
/**
 * Score of who is no member: below every threshold, so that gossip neither goes there nor comes.
 */
const STRANGER_SCORE = -1_000_000;

export const pubsub = (isMember: (peer: PeerId) => boolean) =>
  gossipsub({
    globalSignaturePolicy: "StrictSign",
    allowPublishToZeroTopicPeers: true,
    floodPublish: true,
    emitSelf: false,
    doPX: false,
    fallbackToFloodsub: false,
    canRelayMessage: false,
    allowedTopics: [`${TOPIC_PREFIX}changes`, `${TOPIC_PREFIX}liveness`],
    maxInboundDataLength: 4 * 1024 * 1024,
    maxOutboundBufferSize: 16 * 1024 * 1024,
    scoreParams: {
      appSpecificScore: (peer) => (isMember(peer) ? 0 : STRANGER_SCORE),
      appSpecificWeight: 1,
      // Members of a fleet share hosts and networks.
      IPColocationFactorWeight: 0,
      behaviourPenaltyWeight: 0,
    },
  });
