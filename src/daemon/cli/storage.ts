import type { Command } from "commander";
import type { StorageList } from "../../domain/index.ts";
import { withJson, type CliContext } from "./context.ts";
import { json, sizeText, table } from "./table.ts";

/** `storage`: how full the nodes' disks are. */
export function registerStorage(program: Command, context: CliContext): void {
  const { io } = context;
  withJson(program.command("storage"))
    .description("show how full the nodes' disks are, and what may still be written there")
    .option("--refresh", "ask every node now")
    .action(async (flags: { json?: boolean; refresh?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const path = flags.refresh === true ? "/v1/storage?refresh=true" : "/v1/storage";
        const list = (await client.json(path)) as StorageList;
        io.out(flags.json === true ? json(list) : storageText(list));
      }),
    );
}

function storageText({ items, error }: StorageList): string {
  const rows = table(
    ["NODE_ID", "MODE", "USED", "FREE", "TOTAL", "VOLUMES", "SNAPSHOTS", "UPDATED_AT", "ERROR"],
    items.map((one) => [
      one.node_id,
      one.mode,
      `${one.usage_pct}%`,
      sizeText(one.free_bytes),
      sizeText(one.total_bytes),
      String(one.volume_count ?? "-"),
      String(one.snapshot_count ?? "-"),
      new Date(one.last_updated_at * 1_000).toISOString(),
      one.last_error || "-",
    ]),
  );
  return error === undefined ? rows : `${rows}\nnot all could be asked: ${error}\n`;
}
