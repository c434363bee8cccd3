/**
 * Reads what is baked into a root filesystem: the CubeEgress root CA and the in-guest agent (spec
 * §3.9).
 */
import { createHash } from "node:crypto";
import { access, readFile } from "node:fs/promises";
import { ANNOTATIONS, AppError, type CreateFromImageRequest } from "../domain/index.ts";
import type { BakePlan } from "./build/artifacts.ts";
import { caFingerprint } from "./build/layers/ca.ts";

/**
 * The plan of a request. `with_cube_ca` true needs the certificate; absent, it is baked where the
 * operator has put one; false never bakes.
 * @throws AppError ca_invalid, envd_missing
 */
export async function readBakePlan(
  request: Pick<CreateFromImageRequest, "with_cube_ca" | "container_overrides">,
  files: { caFile: string; envdPath: string },
): Promise<BakePlan> {
  const wanted = request.with_cube_ca ?? (await exists(files.caFile));
  const caPem = wanted ? await readCa(files.caFile) : undefined;
  // Exactly "true" (spec §3.9): any other value leaves the root filesystem untouched.
  const inject = request.container_overrides?.annotations?.[ANNOTATIONS.injectEnvd] === "true";
  const envd = inject ? await readEnvd(files.envdPath) : undefined;
  return {
    inputs: {
      ...(caPem === undefined ? {} : { caPem }),
      ...(envd === undefined ? {} : { envd }),
    },
    caFingerprint: caPem === undefined ? "" : caFingerprint(caPem),
    envdSha256: envd === undefined ? "" : createHash("sha256").update(envd).digest("hex"),
  };
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

async function readCa(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new AppError("ca_invalid", `the CubeEgress root CA cannot be read from ${path}`, {
      cause,
    });
  }
}

async function readEnvd(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new AppError("envd_missing", `the agent to inject cannot be read from ${path}`, {
      cause,
    });
  }
}
