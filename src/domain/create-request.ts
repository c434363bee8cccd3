/**
 * The create request that a template's sandboxes are started with, made from the image's
 * configuration and what the client asked for (spec §3.10), and what a guest runs according to it.
 */
import { parseSizeBytes, sizeInGib } from "./artifact.ts";
import { parseCpuMillis, parseMemoryMib } from "./normalize.ts";
import type { ImageConfig } from "./ports.ts";
import type { GuestSpec } from "./runtime-driver.ts";
import type { ContainerSpec, CreateFromImageRequest, SandboxRequest } from "./schema.ts";
import { DEFAULT_TEMPLATE_VERSION } from "./template.ts";

const KEY = {
  create: "cube.master.appsnapshot.create",
  templateId: "cube.master.appsnapshot.template.id",
  snapshotVersion: "cube.master.appsnapshot.version",
  templateVersion: "cube.master.appsnapshot.template.version",
  artifactId: "cube.master.rootfs.artifact.id",
  artifactDigest: "cube.master.rootfs.artifact.digest",
  artifactSize: "cube.master.rootfs.artifact.size_bytes",
  writableLayerSize: "cube.master.rootfs.writable_layer_size",
  fingerprint: "cube.master.template.spec_fingerprint",
  systemDiskSize: "cube.master.system_disk_size",
  injectEnvd: "cube.master.inject_envd",
  ivshmem: "cube.master.enable_ivshmem",
  exposedPorts: "com.exposed_ports",
  envdVersion: "cube.master.components.envd.version",
} as const;
export const ANNOTATIONS = KEY;

export interface CreateRequestInput {
  readonly templateId: string;
  readonly artifactId: string;
  readonly fingerprint: string;
  readonly artifactDigest: string;
  readonly artifactSizeBytes: number;
  readonly image: ImageConfig;
  readonly request: CreateFromImageRequest;
}

const sortedEnv = (env: readonly string[]): { key: string; value: string }[] =>
  env
    .map((line) => {
      const at = line.indexOf("=");
      return at < 0
        ? { key: line, value: "" }
        : { key: line.slice(0, at), value: line.slice(at + 1) };
    })
    .filter(({ key }) => key !== "")
    .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));

function annotationsOf(input: CreateRequestInput): Record<string, string> {
  const { request } = input;
  const ports = request.exposed_ports ?? [];
  return {
    [KEY.templateId]: input.templateId,
    [KEY.create]: "true",
    [KEY.snapshotVersion]: DEFAULT_TEMPLATE_VERSION,
    [KEY.templateVersion]: DEFAULT_TEMPLATE_VERSION,
    [KEY.artifactId]: input.artifactId,
    [KEY.writableLayerSize]: request.writable_layer_size,
    [KEY.fingerprint]: input.fingerprint,
    [KEY.systemDiskSize]: String(sizeInGib(parseSizeBytes(request.writable_layer_size) ?? 0)),
    ...(ports.length > 0 ? { [KEY.exposedPorts]: ports.join(":") } : {}),
    ...(request.enable_ivshmem === true ? { [KEY.ivshmem]: "true" } : {}),
    ...(request.container_overrides?.annotations ?? {}),
  };
}

function containerOf(input: CreateRequestInput): ContainerSpec {
  const { request, image } = input;
  const overrides = request.container_overrides ?? {};
  const { resources } = overrides;
  return {
    name: "cubebox-name-0",
    image: {
      image: input.artifactId,
      storage_media: "ext4",
      annotations: {
        [KEY.artifactId]: input.artifactId,
        [KEY.artifactDigest]: input.artifactDigest,
        [KEY.artifactSize]: String(input.artifactSizeBytes),
        [KEY.writableLayerSize]: request.writable_layer_size,
        [KEY.fingerprint]: input.fingerprint,
      },
    },
    command: overrides.command ?? [...image.entrypoint],
    args: overrides.args ?? [...image.cmd],
    envs: overrides.envs ?? sortedEnv(image.env),
    working_dir: overrides.working_dir ?? image.working_dir,
    resources: {
      cpu: resources?.cpu ?? "2000m",
      mem: resources?.mem ?? "2000Mi",
      ...(resources?.limit === undefined ? {} : { limit: resources.limit }),
    },
    security_context: { ...overrides.security_context, privileged: true, readonly_rootfs: false },
    volume_mounts: [
      { name: "cube_rootfs_rw", mount_path: "/" },
      ...(overrides.volume_mounts ?? []),
    ],
    r_limit: { no_file: overrides.r_limit?.no_file ?? 1_000_000 },
    ...(overrides.dns_config === undefined ? {} : { dns_config: overrides.dns_config }),
    ...(overrides.probe === undefined ? {} : { probe: overrides.probe }),
  };
}

/** The create request that a template's sandboxes are started with (spec §3.10). */
export function generateCreateRequest(input: CreateRequestInput): SandboxRequest {
  const { request } = input;
  const sizeLimit = request.writable_layer_size;
  return {
    template_id: input.templateId,
    instance_type: request.instance_type ?? "cubebox",
    network_type: request.network_type ?? "tap",
    annotations: annotationsOf(input),
    labels: request.labels ?? {},
    volumes: [{ name: "cube_rootfs_rw", empty_dir: { size_limit: sizeLimit } }],
    containers: [containerOf(input)],
    ...(request.cube_network_config === undefined
      ? {}
      : { cube_network_config: request.cube_network_config }),
  };
}

/**
 * What the first container of a create request makes a guest run.
 * @param isolate cuts the guest off whatever the request says
 */
export function guestSpecOf(request: SandboxRequest, isolate = false): GuestSpec {
  const container: ContainerSpec = request.containers?.find((found) => found !== null) ?? {};
  const probe = container.probe;
  const ports = (request.annotations?.[KEY.exposedPorts] ?? "")
    .split(":")
    .map(Number)
    .filter((port) => Number.isInteger(port) && port > 0);
  return {
    command: container.command ?? [],
    args: container.args ?? [],
    env: (container.envs ?? []).map(({ key, value }) => `${key}=${value}`),
    workingDir: container.working_dir || "/",
    cpuMillis: parseCpuMillis(container.resources?.cpu ?? "2000m") ?? 2_000,
    memoryMib: parseMemoryMib(container.resources?.mem ?? "2000Mi") ?? 2_000,
    isolated: isolate || request.cube_network_config?.allow_internet_access === false,
    exposedPorts: [...new Set([...ports, ...(probe === undefined ? [] : [probe.port])])],
    ...(probe === undefined
      ? {}
      : {
          probe: {
            port: probe.port,
            path: probe.path,
            timeoutMs: probe.timeout_ms,
            periodMs: probe.period_ms,
            successThreshold: probe.success_threshold,
            failureThreshold: probe.failure_threshold,
          },
        }),
  };
}

/**
 * The request with the version of the in-guest agent that READY replicas tell (spec §2.4): the
 * first `x.y.z` among them, in words or alone. As it is when none tells one.
 * @returns `differing`: what else they tell, for the log
 */
export function withAgentVersion(
  request: SandboxRequest,
  replicas: Iterable<{ readonly status: string; readonly agent_version?: string | undefined }>,
): { request: SandboxRequest; differing: readonly string[] } {
  const told = new Set<string>();
  for (const { status, agent_version = "" } of replicas) {
    const version = status === "READY" ? /\d+\.\d+\.\d+/.exec(agent_version)?.[0] : undefined;
    if (version !== undefined) told.add(version);
  }
  const [first, ...differing] = told;
  if (first === undefined || request.annotations?.[KEY.envdVersion] === first) {
    return { request, differing };
  }
  const annotations = { ...request.annotations, [KEY.envdVersion]: first };
  return { request: { ...request, annotations }, differing };
}
