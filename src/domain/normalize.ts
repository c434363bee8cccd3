/**
 * From what a client sent to what is stored and compared (spec §2.3, §2.6). Pure: the same request
 * always gives the same stored request, and ids that we make ourselves never enter it.
 */
import { parseSizeBytes, sizeInGib } from "./artifact.ts";
import { AppError, type FieldProblem } from "./errors.ts";
import type { GuestSpec, ImageConfig } from "./ports.ts";
import type { CreateFromImageRequest, ContainerSpec, SandboxRequest } from "./schema.ts";
import { DEFAULT_TEMPLATE_VERSION } from "./template.ts";

const KEY = {
  create: "cube.master.appsnapshot.create",
  templateId: "cube.master.appsnapshot.template.id",
  snapshotVersion: "cube.master.appsnapshot.version",
  templateVersion: "cube.master.appsnapshot.template.version",
  artifactId: "cube.master.rootfs.artifact.id",
  artifactSize: "cube.master.rootfs.artifact.size_bytes",
  writableLayerSize: "cube.master.rootfs.writable_layer_size",
  fingerprint: "cube.master.template.spec_fingerprint",
  systemDiskSize: "cube.master.system_disk_size",
  injectEnvd: "cube.master.inject_envd",
  ivshmem: "cube.master.enable_ivshmem",
  exposedPorts: "com.exposed_ports",
} as const;
export const ANNOTATIONS = KEY;

/**
 * Whether a network rule names a domain: no address, no CIDR, labels of 1 to 63 characters without
 * leading or trailing dash, shorter than 255, optionally behind `*.` (spec §2.3).
 */
export function isDomain(text: string): boolean {
  const name = text.startsWith("*.") ? text.slice(2) : text;
  if (name === "" || text.length >= 255 || /[/:]/.test(name)) return false;
  if (/^\d+(\.\d+){3}$/.test(name)) return false;
  return name
    .split(".")
    .every((label) => /^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/.test(label));
}

const isAddressOrCidr = (text: string): boolean =>
  /^\d{1,3}(\.\d{1,3}){3}(\/\d{1,2})?$/.test(text) || /^[0-9a-fA-F:]+(\/\d{1,3})?$/.test(text);

function networkProblems(config: CreateFromImageRequest["cube_network_config"]): FieldProblem[] {
  const problems: FieldProblem[] = [];
  const closed =
    config?.allow_internet_access === false || (config?.deny_out ?? []).includes("0.0.0.0/0");
  (config?.allow_out ?? []).forEach((rule, index) => {
    const pointer = `/cube_network_config/allow_out/${index}`;
    if (isAddressOrCidr(rule)) return;
    if (!isDomain(rule)) problems.push({ pointer, detail: "is no address, CIDR or domain" });
    else if (!closed) {
      problems.push({
        pointer,
        detail:
          "a domain needs allow_internet_access=false, or 0.0.0.0/0 in deny_out, to have any effect",
      });
    }
  });
  return problems;
}

/**
 * The stored form of a from-image request: defaults filled in, ports sorted and unique, the
 * password, the ignored template id and the request envelope left out.
 * @throws AppError invalid_request naming every wrong field
 */
export function normalizeFromImage(request: CreateFromImageRequest): CreateFromImageRequest {
  const problems = networkProblems(request.cube_network_config);
  const writable = parseSizeBytes(request.writable_layer_size);
  if (writable === undefined) {
    problems.push({
      pointer: "/writable_layer_size",
      detail: `${JSON.stringify(request.writable_layer_size)} is no size such as 1Gi or 512Mi`,
    });
  }
  request.container_overrides?.volume_mounts?.forEach((mount, index) => {
    if (mount.mount_path.replace(/\/+$/, "") === "") {
      problems.push({
        pointer: `/container_overrides/volume_mounts/${index}/mount_path`,
        detail: "/ is the writable layer's own mount",
      });
    }
  });
  const resources = request.container_overrides?.resources;
  if (resources?.cpu !== undefined && parseCpuMillis(resources.cpu) === undefined) {
    problems.push({
      pointer: "/container_overrides/resources/cpu",
      detail: "must be like 2000m or 2",
    });
  }
  if (resources?.mem !== undefined && parseMemoryMib(resources.mem) === undefined) {
    problems.push({
      pointer: "/container_overrides/resources/mem",
      detail: "must be like 2000Mi or 2Gi",
    });
  }
  if (problems.length > 0) {
    throw new AppError(
      "invalid_request",
      problems.map((p) => `${p.pointer} ${p.detail}`).join("; "),
      {
        meta: { errors: problems },
      },
    );
  }
  const { registry_password, request_id, template_id, wait, enable_ivshmem, ...rest } = request;
  return {
    ...rest,
    instance_type: request.instance_type?.trim() || "cubebox",
    network_type: request.network_type?.trim() || "tap",
    exposed_ports: [...new Set(request.exposed_ports ?? [])].sort((a, b) => a - b),
    ...(enable_ivshmem === true ? { enable_ivshmem } : {}),
  };
}

/** `2000m`, `2`, `0.5` in thousandths of a core. */
export function parseCpuMillis(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(m?)$/.exec(text.trim());
  if (match === null) return undefined;
  const millis = Math.round(Number(match[1]) * (match[2] === "m" ? 1 : 1_000));
  return millis > 0 ? millis : undefined;
}

/** `2000Mi`, `2Gi`, or plain bytes, in MiB rounded down. */
export function parseMemoryMib(text: string): number | undefined {
  const bytes = /^\d+$/.test(text.trim()) ? Number(text) : parseSizeBytes(text);
  const mib = bytes === undefined ? 0 : Math.floor(bytes / 1024 ** 2);
  return mib > 0 ? mib : undefined;
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

/** The create request that a template's sandboxes are started with (spec §3.10). */
export function generateCreateRequest(input: {
  templateId: string;
  artifactId: string;
  fingerprint: string;
  artifactDigest: string;
  artifactSizeBytes: number;
  image: ImageConfig;
  request: CreateFromImageRequest;
}): SandboxRequest {
  const { request, image } = input;
  const overrides = request.container_overrides ?? {};
  const writableBytes = parseSizeBytes(request.writable_layer_size) ?? 0;
  const artifact = {
    [KEY.artifactId]: input.artifactId,
    "cube.master.rootfs.artifact.digest": input.artifactDigest,
    [KEY.artifactSize]: String(input.artifactSizeBytes),
    [KEY.writableLayerSize]: request.writable_layer_size,
    [KEY.fingerprint]: input.fingerprint,
  };
  const ports = request.exposed_ports ?? [];
  return {
    template_id: input.templateId,
    instance_type: request.instance_type ?? "cubebox",
    network_type: request.network_type ?? "tap",
    annotations: {
      [KEY.templateId]: input.templateId,
      [KEY.create]: "true",
      [KEY.snapshotVersion]: DEFAULT_TEMPLATE_VERSION,
      [KEY.templateVersion]: DEFAULT_TEMPLATE_VERSION,
      [KEY.artifactId]: input.artifactId,
      [KEY.writableLayerSize]: request.writable_layer_size,
      [KEY.fingerprint]: input.fingerprint,
      [KEY.systemDiskSize]: String(sizeInGib(writableBytes)),
      ...(ports.length > 0 ? { [KEY.exposedPorts]: ports.join(":") } : {}),
      ...(request.enable_ivshmem === true ? { [KEY.ivshmem]: "true" } : {}),
      ...(overrides.annotations ?? {}),
    },
    labels: request.labels ?? {},
    volumes: [{ name: "cube_rootfs_rw", empty_dir: { size_limit: request.writable_layer_size } }],
    containers: [
      {
        name: "cubebox-name-0",
        image: { image: input.artifactId, storage_media: "ext4", annotations: artifact },
        command: overrides.command ?? [...image.entrypoint],
        args: overrides.args ?? [...image.cmd],
        envs: overrides.envs ?? sortedEnv(image.env),
        working_dir: overrides.working_dir ?? image.working_dir,
        resources: {
          cpu: overrides.resources?.cpu ?? "2000m",
          mem: overrides.resources?.mem ?? "2000Mi",
          ...(overrides.resources?.limit === undefined ? {} : { limit: overrides.resources.limit }),
        },
        security_context: {
          ...(overrides.security_context ?? {}),
          privileged: true,
          readonly_rootfs: false,
        },
        volume_mounts: [
          { name: "cube_rootfs_rw", mount_path: "/" },
          ...(overrides.volume_mounts ?? []),
        ],
        r_limit: { no_file: overrides.r_limit?.no_file ?? 1_000_000 },
        ...(overrides.dns_config === undefined ? {} : { dns_config: overrides.dns_config }),
        ...(overrides.probe === undefined ? {} : { probe: overrides.probe }),
      },
    ],
    ...(request.cube_network_config === undefined
      ? {}
      : { cube_network_config: request.cube_network_config }),
  };
}

/** What the first container of a create request makes a guest run. */
export function guestSpecOf(request: SandboxRequest): GuestSpec {
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
