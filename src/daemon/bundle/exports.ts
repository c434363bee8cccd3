/** Templates and snapshots on their way out, from what this node holds of them. */
import { open, type FileHandle } from "node:fs/promises";
import {
  AppError,
  BUNDLE_FORMAT,
  BUNDLE_SIGNED_PREFIX,
  BUNDLE_VERSION,
  ROOTFS_FILE,
  portableArtifact,
  portableTemplate,
  type ArtifactRecord,
  type ArtifactStore,
  type BundleFile,
  type BundleManifest,
  type Catalog,
  type Clock,
  type DriverSnapshot,
  type RuntimeDriver,
  type TemplateRecord,
} from "../../domain/index.ts";
import type { Members, Signer } from "../../gossip/index.ts";
import type { Facts, Records } from "../records.ts";
import { storedBytes } from "./format.ts";
import { writeBundle, type BundleContent } from "./write.ts";

export interface ExportParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly facts: Facts;
  readonly store: ArtifactStore;
  readonly driver: RuntimeDriver;
  readonly replicas: { snapshot(templateId: string): DriverSnapshot | undefined };
  readonly members: Pick<Members, "config">;
  /** This node's key. @throws AppError identity_copied */
  readonly signer: () => Promise<Signer>;
  readonly clock: Clock;
  /** Of this program. */
  readonly version: string;
}

export interface Export {
  readonly manifest: BundleManifest;
  /** Must be read to its end, or returned: files are open. */
  readonly body: AsyncIterableIterator<Uint8Array>;
}

export const signedBytes = (manifest: Uint8Array): Uint8Array =>
  Buffer.concat([Buffer.from(BUNDLE_SIGNED_PREFIX), manifest]);

interface Opened extends BundleContent {
  readonly part: BundleFile;
}

async function openContent(
  name: string,
  source: { path: string; digest: string; manifest: BundleContent["manifest"] },
): Promise<Opened> {
  const { path, digest, manifest } = source;
  // From here on it may be removed meanwhile.
  const file = await open(path, "r").catch((cause: unknown) => {
    throw new AppError("artifact_source_missing", `the file of ${name} is gone`, { cause });
  });
  const part = {
    name,
    digest,
    size_bytes: manifest.sizeBytes,
    stored_bytes: storedBytes(manifest),
  };
  return { file, manifest, part };
}

/** Lets the files go when the reader is done or gives up, also before its first byte. */
function closing(
  body: AsyncGenerator<Uint8Array>,
  files: readonly FileHandle[],
): AsyncIterableIterator<Uint8Array> {
  let closed: Promise<unknown> | undefined;
  const close = () => (closed ??= Promise.all(files.map((file) => file.close())));
  return {
    async next() {
      try {
        const next = await body.next();
        if (next.done === true) await close();
        return next;
      } catch (error) {
        await close();
        throw error;
      }
    },
    async return() {
      const done = await body.return(undefined);
      await close();
      return done;
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

export function createExports(parts: ExportParts) {
  const { catalog, records, facts, store, clock } = parts;

  const elsewhere = (holders: readonly string[]): string =>
    holders.length === 0 ? "no node has it" : `ask ${[...holders].sort().join(" or ")}`;

  const artifactOf = (record: TemplateRecord): ArtifactRecord => {
    const id = record.artifact_id ?? "";
    const artifact = records.get("artifact", id);
    if (artifact?.status !== "READY") {
      throw new AppError("artifact_not_ready", `the root filesystem ${id} is not READY`);
    }
    if (store.find(id)?.digest !== artifact.digest) {
      const holders = [...catalog.list("holding", { id })]
        .filter(({ value }) => value?.complete === true)
        .map(({ owner }) => owner)
        .filter((node) => node !== facts.nodeId);
      throw new AppError(
        "artifact_source_missing",
        `the root filesystem ${id} is not on this node: ${elsewhere(holders)}`,
        { meta: { holders } },
      );
    }
    return artifact;
  };
  /** The files of a snapshot on this node, in the driver's words. */
  const snapshotOf = async (id: string, signal: AbortSignal | undefined) => {
    const snapshot = parts.replicas.snapshot(id);
    if (snapshot === undefined) {
      const ready = [...catalog.list("replica", { id })]
        .filter(({ value }) => value?.status === "READY")
        .map(({ owner }) => owner)
        .filter((node) => node !== facts.nodeId);
      throw new AppError(
        "template_has_no_ready_replica",
        `the files of ${id} are not on this node: ${elsewhere(ready)}`,
        { meta: { holders: ready } },
      );
    }
    const made = await parts.driver.exportSnapshot(
      snapshot,
      signal === undefined ? {} : { signal },
    );
    return { driver: snapshot.driver, ...made };
  };
  const compatOf = (id: string): BundleManifest["compat"] => {
    const own = facts.get("replica", id);
    const {
      guest_image_version = "",
      agent_version = "",
      kernel_version = "",
      versions_extra = {},
    } = own ?? {};
    return { guest_image_version, agent_version, kernel_version, versions_extra };
  };

  return {
    /**
     * @throws AppError wrong_status, artifact_not_ready, artifact_source_missing,
     *   template_has_no_ready_replica: the last two name the nodes that can
     */
    async open(record: TemplateRecord, signal?: AbortSignal): Promise<Export> {
      const { template_id: id, kind, status } = record;
      if (status !== "READY" && status !== "PARTIALLY_READY") {
        throw new AppError("wrong_status", `${kind} ${id} is ${status}, not READY`);
      }
      const artifact = artifactOf(record);
      const bytes = store.findDigest(artifact.digest);
      if (bytes === undefined) throw new AppError("artifact_source_missing");
      const snapshot = kind === "snapshot" ? await snapshotOf(id, signal) : undefined;
      const signer = await parts.signer();
      const opened: Opened[] = [];
      try {
        const { digest } = artifact;
        const manifest = await store.manifest(digest);
        opened.push(await openContent(ROOTFS_FILE, { ...bytes, digest, manifest }));
        for (const file of snapshot?.files ?? []) opened.push(await openContent(file.name, file));
      } catch (error) {
        await Promise.all(opened.map(({ file }) => file.close()));
        throw error;
      }
      const manifest: BundleManifest = {
        format: BUNDLE_FORMAT,
        version: BUNDLE_VERSION,
        kind,
        created_at: new Date(clock.now()).toISOString(),
        creator: {
          node_id: facts.nodeId,
          cluster_id: parts.members.config()?.cluster_id ?? "",
          key: signer.key,
          program: `templatecenter ${parts.version}`,
        },
        template: portableTemplate(record),
        artifact: portableArtifact(artifact),
        compat: compatOf(id),
        ...(snapshot === undefined
          ? {}
          : { snapshot: { driver: snapshot.driver, description: snapshot.description } }),
        files: opened.map(({ part }) => part),
      };
      const body = writeBundle({
        manifest,
        contents: opened,
        sign: (text) => signer.sign(signedBytes(text)),
        ...(signal === undefined ? {} : { signal }),
      });
      return {
        manifest,
        body: closing(
          body,
          opened.map(({ file }) => file),
        ),
      };
    },
  };
}

export type Exports = ReturnType<typeof createExports>;
