/** The new-template form: its text fields to a create request, and problems back to its fields. */
import { createFromImageSchema } from "../domain/index.ts";
import type { CreateFromImageRequest, FieldProblem } from "../domain/index.ts";

export const FIELDS = [
  "source_image_ref",
  "writable_layer_size",
  "display_name",
  "registry_username",
  "registry_password",
  "exposed_ports",
  "probe_port",
  "probe_path",
  "command",
  "envs",
  "cpu",
  "mem",
  "labels",
] as const;
export type Field = (typeof FIELDS)[number];
export type FormValues = Readonly<Partial<Record<Field, string>>>;
export type FormProblems = Readonly<Partial<Record<Field | "form", string>>>;

const list = (text: string | undefined, separator: RegExp): string[] =>
  (text ?? "")
    .split(separator)
    .map((part) => part.trim())
    .filter((part) => part !== "");

const optional = (text: string | undefined): string | undefined =>
  (text ?? "").trim() === "" ? undefined : (text ?? "").trim();

const pairs = (text: string | undefined): [string, string][] =>
  list(text, /\r?\n/).map((entry) => {
    const at = entry.indexOf("=");
    return at < 1 ? ["", entry] : [entry.slice(0, at), entry.slice(at + 1)];
  });

function overrides(values: FormValues): Record<string, unknown> | undefined {
  const command = list(values.command, /\r?\n/);
  const envs = pairs(values.envs).map(([key, value]) => ({ key, value }));
  const port = optional(values.probe_port);
  const cpu = optional(values.cpu);
  const mem = optional(values.mem);
  const all = {
    ...(command.length === 0 ? {} : { command }),
    ...(envs.length === 0 ? {} : { envs }),
    ...(cpu === undefined && mem === undefined
      ? {}
      : { resources: { ...(cpu ? { cpu } : {}), ...(mem ? { mem } : {}) } }),
    ...(port === undefined
      ? {}
      : { probe: { port: Number(port), path: optional(values.probe_path) ?? "/health" } }),
  };
  return Object.keys(all).length === 0 ? undefined : all;
}

/** The request as the API would get it; empty fields are left out. Not checked yet. */
function draft(values: FormValues): Record<string, unknown> {
  const ports = list(values.exposed_ports, /[\s,]+/).map(Number);
  const labels = pairs(values.labels);
  const all = {
    source_image_ref: values.source_image_ref ?? "",
    writable_layer_size: values.writable_layer_size ?? "",
    display_name: optional(values.display_name),
    registry_username: optional(values.registry_username),
    registry_password: values.registry_password === "" ? undefined : values.registry_password,
    exposed_ports: ports.length === 0 ? undefined : ports,
    labels: labels.length === 0 ? undefined : Object.fromEntries(labels),
    container_overrides: overrides(values),
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

const POINTERS: readonly [RegExp, Field][] = [
  [/^\/container_overrides\/probe\/path/, "probe_path"],
  [/^\/container_overrides\/probe/, "probe_port"],
  [/^\/container_overrides\/command/, "command"],
  [/^\/container_overrides\/envs/, "envs"],
  [/^\/container_overrides\/resources\/cpu/, "cpu"],
  [/^\/container_overrides\/resources/, "mem"],
];

/** The field of the form that a JSON pointer into the request means. */
export function fieldOf(pointer: string): Field | "form" {
  const special = POINTERS.find(([pattern]) => pattern.test(pointer));
  const first = pointer.split("/")[1] ?? "";
  return special?.[1] ?? FIELDS.find((field) => field === first) ?? "form";
}

/** Problems of the API under the fields they belong to; the first of each field wins. */
export function problemsByField(problems: readonly FieldProblem[]): FormProblems {
  const byField: Partial<Record<Field | "form", string>> = {};
  for (const { pointer, detail } of problems) byField[fieldOf(pointer)] ??= detail;
  return byField;
}

/** Checks the form as the API checks its body. */
export function parseForm(
  values: FormValues,
): { request: CreateFromImageRequest } | { problems: FormProblems } {
  const parsed = createFromImageSchema.safeParse(draft(values));
  if (parsed.success) return { request: parsed.data };
  return {
    problems: problemsByField(
      parsed.error.issues.map((issue) => ({
        pointer: `/${issue.path.join("/")}`,
        detail: issue.message,
      })),
    ),
  };
}
