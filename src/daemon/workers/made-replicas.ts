/**
 * What this node has made of templates, by generation: the one that serves, and those that a redo
 * has replaced while sandboxes still run on them.
 */
import { join } from "node:path";
import {
  errorText,
  type Catalog,
  type DriverSnapshot,
  type Folders,
  type LocalWrite,
  type Log,
  type RuntimeDriver,
} from "../../domain/index.ts";
import type { Facts } from "../records.ts";

export interface MadeParts {
  readonly catalog: Pick<Catalog, "table">;
  readonly facts: Pick<Facts, "get">;
  readonly driver: RuntimeDriver;
  readonly folders: Folders;
  readonly log: Log;
  readonly templatesDir: string;
  /**
   * True while a sandbox of that template, or of that generation of its replica, runs here: its
   * snapshot's files are in use.
   */
  readonly inUse: (templateId: string, generation?: number) => boolean;
}

export interface MadeReplica {
  readonly snapshot: DriverSnapshot;
  readonly generation: number;
}

const TABLE = "driver-snapshot";
/** The driver's folders of work under way, which it sweeps itself. */
const IN_WORK = ".new";
/** Rows of replaced ones; no id has an `@`. */
const retiredKey = (templateId: string, generation: number): string =>
  `${templateId}@${generation}`;

/** A sandbox's snapshot, by its folder's name: a template's replica is in `<id>.g<generation>`. */
export const isOfSandbox = (folder: string): boolean => /^snap-[^.]+$/.test(folder);

export class MadeReplicas {
  readonly #parts: MadeParts;
  readonly #serving = new Map<string, MadeReplica>();
  /** By row. */
  readonly #retired = new Map<string, MadeReplica & { readonly templateId: string }>();
  /** Of sandboxes, made by another driver than this start's: what they hold is nowhere else. */
  readonly #foreign = new Map<string, DriverSnapshot>();

  constructor(parts: MadeParts) {
    this.#parts = parts;
  }

  /** At start: takes up what is whole, and removes what is not or belongs to nobody. */
  async load(): Promise<void> {
    const { catalog, driver, facts, log } = this.#parts;
    for await (const [key, row] of catalog.table(TABLE).range()) {
      const snapshot = row as DriverSnapshot;
      const [id = "", retired] = key.split("@");
      if (retired !== undefined) {
        this.#retired.set(key, { templateId: id, snapshot, generation: Number(retired) });
      } else if (snapshot.driver === driver.name && (await driver.hasSnapshot(snapshot))) {
        const generation = facts.get("replica", id)?.generation ?? 0;
        this.#serving.set(id, { snapshot, generation });
      } else if (snapshot.driver !== driver.name && snapshot.snapshotId !== undefined) {
        this.#foreign.set(id, snapshot);
      } else {
        log.warn("template snapshot is incomplete and is made again", { template_id: id });
        await this.#dropRow(key, snapshot);
      }
    }
    await this.#sweep();
  }

  get(templateId: string): MadeReplica | undefined {
    return this.#serving.get(templateId);
  }

  has(templateId: string): boolean {
    return this.#serving.has(templateId);
  }

  /** The other driver that made it, when it is kept for that. */
  foreignDriver(id: string): string | undefined {
    return this.#foreign.get(id)?.driver;
  }

  ids(): Iterable<string> {
    return this.#serving.keys();
  }

  /** A folder of its own for each generation: what serves is not touched. */
  folder(templateId: string, generation: number): string {
    return join(this.#parts.templatesDir, `${templateId}.g${generation}`);
  }

  /**
   * The new one serves from when `publish` has written the rows with the fact that says so; what it
   * replaces goes when nobody runs on it.
   */
  async replace(
    templateId: string,
    made: MadeReplica,
    publish: (rows: readonly LocalWrite[]) => Promise<void>,
  ): Promise<void> {
    const old = this.#serving.get(templateId);
    const rows: LocalWrite[] = [{ table: TABLE, key: templateId, value: made.snapshot }];
    const key = old === undefined ? "" : retiredKey(templateId, old.generation);
    if (old !== undefined) rows.push({ table: TABLE, key, value: old.snapshot });
    await publish(rows);
    this.#serving.set(templateId, made);
    if (old !== undefined) this.#retired.set(key, { ...old, templateId });
    await this.dropRetired();
  }

  /** The template is gone from here, and nobody runs on it. */
  async remove(templateId: string): Promise<void> {
    const made = this.#serving.get(templateId);
    this.#serving.delete(templateId);
    try {
      if (made !== undefined) await this.#dropRow(templateId, made.snapshot);
    } catch (error) {
      // Known still, so that it is removed when that is tried again.
      if (made !== undefined) this.#serving.set(templateId, made);
      throw error;
    }
    const foreign = this.#foreign.get(templateId);
    this.#foreign.delete(templateId);
    if (foreign !== undefined) {
      await this.#parts.folders.remove(foreign.dir);
      await this.#dropRow(templateId, foreign);
    }
    await this.dropRetired();
  }

  /** What redos have replaced, as far as no sandbox runs on it; the rest is looked at again. */
  async dropRetired(): Promise<void> {
    for (const [key, retired] of [...this.#retired]) {
      const { templateId, generation, snapshot } = retired;
      if (this.#parts.inUse(templateId, generation)) continue;
      this.#retired.delete(key);
      await this.#dropRow(key, snapshot).catch((error: unknown) => {
        const fields = { template_id: templateId, reason: errorText(error) };
        this.#parts.log.warn("a replaced snapshot is not removed yet", fields);
        this.#retired.set(key, retired);
      });
    }
  }

  async #dropRow(key: string, snapshot: DriverSnapshot): Promise<void> {
    const { driver, catalog } = this.#parts;
    if (snapshot.driver === driver.name) await driver.removeSnapshot(snapshot);
    await catalog.table(TABLE).delete(key);
  }

  /**
   * Folders that a crash left between their making and their row. A template's replica is made
   * again; what was frozen of a sandbox is nowhere else, and its row may be lost with the catalog:
   * such a folder is told of and has its grace as an orphan.
   */
  async #sweep(): Promise<void> {
    const { folders, log, templatesDir } = this.#parts;
    const kept = new Set<string>();
    for (const { snapshot } of this.#serving.values()) kept.add(snapshot.dir);
    for (const { snapshot } of this.#retired.values()) kept.add(snapshot.dir);
    for (const { dir } of this.#foreign.values()) kept.add(dir);
    for (const name of await folders.names(templatesDir)) {
      const dir = join(templatesDir, name);
      if (kept.has(dir) || name.endsWith(IN_WORK)) continue;
      if (!isOfSandbox(name)) await folders.remove(dir);
      else log.warn("a sandbox's snapshot has no row: it is kept for the orphan grace", { dir });
    }
  }
}
