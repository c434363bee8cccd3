/** The part of the composition root that makes artifacts from images. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Platform, RecordKind, RootfsBuilder } from "../domain/index.ts";
import { answerAsks } from "./asks.ts";
import { readBakePlan } from "./bake.ts";
import { createArtifacts } from "./build/artifacts.ts";
import { createCleanup } from "./build/cleanup.ts";
import { isHeldElsewhere, isLedBy, type Builder } from "./build/builder.ts";
import { neededBytes } from "./build/disk-space.ts";
import { GraceTimes } from "./build/grace-times.ts";
import { createRootfsBuilder } from "./build/rootfs-builder.ts";
import { createImageSource } from "./build/source/source.ts";
import type { DaemonParts } from "./parts.ts";
import { KeyedQueue } from "./records.ts";
import { sourceOptions } from "./secrets.ts";
import type { State } from "./state.ts";
import { BuildsWorker } from "./workers/builds.ts";
import type { BuildParts } from "./workers/job-run.ts";

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", arm64: "arm64" };

export const hostPlatform = (arch: string): Platform => ({
  os: "linux",
  architecture: ARCHITECTURES[arch] ?? arch,
});

export async function openBuilds(parts: DaemonParts, state: State) {
  const { config, log, clock, random } = parts;
  const source = createImageSource({
    clock,
    random,
    log: log.child({ module: "source" }),
    options: await sourceOptions(config),
  });
  const scratch = (jobId: string) => join(state.dirs.work, `job-${jobId}`);
  return createBuilds(parts, state, {
    source,
    builder: createRootfsBuilder({ clock }),
    platform: hostPlatform(process.arch),
    scratchDir: async (jobId) => {
      await mkdir(scratch(jobId), { recursive: true, mode: 0o700 });
      return scratch(jobId);
    },
    dropScratch: (jobId) => state.folders.remove(scratch(jobId)),
    bakePlan: (request) =>
      readBakePlan(request, { caFile: config.ca_file, envdPath: config.envd_path }),
  });
}

interface SourceParts extends Pick<
  BuildParts,
  "source" | "platform" | "scratchDir" | "dropScratch" | "bakePlan"
> {
  readonly builder: RootfsBuilder;
}

/** The same over any source of images and any builder. */
export function createBuilds(
  parts: DaemonParts,
  state: State,
  { builder, ...sourceParts }: SourceParts,
) {
  const { config, log, clock, random, metrics } = parts;
  const isBuilding = (builder: Builder) =>
    isLedBy(
      state.records.get("leader", builder.template_id),
      state.records.get("session", builder.node_id),
      builder,
    );
  const asked = <K extends RecordKind>(kind: K, id: string) =>
    state.records.update(kind, id, () => undefined);
  const files = new KeyedQueue();
  const grace = new GraceTimes(clock, config.artifact_grace_ms);
  const cleanup = createCleanup({
    ...state,
    clock,
    log: log.child({ module: "gc" }),
    isMember: (nodeId) => state.nodes.isMember(nodeId),
    isUp: (nodeId) => state.nodes.get(nodeId)?.healthy === true,
    askHolds: (nodeId, { artifact_id, digest }) =>
      state.diskAsks.holds(nodeId, artifact_id, digest),
    isBuilding,
    graceMs: config.artifact_grace_ms,
    grace,
    files,
  });
  const artifacts = createArtifacts({
    ...state,
    cleanup,
    files,
    builder,
    clock,
    random,
    log: log.child({ module: "artifacts" }),
    holdSpace: (image) => state.space.hold(neededBytes(image), "build"),
    isBuilding,
    askBuilding: async (builder) =>
      isLedBy(
        await asked("leader", builder.template_id),
        await asked("session", builder.node_id),
        builder,
      ),
    isHeldElsewhere: (artifact) => isHeldElsewhere({ ...state, clock }, config.node_id, artifact),
  });
  const builds = new BuildsWorker({
    ...state,
    ...sourceParts,
    artifacts,
    clock,
    log: log.child({ module: "builds" }),
    concurrency: config.concurrent_builds,
    onJobEnd: (job) => metrics.jobEnded(job),
    askCredentials: (job) => state.asks.credentials(job),
  });
  answerAsks({
    transport: state.cluster.transport,
    members: state.cluster.members,
    records: state.records,
    jobLog: state.jobLog,
    credentialsOf: (jobId) => builds.credentialsOf(jobId),
  });
  return { artifacts, builds, cleanup, grace, files };
}

export type Work = ReturnType<typeof createBuilds>;
