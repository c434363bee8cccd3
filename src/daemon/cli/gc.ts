import type { Command } from "commander";
import type { ArtifactInfo, ArtifactWhy, GcReport, TemplateWhy } from "../../domain/index.ts";
import { withJson, type CliContext } from "./context.ts";
import { json, lines, sizeText, table } from "./table.ts";

/** `gc` and `why`: what goes, and why something is still here or not there. */
export function registerGc(program: Command, context: CliContext): void {
  const { io } = context;
  withJson(program.command("gc"))
    .description("collect artifacts that nobody refers to and whose grace is over")
    .option("--dry-run", "only say what would go, why, and how many bytes")
    .action(async (flags: { json?: boolean; dryRun?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const path = flags.dryRun === true ? "/v1/gc?dry_run=true" : "/v1/gc";
        const report = (await client.json(path, { method: "POST" })) as GcReport;
        io.out(flags.json === true ? json(report) : reportText(report));
      }),
    );
  const why = program.command("why").description("why something is still here, or not there");
  withJson(why.command("artifact"))
    .description("every reference to an artifact, on every node")
    .argument("<artifact>", "artifact id")
    .action(async (id: string, flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const path = `/v1/artifacts/${encodeURIComponent(id)}/why`;
        const answer = (await client.json(path)) as ArtifactWhy;
        io.out(flags.json === true ? json(answer) : artifactText(answer));
      }),
    );
  withJson(why.command("template"))
    .description("who uses a template or snapshot, and why it is not ready on a node")
    .argument("<template>", "id or name")
    .action(async (id: string, flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const path = `/v1/templates/${encodeURIComponent(id)}/why`;
        const answer = (await client.json(path)) as TemplateWhy;
        io.out(flags.json === true ? json(answer) : templateText(answer));
      }),
    );
}

/** `artifact undelete`. */
export function registerUndelete(group: Command, context: CliContext): void {
  withJson(group.command("undelete"))
    .description("keep an artifact that is about to go")
    .argument("<artifact>", "artifact id")
    .action(async (id: string, flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const path = `/v1/artifacts/${encodeURIComponent(id)}/undelete`;
        const one = (await client.json(path, { method: "POST" })) as ArtifactInfo;
        const until = new Date(one.gc_deadline * 1_000).toISOString();
        const said = `artifact ${one.artifact_id} is kept until ${until}\n`;
        context.io.out(flags.json === true ? json(one) : said);
      }),
    );
}

const isEmpty = ({ items, orphans, evictions, unanswered }: GcReport): boolean =>
  items.length + orphans.length + evictions.length + unanswered.length === 0;

function reportText(report: GcReport): string {
  if (isEmpty(report)) return "nothing to collect\n";
  const parts = [
    ...(report.items.length === 0 ? [] : [artifactsText(report)]),
    ...(report.orphans.length === 0 ? [] : [orphansText(report)]),
    ...(report.evictions.length === 0 ? [] : [evictionsText(report)]),
    ...report.unanswered.map(({ node_id, reason }) => `no answer from ${node_id}: ${reason}\n`),
  ];
  return parts.join("\n");
}

const orphansText = ({ orphans }: GcReport): string =>
  table(
    ["ORPHAN_FILES", "NODE_ID", "SIZE", "CHANGED_AT", "DUE_AT", "STATE"],
    orphans.map((one) => [
      `${one.folder}/${one.name}`,
      one.node_id,
      sizeText(one.bytes),
      one.changed_at,
      one.due_at,
      one.error ?? (one.removed ? "removed" : "kept"),
    ]),
  );

const evictionsText = ({ evictions }: GcReport): string =>
  table(
    ["SHORT_OF_ROOM", "ARTIFACT_ID", "KIND", "SIZE", "WHY"],
    evictions.map((one) => [one.node_id, one.artifact_id, one.kind, sizeText(one.bytes), one.why]),
  );

function artifactsText(report: GcReport): string {
  const items = table(
    ["ARTIFACT_ID", "STATUS", "STEP", "DUE_AT", "NODES", "WHY"],
    report.items.map((one) => [
      one.artifact_id,
      one.status,
      one.step,
      one.due_at,
      one.nodes.map(({ node_id }) => node_id).join(",") || "-",
      one.error === undefined ? one.why : `${one.why}; failed: ${one.error}`,
    ]),
  );
  const nodes = table(
    ["NODE_ID", "ARTIFACTS", "SIZE"],
    report.nodes.map((one) => [one.node_id, String(one.artifacts), sizeText(one.bytes)]),
  );
  const note = report.in_touch
    ? ""
    : "\nnothing is taken away now: this node does not agree with the others yet\n";
  return `${items}\n${nodes}${note}`;
}

const artifactText = (one: ArtifactWhy): string =>
  [
    lines([
      ["artifact_id", one.artifact_id],
      ["status", one.status],
      ["why", one.why],
      ["unreferenced_at", one.unreferenced_at ?? ""],
      ["kept_until", one.kept_until],
    ]),
    table(
      ["KIND", "ID", "STATUS", "WHY"],
      one.references.map(({ kind, id, status, why }) => [kind, id, status, why]),
    ),
    table(
      ["NODE_ID", "HOLDS", "SIZE", "REMOVING", "REPLICAS", "RUNTIME_REFS", "SANDBOXES"],
      one.nodes.map((node) => [
        node.is_member ? node.node_id : `${node.node_id} (removed)`,
        node.holding,
        sizeText(node.size_bytes),
        node.is_removing ? "yes" : "no",
        node.replicas.join(",") || "-",
        String(node.runtime_ref_count),
        node.sandboxes.join(",") || "-",
      ]),
    ),
  ].join("\n");

const templateText = (one: TemplateWhy): string =>
  [
    lines([
      ["template_id", one.template_id],
      ["kind", one.kind],
      ["status", one.status],
      ["last_error", one.last_error],
      ["artifact", `${one.artifact_id} ${one.artifact_status}`.trim()],
      ["unanswered", one.unanswered.map(({ node_id }) => node_id).join(", ")],
    ]),
    table(
      ["USED_BY", "ID", "NODE_ID"],
      one.references.map(({ kind, id, node_id }) => [kind, id, node_id || "-"]),
    ),
    table(
      ["NODE_ID", "READY", "PHASE", "DRIVER", "COMPAT", "STORAGE", "WHY_NOT"],
      one.nodes.map((node) => [
        node.node_id,
        node.ready ? "yes" : "no",
        node.phase || "-",
        node.driver,
        node.compat_status,
        node.storage_mode,
        node.why || "-",
      ]),
    ),
  ].join("\n");
