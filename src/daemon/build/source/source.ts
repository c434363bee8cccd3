/** Where images come from: the one way in for the pipeline (spec §3.2, §3.3; design §6). */
import type {
  Clock,
  ImageSource,
  LayerDescriptor,
  Log,
  Platform,
  Random,
  RegistryCredentials,
  ResolvedImage,
} from "../../../domain/index.ts";
import { openArchive } from "./archive.ts";
import { sniffCompression } from "./compression.ts";
import { findCredentials } from "./credentials.ts";
import { openDockerLayer, readDockerArchive } from "./docker-archive.ts";
import { FolderFiles } from "./file-set.ts";
import type { FileSet } from "./file-set.ts";
import type { HttpTimeouts } from "./http.ts";
import type { ImageContent } from "./image.ts";
import { openLayoutLayer, readLayout } from "./oci-layout.ts";
import { LayerPrefetch, parsePrefetch } from "./prefetch.ts";
import type { OpenOptions } from "./prefetch.ts";
import { normalizedReference, parseReference } from "./reference.ts";
import type { LocalReference, RegistryReference } from "./reference.ts";
import { RegistrySession } from "./registry.ts";

export interface SourceOptions {
  /** Layers downloaded at once, and kept ahead; as configured, so perhaps text. Default 6. */
  readonly prefetchLayers?: number | string | undefined;
  /** Certificate authorities of registries, PEM, trusted besides those that Node brings. */
  readonly caPem?: string | undefined;
  /** `host[:port]` whose certificates are not checked, and which may speak plain HTTP. */
  readonly insecureRegistries?: readonly string[] | undefined;
  /** Files of `docker login` and `podman login`, the first that knows the registry wins. */
  readonly authFiles?: readonly string[] | undefined;
  readonly timeouts?: Partial<HttpTimeouts> | undefined;
}

interface SourceInput {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly options?: SourceOptions;
}

interface ResolveOptions {
  readonly platform: Platform;
  readonly credentials?: RegistryCredentials;
  readonly scratchDir: string;
  readonly signal?: AbortSignal;
}

/**
 * Dispatches on the kind of reference. The `signal` given to `resolve` also ends what the resolved
 * image downloads later: it is the job's.
 */
export function createImageSource(input: SourceInput): ImageSource {
  return {
    async resolve(text: string, options: ResolveOptions): Promise<ResolvedImage> {
      const reference = parseReference(text);
      options.signal?.throwIfAborted();
      if (reference.kind === "registry") return await resolveRemote(input, reference, options);
      return await resolveLocal(reference, options);
    },
  };
}

async function resolveRemote(
  { clock, random, log, options = {} }: SourceInput,
  reference: RegistryReference,
  { platform, scratchDir, signal, credentials }: ResolveOptions,
): Promise<ResolvedImage> {
  const known = credentials ?? (await findCredentials(reference, options.authFiles ?? [], log));
  const stop = linkedAbort(signal);
  const session = new RegistrySession({
    reference,
    credentials: known,
    ports: { clock, random },
    http: {
      caPem: options.caPem,
      insecureHosts: options.insecureRegistries ?? [],
      timeouts: options.timeouts,
    },
    signal: stop.signal,
  });
  let content: ImageContent;
  try {
    content = await session.readImage(platform);
  } catch (error) {
    stop.end();
    await session.close();
    throw error;
  }
  const layers = content.layers.map((layer) => ({ ...layer }));
  const prefetch = new LayerPrefetch({
    layers: layers.length,
    limit: parsePrefetch(options.prefetchLayers),
    scratchDir,
    download: (index, ending) =>
      correcting(
        at(layers, index),
        session.openBlob(at(layers, index), AbortSignal.any([ending, stop.signal])),
      ),
  });
  return {
    ...content,
    reference: normalizedReference(reference),
    layers,
    openLayer: (index, opened) => (at(layers, index), prefetch.open(index, opened)),
    close: async () => {
      stop.end();
      await prefetch.close();
      await session.close();
    },
  };
}

async function resolveLocal(
  reference: LocalReference,
  { platform, scratchDir, signal }: ResolveOptions,
): Promise<ResolvedImage> {
  const { kind, path, select } = reference;
  const shown = normalizedReference(reference);
  if (kind === "oci") {
    return await layoutImage(new FolderFiles(path), shown, select, platform);
  }
  const archive = await openArchive(path, scratchDir, signal);
  if (kind === "oci-archive") return await layoutImage(archive, shown, select, platform);
  const image = await closingOnError(
    archive,
    async () => await readDockerArchive(archive, select, platform, signal),
  );
  const open = (index: number, ending?: AbortSignal) =>
    openDockerLayer(at(image.files, index), at(image.layers, index), ending);
  return localImage(archive, image, shown, open);
}

async function layoutImage(
  files: FileSet,
  shown: string,
  tag: string | undefined,
  platform: Platform,
): Promise<ResolvedImage> {
  const image = await closingOnError(files, async () => await readLayout(files, tag, platform));
  const open = (index: number, ending?: AbortSignal) =>
    openLayoutLayer(files, at(image.layers, index), ending);
  return localImage(files, image, shown, open);
}

function localImage(
  files: FileSet,
  { digest, config, layers }: ImageContent,
  reference: string,
  open: (index: number, signal?: AbortSignal) => AsyncIterable<Uint8Array>,
): ResolvedImage {
  let closed: Promise<void> | undefined;
  return {
    digest,
    reference,
    config,
    layers,
    openLayer: (index, options) => counting(open(index, options?.signal), options),
    close: async () => {
      closed ??= files.close();
      await closed;
    },
  };
}

async function* counting(
  source: AsyncIterable<Uint8Array>,
  options: OpenOptions | undefined,
): AsyncGenerator<Uint8Array, void> {
  for await (const bytes of source) {
    options?.onBytes?.(bytes.length);
    yield bytes;
  }
}

/** Sets the layer's compression right by its first bytes, before anybody can have read them. */
async function* correcting(
  layer: { compression: LayerDescriptor["compression"] },
  source: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void> {
  let isFirst = true;
  for await (const bytes of source) {
    if (isFirst) layer.compression = sniffCompression(bytes) ?? layer.compression;
    isFirst = false;
    yield bytes;
  }
}

async function closingOnError<T>(files: FileSet, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    await files.close();
    throw error;
  }
}

function at<T>(items: readonly T[], index: number): T {
  const item = items[index];
  if (item === undefined) throw new RangeError(`the image has no layer ${index}`);
  return item;
}

/** A signal of our own that also follows another, until `end`. */
function linkedAbort(other: AbortSignal | undefined): { signal: AbortSignal; end: () => void } {
  const own = new AbortController();
  const follow = () => own.abort(other?.reason);
  if (other?.aborted) follow();
  other?.addEventListener("abort", follow, { once: true });
  return {
    signal: own.signal,
    end: () => {
      other?.removeEventListener("abort", follow);
      own.abort(new Error("the image was closed"));
    },
  };
}
