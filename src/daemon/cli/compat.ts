import type { Command } from "commander";
import type {
  AdoptedCompat,
  CompatPreview,
  CompatScan,
  ResnapshotView,
  TemplateCompatMatrix,
  TemplateCompatRow,
} from "../../domain/index.ts";
import type { Client } from "./client.ts";
import { collect, withJson, type CliContext } from "./context.ts";
import { json, lines, table } from "./table.ts";

const EXAMPLES = `
Examples:
  templatecenter compat matrix --status STALE
  templatecenter compat preview --guest-image 1.1.0 --kernel 6.12.9
  templatecenter compat rescan --all
`;

/** `compat`: matrix, preview, rescan, adopt, resnapshot. */
export function registerCompat(program: Command, context: CliContext): void {
  const group = program
    .command("compat")
    .description("do replicas fit what their nodes would boot now")
    .addHelpText("beforeAll", EXAMPLES);
  registerMatrix(group, context);
  registerPreview(group, context);
  registerRescan(group, context);
  registerAdopt(group, context);
  registerResnapshot(group, context);
}

/** All pages as one matrix. */
async function wholeMatrix(
  client: Client,
  filter: { readonly status: string | undefined; readonly template_id: string | undefined },
): Promise<TemplateCompatMatrix> {
  const templates: TemplateCompatRow[] = [];
  let next_token: string | undefined;
  for (;;) {
    const query = { ...filter, next_token };
    const page = (await client.json("/v1/compat", { query })) as TemplateCompatMatrix;
    templates.push(...page.templates);
    next_token = page.next_token;
    if (next_token === undefined) return { summary: page.summary, templates };
  }
}

function registerMatrix(group: Command, context: CliContext): void {
  interface Flags {
    json?: boolean;
    status?: string;
    summary?: boolean;
    template?: string;
  }
  withJson(group.command("matrix"))
    .description("templates by nodes: OK, STALE, UNKNOWN or MISSING")
    .option("--status <status>", "only templates that are so overall")
    .option("--template <id>", "only that one")
    .option("--summary", "only the sums")
    .action(async (flags: Flags, command: Command) =>
      context.withClient(command, async (client) => {
        const matrix = await wholeMatrix(client, {
          status: flags.status?.toUpperCase(),
          template_id: flags.template,
        });
        const { summary } = matrix;
        if (flags.json === true) {
          return context.io.out(json(flags.summary === true ? { summary } : matrix));
        }
        const sums = lines(Object.entries(summary));
        context.io.out(flags.summary === true ? sums : `${matrixText(matrix)}${sums}`);
      }),
    );
}

function matrixText({ templates }: TemplateCompatMatrix): string {
  if (templates.length === 0) return "";
  const ids = [...new Set(templates.flatMap((row) => row.nodes.map((node) => node.node_id)))];
  const nodes = ids.sort();
  const rows = templates.map((row) => {
    const cells = new Map(row.nodes.map((node) => [node.node_id, node.compat_status]));
    const statuses = nodes.map((id) => cells.get(id) ?? "");
    return [row.template_id, row.display_name, row.overall, ...statuses];
  });
  const why = templates.flatMap((row) =>
    row.nodes.flatMap((node) =>
      node.deltas
        .filter((delta) => delta.is_stale)
        .map(({ component, bound, current }) => [
          row.template_id,
          node.node_id,
          component,
          bound,
          current,
        ]),
    ),
  );
  const stale = why.length === 0 ? "" : table(["STALE", "NODE_ID", "OF", "BOUND", "NOW"], why);
  return `${table(["TEMPLATE_ID", "NAME", "OVERALL", ...nodes], rows)}\n${stale && `${stale}\n`}`;
}

interface PreviewFlags {
  json?: boolean;
  guestImage?: string;
  agent?: string;
  kernel?: string;
  set: string[];
}

function registerPreview(group: Command, context: CliContext): void {
  withJson(group.command("preview"))
    .description("what an upgrade of every node would break")
    .option("--guest-image <version>", "guest image version after it")
    .option("--agent <version>", "agent version after it")
    .option("--kernel <version>", "kernel version after it")
    .option(
      "--set <name=version>",
      "of what the driver reports besides, as qemu_version",
      collect,
      [],
    )
    .action(async (flags: PreviewFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const { guestImage: guest_image, agent, kernel, set } = flags;
        const extra = set.length === 0 ? undefined : set.join(",");
        const query = { guest_image, agent, kernel, extra };
        const preview = (await client.json("/v1/compat/preview", { query })) as CompatPreview;
        context.io.out(flags.json === true ? json(preview) : previewText(preview));
      }),
    );
}

function previewText({ summary, templates, notes }: CompatPreview): string {
  const rows = templates.map((one) => [
    one.template_id,
    one.display_name,
    one.is_unusable ? "no" : "yes",
    one.nodes.join(","),
  ]);
  const broken =
    rows.length === 0
      ? "nothing would become stale\n"
      : table(["TEMPLATE_ID", "NAME", "STARTS_ELSEWHERE", "STALE_ON"], rows);
  return `${broken}\n${lines(Object.entries(summary))}${lines(notes.map((text) => ["note", text]))}`;
}

function registerRescan(group: Command, context: CliContext): void {
  withJson(group.command("rescan"))
    .description("judge the replicas of nodes again")
    .argument("[node...]", "node ids")
    .option("--all", "every healthy node")
    .action(async (ids: string[], flags: { json?: boolean; all?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const body = { node_ids: ids, all_nodes: flags.all === true };
        const call = { method: "POST" as const, body };
        const scan = (await client.json("/v1/compat/rescan", call)) as CompatScan;
        const rows = scan.nodes.map((node) => [
          node.node_id,
          node.healthy ? "yes" : "no",
          ...[node.scanned, node.changed, node.stale, node.unknown].map(String),
        ]);
        const head = ["NODE_ID", "HEALTHY", "SCANNED", "CHANGED", "STALE", "UNKNOWN"];
        context.io.out(flags.json === true ? json(scan) : table(head, rows));
      }),
    );
}

function registerAdopt(group: Command, context: CliContext): void {
  withJson(group.command("adopt"))
    .description("take a template's replicas of unknown versions as made with those of now")
    .argument("<template>", "id or name")
    .action(async (id: string, flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const path = `/v1/templates/${encodeURIComponent(id)}/compat/adopt`;
        const adopted = (await client.json(path, { method: "POST" })) as AdoptedCompat;
        const { template_id, updated, nodes } = adopted;
        const where = nodes.length === 0 ? "" : ` on ${nodes.join(", ")}`;
        const said = `${template_id}: ${updated} replicas have a baseline now${where}\n`;
        context.io.out(flags.json === true ? json(adopted) : said);
      }),
    );
}

function registerResnapshot(group: Command, context: CliContext): void {
  withJson(group.command("resnapshot"))
    .description("stale replicas that are made again by themselves: where it is")
    .option("--resume", "go on after a failure")
    .action(async (flags: { json?: boolean; resume?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const view = (await (flags.resume === true
          ? client.json("/v1/compat/resnapshot/resume", { method: "POST" })
          : client.json("/v1/compat/resnapshot"))) as ResnapshotView;
        context.io.out(flags.json === true ? json(view) : resnapshotText(view));
      }),
    );
}

function resnapshotText({ current, failure, next, ...view }: ResnapshotView): string {
  const turn = current ?? failure ?? next;
  return lines([
    ["state", view.state],
    ["template_id", turn?.template_id],
    ["node_id", turn?.node_id],
    ["job_id", current?.job_id ?? failure?.job_id],
    ["not_before", next?.not_before],
    ["error", failure?.error],
    ["pending", view.pending],
    ["done", view.done],
    ["failed", view.failed],
  ]);
}
