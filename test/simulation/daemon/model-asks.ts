/** What commands of a sequence share: what is asked of the cluster, and what its answers may be. */
import type { ErrorCode, RedoRequest } from "../../../src/domain/index.ts";
import type { Cluster, Outcome, State } from "./model.ts";

/** Which of those that there are: numbers that pick from whatever there is. */
export interface Choice {
  readonly node: number;
  readonly first: number;
  readonly second: number;
}

export interface Input {
  readonly state: State;
  readonly cluster: Cluster;
  readonly choice: Choice;
  /** Who is asked. */
  readonly node: string;
}

/** Answers the states that may follow. */
export type Act = (input: Input) => Promise<readonly State[]>;

const IMAGES = ["registry.sim/app:1", "registry.sim/app:2"];

export const pick = (from: readonly string[] | object, index: number): string => {
  const all = Array.isArray(from) ? (from as readonly string[]) : Object.keys(from);
  return all[index % all.length] ?? "";
};
export const has = (all: object | readonly unknown[], least = 1): boolean =>
  Object.keys(all).length >= least;
/** Templates and snapshots. */
export const idsOf = ({ templates, snapshots }: State): string[] => [
  ...Object.keys(templates),
  ...Object.keys(snapshots),
];
export const codeOf = (outcome: Outcome<unknown> | undefined): ErrorCode | "ok" =>
  outcome !== undefined && "code" in outcome ? outcome.code : "ok";

/** @throws Error another answer */
export function expectCode(
  what: string,
  outcome: Outcome<unknown> | undefined,
  ...allowed: (ErrorCode | "ok")[]
): boolean {
  const code = codeOf(outcome);
  if (!allowed.includes(code)) throw new Error(`${what}: ${code}, not ${allowed.join(" or ")}`);
  return code === "ok";
}

/** @throws Error another answer than a value */
export function valueOf<T>(what: string, outcome: Outcome<T> | undefined): T {
  if (outcome === undefined || "code" in outcome) {
    throw new Error(`${what}: ${codeOf(outcome)}, not ok`);
  }
  return outcome.value;
}

/** Its template's id when the job is READY. @throws Error it is not */
export async function madeBy(
  cluster: Cluster,
  asked: Outcome<{ readonly job_id: string }> | undefined,
): Promise<string> {
  const job = await cluster.jobEnd(valueOf("asking for a job", asked).job_id);
  if (job?.status !== "READY") throw new Error(job?.error_message ?? "its job is gone");
  return job.template_id;
}

export const create = (cluster: Cluster, node: string, image: number) =>
  cluster
    .commandsOf(node)
    .createFromImage(
      { source_image_ref: pick(IMAGES, image), writable_layer_size: "1Gi" },
      cluster.context("model"),
    );

/** From what a template was made of, over its root filesystem. */
export function createPrepared(cluster: Cluster, node: string, like: string) {
  const { daemon } = cluster.node(node);
  const {
    template_id: _id,
    request_id: _request,
    ...request
  } = daemon?.core.queries.templateRequest(like) ?? {};
  const annotations = { ...request.annotations };
  delete annotations["cube.master.appsnapshot.template.id"];
  return cluster
    .commandsOf(node)
    .createTemplate({ ...request, annotations }, cluster.context("model"));
}

export async function removal(
  cluster: Cluster,
  state: State,
  node: string,
  id: string,
  options: { readonly force?: boolean } = {},
): Promise<void> {
  const commands = cluster.commandsOf(node);
  const context = cluster.context("model");
  if (id in state.snapshots) await commands.deleteSnapshot(id, {}, context);
  else await commands.deleteTemplate(id, options, context);
}

export const redo = (cluster: Cluster, node: string, id: string, request: RedoRequest = {}) =>
  cluster.commandsOf(node).redoTemplate(id, request, cluster.context("model"));
export const commit = (cluster: Cluster, node: string, sandbox: string) =>
  cluster.commandsOf(node).commitSandbox({ sandbox_id: sandbox }, cluster.context("model"));
export const snapshot = (cluster: Cluster, node: string, sandbox: string) =>
  cluster.commandsOf(node).createSnapshot(sandbox, {}, cluster.context("model"));
export const rollback = (cluster: Cluster, node: string, sandbox: string, to: string) =>
  cluster.commandsOf(node).rollbackSandbox(sandbox, { snapshot_id: to }, cluster.context("model"));
export const acquire = (
  cluster: Cluster,
  by: string,
  ref: { readonly at: string; readonly sandbox: string; readonly on: string },
) =>
  cluster
    .commandsOf(by)
    .acquireRuntimeRef(
      { snapshot_id: ref.on, sandbox_id: ref.sandbox, node_id: ref.at },
      cluster.context("model"),
    );

export const moved = (state: State, sandbox: string, on: string): State => {
  const { node = "" } = state.sandboxes[sandbox] ?? {};
  return { ...state, sandboxes: { ...state.sandboxes, [sandbox]: { node, on } } };
};

/** A sandbox can run on it there. */
export const isHeldBy = (cluster: Cluster, node: string, id: string): boolean =>
  cluster.node(node).daemon?.runtime.replicas.made(id) !== undefined;
