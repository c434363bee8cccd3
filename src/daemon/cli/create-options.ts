/** The flags of `tpl create-from-image`, named as the predecessor's, and the request of them. */
import { resolve } from "node:path";
import { readFile } from "node:fs/promises";
import { isIP } from "node:net";
import { InvalidArgumentError, type Command } from "commander";
import { AppError, type CreateFromImageRequest } from "../../domain/index.ts";
import { collect } from "./context.ts";
import type { CliIo } from "./io.ts";

export interface CreateFlags {
  readonly image: string;
  readonly writableLayerSize: string;
  readonly name?: string;
  readonly label?: string[];
  readonly exposePort?: number[];
  readonly instanceType?: string;
  readonly networkType?: string;
  readonly node?: string[];
  readonly allowInternetAccess?: boolean;
  readonly allowOutCidr?: string[];
  readonly denyOutCidr?: string[];
  readonly registryUsername?: string;
  readonly registryPassword?: string;
  readonly registryPasswordStdin?: boolean;
  readonly registryPasswordFile?: string;
  readonly cmd?: string[];
  readonly arg?: string[];
  readonly env?: string[];
  readonly dns?: string[];
  readonly probe?: number;
  readonly probePath: string;
  readonly cpu: number;
  readonly memory: number;
  readonly withCubeCa?: boolean;
}

function port(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || value > 65_535) {
    throw new InvalidArgumentError("a port is a whole number from 1 to 65535.");
  }
  return value;
}

function positive(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw new InvalidArgumentError("must be a whole number above 0.");
  return Number(text);
}

export function pair(text: string, all: string[] | undefined): string[] {
  if (!/^[^=]+=/.test(text)) throw new InvalidArgumentError("must be written as KEY=VALUE.");
  return collect(text, all);
}

function address(text: string, all: string[] | undefined): string[] {
  if (isIP(text) === 0) throw new InvalidArgumentError("a DNS server is an IP address.");
  return collect(text, all);
}

/** The labels of flags that `pair` has taken. */
export const labelsOf = (
  flags: readonly string[] | undefined,
): Record<string, string> | undefined =>
  flags === undefined ? undefined : Object.fromEntries(flags.map(split));

/** Adds the flags to a command. */
export function addCreateFlags(command: Command): Command {
  return command
    .requiredOption("--image <reference>", "registry reference, oci:DIR[:tag], oci-archive:FILE, …")
    .option("--writable-layer-size <size>", "room for the sandbox to write, such as 1Gi", "1Gi")
    .option("--name <name>", "display name, also accepted wherever an id is")
    .option("--label <key=value>", "label (repeat for more)", pair)
    .option("--expose-port <port>", "port of the guest (repeat)", (text, all?: number[]) => [
      ...(all ?? []),
      port(text),
    ])
    .option("--instance-type <type>", "instance type (default: cubebox)")
    .option("--network-type <type>", "network type (default: tap)")
    .option("--node <id>", "node that shall hold a replica (repeat; default: all)", collect)
    .option("--allow-internet-access", "let the guest reach the internet")
    .option("--no-allow-internet-access", "keep the guest off the internet")
    .option("--allow-out-cidr <cidr>", "network the guest may reach (repeat)", collect)
    .option("--deny-out-cidr <cidr>", "network the guest may not reach (repeat)", collect)
    .option("--registry-username <name>", "registry user")
    .option("--registry-password-stdin", "read the registry password from standard input")
    .option("--registry-password-file <file>", "read the registry password from a file")
    .option("--registry-password <password>", "registry password; others can see it: avoid")
    .option("--cmd <word>", "word of the command (repeat; default: the image's)", collect)
    .option("--arg <word>", "argument of the command (repeat)", collect)
    .option("--env <key=value>", "environment variable (repeat)", pair)
    .option("--dns <ip>", "DNS server (repeat)", address)
    .option("--probe <port>", "HTTP readiness probe on this port (default: first port)", port)
    .option("--probe-path <path>", "path of the readiness probe", "/health")
    .option("--cpu <millicores>", "processor share", positive, 2_000)
    .option("--memory <megabytes>", "memory", positive, 2_000)
    .option("--with-cube-ca", "bake the CubeEgress root CA into the image (default)")
    .option("--no-with-cube-ca", "leave the CubeEgress root CA out");
}

/** The request of the flags. @throws AppError invalid_request for a password from two places */
export async function createRequest(
  io: CliIo,
  flags: CreateFlags,
): Promise<CreateFromImageRequest> {
  const password = await registryPassword(io, flags);
  const network = {
    allow_internet_access: flags.allowInternetAccess,
    allow_out: flags.allowOutCidr,
    deny_out: flags.denyOutCidr,
  };
  const hasNetwork = Object.values(network).some((value) => value !== undefined);
  return {
    source_image_ref: absoluteReference(flags.image),
    writable_layer_size: flags.writableLayerSize,
    display_name: flags.name,
    labels: labelsOf(flags.label),
    instance_type: flags.instanceType,
    network_type: flags.networkType,
    exposed_ports: flags.exposePort,
    distribution_scope: flags.node,
    registry_username: flags.registryUsername,
    registry_password: password,
    with_cube_ca: flags.withCubeCa,
    cube_network_config: hasNetwork ? network : undefined,
    container_overrides: overrides(flags),
  };
}

function overrides(flags: CreateFlags): CreateFromImageRequest["container_overrides"] {
  const probePort = flags.probe ?? flags.exposePort?.[0];
  return {
    command: flags.cmd,
    args: flags.arg,
    envs: flags.env?.map(split).map(([key, value]) => ({ key, value })),
    dns_config: flags.dns === undefined ? undefined : { servers: flags.dns },
    resources: { cpu: `${flags.cpu}m`, mem: `${flags.memory}Mi` },
    probe:
      probePort === undefined
        ? undefined
        : {
            port: probePort,
            path: flags.probePath,
            timeout_ms: 30_000,
            period_ms: 500,
            success_threshold: 1,
            failure_threshold: 60,
          },
  };
}

const split = (text: string): [string, string] => {
  const at = text.indexOf("=");
  return [text.slice(0, at), text.slice(at + 1)];
};

interface PasswordFlags {
  readonly registryPassword?: string;
  readonly registryPasswordStdin?: boolean;
  readonly registryPasswordFile?: string;
}

/** @throws AppError invalid_request for a password from two places */
export async function registryPassword(
  io: CliIo,
  flags: PasswordFlags,
): Promise<string | undefined> {
  const { registryPassword: typed, registryPasswordFile, registryPasswordStdin } = flags;
  const given = [typed, registryPasswordFile, registryPasswordStdin];
  if (given.filter((one) => one !== undefined).length > 1) {
    throw new AppError("invalid_request", "the registry password is given more than once");
  }
  if (registryPasswordStdin === true) return (await io.readStdin()).replace(/\r?\n$/, "");
  if (registryPasswordFile !== undefined) {
    return (await readPassword(registryPasswordFile)).replace(/\r?\n$/, "");
  }
  if (typed !== undefined) {
    io.err(
      "warning: --registry-password shows in the process list; use --registry-password-stdin\n",
    );
    return typed;
  }
  return io.env["TEMPLATECENTER_REGISTRY_PASSWORD"];
}

async function readPassword(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    throw new AppError("invalid_request", `cannot read the password file ${file}`, { cause });
  }
}

const LOCAL = /^(oci|oci-archive|docker-archive):(.+)$/;

/** Local images are named as the caller's folder has them; the daemon runs in another one. */
function absoluteReference(image: string): string {
  const [, kind, rest] = LOCAL.exec(image.trim()) ?? [];
  if (kind === undefined || rest === undefined) return image;
  const at = rest.indexOf(":");
  const path = at < 0 ? rest : rest.slice(0, at);
  return `${kind}:${resolve(path)}${at < 0 ? "" : rest.slice(at)}`;
}
