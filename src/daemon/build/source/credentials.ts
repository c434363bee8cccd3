/**
 * Passwords from the files that `docker login` and `podman login` write. Credential helpers are
 * programs of the user's: none is run.
 */
import { open } from "node:fs/promises";
import { z } from "zod";
import type { Log, RegistryCredentials } from "../../../domain/index.ts";
import { SOURCE_LIMITS } from "./limits.ts";
import type { RegistryReference } from "./reference.ts";

const fileSchema = z.object({
  auths: z
    .record(
      z.string(),
      z.object({
        auth: z.string().nullish(),
        username: z.string().nullish(),
        password: z.string().nullish(),
      }),
    )
    .nullish(),
});
type Entry = NonNullable<z.output<typeof fileSchema>["auths"]>[string];

const HUB_NAMES = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/**
 * The first file with an entry for the reference wins; within a file the longest key. A file that
 * is missing or broken is passed over (a broken one is logged, without its content).
 */
export async function findCredentials(
  reference: RegistryReference,
  files: readonly string[],
  log: Log,
): Promise<RegistryCredentials | undefined> {
  for (const file of files) {
    const text = await readSmall(file, log);
    const auths = text === undefined ? undefined : parseFile(text, file, log);
    const found = auths === undefined ? undefined : matchEntry(auths, reference);
    if (found !== undefined) return found;
  }
  return undefined;
}

async function readSmall(file: string, log: Log): Promise<string | undefined> {
  try {
    const handle = await open(file, "r");
    try {
      const buffer = Buffer.alloc(SOURCE_LIMITS.authFileBytes);
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, 0);
      return buffer.toString("utf8", 0, bytesRead);
    } finally {
      await handle.close();
    }
  } catch (error) {
    const isMissing = error instanceof Error && "code" in error && error.code === "ENOENT";
    if (!isMissing) log.warn("the registry credentials file cannot be read", { file });
    return undefined;
  }
}

function parseFile(text: string, file: string, log: Log): ReadonlyMap<string, Entry> | undefined {
  try {
    const { auths } = fileSchema.parse(JSON.parse(text));
    return new Map(Object.entries(auths ?? {}));
  } catch {
    // The parser's message may quote the file, and the file is full of passwords.
    log.warn("the registry credentials file is not valid", { file });
    return undefined;
  }
}

const withoutDecoration = (key: string): string =>
  key.replace(/^https?:\/\//, "").replace(/\/(?:v[12]\/?)?$/, "");

function matchEntry(
  auths: ReadonlyMap<string, Entry>,
  reference: RegistryReference,
): RegistryCredentials | undefined {
  const hosts = reference.host === "docker.io" ? HUB_NAMES : [reference.host];
  const names = hosts.map((host) => `${host}/${reference.repository}/`);
  const matches = [...auths]
    .map(([key, entry]) => ({ key: withoutDecoration(key), entry }))
    .filter(({ key }) => names.some((name) => name.startsWith(`${key}/`)))
    .sort((left, right) => right.key.length - left.key.length);
  for (const { entry } of matches) {
    const credentials = decodeEntry(entry);
    if (credentials !== undefined) return credentials;
  }
  return undefined;
}

function decodeEntry(entry: Entry): RegistryCredentials | undefined {
  if (entry.auth) {
    const text = Buffer.from(entry.auth, "base64").toString("utf8").replace(/\0+$/, "");
    const colon = text.indexOf(":");
    if (colon <= 0) return undefined;
    return { username: text.slice(0, colon), password: text.slice(colon + 1) };
  }
  if (!entry.username) return undefined;
  return { username: entry.username, password: entry.password ?? "" };
}
