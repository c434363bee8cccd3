/**
 * A template made from a prepared request (spec §2.3, §2.4): a sandbox create request over a root
 * filesystem that is there already, as `tpl request` prints it.
 */
import type { z } from "zod";
import { ANNOTATIONS } from "./create-request.ts";
import { AppError, type FieldProblem } from "./errors.ts";
import { newTemplateId, parseTemplateId } from "./ids.ts";
import { networkProblems, parseCpuMillis, parseMemoryMib } from "./normalize.ts";
import type { Random } from "./ports.ts";
import { sandboxRequestSchema, type SandboxRequest } from "./schema.ts";
import { nameSchema } from "./tag.ts";
import { DEFAULT_TEMPLATE_VERSION } from "./template.ts";

export const createTemplateSchema = sandboxRequestSchema.extend({
  display_name: nameSchema.optional().describe("stands for the id"),
});
export type CreateTemplateRequest = z.infer<typeof createTemplateSchema>;

export interface PreparedRequest {
  readonly template_id: string;
  readonly artifact_id: string;
  readonly display_name: string;
  readonly scope: readonly string[];
  /** As it is stored. */
  readonly request: SandboxRequest;
}

/** Of one sandbox or one call, and of no template. */
const NOT_STORED = [
  "cube.master.appsnapshot.create",
  "cube.master.runtime.snapshot.id",
  "cube.master.runtime.snapshot.attached_at",
];

/**
 * @throws AppError invalid_request naming every wrong field
 */
export function prepareRequest(asked: CreateTemplateRequest, random: Random): PreparedRequest {
  const { display_name = "", request_id, preferred_node_id, distribution_scope, ...rest } = asked;
  const template_id = idOf(asked, random);
  const artifact_id = artifactOf(asked);
  const problems = [
    ...networkProblems(asked.cube_network_config),
    ...containerProblems(asked),
    ...(artifact_id === "" ? [NO_ARTIFACT] : []),
  ];
  if (problems.length > 0) {
    const text = problems.map(({ pointer, detail }) => `${pointer} ${detail}`).join("; ");
    throw new AppError("invalid_request", text, { meta: { errors: problems } });
  }
  const annotations = {
    ...asked.annotations,
    [ANNOTATIONS.templateId]: template_id,
    [ANNOTATIONS.artifactId]: artifact_id,
    [ANNOTATIONS.snapshotVersion]: DEFAULT_TEMPLATE_VERSION,
    [ANNOTATIONS.templateVersion]: DEFAULT_TEMPLATE_VERSION,
  };
  const kept = Object.entries(annotations).filter(([key]) => !NOT_STORED.includes(key));
  return {
    template_id,
    artifact_id,
    display_name,
    scope: distribution_scope ?? [],
    request: {
      ...rest,
      template_id,
      instance_type: asked.instance_type?.trim() || "cubebox",
      annotations: Object.fromEntries(kept),
    },
  };
}

const NO_ARTIFACT: FieldProblem = {
  pointer: "/containers/0/image/image",
  detail: "must be the id of a root filesystem that is there (rfs-…): see artifact list",
};

/** The annotation's or the field's; a new one when there is neither. */
function idOf({ annotations, template_id }: CreateTemplateRequest, random: Random): string {
  const key = ANNOTATIONS.templateId;
  const given = annotations?.[key];
  const isAnnotated = given !== undefined && given.trim() !== "";
  const pointer = isAnnotated ? `/annotations/${key}` : "/template_id";
  const id = isAnnotated ? given : (template_id ?? "");
  if (id.trim() === "") return newTemplateId(random);
  const parsed = parseTemplateId(id, pointer);
  if (parsed.startsWith("tpl-")) return parsed;
  const detail = "a snapshot is made of a running sandbox; a template's id starts with tpl-";
  throw new AppError("invalid_request", detail, { meta: { errors: [{ pointer, detail }] } });
}

function artifactOf({ annotations, containers }: CreateTemplateRequest): string {
  const image = containers?.find((one) => one !== null)?.image;
  const named = [
    image?.annotations?.[ANNOTATIONS.artifactId],
    image?.image,
    annotations?.[ANNOTATIONS.artifactId],
  ];
  return named.find((text) => text !== undefined && /^rfs-./.test(text)) ?? "";
}

const containerProblems = ({ containers = [] }: CreateTemplateRequest): FieldProblem[] =>
  containers.flatMap((container, index) => {
    const { cpu, mem } = container?.resources ?? {};
    const pointer = `/containers/${index}/resources`;
    return [
      ...(cpu === undefined || parseCpuMillis(cpu) !== undefined
        ? []
        : [{ pointer: `${pointer}/cpu`, detail: "must be like 2000m or 2" }]),
      ...(mem === undefined || parseMemoryMib(mem) !== undefined
        ? []
        : [{ pointer: `${pointer}/mem`, detail: "must be like 2000Mi or 2Gi" }]),
    ];
  });
