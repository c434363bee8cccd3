import type { Command } from "commander";
import type { RetentionReport } from "../../domain/index.ts";
import { withJson, type CliContext } from "./context.ts";
import { json, table } from "./table.ts";

interface Flags {
  json?: boolean;
  dryRun?: boolean;
  keepLast?: string;
  unusedTtl?: string;
}

/** `retention`: templates that go by themselves, now or as a dry run. */
export function registerRetention(program: Command, context: CliContext): void {
  withJson(program.command("retention"))
    .description("delete the templates that retention names; it does so by itself when configured")
    .option("--dry-run", "only say what would go, and what keeps the others")
    .option("--keep-last <n>", "instead of what is configured: newest ones that stay of each line")
    .option("--unused-ttl <duration>", "instead of what is configured: 720h since the last use")
    .action(async (flags: Flags, command: Command) =>
      context.withClient(command, async (client) => {
        const query = {
          dry_run: flags.dryRun,
          keep_last: flags.keepLast,
          unused_ttl: flags.unusedTtl,
        };
        const call = { method: "POST" as const, query };
        const report = (await client.json("/v1/retention", call)) as RetentionReport;
        context.io.out(flags.json === true ? json(report) : reportText(report));
      }),
    );
}

function reportText({ items, policy, in_touch, dry_run }: RetentionReport): string {
  const { keep_last, unused_ttl_ms } = policy;
  if (keep_last === 0 && unused_ttl_ms === 0) {
    return "no policy holds: see retention_keep_last and retention_unused_ttl, on every node\n";
  }
  if (items.length === 0) return "nothing to delete\n";
  const fate = (one: RetentionReport["items"][number]): string => {
    if (one.kept_by !== "") return `kept: ${one.kept_by}`;
    if (one.error !== undefined) return `failed: ${one.error}`;
    return one.deleted ? "deleted" : "would go";
  };
  const rows = items.map((one) => [
    one.template_id,
    one.line,
    one.status,
    one.created_at,
    one.last_used_at,
    one.reason,
    fate(one),
  ]);
  const head = ["TEMPLATE_ID", "LINE", "STATUS", "CREATED_AT", "LAST_USED_AT", "REASON", "STATE"];
  const note =
    in_touch || dry_run ? "" : "nothing goes now: this node does not agree with the others yet\n";
  return `${table(head, rows)}${note}`;
}
