/**
 * Bundles on their way in. A bundle is read to its end into scratch files, and every byte of it is
 * checked, before a record, fact or file of it is where anybody looks. What makes it visible is one
 * write: of a template its job, which the leader takes up like any other; of a snapshot its record.
 */
import {
  AppError,
  CONCURRENT_IMPORTS,
  ROOTFS_FILE,
  createFromImageSchema,
  isSameTemplate,
  newJobId,
  newSnapshotId,
  newTemplateId,
  parseTemplateId,
  renamedTemplate,
  type ArtifactRecord,
  type BundleManifest,
  type CallContext,
  type DriverSnapshot,
  type ImportRequest,
  type Imported,
  type JobRecord,
  type Log,
  type PortableTemplate,
  type RuntimeDriver,
  type TemplateRecord,
} from "../../domain/index.ts";
import { pendingJob } from "../job-record.ts";
import { verifySigned, type Members, type Signer } from "../../gossip/index.ts";
import type { Space } from "../disk/space.ts";
import type { JobLog } from "../job-log.ts";
import { targetNodes, type Nodes } from "../nodes.ts";
import type { ReplicasWorker } from "../workers/replicas.ts";
import { adoptArtifact, assertAdoptable, type AdoptParts } from "./adopt.ts";
import { signedBytes } from "./exports.ts";
import { readBundle, type FileSink } from "./read.ts";
import { ScratchFiles, type StagedFile } from "./scratch.ts";

export interface ImportParts extends AdoptParts {
  readonly nodes: Nodes;
  readonly driver: RuntimeDriver;
  readonly replicas: Pick<ReplicasWorker, "folder" | "take">;
  readonly members: Pick<Members, "config">;
  readonly signer: () => Promise<Signer>;
  readonly space: Pick<Space, "hold">;
  readonly jobLog: JobLog;
  readonly log: Log;
  readonly jobDeadlineMs: number;
}

/** What is wanted of a bundle whose signature was found good. */
interface Wanted {
  readonly manifest: BundleManifest;
  readonly template: PortableTemplate;
  /** It is here already: the rest is only checked. */
  readonly isPresent: boolean;
}

const NOWHERE: FileSink = { write: async () => undefined };

export function createImports(parts: ImportParts) {
  const { records, nodes, clock, random, store, log } = parts;
  let underWay = 0;
  const now = () => new Date(clock.now()).toISOString();

  const assertSigned = async (
    { creator }: BundleManifest,
    signed: { readonly bytes: Uint8Array; readonly signature: Uint8Array },
    trust: readonly string[],
  ): Promise<void> => {
    if (!(await verifySigned(creator.key, signedBytes(signed.bytes), signed.signature))) {
      throw new AppError("bundle_untrusted", "the signature is not that of the key it names");
    }
    const config = parts.members.config();
    const members = Object.values(config?.members ?? {}).map(({ peer_id }) => peer_id);
    const own = members.length === 0 ? [(await parts.signer()).key] : members;
    if ([...own, ...trust].includes(creator.key)) return;
    const { node_id, cluster_id, key } = creator;
    const from = cluster_id === "" ? "a node that was alone" : `cluster ${cluster_id}`;
    throw new AppError(
      "bundle_untrusted",
      `the bundle is signed by ${key} (it says: node ${node_id} of ${from}), which is no member here`,
      { meta: { key, node_id, cluster_id, hint: `if you know that key: --trust ${key}` } },
    );
  };

  const wantedOf = (manifest: BundleManifest, request: ImportRequest): PortableTemplate => {
    const isSnapshot = manifest.kind === "snapshot";
    const made = isSnapshot ? newSnapshotId : newTemplateId;
    const given = request.template_id;
    const id =
      request.new_id === true
        ? made(random)
        : given === undefined
          ? manifest.template.template_id
          : parseTemplateId(given);
    if (id.startsWith("snap-") !== isSnapshot) {
      throw new AppError("invalid_request", `${id} is no id of a ${manifest.kind}`, {
        meta: { errors: [{ pointer: "/template_id", detail: "is an id of another kind" }] },
      });
    }
    const named = renamedTemplate(manifest.template, id);
    const { display_name } = request;
    if (!isSnapshot && !createFromImageSchema.shape.display_name.safeParse(display_name).success) {
      throw new AppError("invalid_request", `${String(display_name)} is no name of a template`, {
        meta: { errors: [{ pointer: "/display_name", detail: "is not a template's name" }] },
      });
    }
    return display_name === undefined ? named : { ...named, display_name };
  };

  const findPresent = async (wanted: PortableTemplate, digest: string): Promise<boolean> => {
    const { template_id: id } = wanted;
    // What a majority knows: it may have been made where this node has not heard of it.
    const here = await records.update("template", id, () => undefined);
    if (here === undefined) return false;
    const artifact = records.get("artifact", here.artifact_id ?? "");
    if (isSameTemplate(here, artifact, wanted, digest)) return true;
    throw new AppError(
      "template_already_exists",
      `${here.kind} ${id} is here already, with other content or ${here.status}`,
      { meta: { template_id: id, hint: "take it in under another id: --new-id, or --id ID" } },
    );
  };

  const assertRunnable = ({ snapshot }: BundleManifest): void => {
    if (snapshot === undefined || snapshot.driver === parts.driver.name) return;
    throw new AppError(
      "driver_unavailable",
      `the snapshot was made by the ${snapshot.driver} driver; this node runs ${parts.driver.name}`,
    );
  };

  const jobOf = (
    { manifest, template }: Wanted,
    made: { artifact: ArtifactRecord; fresh: boolean },
    request: ImportRequest,
    context: CallContext,
  ): JobRecord =>
    pendingJob(
      { node: nodes.self, nowMs: clock.now(), limitMs: parts.jobDeadlineMs },
      {
        job_id: newJobId(random),
        template_id: template.template_id,
        request_id: context.requestId,
        resource_type: "template",
        resource_id: template.template_id,
        operation: "IMPORT",
        artifact_id: made.artifact.artifact_id,
        artifact_fresh: made.fresh,
        source_image_ref: manifest.artifact.source_image_ref,
        source_image_digest: manifest.artifact.source_image_digest,
        template_spec_fingerprint: manifest.artifact.template_spec_fingerprint,
        writable_layer_size: manifest.artifact.writable_layer_size,
        instance_type: template.instance_type,
        definition: template,
        import_scope: [...(request.distribution_scope ?? [])],
        phase: "DISTRIBUTING",
        artifact_status: "READY",
      },
    );

  /** The files become this node's replica, and the record is what makes it one. */
  const takeSnapshot = async (
    { manifest, template }: Wanted,
    artifact: ArtifactRecord,
    staged: readonly StagedFile[],
  ): Promise<void> => {
    const { template_id: id } = template;
    const at = now();
    const record: TemplateRecord = {
      ...template,
      status: "READY",
      labels: template.labels ?? {},
      retain: true,
      artifact_id: artifact.artifact_id,
      generation: 1,
      desired_nodes: [nodes.self],
      distribution_scope: [nodes.self],
      last_error: "",
      updated_at: at,
    };
    const { versions_extra = {}, ...versions } = manifest.compat;
    const make = async (): Promise<DriverSnapshot> => {
      const rootfs = store.findDigest(artifact.digest);
      if (rootfs === undefined) throw new AppError("artifact_source_missing");
      return parts.driver.importSnapshot({
        templateId: id,
        snapshotId: id,
        versions: {
          guest_image_version: versions.guest_image_version ?? "",
          agent_version: versions.agent_version ?? "",
          kernel_version: versions.kernel_version ?? "",
          extra: versions_extra,
        },
        description: manifest.snapshot?.description ?? {},
        files: staged.filter(({ name }) => name !== ROOTFS_FILE),
        rootfsPath: rootfs.path,
        dir: parts.replicas.folder(id),
      });
    };
    await parts.replicas.take(record, make, async () => {
      await records.update("template", id, (current) => {
        if (current === undefined) return record;
        throw new AppError("template_already_exists", `snapshot ${id} was made meanwhile`);
      });
    });
  };

  const accept = async (
    wanted: Wanted,
    staged: readonly StagedFile[],
    request: ImportRequest,
    context: CallContext,
  ): Promise<Pick<Imported, "outcome" | "job_id">> => {
    const rootfs = staged.find(({ name }) => name === ROOTFS_FILE);
    if (wanted.isPresent || rootfs === undefined) return { outcome: "present", job_id: "" };
    const made = await adoptArtifact(parts, wanted.manifest.artifact, rootfs);
    if (wanted.manifest.kind === "snapshot") {
      await takeSnapshot(wanted, made.artifact, staged);
      return { outcome: "imported", job_id: "" };
    }
    const job = jobOf(wanted, made, request, context);
    await records.update("job", job.job_id, () => job);
    const { node_id, key } = wanted.manifest.creator;
    const from = `from a bundle of ${node_id}, signed by ${key}`;
    parts.jobLog.append(job.job_id, "info", `asked for by ${context.actor}, ${from}`);
    return { outcome: "accepted", job_id: job.job_id };
  };

  const take = async (
    source: AsyncIterable<Uint8Array>,
    request: ImportRequest,
    context: CallContext,
  ): Promise<Imported> => {
    const scratch = new ScratchFiles(store, random.uuid());
    const { signal } = context;
    let wanted: Wanted | undefined;
    let room: Awaited<ReturnType<Space["hold"]>> | undefined;
    try {
      const manifest = await readBundle(source, {
        ...(signal === undefined ? {} : { signal }),
        async onManifest(told, signed) {
          await assertSigned(told, signed, request.trust ?? []);
          const template = wantedOf(told, request);
          const isPresent = await findPresent(template, told.artifact.digest);
          wanted = { manifest: told, template, isPresent };
          if (isPresent) return;
          assertAdoptable(records.get("artifact", told.artifact.artifact_id), told.artifact);
          assertRunnable(told);
          if (told.kind === "template") targetNodes(nodes.all(), request.distribution_scope ?? []);
          const bytes = told.files.reduce((sum, file) => sum + file.stored_bytes, 0);
          room = await parts.space.hold(bytes, "import");
        },
        onFile: async (file, chunks) =>
          wanted?.isPresent === true
            ? NOWHERE
            : scratch.begin(file, chunks, (bytes) => room?.wrote(bytes)),
      });
      if (wanted === undefined) throw new AppError("internal", "a bundle without manifest");
      const staged = await scratch.finish();
      const done = await accept(wanted, staged, request, context);
      const { template_id } = wanted.template;
      const { node_id, cluster_id, key } = manifest.creator;
      log.info("a bundle was taken in", { template_id, key, outcome: done.outcome });
      return {
        template_id,
        kind: manifest.kind,
        artifact_id: manifest.artifact.artifact_id,
        ...done,
        signed_by: { node_id, cluster_id, key },
      };
    } finally {
      await scratch.drop();
      room?.release();
    }
  };

  return {
    /**
     * @throws AppError bundle_invalid, bundle_untrusted, bundle_conflict, template_already_exists,
     *   driver_unavailable, disk_space_low, storage_not_writable, too_many_requests, no_quorum;
     *   nothing is left then
     */
    async take(
      source: AsyncIterable<Uint8Array>,
      request: ImportRequest,
      context: CallContext,
    ): Promise<Imported> {
      if (underWay >= CONCURRENT_IMPORTS) {
        throw new AppError("too_many_requests", `${underWay} imports are under way already`);
      }
      underWay++;
      try {
        return await take(source, request, context);
      } finally {
        underWay--;
      }
    },
  };
}

export type Imports = ReturnType<typeof createImports>;
