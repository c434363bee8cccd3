/** `cluster`: status, token, tokens, revoke, join, leave, remove, drain, undrain. */
import type { Command } from "commander";
import type { ClusterView, CreatedToken, Divergence, MemberView } from "../../domain/index.ts";
import { withJson, type CliContext } from "./context.ts";
import { json, table } from "./table.ts";

export function registerCluster(program: Command, context: CliContext): void {
  const { io } = context;
  const group = program.command("cluster").description("join, leave and look at a cluster");
  withJson(group.command("status"))
    .description("show members, quorum, leaders, and who disagrees on what since when")
    .action(async (flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const view = (await client.json("/v1/cluster")) as ClusterView;
        io.out(flags.json === true ? json(view) : statusText(view));
      }),
    );
  registerTokens(group, context);
  withJson(group.command("join"))
    .description("let this node join the cluster that made the token")
    .argument("<token>", "what `cluster token` printed; - reads it from standard input")
    .option("--discard", "drop this node's own templates, which the cluster does not know")
    .action(
      async (given: string, flags: { json?: boolean; discard?: boolean }, command: Command) => {
        const token = (given === "-" ? await io.readStdin() : given).trim();
        await context.withClient(command, async (client) => {
          const body = { token, discard: flags.discard === true };
          const view = await client.json("/v1/cluster/join", { method: "POST", body });
          io.out(
            flags.json === true ? json(view) : "admitted; this node starts anew as a member\n",
          );
        });
      },
    );
  registerNodes(group, context);
}

function registerTokens(group: Command, context: CliContext): void {
  const { io } = context;
  withJson(group.command("token"))
    .description("make a join token; it is printed once")
    .option("--ttl <seconds>", "how long it is good for", "3600")
    .option("--uses <count>", "how many nodes may join with it", "1")
    .action(async (flags: { json?: boolean; ttl: string; uses: string }, command: Command) =>
      context.withClient(command, async (client) => {
        const body = { ttl_seconds: Number(flags.ttl), uses: Number(flags.uses) };
        const path = "/v1/cluster/join-tokens";
        const made = (await client.json(path, { method: "POST", body })) as CreatedToken;
        if (flags.json === true) return io.out(json(made));
        // The token alone on standard output, so that it can be piped to where it is wanted.
        io.err(`good for ${made.uses_left} joins until ${made.expires_at}; on the other node:\n`);
        io.err("  templatecenter cluster join TOKEN\n");
        io.out(`${made.token}\n`);
      }),
    );
  withJson(group.command("tokens"))
    .description("list the join tokens that are known")
    .action(async (flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const { tokens } = (await client.json("/v1/cluster")) as ClusterView;
        if (flags.json === true) return io.out(json({ items: tokens }));
        const now = io.clock.now();
        const rows = tokens.map((one) => [
          one.token_id,
          tokenState(one, now),
          String(one.uses_left),
          one.expires_at,
        ]);
        io.out(table(["TOKEN_ID", "STATE", "USES_LEFT", "EXPIRES_AT"], rows));
      }),
    );
  group
    .command("revoke")
    .description("revoke a join token")
    .argument("<token-id>", "as `cluster tokens` lists it")
    .action(async (id: string, _flags: unknown, command: Command) =>
      context.withClient(command, async (client) => {
        const path = `/v1/cluster/join-tokens/${encodeURIComponent(id)}`;
        await client.json(path, { method: "DELETE" });
        io.out(`${id} admits nobody any more\n`);
      }),
    );
}

function tokenState(token: ClusterView["tokens"][number], now: number): string {
  if (token.revoked_at !== undefined) return "REVOKED";
  if (Date.parse(token.expires_at) <= now) return "EXPIRED";
  return token.uses_left < 1 ? "USED" : "GOOD";
}

function registerNodes(group: Command, context: CliContext): void {
  const { io } = context;
  group
    .command("leave")
    .description("let this node hand over and leave; it is alone and empty afterwards")
    .action(async (_flags: unknown, command: Command) =>
      context.withClient(command, async (client) => {
        await client.json("/v1/cluster/leave", { method: "POST" });
        io.out("this node has left; it starts anew, alone\n");
      }),
    );
  group
    .command("remove")
    .description("take another node out, whether it lives or not")
    .argument("<node>", "node id")
    .action(async (id: string, _flags: unknown, command: Command) =>
      context.withClient(command, async (client) => {
        await client.json(`/v1/nodes/${encodeURIComponent(id)}`, { method: "DELETE" });
        io.out(`${id} is no member any more\n`);
      }),
    );
  for (const drained of [true, false]) {
    group
      .command(drained ? "drain" : "undrain")
      .description(drained ? "give a node nothing new and nothing to lead" : "end a drain")
      .argument("[node]", "node id", "self")
      .action(async (given: string, _flags: unknown, command: Command) =>
        context.withClient(command, async (client) => {
          const { node_id: self } = (await client.json("/v1/nodes/self")) as { node_id: string };
          const id = given === "self" ? self : given;
          const path = `/v1/nodes/${encodeURIComponent(id)}/drain`;
          await client.json(path, { method: "POST", body: { drained } });
          io.out(drained ? `${id} is drained\n` : `${id} takes part again\n`);
        }),
      );
  }
}

function statusText(view: ClusterView): string {
  if (!view.clustered) {
    return `${view.node_id} is alone; make it a cluster with: templatecenter cluster token\n`;
  }
  const { quorum } = view;
  const lines = [
    `cluster ${view.cluster_id}, seen from ${view.node_id}`,
    `quorum: ${quorum.available ? "yes" : "NO"}, voters ${quorum.voters.join(", ")}` +
      `${quorum.changing ? " (changing)" : ""}${quorum.note === "" ? "" : `; ${quorum.note}`}`,
    "",
    table(
      ["NODE", "STATE", "VOTER", "READY", "IN_SYNC", "LAG", "LEADS", "VERSION"],
      view.members.map(memberRow),
    ).trimEnd(),
  ];
  for (const { node_id, detail, advice, since } of view.warnings) {
    lines.push("", `WARNING ${node_id}: ${detail} (since ${since})`, `  ${advice}`);
  }
  for (const one of view.divergence) lines.push("", ...divergenceLines(one, view.node_id));
  return `${lines.join("\n")}\n`;
}

const memberRow = (member: MemberView): string[] => [
  member.self ? `${member.node_id} *` : member.node_id,
  member.drained ? "DRAINED" : stateOf(member),
  member.voter ? "yes" : "no",
  `${member.ready}/${member.wanted} ${member.coverage_pct}%`,
  member.in_sync === null ? "" : member.in_sync ? "yes" : "NO",
  member.lag_ms === undefined ? "" : `${Math.round(member.lag_ms)} ms`,
  String(member.leads),
  member.version,
];

const stateOf = (member: MemberView): string =>
  member.liveness === "alive" && !member.warm ? "WARMING" : member.liveness.toUpperCase();

const divergenceLines = (
  { node_id, since, count, entries }: Divergence,
  self: string,
): string[] => [
  `${self} and ${node_id} have disagreed since ${since} on ${count} entries:`,
  ...entries.map(
    ({ owner, kind, id, here, there }) =>
      `  ${kind}/${id} of ${owner}: version ${here} here, ${there} there`,
  ),
];
