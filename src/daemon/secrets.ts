/** Files that only the daemon may read: API token, registry logins, registries' CAs. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { isIPv4 } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";
import { AppError } from "../domain/index.ts";
import type { SourceOptions } from "./build/source/source.ts";
import type { Config } from "./config.ts";
import type { AuthToken } from "./http/ports.ts";

async function readSecret(key: string, path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new AppError("config_invalid", `${key}: ${path} cannot be read`, { cause });
  }
}

const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || (isIPv4(host) && host.startsWith("127."));

/**
 * The token of the API, hashed. None: TCP is open, which is only allowed on loopback.
 * @throws AppError config_invalid
 */
export async function readTokens(config: Config): Promise<AuthToken[]> {
  if (config.api_token_file === "") {
    if (isLoopback(config.listen.host)) return [];
    throw new AppError(
      "config_invalid",
      `listen = ${config.listen.host}: an address beyond loopback needs api_token_file`,
    );
  }
  const token = (await readSecret("api_token_file", config.api_token_file)).trim();
  if (token.length < 16) {
    throw new AppError("config_invalid", "api_token_file: the token has fewer than 16 characters");
  }
  return [{ name: "api", sha256: createHash("sha256").update(token).digest("hex") }];
}

/** Where registry logins are looked for, in order, and whom to trust. */
export async function sourceOptions(config: Config): Promise<SourceOptions> {
  const { registry_ca_file: caFile, registry_auth_file: authFile } = config;
  const dockerDir = process.env["DOCKER_CONFIG"] ?? join(homedir(), ".docker");
  return {
    insecureRegistries: config.insecure_registries,
    authFiles: [
      authFile,
      process.env["REGISTRY_AUTH_FILE"] ?? "",
      join(dockerDir, "config.json"),
    ].filter((path) => path !== ""),
    ...(caFile === "" ? {} : { caPem: await readSecret("registry_ca_file", caFile) }),
  };
}

/**
 * A guest reaches services on the host's loopback. While the API there needs no token, `auto` cuts
 * guests off, so that what runs in a sandbox cannot drive the daemon.
 */
export const isolatesGuests = (config: Config): boolean =>
  config.guest_network === "isolated" ||
  (config.guest_network === "auto" && config.api_token_file === "");
