import { z } from "zod";
import { json } from "../answer.ts";
import { param, route, type Route } from "../route.ts";
import {
  ClusterState,
  CreatedJoinToken,
  CreateJoinToken,
  Join,
  Swarm,
  listOf,
} from "../schemas.ts";
import { callContext } from "./templates.ts";

const tag = "cluster";
const gone = () => new Response(null, { status: 204 });

const state = route(
  {
    method: "get",
    path: "/v1/cluster",
    summary: "Members, quorum, leaders and gossip health, as this node sees them",
    tag,
    answers: { 200: { description: "the cluster", schema: ClusterState } },
  },
  ({ queries }) => json(queries.cluster()),
);

const createToken = route(
  {
    method: "post",
    path: "/v1/cluster/join-tokens",
    summary: "Make a join token; a node that is alone becomes a cluster of one",
    tag,
    body: CreateJoinToken,
    answers: { 201: { description: "the token, shown once", schema: CreatedJoinToken } },
  },
  async ({ commands }, c, { body }) => {
    const created = await commands.createJoinToken(body, callContext(c));
    return json(created, 201, { location: `/v1/cluster/join-tokens/${created.token_id}` });
  },
);

const revokeToken = route(
  {
    method: "delete",
    path: "/v1/cluster/join-tokens/{id}",
    summary: "Revoke a join token",
    tag,
    answers: { 204: { description: "it admits nobody any more" } },
  },
  async ({ commands }, c) => {
    await commands.revokeJoinToken(param(c), callContext(c));
    return gone();
  },
);

const join = route(
  {
    method: "post",
    path: "/v1/cluster/join",
    summary: "This node joins the cluster that made the token, and starts anew in it",
    tag,
    body: Join,
    answers: { 202: { description: "admitted; the node starts anew", schema: ClusterState } },
  },
  async ({ commands }, c, { body }) => json(await commands.joinCluster(body, callContext(c)), 202),
);

const leave = route(
  {
    method: "post",
    path: "/v1/cluster/leave",
    summary: "This node hands over, leaves, and starts anew: alone and empty",
    tag,
    answers: { 202: { description: "it has left" } },
  },
  async ({ commands }, c) => {
    await commands.leaveCluster(callContext(c));
    return new Response(null, { status: 202 });
  },
);

const remove = route(
  {
    method: "delete",
    path: "/v1/nodes/{id}",
    summary: "Take a member out of the cluster, whether it lives or not",
    tag,
    answers: { 204: { description: "it is no member any more" } },
  },
  async ({ commands }, c) => {
    await commands.removeNode(param(c), callContext(c));
    return gone();
  },
);

const drain = route(
  {
    method: "post",
    path: "/v1/nodes/{id}/drain",
    summary: "Take leaderships and new templates away from a node, or give them back",
    tag,
    body: z.strictObject({ drained: z.boolean().default(true) }),
    answers: { 204: { description: "it is drained, or not any more" } },
  },
  async ({ commands }, c, { body }) => {
    await commands.drainNode(param(c), body.drained, callContext(c));
    return gone();
  },
);

const swarms = route(
  {
    method: "get",
    path: "/v1/swarms",
    summary: "Artifacts that are being distributed, and who holds which share",
    tag,
    answers: { 200: { description: "the distributions", schema: listOf(Swarm) } },
  },
  ({ queries }) => json({ items: queries.swarms() }),
);

const swarmOf = route(
  {
    method: "get",
    path: "/v1/artifacts/{id}/swarm",
    summary: "The distribution of one artifact",
    tag,
    answers: { 200: { description: "its distributions", schema: listOf(Swarm) } },
  },
  ({ queries }, c) => json({ items: queries.swarms(param(c)) }),
);

export const clusterRoutes: readonly Route[] = [
  state,
  createToken,
  revokeToken,
  join,
  leave,
  remove,
  drain,
  swarms,
  swarmOf,
];
