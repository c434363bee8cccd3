/** What the compat pages are drawn from in tests: every status, whole or many. */
import {
  getCompatMatrix,
  previewUpgrade,
  type CompatInput,
  type NodeFact,
  type Queries,
  type ReplicaStatus,
  type ResnapshotView,
  type TemplateRecord,
} from "../../src/domain/index.ts";
import { aNode, aReplica } from "./fake-http-service.ts";
import { templateValue } from "./storage.ts";

export const BOUND = { guest_image_version: "1.0.0", agent_version: "1.0.0" };
const AT = "2026-02-03T04:05:06.000Z";

interface Row {
  readonly template: TemplateRecord;
  /** By node: OK, STALE, UNKNOWN; nodes that are left out have none. */
  readonly states: Readonly<Record<string, string>>;
}

const replica = (node_id: string, state: string): ReplicaStatus =>
  aReplica({
    node_id,
    compat_policy: "STRICT",
    kernel_version: "6.1.0",
    ...(state === "UNKNOWN" ? { guest_image_version: "", agent_version: "" } : BOUND),
    ...(state === "STALE" ? { guest_image_version: "0.9.0", compat_status: "STALE" } : {}),
  });

function inputOf(nodes: readonly NodeFact[], rows: readonly Row[]): CompatInput {
  return {
    nodes,
    templates: rows.map(({ template }) => template),
    replicas: rows.flatMap(({ template, states }) =>
      Object.entries(states).map(([node, state]) => ({
        id: template.template_id,
        value: replica(node, state),
      })),
    ),
  };
}

const node = (node_id: string, change: Partial<NodeFact> = {}): NodeFact =>
  aNode({ node_id, ...BOUND, kernel_version: "6.1.0", ...change });

const row = (
  template_id: string,
  states: Row["states"],
  change: Partial<TemplateRecord> = {},
): Row => ({
  template: { ...templateValue(template_id), instance_type: "cubebox", ...change },
  states,
});

/** Four nodes, one of which is down. */
const few = (ids: readonly string[]): CompatInput => {
  const [stale = "", fine = "", legacy = "", partial = "", box = ""] = ids;
  const all = (state: string) => ({ "node-a": state, "node-b": state, "node-c": state });
  return inputOf(
    [node("node-a"), node("node-b"), node("node-c"), node("node-d", { healthy: false })],
    [
      row(stale, { ...all("OK"), "node-b": "STALE", "node-d": "OK" }, { display_name: "web" }),
      row(fine, all("OK"), { display_name: "fine" }),
      row(legacy, { ...all("UNKNOWN"), "node-a": "STALE" }, { display_name: "legacy" }),
      row(partial, { "node-a": "OK", "node-c": "OK" }, { display_name: "partial" }),
      row(box, { "node-b": "STALE" }, { kind: "snapshot", distribution_scope: ["node-b"] }),
    ],
  );
};

/** More nodes than there is room for words. */
export const manyReplicas = (templates: number, nodes: number): CompatInput => {
  const names = Array.from(
    { length: nodes },
    (_, at) => `host-${String(at).padStart(2, "0")}.example`,
  );
  const states = ["OK", "OK", "OK", "STALE", "OK", "UNKNOWN", "none"];
  return inputOf(
    names.map((name) => node(name)),
    Array.from({ length: templates }, (_, at) => {
      const cells = names.flatMap((name, index) => {
        const state = states[(at * 5 + index * 3) % states.length] ?? "OK";
        return state === "none" ? [] : [[name, state] as const];
      });
      const id = `tpl-${String(at).padStart(24, "0")}`;
      return row(id, Object.fromEntries(cells), { display_name: `service-${at}` });
    }),
  );
};

const stopped = (template_id: string): ResnapshotView => ({
  state: "stopped",
  failure: {
    ...{ template_id, node_id: "node-b", request_id: "resnapshot-3-node-b", job_id: "job-9" },
    ...{ started_at: AT, failed_at: AT, error: "guest did not answer GET /health in 30 s" },
  },
  ...{ pending: 1, done: 2, failed: 1 },
});

type CompatQueries = Pick<Queries, "compat" | "compatPreview" | "resnapshot">;

/** @param ids of five templates; without them there are others, on more nodes */
export function compatQueries(ids?: readonly string[]): CompatQueries {
  const input = ids === undefined ? manyReplicas(8, 10) : few(ids);
  return {
    compat: (page = {}) => {
      const { hasMore, ...matrix } = getCompatMatrix(input, {
        ...page,
        after: page.next_token,
      });
      return hasMore ? { ...matrix, next_token: matrix.templates.at(-1)?.template_id } : matrix;
    },
    compatPreview: (upgrade) => previewUpgrade(input, upgrade),
    resnapshot: () =>
      ids === undefined ? { state: "off", pending: 0, done: 0, failed: 0 } : stopped(ids[0] ?? ""),
  };
}
