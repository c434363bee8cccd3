/**
 * Root filesystem artifacts: found, shared or built (spec §3.4, §3.5, §3.7). The bytes are a
 * function of the build key (image digest and what is baked in), so artifacts whose specs differ
 * in ports or commands only share one file; the artifact's id is a function of the whole spec.
 */
import { createHash } from "node:crypto";
import {
  AppError,
  CLUSTER,
  LIMITS,
  artifactIdOf,
  artifactMachine,
  errorText,
  fingerprintInput,
  parseSizeBytes,
  type ArtifactRecord,
  type ArtifactStore,
  type BakeInputs,
  type Catalog,
  type Clock,
  type CreateFromImageRequest,
  type Folders,
  type Holding,
  type Log,
  type Random,
  type ResolvedImage,
  type RootfsBuildProgress,
  type RootfsBuilder,
} from "../../domain/index.ts";
import { KeyedQueue, type Facts, type Records } from "../records.ts";
import type { Builder } from "./builder.ts";
import type { Room } from "../disk/space.ts";
import type { Cleanup, ReleaseOptions } from "./cleanup.ts";

export interface BakePlan {
  readonly inputs: BakeInputs;
  /** Hex SHA-256 of the CA's DER; blank when none is baked. */
  readonly caFingerprint: string;
  /** Hex SHA-256 of the agent; blank when none is injected. */
  readonly envdSha256: string;
}

export interface ArtifactSpec {
  readonly artifactId: string;
  readonly fingerprint: string;
  readonly buildKey: string;
}

export interface EnsureHooks {
  readonly builder: Builder;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: RootfsBuildProgress) => void;
  readonly onLog: (message: string) => void;
}

/** Who builds, under which leadership: written into the record while it is BUILDING. */
export interface Artifacts {
  specOf(image: ResolvedImage, request: CreateFromImageRequest, bake: BakePlan): ArtifactSpec;
  /**
   * The artifact of a spec, READY and on the disk of this node or of another that is up; `fresh`
   * when this call made its bytes. While another node builds it, waits for that.
   */
  ensure(
    spec: ArtifactSpec,
    image: ResolvedImage,
    request: CreateFromImageRequest,
    bake: BakePlan,
    hooks: EnsureHooks,
  ): Promise<{ artifact: ArtifactRecord; fresh: boolean }>;
  /** READY, with a file here or at a node that is up. */
  isAvailable(artifact: ArtifactRecord | undefined): boolean;
  /** Lets it go when nobody refers to it any more; at once, or after the grace. */
  release(artifactId: string, options?: ReleaseOptions): Promise<void>;
  /**
   * At start and when the records may be written again: records and holdings from what is on disk;
   * this node's BUILDING records of a former life fail; files of deleted artifacts go.
   * @throws AppError no_quorum
   */
  recover(): Promise<void>;
}

export interface ArtifactParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly facts: Facts;
  readonly store: ArtifactStore;
  readonly folders: Pick<Folders, "remove">;
  readonly builder: RootfsBuilder;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly cleanup: Pick<Cleanup, "release">;
  /** By artifact id: its bytes are made here and removed here one after the other. */
  readonly files: KeyedQueue;
  /** Room for what is made of it. @throws AppError disk_space_low, storage_not_writable */
  readonly holdSpace: (image: ResolvedImage) => Promise<Room>;
  /** True while the leadership under which an artifact is BUILDING lasts, as far as known here. */
  readonly isBuilding: (builder: Builder) => boolean;
  /** The same, as a quorum knows it. @throws AppError no_quorum */
  readonly askBuilding: (builder: Builder) => Promise<boolean>;
  /** True when another node that is up holds all of the artifact. */
  readonly isHeldElsewhere: (artifact: ArtifactRecord) => boolean;
}

/** A builder that has died without a word is noticed by its leadership, looked at this often. */
const WAIT_FOR_BUILDER_MS = 1_000;
const BYTES_VERSION = 1;
const DEFAULT_FREE_BYTES = 256 * 1024 ** 2;
const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

/** Space for growth beyond the default: the guest can write as much as the request promises. */
const extraFreeBytes = (request: CreateFromImageRequest): number =>
  Math.max(0, (parseSizeBytes(request.writable_layer_size) ?? 0) - DEFAULT_FREE_BYTES);

export function createArtifacts(parts: ArtifactParts): Artifacts {
  const { records, facts, store, clock, log } = parts;
  const oneBuild = new KeyedQueue();
  const iso = () => new Date(clock.now()).toISOString();
  const deadline = () => Math.floor((clock.now() + LIMITS.artifactTtlMs) / 1_000);

  const hold = (artifact: ArtifactRecord) => {
    const holding: Holding = {
      artifact_id: artifact.artifact_id,
      digest: artifact.digest,
      size_bytes: artifact.ext4_size_bytes,
      complete: true,
      verified_at: iso(),
    };
    return facts.put("holding", artifact.artifact_id, holding);
  };
  /** Whoever collects it meanwhile loses, or it is READY no more: then it is claimed again. */
  const renew = (artifact: ArtifactRecord): Promise<ArtifactRecord | undefined> =>
    records.update("artifact", artifact.artifact_id, (current) => {
      if (current?.status !== "READY") return undefined;
      const { unreferenced_at: _since, ...used } = current;
      return { ...used, gc_deadline: deadline() };
    });

  /** READY, with a file here or at a node that is up: rows 38 to 41 of spec §11. */
  const isAvailable = (artifact: ArtifactRecord | undefined): boolean =>
    artifact?.status === "READY" &&
    artifact.image_config !== undefined &&
    (isHere(artifact) || parts.isHeldElsewhere(artifact));
  const isHere = (artifact: ArtifactRecord): boolean =>
    store.find(artifact.artifact_id)?.digest === artifact.digest &&
    !store.isSuspect(artifact.digest);
  const isSame = (a: Builder | undefined, b: Builder): boolean =>
    a?.node_id === b.node_id && a.template_id === b.template_id && a.epoch === b.epoch;
  const isBuiltByOther = (
    artifact: ArtifactRecord | undefined,
    self: Builder,
    ended: Builder | undefined,
  ): boolean =>
    artifact?.status === "BUILDING" &&
    artifact.builder !== undefined &&
    !isSame(artifact.builder, self) &&
    !isSame(ended, artifact.builder);

  const claim = (
    spec: ArtifactSpec,
    image: ResolvedImage,
    request: CreateFromImageRequest,
    bake: BakePlan,
    builder: Builder,
    ended: Builder | undefined,
  ) =>
    records.update("artifact", spec.artifactId, (current) => {
      if (current !== undefined && current.template_spec_fingerprint !== spec.fingerprint) {
        throw new AppError(
          "internal",
          `artifact ${spec.artifactId} belongs to another fingerprint`,
          {
            meta: { fingerprint: current.template_spec_fingerprint },
          },
        );
      }
      if (isAvailable(current) || isBuiltByOther(current, builder, ended)) return undefined;
      return {
        artifact_id: spec.artifactId,
        template_spec_fingerprint: spec.fingerprint,
        build_key: spec.buildKey,
        source_image_ref: image.reference,
        source_image_digest: image.digest,
        digest: "",
        ext4_size_bytes: 0,
        data_bytes: 0,
        entries: 0,
        writable_layer_size: request.writable_layer_size,
        image_config: { ...image.config } as NonNullable<ArtifactRecord["image_config"]>,
        status: artifactMachine.next(spec.artifactId, current?.status ?? "PENDING", "build"),
        last_error: "",
        gc_deadline: deadline(),
        cube_egress_ca_baked: false,
        cube_egress_ca_fingerprint: bake.caFingerprint,
        cube_egress_ca_targets_written: 0,
        download_token: current?.download_token ?? parts.random.uuid(),
        builder,
        created_at: current?.created_at ?? iso(),
        updated_at: iso(),
      };
    });

  const ready = (
    { builder: _ended, ...claimed }: ArtifactRecord,
    made: Partial<ArtifactRecord>,
  ): ArtifactRecord => ({
    ...claimed,
    ...made,
    status: artifactMachine.next(claimed.artifact_id, claimed.status, "ready"),
    built_on: facts.nodeId,
    updated_at: iso(),
  });

  const shareBytes = async (claimed: ArtifactRecord): Promise<ArtifactRecord | undefined> => {
    for (const other of records.list("artifact")) {
      if (other.build_key !== claimed.build_key || other.status !== "READY" || !isHere(other)) {
        continue;
      }
      const artifact = ready(claimed, {
        digest: other.digest,
        ext4_size_bytes: other.ext4_size_bytes,
        data_bytes: other.data_bytes,
        entries: other.entries,
        cube_egress_ca_baked: other.cube_egress_ca_baked,
        cube_egress_ca_targets_written: other.cube_egress_ca_targets_written,
      });
      await store.addSidecar(other.digest, { artifact });
      return artifact;
    }
    return undefined;
  };

  const buildBytes = async (
    claimed: ArtifactRecord,
    image: ResolvedImage,
    request: CreateFromImageRequest,
    bake: BakePlan,
    hooks: EnsureHooks,
  ): Promise<ArtifactRecord> => {
    const scratch = store.scratchPath(`${claimed.artifact_id}.ext4`);
    await parts.folders.remove(scratch);
    const room = await parts.holdSpace(image);
    let written = 0;
    try {
      const result = await parts.builder.build(image, scratch, {
        sync: true,
        extraFreeBytes: extraFreeBytes(request),
        bake: bake.inputs,
        signal: hooks.signal,
        onProgress(progress) {
          room.wrote(progress.writtenBytes - written);
          written = progress.writtenBytes;
          hooks.onProgress(progress);
        },
      });
      const artifact = ready(claimed, {
        digest: result.digest,
        ext4_size_bytes: result.sizeBytes,
        data_bytes: result.dataBytes,
        entries: result.entries,
        cube_egress_ca_baked: result.bake.ca_baked,
        cube_egress_ca_targets_written: result.bake.ca_targets_written,
      });
      await store.publish(scratch, result.manifest, { artifact });
      return artifact;
    } catch (error) {
      await parts.folders.remove(scratch);
      throw error;
    } finally {
      room.release();
    }
  };

  /** Resolves when the artifact's record has changed, or after a while. */
  const recordChange = async (artifactId: string, signal: AbortSignal): Promise<void> => {
    const changed = new AbortController();
    const unsubscribe = parts.catalog.subscribe(({ kind, id }) => {
      if (kind === "artifact" && id === artifactId) changed.abort();
    });
    try {
      await clock
        .sleep(WAIT_FOR_BUILDER_MS, { signal: AbortSignal.any([signal, changed.signal]) })
        .catch(() => undefined);
    } finally {
      unsubscribe();
    }
    signal.throwIfAborted();
  };

  const make = async (
    claimed: ArtifactRecord,
    image: ResolvedImage,
    request: CreateFromImageRequest,
    bake: BakePlan,
    hooks: EnsureHooks,
  ): Promise<{ artifact: ArtifactRecord; fresh: boolean }> => {
    const id = claimed.artifact_id;
    try {
      const shared = await shareBytes(claimed);
      const artifact = shared ?? (await buildBytes(claimed, image, request, bake, hooks));
      // The bytes are here, whatever is known of the record: it may be READY without our hearing.
      await hold(artifact);
      await records.update("artifact", id, (current) => {
        if (isSame(current?.builder, hooks.builder)) return artifact;
        // Another took over while this node was cut off; equal bytes do no harm.
        if (current?.status === "READY") return undefined;
        throw new AppError("fenced", `artifact ${id} is built by another leader now`);
      });
      hooks.onLog(
        shared === undefined
          ? `artifact ${id} built: ${artifact.entries} entries, ${artifact.digest}`
          : `artifact ${id} shares the bytes of an equal build`,
      );
      return { artifact, fresh: shared === undefined };
    } catch (error) {
      await records.update("artifact", id, (current) =>
        current?.status === "BUILDING" && isSame(current.builder, hooks.builder)
          ? { ...current, status: "FAILED", last_error: errorText(error), updated_at: iso() }
          : undefined,
      );
      throw error;
    }
  };

  const ensure: Artifacts["ensure"] = (spec, image, request, bake, hooks) =>
    // One at a time per build key: a second request joins the running build and finds its result.
    oneBuild.run(spec.buildKey, async () => {
      // A leadership that has ended never comes back; one not heard of here yet may well last.
      let ended: Builder | undefined;
      for (let said = ""; ;) {
        hooks.signal.throwIfAborted();
        const claimed = await claim(spec, image, request, bake, hooks.builder, ended);
        if (claimed !== undefined && isAvailable(claimed)) {
          const artifact = await renew(claimed);
          if (artifact?.status !== "READY") continue;
          hooks.onLog(`artifact ${spec.artifactId} exists already and is used again`);
          return { artifact, fresh: false };
        }
        if (claimed !== undefined && isSame(claimed.builder, hooks.builder)) {
          const work = () => make(claimed, image, request, bake, hooks);
          return parts.files.run(spec.artifactId, work);
        }
        const builder = claimed?.builder;
        if (builder !== undefined && !parts.isBuilding(builder)) {
          ended = (await parts.askBuilding(builder)) ? undefined : builder;
          if (ended !== undefined) continue;
        }
        const other = builder?.node_id ?? "";
        if (other !== said) hooks.onLog(`artifact ${spec.artifactId} is being built on ${other}`);
        said = other;
        await recordChange(spec.artifactId, hooks.signal);
      }
    });

  /** Its builder was this node, under a leadership that has ended. */
  const isOwnOfFormerLife = ({ builder }: ArtifactRecord): boolean =>
    builder === undefined || (builder.node_id === facts.nodeId && !parts.isBuilding(builder));

  const recoverHeld = async (artifact: ArtifactRecord): Promise<void> => {
    const id = artifact.artifact_id;
    const entry = parts.catalog.get(CLUSTER, "artifact", id);
    const known = entry?.value;
    if (entry !== undefined && known === undefined) {
      log.info("files of a deleted artifact are removed", { artifact_id: id });
      await store.remove(id);
      return facts.put("holding", id, undefined);
    }
    if (known?.status === "READY" && known.digest !== artifact.digest) return;
    if (known === undefined) log.warn("artifact found on disk", { artifact_id: id });
    // A crash between publish and the record's write: the sidecar has the finished record.
    if (known === undefined || (known.status === "BUILDING" && isOwnOfFormerLife(known))) {
      await records.update("artifact", id, (current) =>
        current === undefined || (current.status === "BUILDING" && isOwnOfFormerLife(current))
          ? artifact
          : undefined,
      );
    }
    if (facts.get("holding", id)?.complete !== true) await hold(artifact);
  };

  return {
    specOf(image, request, bake) {
      const fingerprint = sha256(
        fingerprintInput({
          source_image_digest: image.digest,
          writable_layer_size: request.writable_layer_size,
          exposed_ports: request.exposed_ports ?? [],
          instance_type: request.instance_type ?? "cubebox",
          network_type: request.network_type ?? "tap",
          container_overrides: request.container_overrides,
          cube_egress_ca_fingerprint: bake.caFingerprint,
          envd_binary_sha256: bake.envdSha256,
        }),
      );
      const free = extraFreeBytes(request);
      const bytes = [BYTES_VERSION, image.digest, bake.caFingerprint, bake.envdSha256, free];
      return {
        artifactId: artifactIdOf(fingerprint),
        fingerprint,
        buildKey: sha256(JSON.stringify(bytes)),
      };
    },
    ensure,
    isAvailable,
    release: (artifactId, options) => parts.cleanup.release(artifactId, options),
    async recover() {
      for (const { artifact } of store.inventory()) await recoverHeld(artifact);
      for (const artifact of [...records.list("artifact")]) {
        const id = artifact.artifact_id;
        if (artifact.status === "BUILDING" && isOwnOfFormerLife(artifact)) {
          await records.update("artifact", id, (current) =>
            current?.status === "BUILDING" && isOwnOfFormerLife(current)
              ? {
                  ...current,
                  status: artifactMachine.next(id, "BUILDING", "fail"),
                  last_error: "the daemon ended while it was built",
                  updated_at: iso(),
                }
              : undefined,
          );
        } else if (artifact.status === "READY" && store.find(id) === undefined) {
          if (facts.get("holding", id)?.complete !== true) continue;
          log.warn("artifact's file is missing", { artifact_id: id });
          await facts.put("holding", id, undefined);
        }
      }
    },
  };
}
