/**
 * Compat over the whole cluster: the matrix from what is known here, scans and baselines asked of
 * the nodes whose replicas they are about, since each writes its own.
 */
import { z } from "zod";
import {
  AppError,
  LIMITS,
  adoptedCompatSchema,
  errorText,
  getCompatMatrix,
  nodeScanSchema,
  previewUpgrade,
  scanCompat,
  type AdoptedCompat,
  type Catalog,
  type CompatInput,
  type CompatPreview,
  type CompatScan,
  type MatrixFilter,
  type NodeFact,
  type NodeScan,
  type PageRequest,
  type RescanCompatRequest,
  type TemplateCompatMatrix,
  type Upgrade,
} from "../domain/index.ts";
import { decodeJson, encodeJson, type Members, type Transport } from "../gossip/index.ts";
import { askMember } from "./ask-member.ts";
import type { Nodes } from "./nodes.ts";
import type { Records } from "./records.ts";
import type { CompatScanWorker } from "./workers/compat-scan.ts";

/** A scan of all replicas of one node (spec §5.3). */
const SCAN_TIMEOUT_MS = 30_000;
const ADOPT_TIMEOUT_MS = 5_000;

const questionSchema = z.discriminatedUnion("what", [
  z.looseObject({ v: z.literal(1), what: z.literal("scan") }),
  z.looseObject({ v: z.literal(1), what: z.literal("adopt"), template_id: z.string().max(256) }),
]);
type Question = z.infer<typeof questionSchema>;
const scanAnswer = z.looseObject({ scan: nodeScanSchema });
const adoptAnswer = z.looseObject({ updated: adoptedCompatSchema.shape.updated });

export interface CompatParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly nodes: Nodes;
  readonly transport: Transport;
  readonly members: Members;
  readonly scanner: Pick<CompatScanWorker, "scan" | "adopt">;
  /** Publishes this node's versions as they are now. */
  readonly publishNode: () => Promise<unknown>;
}

export interface Compat {
  /** @throws AppError invalid_request for a token that is not of this list */
  matrix(page: PageRequest & MatrixFilter): TemplateCompatMatrix;
  preview(upgrade: Upgrade): CompatPreview;
  /**
   * One node after the other, until one fails.
   * @throws AppError invalid_request without nodes, node_not_found, peer_unreachable
   */
  rescan(request: RescanCompatRequest): Promise<CompatScan>;
  /**
   * @throws AppError template_not_found; peer_unreachable when a healthy node did not answer: it is
   * safe to repeat
   */
  adopt(templateId: string): Promise<AdoptedCompat>;
}

export function createCompat(parts: CompatParts): Compat {
  const { catalog, records, nodes, transport, scanner } = parts;
  const input = (): CompatInput => ({
    templates: [...records.list("template")],
    nodes: nodes.all(),
    replicas: catalog.list("replica"),
  });

  const scanSelf = async (): Promise<NodeScan> => {
    await parts.publishNode();
    return scanner.scan();
  };
  const adoptSelf = async (templateId: string) => ((await scanner.adopt(templateId)) ? 1 : 0);
  transport.handle("compat", async (_from, body) => {
    const question = decodeJson(questionSchema, body, "a question about compat");
    return question.what === "scan"
      ? encodeJson({ v: 1, scan: await scanSelf() })
      : encodeJson({ v: 1, updated: await adoptSelf(question.template_id) });
  });
  const askScan = async (nodeId: string): Promise<NodeScan> => {
    const question: Question = { v: 1, what: "scan" };
    const asked = { protocol: "compat", question, answer: scanAnswer } as const;
    return (await askMember(parts, nodeId, { ...asked, timeoutMs: SCAN_TIMEOUT_MS })).scan;
  };
  const askAdopt = async (nodeId: string, templateId: string): Promise<number> => {
    const question: Question = { v: 1, what: "adopt", template_id: templateId };
    const asked = { protocol: "compat", question, answer: adoptAnswer } as const;
    return (await askMember(parts, nodeId, { ...asked, timeoutMs: ADOPT_TIMEOUT_MS })).updated;
  };

  /** A node that is down can write nothing: what others see of it now. */
  const scanOfDown = (node: NodeFact): NodeScan => {
    const result = { node_id: node.node_id, healthy: false, scanned: 0, stale: 0, unknown: 0 };
    for (const { value } of catalog.list("replica", { owner: node.node_id })) {
      if (value?.status !== "READY") continue;
      result.scanned++;
      if (scanCompat(value, node) === "STALE") result.stale++;
      else result.unknown++;
    }
    return { ...result, changed: 0 };
  };
  const scanOf = async (node: NodeFact): Promise<NodeScan> => {
    if (node.node_id === nodes.self) return scanSelf();
    return node.healthy ? askScan(node.node_id) : scanOfDown(node);
  };

  return {
    matrix({ limit, next_token, ...filter }) {
      const size = Math.min(Math.max(limit ?? LIMITS.pageDefault, 1), LIMITS.pageMax);
      const after = next_token === undefined ? undefined : fromToken(next_token);
      const { hasMore, ...matrix } = getCompatMatrix(input(), { ...filter, after, limit: size });
      const last = matrix.templates.at(-1);
      return hasMore && last !== undefined
        ? { ...matrix, next_token: toToken(last.template_id) }
        : matrix;
    },
    preview: (upgrade) => previewUpgrade(input(), upgrade),
    async rescan({ node_ids, all_nodes }) {
      if (node_ids.length === 0 && !all_nodes) {
        throw new AppError("invalid_request", "name the nodes to scan, or ask for all of them", {
          meta: { errors: [{ pointer: "/node_ids", detail: "is empty and all_nodes is false" }] },
        });
      }
      const wanted = all_nodes
        ? nodes.all().filter((node) => node.healthy)
        : [...new Set(node_ids)].map((id) => memberOf(nodes, id));
      const scanned: NodeScan[] = [];
      for (const node of wanted) scanned.push(await scanOf(node));
      return { nodes: scanned };
    },
    async adopt(templateId) {
      if (records.get("template", templateId) === undefined) {
        throw new AppError("template_not_found", `template ${templateId} is still being made`);
      }
      const updated: string[] = [];
      const failed: { node_id: string; reason: string }[] = [];
      const owners = [...catalog.list("replica", { id: templateId })].map(({ owner }) => owner);
      await Promise.all(
        owners.map(async (nodeId) => {
          if (nodes.get(nodeId)?.healthy !== true) return;
          try {
            const count =
              nodeId === nodes.self
                ? await adoptSelf(templateId)
                : await askAdopt(nodeId, templateId);
            if (count > 0) updated.push(nodeId);
          } catch (error) {
            failed.push({ node_id: nodeId, reason: errorText(error) });
          }
        }),
      );
      assertAnswered(failed, updated);
      return { template_id: templateId, updated: updated.length, nodes: updated.sort() };
    },
  };
}

function assertAnswered(
  failed: readonly { node_id: string; reason: string }[],
  updated: readonly string[],
): void {
  const [first] = failed;
  if (first === undefined) return;
  const names = failed.map(({ node_id }) => node_id).sort();
  throw new AppError(
    "peer_unreachable",
    `the baseline is not adopted on ${names.join(", ")}; ${updated.length} nodes have adopted it`,
    { meta: { nodes: names, updated: [...updated].sort() }, cause: new Error(first.reason) },
  );
}

/** By id or address. @throws AppError node_not_found */
function memberOf(nodes: Nodes, idOrAddress: string): NodeFact {
  const node = nodes
    .all()
    .find(({ node_id, node_ip }) => node_id === idOrAddress || node_ip === idOrAddress);
  if (node !== undefined) return node;
  throw new AppError("node_not_found", `node ${JSON.stringify(idOrAddress)} not found`);
}

const toToken = (id: string): string => Buffer.from(id, "utf8").toString("base64url");
function fromToken(token: string): string {
  const id = Buffer.from(token, "base64url").toString("utf8");
  if (toToken(id) === token) return id;
  throw new AppError("invalid_request", "invalid next_token", {
    meta: { errors: [{ pointer: "/next_token", detail: "is not a token of this list" }] },
  });
}
