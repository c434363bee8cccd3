import type { Command } from "commander";
import {
  ALL_NODES,
  AppError,
  type LineageEntry,
  type Page,
  type SnapshotInfo,
  type SnapshotOperation,
} from "../../domain/index.ts";
import { registerExport } from "./bundle.ts";
import { collect, withJson, type CliContext } from "./context.ts";
import { registerProtect } from "./tag.ts";
import { json, lines, table } from "./table.ts";

const EXAMPLES = `
Examples:
  templatecenter snapshot create sb-0123456789abcdef01234567 --name before-upgrade
  templatecenter snapshot list --sandbox sb-0123456789abcdef01234567
  templatecenter snapshot rollback sb-0123456789abcdef01234567 snap-0123456789abcdef01234567
  templatecenter snapshot deliver snap-0123456789abcdef01234567 --node cp2 --node cp3
`;

const path = (...parts: string[]): string => `/v1/${parts.map(encodeURIComponent).join("/")}`;

/** `snapshot`: create, list, info, tree, rollback, deliver, export, delete. */
export function registerSnapshot(program: Command, context: CliContext): void {
  const group = program
    .command("snapshot")
    .alias("snap")
    .description("freeze running sandboxes and go back to what was frozen")
    .addHelpText("beforeAll", EXAMPLES);
  registerCreate(group, context);
  registerList(group, context);
  withJson(group.command("info"))
    .description("one snapshot, with its replicas and who runs on it")
    .argument("<snapshot>", "snapshot id")
    .option("--include-request", "with the request that a sandbox is started with")
    .action(
      async (id: string, flags: { json?: boolean; includeRequest?: true }, command: Command) =>
        context.withClient(command, async (client) => {
          const query = flags.includeRequest === true ? "?include_request=true" : "";
          const found = (await client.json(`${path("snapshots", id)}${query}`)) as SnapshotInfo;
          context.io.out(flags.json === true ? json(found) : snapshotText(found));
        }),
    );
  registerRollback(group, context);
  registerDeliver(group, context);
  registerProtect(group, context, "snapshot");
  registerExport(group, context, { name: "snapshot", resource: "snapshots" });
  withJson(group.command("tree"))
    .description("what came from what: templates, their snapshots and those of their sandboxes")
    .argument("[id]", "only the tree that this template or snapshot is in")
    .action(async (id: string | undefined, flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const query = id === undefined ? "" : `?id=${encodeURIComponent(id)}`;
        const page = (await client.json(`/v1/lineage${query}`)) as Page<LineageEntry>;
        context.io.out(flags.json === true ? json(page) : treeText(page.items));
      }),
    );
  group
    .command("delete")
    .alias("rm")
    .description("delete snapshots that no sandbox runs on")
    .argument("<snapshots...>", "snapshot ids")
    .action(async (ids: string[], _flags: unknown, command: Command) =>
      context.withClient(command, async (client) => {
        for (const id of ids) {
          await client.json(path("snapshots", id), { method: "DELETE" });
          context.io.out(`snapshot deleted: ${id}\n`);
        }
      }),
    );
}

interface RequestFlags {
  requestId?: string;
  name?: string;
  json?: boolean;
}

function registerCreate(group: Command, context: CliContext): void {
  withJson(group.command("create"))
    .description("freeze a running sandbox; it goes on")
    .argument("<sandbox>", "sandbox id")
    .option("--name <name>", "display name")
    .option("--request-id <id>", "the same id again is answered with the same snapshot")
    .action(async (sandbox: string, flags: RequestFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const body = { display_name: flags.name, request_id: flags.requestId };
        const done = (await client.json(path("sandboxes", sandbox, "snapshots"), {
          method: "POST",
          body,
        })) as SnapshotOperation;
        context.io.out(flags.json === true ? json(done) : operationText(done));
      }),
    );
}

interface ListFlags {
  id?: string;
  sandbox?: string;
  name?: string;
  status?: string;
  limit?: string;
  nextToken?: string;
  json?: boolean;
}

function registerList(group: Command, context: CliContext): void {
  withJson(group.command("list").alias("ls"))
    .description("list snapshots of the whole cluster")
    .option("--id <snapshot>", "only this one")
    .option("--sandbox <sandbox>", "only those taken of that sandbox")
    .option("--name <name>", "only those of that display name")
    .option("--status <status>", "only those in that status; DELETING ones only so")
    .option("--limit <n>", "how many at most (default 20, greatest 100)")
    .option("--next-token <token>", "the next page, as the one before said")
    .action(async (flags: ListFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const query = new URLSearchParams();
        const wanted = {
          snapshot_id: flags.id,
          sandbox_id: flags.sandbox,
          name: flags.name,
          status: flags.status,
          limit: flags.limit,
          next_token: flags.nextToken,
        };
        for (const [key, value] of Object.entries(wanted)) {
          if (value !== undefined) query.set(key, value);
        }
        const page = (await client.json(`/v1/snapshots?${query.toString()}`)) as Page<SnapshotInfo>;
        context.io.out(flags.json === true ? json(page) : snapshotTable(page));
      }),
    );
}

function registerRollback(group: Command, context: CliContext): void {
  withJson(group.command("rollback"))
    .description("put a running sandbox back to one of its snapshots")
    .argument("<sandbox>", "sandbox id")
    .argument("<snapshot>", "snapshot id")
    .option("--request-id <id>", "the same id again is answered with the same rollback")
    .action(async (sandbox: string, snapshot: string, flags: RequestFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const done = (await client.json(path("sandboxes", sandbox, "rollback"), {
          method: "POST",
          body: { snapshot_id: snapshot, request_id: flags.requestId },
        })) as SnapshotOperation;
        context.io.out(flags.json === true ? json(done) : operationText(done));
      }),
    );
}

function registerDeliver(group: Command, context: CliContext): void {
  withJson(group.command("deliver"))
    .description("bring a snapshot to other nodes, so that sandboxes can start from it there")
    .argument("<snapshot>", "snapshot id")
    .option("--node <node>", "to this node, by id or address (repeat)", collect)
    .option("--all", "every node that it fits")
    .option("--request-id <id>", "the same id again is answered with the same delivery")
    .action(
      async (
        id: string,
        flags: RequestFlags & { node?: string[]; all?: true },
        command: Command,
      ) => {
        const { node: named = [], all } = flags;
        if ((all === true) === named.length > 0) {
          throw new AppError("invalid_request", "give --node, as often as needed, or --all");
        }
        const body = { nodes: all === true ? ALL_NODES : named, request_id: flags.requestId };
        return context.withClient(command, async (client) => {
          const options = { method: "POST", body } as const;
          const done = (await client.json(
            path("snapshots", id, "nodes"),
            options,
          )) as SnapshotOperation;
          context.io.out(flags.json === true ? json(done) : operationText(done));
        });
      },
    );
}

const operationText = (one: SnapshotOperation): string =>
  lines([
    ["snapshot_id", one.snapshot_id],
    ["sandbox_id", one.sandbox_id],
    ["operation", one.operation],
    ["status", one.status],
    ["operation_id", one.operation_id],
    ["nodes", one.nodes?.join(", ") ?? ""],
    ...(one.skipped ?? []).map(({ reason }) => ["skipped", reason] as const),
  ]);

const snapshotText = (one: SnapshotInfo): string =>
  lines([
    ["snapshot_id", one.snapshot_id],
    ["display_name", one.display_name],
    ["protected", one.protected ? "yes" : ""],
    ["status", one.status],
    ["last_error", one.last_error],
    ["origin_sandbox_id", one.origin_sandbox_id],
    ["origin_node_id", one.origin_node_id],
    ["parent_id", one.parent_id],
    ["size_bytes", one.rootfs_size_bytes_at_snapshot],
    ["runtime_refs", `${one.runtime_ref_count} ${one.runtime_ref_sandboxes.join(", ")}`.trim()],
    ["replicas", one.replicas.map((held) => `${held.node_id}=${held.status}`).join(", ")],
    ["created_at", one.created_at],
    ["updated_at", one.updated_at],
    ...(one.create_request === undefined
      ? []
      : [["create_request", JSON.stringify(one.create_request)] as const]),
  ]);

const snapshotTable = (page: Page<SnapshotInfo>): string =>
  table(
    ["SNAPSHOT_ID", "NAME", "STATUS", "SANDBOX_ID", "NODE_ID", "REFS", "CREATED_AT"],
    page.items.map((one) => [
      one.snapshot_id,
      one.display_name,
      one.status,
      one.origin_sandbox_id,
      one.origin_node_id,
      String(one.runtime_ref_count),
      one.created_at,
    ]),
  ) + (page.next_token === undefined ? "" : `more: --next-token ${page.next_token}\n`);

const treeText = (entries: readonly LineageEntry[]): string =>
  table(
    ["ID", "NAME", "STATUS", "SANDBOX_ID", "CREATED_AT"],
    entries.map((one) => [
      `${"  ".repeat(one.depth)}${one.id}`,
      one.display_name,
      one.kind === "gone" ? "deleted" : one.status,
      one.origin_sandbox_id,
      one.created_at,
    ]),
  );
