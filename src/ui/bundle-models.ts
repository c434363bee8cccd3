/** All wording about bundles. Pure. */
import type {
  AppError,
  ArtifactInfo,
  ImportRequest,
  NodeFact,
  SnapshotInfo,
  TemplateInfo,
} from "../domain/index.ts";
import { formatBytes } from "./format.ts";
import { snapshotName } from "./snapshot-models.ts";
import { status } from "./status.ts";
import { adviceFor, sentence, templateName } from "./view-models.ts";

export interface Holder {
  readonly nodeId: string;
  /** Its own page, where a browser can reach it; else what this node knows of it. */
  readonly href: string;
  readonly isItsOwn: boolean;
}

const LOOPBACK = /^https?:\/\/(localhost|127\.|\[::1\])/;

/** Where the same page of that node is. */
export function holderOf(
  nodeId: string,
  node: Pick<NodeFact, "address"> | undefined,
  path: string,
): Holder {
  const address = node?.address ?? "";
  const isItsOwn = /^https?:\/\//.test(address) && !LOOPBACK.test(address);
  const href = isItsOwn ? `${address.replace(/\/$/, "")}${path}` : `/ui/nodes/${nodeId}`;
  return { nodeId, href, isItsOwn };
}

/** What an export is of. */
export interface Exported {
  readonly id: string;
  readonly kind: "template" | "snapshot";
  readonly name: string;
  readonly status: string;
  /** Nodes that have all files of it. */
  readonly holders: readonly string[];
  /** Of the root filesystem, with its holes. */
  readonly sizeBytes: number;
}

export const exportedTemplate = (
  template: TemplateInfo,
  artifact: ArtifactInfo | undefined,
): Exported => ({
  id: template.template_id,
  kind: "template",
  name: templateName(template),
  status: template.status,
  holders: [...(artifact?.holders ?? [])].sort(),
  sizeBytes: template.artifact_size_bytes,
});

/** Its memory and disk stand on a root filesystem, which is where they are. */
export const exportedSnapshot = (snapshot: SnapshotInfo): Exported => ({
  id: snapshot.snapshot_id,
  kind: "snapshot",
  name: snapshotName(snapshot),
  status: snapshot.status,
  holders: snapshot.replicas
    .filter(({ status }) => status === "READY")
    .map(({ node_id }) => node_id)
    .sort(),
  sizeBytes: snapshot.rootfs_size_bytes_at_snapshot,
});

const EXPORTED = new Set(["READY", "PARTIALLY_READY"]);

/** What is in the file, and what stands in the way of writing it here. */
export function exportPlan(
  { kind, name, status: state, holders, sizeBytes }: Exported,
  here: string,
) {
  const isSnapshot = kind === "snapshot";
  const effects = [
    isSnapshot
      ? "One file: the definition, the root filesystem, and the frozen memory and disk."
      : `One file: the definition and the root filesystem (${formatBytes(sizeBytes)}, without its holes).`,
    "It is signed with this node's key; another cluster takes it in on its page or by import.",
    "The create request is in it, with its environment variables: they may be secrets.",
    ...(isSnapshot
      ? ["So is the guest's memory, with whatever it knew: it is hashed before the first byte."]
      : []),
  ];
  const blocked = !EXPORTED.has(state)
    ? `${name} is ${status(state).word.toLowerCase()}: only what is ready can be exported.`
    : holders.includes(here)
      ? undefined
      : holders.length === 0
        ? "No node holds its files now."
        : `Its files are not on this node, ${here}. A node that holds them can export it:`;
  return { effects, blocked };
}

/** The form's fields as it was sent. */
export type ImportFields = Readonly<Record<string, string>>;

const words = (text: string | undefined): string[] =>
  (text ?? "").split(/[\s,]+/).filter((part) => part !== "");

/** What is asked for besides the file; blank fields are left out. */
export function importRequestOf(fields: ImportFields): ImportRequest {
  const id = (fields["template_id"] ?? "").trim();
  const name = (fields["display_name"] ?? "").trim();
  const nodes = words(fields["nodes"]);
  const trust = words(fields["trust"]);
  return {
    ...(id === "" ? {} : { template_id: id }),
    ...(fields["new_id"] === "on" ? { new_id: true } : {}),
    ...(name === "" ? {} : { display_name: name }),
    ...(nodes.length === 0 ? {} : { distribution_scope: nodes }),
    ...(trust.length === 0 ? {} : { trust }),
  };
}

const TITLES: Readonly<Record<string, string>> = {
  bundle_invalid: "The bundle is damaged, or the file is none.",
  bundle_untrusted: "The signer is not trusted here.",
  bundle_conflict: "It contradicts what is here.",
  template_already_exists: "There is another one of that id here.",
};

/** Why it was not taken in, as the API says it, and what to try. */
export const refusalText = (error: AppError): string =>
  [TITLES[error.code], sentence(error.message), adviceFor(error.code)]
    .filter((part) => part !== undefined && part !== "")
    .join(" ");
