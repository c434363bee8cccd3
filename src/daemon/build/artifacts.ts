/**
 * Root filesystem artifacts: found, shared or built (spec §3.4, §3.5, §3.7). The bytes are a
 * function of the build key (image digest and what is baked in), so artifacts whose specs differ
 * in ports or commands only share one file; the artifact's id is a function of the whole spec.
 */
import { createHash } from "node:crypto";
import { rm } from "node:fs/promises";
import {
  AppError,
  LIMITS,
  artifactIdOf,
  artifactMachine,
  errorText,
  fingerprintInput,
  isActiveJob,
  parseSizeBytes,
  type ArtifactRecord,
  type ArtifactStore,
  type BakeInputs,
  type Clock,
  type CreateFromImageRequest,
  type Holding,
  type Log,
  type Random,
  type ResolvedImage,
  type RootfsBuildProgress,
  type RootfsBuilder,
} from "../../domain/index.ts";
import { KeyedQueue, type Facts, type Records } from "../records.ts";

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
  readonly signal: AbortSignal;
  readonly onProgress: (progress: RootfsBuildProgress) => void;
  readonly onLog: (message: string) => void;
}

export interface Artifacts {
  specOf(image: ResolvedImage, request: CreateFromImageRequest, bake: BakePlan): ArtifactSpec;
  /**
   * The artifact of a spec, READY and on this node's disk; `fresh` when this call made its bytes.
   */
  ensure(
    spec: ArtifactSpec,
    image: ResolvedImage,
    request: CreateFromImageRequest,
    bake: BakePlan,
    hooks: EnsureHooks,
  ): Promise<{ artifact: ArtifactRecord; fresh: boolean }>;
  /** Removes file and record when no template and no active job names the artifact any more. */
  release(artifactId: string, except?: { jobId?: string; templateId?: string }): Promise<boolean>;
  /**
   * At start: records and holdings from what is on disk; BUILDING records of a dead process fail.
   */
  recover(): Promise<void>;
}

export interface ArtifactParts {
  readonly records: Records;
  readonly facts: Facts;
  readonly store: ArtifactStore;
  readonly builder: RootfsBuilder;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Called before bytes are made. @throws AppError disk_space_low */
  readonly assertSpace: (image: ResolvedImage) => Promise<void>;
}

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
  const save = async (artifact: ArtifactRecord): Promise<ArtifactRecord> => {
    await records.update("artifact", artifact.artifact_id, () => artifact);
    return artifact;
  };

  const claim = (
    spec: ArtifactSpec,
    image: ResolvedImage,
    request: CreateFromImageRequest,
    bake: BakePlan,
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
        download_token: parts.random.uuid(),
        created_at: current?.created_at ?? iso(),
        updated_at: iso(),
      };
    });

  /** READY, with a usable file: rows 38 to 41 of spec §11. */
  const usable = (artifact: ArtifactRecord | undefined): artifact is ArtifactRecord =>
    artifact?.status === "READY" &&
    artifact.image_config !== undefined &&
    store.find(artifact.artifact_id)?.digest === artifact.digest;

  const ready = (claimed: ArtifactRecord, made: Partial<ArtifactRecord>): ArtifactRecord => ({
    ...claimed,
    ...made,
    status: artifactMachine.next(claimed.artifact_id, claimed.status, "ready"),
    updated_at: iso(),
  });

  const shareBytes = async (claimed: ArtifactRecord): Promise<ArtifactRecord | undefined> => {
    for (const other of records.list("artifact")) {
      if (other.build_key !== claimed.build_key || !usable(other)) continue;
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
    await rm(scratch, { force: true });
    try {
      await parts.assertSpace(image);
      const result = await parts.builder.build(image, scratch, {
        sync: true,
        extraFreeBytes: extraFreeBytes(request),
        bake: bake.inputs,
        signal: hooks.signal,
        onProgress: hooks.onProgress,
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
      await rm(scratch, { force: true });
      throw error;
    }
  };

  const ensure: Artifacts["ensure"] = (spec, image, request, bake, hooks) =>
    // One at a time per build key: a second request joins the running build and finds its result.
    oneBuild.run(spec.buildKey, async () => {
      hooks.signal.throwIfAborted();
      const known = records.get("artifact", spec.artifactId);
      if (usable(known) && known.template_spec_fingerprint === spec.fingerprint) {
        hooks.onLog(`artifact ${spec.artifactId} is here already and is used again`);
        return { artifact: await save({ ...known, gc_deadline: deadline() }), fresh: false };
      }
      const claimed = (await claim(spec, image, request, bake)) as ArtifactRecord;
      try {
        const shared = await shareBytes(claimed);
        const artifact = shared ?? (await buildBytes(claimed, image, request, bake, hooks));
        await hold(await save(artifact));
        hooks.onLog(
          shared === undefined
            ? `artifact ${spec.artifactId} built: ${artifact.entries} entries, ${artifact.digest}`
            : `artifact ${spec.artifactId} shares the bytes of an equal build`,
        );
        return { artifact, fresh: shared === undefined };
      } catch (error) {
        await records.update("artifact", spec.artifactId, (current) =>
          current?.status === "BUILDING"
            ? { ...current, status: "FAILED", last_error: errorText(error), updated_at: iso() }
            : undefined,
        );
        throw error;
      }
    });

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
    async release(artifactId, except = {}) {
      for (const template of records.list("template")) {
        if (template.artifact_id === artifactId && template.template_id !== except.templateId) {
          return false;
        }
      }
      for (const job of records.list("job")) {
        if (job.artifact_id === artifactId && isActiveJob(job) && job.job_id !== except.jobId) {
          return false;
        }
      }
      await store.remove(artifactId);
      await facts.put("holding", artifactId, undefined);
      await records.update("artifact", artifactId, () => null);
      return true;
    },
    async recover() {
      for (const { artifact } of store.inventory()) {
        const known = records.get("artifact", artifact.artifact_id);
        if (known === undefined) {
          log.warn("artifact found on disk and taken into the catalog", {
            artifact_id: artifact.artifact_id,
          });
        }
        // A crash between publish and the record's write: the sidecar has the finished record.
        if (known === undefined || known.status === "BUILDING") await save(artifact);
        await hold(artifact);
      }
      for (const artifact of [...records.list("artifact")]) {
        if (artifact.status === "BUILDING") {
          await save({
            ...artifact,
            status: artifactMachine.next(artifact.artifact_id, "BUILDING", "fail"),
            last_error: "the daemon ended while it was built",
            updated_at: iso(),
          });
        } else if (artifact.status === "READY" && store.find(artifact.artifact_id) === undefined) {
          log.warn("artifact's file is missing", { artifact_id: artifact.artifact_id });
          await facts.put("holding", artifact.artifact_id, undefined);
        }
      }
    },
  };
}
