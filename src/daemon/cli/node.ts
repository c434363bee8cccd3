import type { Command } from "commander";
import type { NodeFact, Page } from "../../domain/index.ts";
import { withJson, type CliContext } from "./context.ts";
import { json, lines, sizeText, table } from "./table.ts";

/** `node`: list, info. */
export function registerNode(program: Command, context: CliContext): void {
  const { io } = context;
  const group = program.command("node").description("look at the nodes");
  withJson(group.command("list").alias("ls"))
    .description("list the nodes that are known")
    .action(async (flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const page = (await client.json("/v1/nodes")) as Page<NodeFact>;
        io.out(flags.json === true ? json(page) : nodeTable(page.items));
      }),
    );
  withJson(group.command("info"))
    .description("show one node")
    .argument("[node]", "node id", "self")
    .action(async (id: string, flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const node = (await client.json(`/v1/nodes/${encodeURIComponent(id)}`)) as NodeFact;
        io.out(flags.json === true ? json(node) : nodeText(node));
      }),
    );
}

const stateOf = (node: NodeFact): string =>
  node.drained ? "DRAINED" : node.healthy ? "HEALTHY" : "UNHEALTHY";

const nodeTable = (items: readonly NodeFact[]): string =>
  table(
    ["NODE_ID", "NODE_IP", "STATE", "DRIVER", "STORAGE", "VERSION"],
    items.map((one) => [
      one.node_id,
      one.node_ip,
      stateOf(one),
      one.driver,
      `${one.storage.mode} ${Math.round(one.storage.usage_pct)}%`,
      one.version,
    ]),
  );

const nodeText = (node: NodeFact): string =>
  lines([
    ["node_id", node.node_id],
    ["node_ip", node.node_ip],
    ["address", node.address],
    ["state", stateOf(node)],
    ["version", node.version],
    ["started_at", node.started_at],
    ["instance_type", node.instance_type],
    ["driver", node.driver],
    ["driver_detail", node.driver_detail],
    ["guest_image_version", node.guest_image_version],
    ["agent_version", node.agent_version],
    ["kernel_version", node.kernel_version],
    ["cpu_count", node.cpu_count],
    ["memory", sizeText(node.memory_bytes)],
    ["storage", `${node.storage.mode}, ${sizeText(node.storage.free_bytes)} free`],
  ]);
