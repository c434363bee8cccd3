/** What a sandbox of a template would be started with, while nothing is started (spec §10.1). */
import { z } from "zod";
import { guestSpecOf } from "./create-request.ts";
import { mergeRequest } from "./resolve.ts";
import { sandboxRequestSchema, type SandboxRequest, type TemplateRecord } from "./schema.ts";

export const renderedSchema = z.object({
  template_id: z.string(),
  kind: z.enum(["template", "snapshot"]),
  /** As it was asked for. */
  api_request: sandboxRequestSchema,
  /** With what the template adds. */
  merged_request: sandboxRequestSchema,
  /** What the node's driver makes of it. */
  host_request: z.looseObject({
    command: z.array(z.string()),
    args: z.array(z.string()),
    env: z.array(z.string()),
    working_dir: z.string(),
    cpu_millis: z.number(),
    memory_mib: z.number(),
    exposed_ports: z.array(z.number()),
    isolated: z.boolean(),
    probe_port: z.number().optional(),
  }),
});
export type RenderedRequest = z.infer<typeof renderedSchema>;

/** @param isolate guests reach no network here, whatever the request says */
export function renderRequest(
  request: SandboxRequest,
  template: TemplateRecord,
  isolate: boolean,
): RenderedRequest {
  const { template_id, kind } = template;
  const merged = { ...mergeRequest(request, template.request), template_id };
  const guest = guestSpecOf(merged, isolate);
  return {
    template_id,
    kind,
    api_request: request,
    merged_request: merged,
    host_request: {
      command: [...guest.command],
      args: [...guest.args],
      env: [...guest.env],
      working_dir: guest.workingDir,
      cpu_millis: guest.cpuMillis,
      memory_mib: guest.memoryMib,
      exposed_ports: [...guest.exposedPorts],
      isolated: guest.isolated === true,
      ...(guest.probe === undefined ? {} : { probe_port: guest.probe.port }),
    },
  };
}
