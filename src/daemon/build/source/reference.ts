/**
 * Image references as people write them (spec §3.2, with the later strict rules). Nothing here
 * touches the network or the disk.
 */
import { AppError } from "../../../domain/index.ts";
import { isDigest } from "./digest.ts";

export interface RegistryReference {
  readonly kind: "registry";
  /** `http`: asked for by prefix. `https`: asked for by prefix. `auto`: not said. */
  readonly scheme: "auto" | "https" | "http";
  /** As shown and as looked up in credential files: `docker.io`, `[::1]:5000`, lower case. */
  readonly host: string;
  readonly repository: string;
  /** Absent when a digest is given: the digest wins. */
  readonly tag?: string;
  readonly digest?: string;
}

export interface LocalReference {
  readonly kind: "oci" | "oci-archive" | "docker-archive";
  readonly path: string;
  /** Tag in an OCI layout; reference, or `@<index>`, in a docker archive. */
  readonly select?: string;
}

export type ImageReference = RegistryReference | LocalReference;

const LOCAL_KINDS = ["oci", "oci-archive", "docker-archive"] as const;
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const HOST_NAME = /^[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::(\d{1,5}))?$/;
const HOST_IPV6 = /^\[[0-9A-Fa-f:.]+\](?::(\d{1,5}))?$/;
const REGISTRY_ALPHABET = /^[A-Za-z0-9._:/@[\]-]+$/;
// Letters and digits of any script: local paths are not ours to name.
const PATH_ALPHABET = /^[\p{L}\p{N}._:/@+=,~%-]+$/u;
const MAX_LENGTH = 4096;
const MAX_REPOSITORY_LENGTH = 255;

// The text itself is never quoted: people paste references with a password in them.
const invalid = (detail: string): AppError =>
  new AppError("invalid_image_reference", `the image reference is not valid: ${detail}`, {
    meta: { errors: [{ pointer: "/source_image_ref", detail }] },
  });

/** @throws AppError invalid_image_reference, with the reason and the field's pointer in `meta`. */
export function parseReference(input: string): ImageReference {
  const text = input.trim();
  if (text === "") throw invalid("it is empty");
  if (text.length > MAX_LENGTH) throw invalid(`it is longer than ${MAX_LENGTH} characters`);
  if (text.startsWith("-")) throw invalid("it begins with a hyphen");
  if (/\s/.test(text)) throw invalid("it contains white space");
  for (const kind of LOCAL_KINDS) {
    if (text.startsWith(`${kind}:`)) return parseLocal(kind, text.slice(kind.length + 1));
  }
  return parseRegistry(text);
}

/** The path ends at the first colon, as in skopeo: a tag may contain slashes and colons. */
function parseLocal(kind: LocalReference["kind"], rest: string): LocalReference {
  const colon = rest.indexOf(":");
  const path = colon === -1 ? rest : rest.slice(0, colon);
  const select = colon === -1 ? undefined : rest.slice(colon + 1);
  if (path === "") throw invalid(`${kind}: needs a path`);
  if (path.startsWith("-")) throw invalid("the path begins with a hyphen");
  if (!PATH_ALPHABET.test(rest)) throw invalid("it contains a character that is not allowed");
  if (select === "") throw invalid("nothing follows the colon after the path");
  return select === undefined ? { kind, path } : { kind, path, select };
}

function parseRegistry(text: string): RegistryReference {
  const { scheme, rest } = takePrefix(text);
  if (rest === "") throw invalid("nothing follows the prefix");
  if (rest.startsWith("-")) throw invalid("it begins with a hyphen");
  if (!REGISTRY_ALPHABET.test(rest)) throw invalid("it contains a character that is not allowed");
  const { name, digest } = takeDigest(rest);
  const lastSlash = name.lastIndexOf("/");
  const colon = name.lastIndexOf(":");
  const tagged = colon > lastSlash;
  const tag = tagged ? name.slice(colon + 1) : undefined;
  if (tag === "") throw invalid("nothing follows the colon of the tag");
  if (tag !== undefined && !TAG.test(tag)) throw invalid("the tag is malformed");
  const { host, repository } = splitHost(tagged ? name.slice(0, colon) : name, scheme);
  checkRepository(repository);
  const base = { kind: "registry", scheme, host, repository } as const;
  return digest === undefined ? { ...base, tag: tag ?? "latest" } : { ...base, digest };
}

function takePrefix(text: string): { scheme: RegistryReference["scheme"]; rest: string } {
  if (text.startsWith("docker://")) return { scheme: "auto", rest: text.slice(9) };
  if (text.startsWith("https://")) return { scheme: "https", rest: text.slice(8) };
  if (text.startsWith("http://")) return { scheme: "http", rest: text.slice(7) };
  if (text.includes("://")) throw invalid("the transport before :// is not known");
  return { scheme: "auto", rest: text };
}

function takeDigest(text: string): { name: string; digest?: string } {
  const at = text.indexOf("@");
  if (at === -1) return { name: text };
  const digest = text.slice(at + 1);
  if (!isDigest(digest)) {
    throw invalid("the digest is malformed: sha256: and 64 lower-case hexadecimal digits expected");
  }
  return { name: text.slice(0, at), digest };
}

/** Behind `http://` or `https://` the first component is a host, whatever it looks like. */
function splitHost(
  name: string,
  scheme: RegistryReference["scheme"],
): { host: string; repository: string } {
  const slash = name.indexOf("/");
  const first = slash === -1 ? "" : name.slice(0, slash);
  if (scheme !== "auto" && slash === -1) throw invalid("no repository follows the host");
  const looksLikeHost = /[.:[\]]/.test(first) || first.toLowerCase() === "localhost";
  if (scheme === "auto" && !looksLikeHost) {
    return { host: "docker.io", repository: slash === -1 ? `library/${name}` : name };
  }
  const host = first.toLowerCase();
  const port = (HOST_IPV6.exec(host) ?? HOST_NAME.exec(host) ?? [undefined, "0"])[1];
  const hostIsValid = HOST_IPV6.test(host) ? isIpv6Literal(host) : !host.includes("..");
  if (!hostIsValid || (port !== undefined && (Number(port) < 1 || Number(port) > 65_535))) {
    throw invalid("the registry's host is malformed");
  }
  const repository = name.slice(slash + 1);
  if (host !== "docker.io" && host !== "index.docker.io") return { host, repository };
  const isSingle = !repository.includes("/");
  return { host: "docker.io", repository: isSingle ? `library/${repository}` : repository };
}

function isIpv6Literal(host: string): boolean {
  return URL.canParse(`http://${host}/`);
}

function checkRepository(repository: string): void {
  if (/[A-Z]/.test(repository)) throw invalid("the repository contains upper-case letters");
  if (repository.length > MAX_REPOSITORY_LENGTH) throw invalid("the repository is too long");
  if (!repository.split("/").every((component) => COMPONENT.test(component))) {
    throw invalid("the repository is malformed");
  }
  if (/^library\/[0-9a-f]{64}$/.test(repository)) {
    throw invalid("64 hexadecimal digits are an image id, not a name");
  }
}

/** What is shown and stored; parsing it gives an equal reference again. */
export function normalizedReference(reference: ImageReference): string {
  if (reference.kind !== "registry") {
    const { kind, path, select } = reference;
    return select === undefined ? `${kind}:${path}` : `${kind}:${path}:${select}`;
  }
  const prefix = reference.scheme === "auto" ? "" : `${reference.scheme}://`;
  const version = reference.digest === undefined ? `:${reference.tag}` : `@${reference.digest}`;
  return `${prefix}${reference.host}/${reference.repository}${version}`;
}

/** Where the registry's API answers: Docker Hub's name is not its host. */
export const apiHost = (reference: RegistryReference): string =>
  reference.host === "docker.io" ? "registry-1.docker.io" : reference.host;
