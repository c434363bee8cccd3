/** The part of the composition root that takes templates out and in as bundles. */
import { AppError, type Queries } from "../domain/index.ts";
import { createExports } from "./bundle/exports.ts";
import { createImports } from "./bundle/imports.ts";
import { createRelay } from "./bundle/relay.ts";
import type { BundleCommands } from "./commands.ts";
import type { DaemonParts } from "./parts.ts";
import type { State } from "./state.ts";
import type { Work } from "./wire-builds.ts";
import type { Runtime } from "./wire-runtime.ts";

export function createBundles(
  parts: DaemonParts,
  state: State,
  runtime: Runtime,
  { files }: Pick<Work, "files">,
  queries: Pick<Queries, "template">,
): BundleCommands {
  const { config, clock, random, version } = parts;
  const shared = {
    ...state,
    driver: runtime.driver,
    replicas: runtime.replicas,
    members: state.cluster.members,
    signer: () => state.membership.signer(),
    clock,
  };
  const exports = createExports({ ...shared, version });
  const imports = createImports({
    ...shared,
    files,
    random,
    log: parts.log.child({ module: "import" }),
    jobDeadlineMs: config.job_deadline_ms,
  });
  const relay = createRelay({
    transport: state.cluster.transport,
    members: state.cluster.members,
    clock,
    random,
    isUp: (nodeId) => state.nodes.get(nodeId)?.healthy === true,
    async open(id, signal) {
      const record = state.records.get("template", id);
      if (record !== undefined) return exports.open(record, signal);
      throw new AppError("template_not_found", `template ${id} is still being made by its job`);
    },
  });
  return {
    exportBundle: (idOrName, context) =>
      relay.open(queries.template(idOrName).template_id, context.signal),
    importBundle: (source, request, context) => imports.take(source, request, context),
  };
}
