/**
 * From what a client sent to what is stored and compared (spec §2.3, §2.6). Pure: the same request
 * always gives the same stored request, and ids that we make ourselves never enter it.
 */
import { parseSizeBytes } from "./artifact.ts";
import { AppError, type FieldProblem } from "./errors.ts";
import type { CreateFromImageRequest } from "./schema.ts";

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

/** What is wrong with the rules of a request (spec §2.3). */
export function networkProblems(
  config: CreateFromImageRequest["cube_network_config"],
): FieldProblem[] {
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
