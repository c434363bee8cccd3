/** The same thing as a command: shown beside each action, filled in, ready to copy. */
import type { JobInfo, TemplateInfo } from "../domain/index.ts";
import { shellWord } from "./format.ts";
import type { RetentionForm } from "./retention-models.ts";
import type { RedoForm } from "./redo-models.ts";

const line = (...words: readonly string[]): string =>
  ["templatecenter", ...words.map(shellWord)].join(" ");

export const commandLines = {
  create: (image = "", size = "1Gi"): string =>
    image === ""
      ? `templatecenter tpl create-from-image --image IMAGE --writable-layer-size ${shellWord(size)}`
      : line("tpl", "create-from-image", "--image", image, "--writable-layer-size", size),
  templates: (): string => line("tpl", "list"),
  template: (id: string): string => line("tpl", "info", id),
  deleteTemplate: (id: string): string => line("tpl", "delete", id),
  redo: (id: string, form: RedoForm): string =>
    line(
      "tpl",
      "redo",
      id,
      ...form.nodes.flatMap((node) => ["--node", node]),
      ...(form.mode.startsWith("FAILED") ? ["--failed-only"] : []),
      ...(form.memoryOnly ? ["--memory-only"] : []),
    ),
  tags: (): string => line("tag", "list"),
  tag: (name: string): string => line("tag", "info", name),
  /** @param from where it points; null: there is no such tag; left out: wherever it points */
  promote: (name: string, id: string, from?: string | null): string =>
    line(
      "tag",
      "promote",
      name,
      id,
      ...(from === undefined ? [] : from === null ? ["--new"] : ["--from", from]),
    ),
  rollbackTag: (name: string, from: string): string =>
    line("tag", "rollback", name, "--from", from),
  deleteTag: (name: string): string => line("tag", "delete", name),
  rename: (id: string, name: string): string =>
    line("tpl", "rename", id, ...(name === "" ? [] : [name])),
  label: (id: string, labels: Readonly<Record<string, string>>): string => {
    const pairs = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
    return line("tpl", "label", id, ...(pairs.length === 0 ? ["KEY=VALUE"] : pairs));
  },
  protect: (of: Pick<TemplateInfo, "template_id" | "kind">, isProtected: boolean): string =>
    line(
      of.kind === "snapshot" ? "snapshot" : "tpl",
      isProtected ? "protect" : "unprotect",
      of.template_id,
    ),
  jobs: (): string => line("job", "list"),
  watch: (job: Pick<JobInfo, "template_id">): string => line("tpl", "watch", job.template_id),
  cancelJob: (id: string): string => line("job", "cancel", id),
  runSandbox: (templateId: string): string => line("sandbox", "run", templateId),
  deleteSandbox: (id: string): string => line("sandbox", "delete", id),
  sandboxes: (): string => line("sandbox", "list"),
  cluster: (): string => line("cluster", "status"),
  makeToken: (ttlSeconds: number, uses: number): string =>
    line("cluster", "token", "--ttl", String(ttlSeconds), "--uses", String(uses)),
  revokeToken: (id: string): string => line("cluster", "revoke", id),
  join: (token: string): string => line("cluster", "join", token),
  daemonJoin: (token: string): string => line("daemon", "--join", token),
  remove: (node: string): string => line("cluster", "remove", node),
  drain: (node: string, drained: boolean): string =>
    line("cluster", drained ? "drain" : "undrain", node),
  storage: (): string => line("storage"),
  snapshots: (): string => line("snapshot", "list"),
  snapshot: (id: string): string => line("snapshot", "info", id),
  createSnapshot: (sandbox: string, name: string): string =>
    line("snapshot", "create", sandbox, ...(name === "" ? [] : ["--name", name])),
  rollback: (sandbox: string, id: string): string => line("snapshot", "rollback", sandbox, id),
  deliverSnapshot: (id: string): string => line("snapshot", "deliver", id, "--all"),
  exportBundle: ({ kind, id }: { readonly kind: string; readonly id: string }): string =>
    line(kind === "snapshot" ? "snapshot" : "tpl", "export", id, "-o", `${id}.bundle`),
  importBundle: (file: string): string => line("import", file),
  deleteSnapshot: (id: string): string => line("snapshot", "delete", id),
  collectPreview: (): string => line("gc", "--dry-run"),
  whyArtifact: (id: string): string => line("why", "artifact", id),
  whyTemplate: (id: string): string => line("why", "template", id),
  collect: (): string => line("gc"),
  retentionPreview: (): string => line("retention", "--dry-run"),
  retention: ({ keepLast, unusedDays }: RetentionForm): string =>
    line(
      "retention",
      ...(keepLast === "" ? [] : ["--keep-last", keepLast]),
      ...(unusedDays === "" ? [] : ["--unused-ttl", `${Number(unusedDays) * 24}h`]),
    ),
  nodes: (): string => line("node", "list"),
  compat: (): string => line("compat", "matrix"),
  compatOf: (id: string): string => line("compat", "matrix", "--template", id),
  rescan: (): string => line("compat", "rescan", "--all"),
  adopt: (id: string): string => line("compat", "adopt", id),
  resume: (): string => line("compat", "resnapshot", "--resume"),
  resnapshot: (id: string, nodes: readonly string[]): string =>
    line("tpl", "redo", id, ...nodes.flatMap((node) => ["--node", node]), "--memory-only"),
  upgrade: (form: {
    guest_image: string;
    agent: string;
    kernel: string;
    extra: string;
  }): string => {
    const given = [
      ["--guest-image", form.guest_image],
      ["--agent", form.agent],
      ["--kernel", form.kernel],
      ...form.extra.split(",").map((pair) => ["--set", pair]),
    ];
    return line("compat", "preview", ...given.filter(([, value]) => value !== "").flat());
  },
} as const;
