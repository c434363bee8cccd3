/** `tag`: names that move from template to template; `tpl rename | label | protect`. */
import { InvalidArgumentError, type Command } from "commander";
import type { TagRecord, TemplateInfo } from "../../domain/index.ts";
import { collect, withJson, type CliContext } from "./context.ts";
import { json, lines, table } from "./table.ts";
import { allPages, templatePath } from "./template-args.ts";

const tagPath = (name: string, rest = ""): string => `/v1/tags/${encodeURIComponent(name)}${rest}`;

interface MoveFlags {
  readonly json?: boolean;
  readonly from?: string;
  readonly new?: boolean;
}

const tagText = (tag: TagRecord): string => {
  const head = lines([
    ["name", tag.name],
    ["template_id", tag.template_id],
    ["updated_at", tag.updated_at],
  ]);
  const rows = tag.history
    .toReversed()
    .map((step) => [
      step.template_id,
      step.at,
      step.actor,
      step.rollback === true ? "rollback" : "promote",
    ]);
  return `${head}\n${table(["TEMPLATE_ID", "AT", "BY", "HOW"], rows)}`;
};

/** @see registerTemplateEdits for what is said of a template itself */
export function registerTag(program: Command, context: CliContext): void {
  const { io } = context;
  const group = program.command("tag").description("names that move from template to template");
  withJson(group.command("list").alias("ls"))
    .description("list tags")
    .action(async (flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => {
        const items = await allPages<TagRecord>(client, "/v1/tags");
        const rows = items.map((tag) => [tag.name, tag.template_id, tag.updated_at]);
        const head = ["NAME", "TEMPLATE_ID", "UPDATED_AT"];
        io.out(flags.json === true ? json({ items }) : table(head, rows));
      }),
    );
  const print = (tag: unknown, flags: { json?: boolean }) =>
    io.out(flags.json === true ? json(tag) : tagText(tag as TagRecord));
  withJson(group.command("info").alias("history").argument("<tag>", "its name"))
    .description("where a tag points, and has pointed")
    .action(async (name: string, flags: { json?: boolean }, command: Command) =>
      context.withClient(command, async (client) => print(await client.json(tagPath(name)), flags)),
    );
  withJson(
    group.command("promote").argument("<tag>", "its name").argument("<template>", "id or name"),
  )
    .description("make a tag, or move it to another template")
    .option("--from <template>", "only when it points there")
    .option("--new", "only when there is no such tag")
    .action(async (name: string, template_id: string, flags: MoveFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const expected = flags.new === true ? null : flags.from;
        const body = {
          template_id,
          ...(expected === undefined ? {} : { expected_template_id: expected }),
        };
        print(await client.json(tagPath(name), { method: "PUT", body }), flags);
      }),
    );
  withJson(group.command("rollback").argument("<tag>", "its name"))
    .description("point a tag where it pointed before")
    .option("--from <template>", "only when it points there")
    .action(async (name: string, flags: MoveFlags, command: Command) =>
      context.withClient(command, async (client) => {
        const body = flags.from === undefined ? {} : { expected_template_id: flags.from };
        print(await client.json(tagPath(name, "/rollback"), { method: "POST", body }), flags);
      }),
    );
  group
    .command("delete")
    .alias("rm")
    .description("take a tag away; its template stays")
    .argument("<tag>", "its name")
    .action(async (name: string, _flags: unknown, command: Command) =>
      context.withClient(command, async (client) => {
        await client.json(tagPath(name), { method: "DELETE" });
        io.out(`tag deleted: ${name}\n`);
      }),
    );
}

function label(text: string, all: string[] | undefined): string[] {
  if (!/^[^=]+(=|-$)/.test(text)) {
    throw new InvalidArgumentError("must be written as KEY=VALUE, or KEY- to take it away.");
  }
  return collect(text, all);
}

const labelOf = (text: string): [string, string | null] => {
  const at = text.indexOf("=");
  return at < 0 ? [text.slice(0, -1), null] : [text.slice(0, at), text.slice(at + 1)];
};

export function registerTemplateEdits(group: Command, context: CliContext): void {
  const { io } = context;
  const put = (command: Command, id: string, rest: string, body: unknown, asJson?: boolean) =>
    context.withClient(command, async (client) => {
      const call = { method: "PUT" as const, body };
      const one = (await client.json(templatePath(id, rest), call)) as TemplateInfo;
      const labels = Object.entries(one.labels).map(([key, value]) => `${key}=${value}`);
      const text = lines([
        ["template_id", one.template_id],
        ["name", one.display_name],
        ["labels", labels.join(", ")],
        ["protected", one.protected ? "yes" : ""],
      ]);
      io.out(asJson === true ? json(one) : text);
    });
  withJson(group.command("rename").argument("<template>", "id or name"))
    .description("give a template another name; without one, it has none")
    .argument("[name]", "the new name")
    .action((id: string, name: string | undefined, flags: { json?: boolean }, command: Command) =>
      put(command, id, "/alias", { alias: name ?? "" }, flags.json),
    );
  withJson(group.command("label").argument("<template>", "id or name"))
    .description("set labels of a template")
    .argument("<labels...>", "KEY=VALUE, or KEY- to take it away", label)
    .option("--replace", "take all others away")
    .action(
      (
        id: string,
        labels: string[],
        flags: { json?: boolean; replace?: boolean },
        command: Command,
      ) => {
        const body = {
          labels: Object.fromEntries(labels.map(labelOf)),
          ...(flags.replace === true ? { replace: true } : {}),
        };
        return put(command, id, "/labels", body, flags.json);
      },
    );
  registerProtect(group, context, "template");
}

/** `protect` and `unprotect` of templates or snapshots. */
export function registerProtect(
  group: Command,
  context: CliContext,
  what: "template" | "snapshot",
): void {
  for (const [name, isProtected, description] of [
    ["protect", true, `keep a ${what} from being deleted, also by force`],
    ["unprotect", false, `let a ${what} be deleted again`],
  ] as const) {
    withJson(group.command(name).argument(`<${what}>`, what === "template" ? "id or name" : "id"))
      .description(description)
      .action(async (id: string, flags: { json?: boolean }, command: Command) =>
        context.withClient(command, async (client) => {
          const body = { protected: isProtected };
          const path = `/v1/${what}s/${encodeURIComponent(id)}/protection`;
          const one = await client.json(path, { method: "PUT", body });
          const state = isProtected ? "protected" : "not protected any more";
          context.io.out(flags.json === true ? json(one) : `${what} ${id} is ${state}\n`);
        }),
      );
  }
}
