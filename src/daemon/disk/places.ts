/** What each folder of the data folder may hold: everything else in it is an orphan. */
import { basename } from "node:path";
import {
  isActiveJob,
  type ArtifactStore,
  type Catalog,
  type DriverSnapshot,
} from "../../domain/index.ts";
import type { Facts, Records } from "../records.ts";
import { isOfSandbox } from "../workers/made-replicas.ts";
import type { Place } from "./orphans.ts";

/** Damaged artifacts are set aside for a person to look at, for so long. */
const DAMAGED_MS = 7 * 24 * 60 * 60_000;

export interface PlaceParts {
  readonly catalog: Catalog;
  readonly records: Records;
  readonly facts: Facts;
  readonly store: Pick<ArtifactStore, "inventory" | "isPartialOpen">;
  /** True while this node makes, fetches or removes something for the template or snapshot. */
  readonly isWorking: (templateId: string) => boolean;
}

export interface Places {
  readonly places: readonly Place[];
  /** Reads the rows that name snapshot folders. */
  prepare(): Promise<void>;
}

export function createPlaces({ catalog, records, facts, store, isWorking }: PlaceParts): Places {
  let rows: ReadonlySet<string> = new Set();

  const isWanted = (digest: string): boolean => {
    const ids = new Set<string>();
    for (const artifact of records.list("artifact")) {
      if (artifact.digest === digest) ids.add(artifact.artifact_id);
    }
    for (const template of records.list("template")) {
      const isHere = template.desired_nodes.includes(facts.nodeId);
      if (isHere && ids.has(template.artifact_id ?? "")) return true;
    }
    return false;
  };
  const isHeld = (digest: string): boolean =>
    store.inventory().some(({ artifact }) => artifact.digest === digest);
  /** A snapshot of a template's guest, `<id>.g<generation>`, or of a sandbox, `<id>`. */
  const isSnapshot = (name: string): boolean => {
    if (rows.has(name)) return true;
    const id = name.replace(/(\.g\d+)?(\.[a-z]+)?$/, "");
    if (isWorking(id)) return true;
    for (const job of records.list("job")) {
      if (isActiveJob(job) && (job.template_id === id || job.resource_id === id)) return true;
    }
    // What is being made beside has work under way, or is left from a crash.
    if (id !== name) return false;
    if (facts.get("replica", name) !== undefined) return true;
    const template = records.get("template", name);
    return template?.desired_nodes.includes(facts.nodeId) === true;
  };
  const hex = (name: string): string => `sha256:${name}`;
  const FOLDERS = new Set(["sha256", "staging", "partial", "damaged"]);

  return {
    async prepare() {
      const found = new Set<string>();
      for await (const [, row] of catalog.table("driver-snapshot").range()) {
        found.add(basename((row as DriverSnapshot).dir));
      }
      rows = found;
    },
    places: [
      { folder: "artifacts", isKnown: (name) => FOLDERS.has(name) },
      { folder: "artifacts/sha256", isKnown: (name) => isHeld(hex(name)) },
      { folder: "artifacts/staging", isKnown: () => false },
      { folder: "artifacts/damaged", isKnown: () => false, leastMs: DAMAGED_MS },
      {
        folder: "artifacts/partial",
        isKnown: (name) => store.isPartialOpen(hex(name)) || isWanted(hex(name)),
      },
      { folder: "templates", isKnown: isSnapshot, isOnlyCopy: isOfSandbox },
      { folder: "snapshots", isKnown: isSnapshot, isOnlyCopy: isOfSandbox },
    ],
  };
}
