/** The catalog and the artifact files of one node. */
export { openArtifactStore, type ArtifactStoreOptions } from "./artifacts.ts";
export { createAudit, type Audit, type AuditInput, type AuditRow } from "./audit.ts";
export {
  openCatalog,
  type CatalogOptions,
  type CatalogStats,
  type OpenedCatalog,
} from "./catalog.ts";
export type { Database, KeyRange, Operation, Row } from "./database.ts";
export {
  createIdempotencyStore,
  type IdempotencyState,
  type IdempotencyStore,
} from "./idempotency.ts";
