import type { Command } from "commander";
import type { RenderedRequest, SandboxRequest } from "../../domain/index.ts";
import type { CliContext } from "./context.ts";
import { json, lines } from "./table.ts";
import { idOf, readRequest, templatePath, withId } from "./template-args.ts";

interface Flags {
  json?: boolean;
  file?: string;
  templateId?: string;
}

/** `tpl render`: what a sandbox would be started with. */
export function registerRender(group: Command, context: CliContext): void {
  withId(group.command("render"))
    .description("show what a sandbox would be started with; nothing is started")
    .option("-f, --file <file>", "sandbox create request as JSON; - reads standard input")
    .action(async (id: string | undefined, flags: Flags, command: Command) =>
      context.withClient(command, async (client) => {
        const { io } = context;
        const body = flags.file === undefined ? {} : await readRequest(io, flags.file);
        const path = templatePath(idOf(id, flags), "/render");
        const one = (await client.json(path, { method: "POST", body })) as RenderedRequest;
        io.out(flags.json === true ? json(one) : renderedText(one));
      }),
    );
}

function renderedText({ api_request, merged_request, host_request }: RenderedRequest): string {
  const host = [
    `cpu=${host_request.cpu_millis}m`,
    `mem=${host_request.memory_mib}Mi`,
    `ports=${host_request.exposed_ports.join(",") || "-"}`,
    `network=${host_request.isolated ? "isolated" : "open"}`,
    `command=${JSON.stringify([...host_request.command, ...host_request.args])}`,
  ];
  return lines([
    ["request_id", merged_request.request_id],
    ["api_request", summary(api_request)],
    ["merged_request", summary(merged_request)],
    ["host_request", host.join(" ")],
  ]);
}

const summary = (request: SandboxRequest): string =>
  [
    `template_id=${request.template_id ?? "-"}`,
    `containers=${request.containers?.length ?? 0}`,
    `volumes=${request.volumes?.length ?? 0}`,
    `annotations=${Object.keys(request.annotations ?? {}).length}`,
    `labels=${Object.keys(request.labels ?? {}).length}`,
  ].join(" ");
