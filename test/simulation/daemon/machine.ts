/**
 * The host of a simulated daemon: its files and its VM processes, which outlive the daemon. What is
 * written is durable when the call that writes it resolves; VMs end with the host, not with the
 * daemon. It knows what must never happen to a file, and says so.
 */
import type {
  ArtifactSidecar,
  ChunkManifest,
  DriverSandbox,
  DriverSnapshot,
} from "../../../src/domain/index.ts";
import type { Disk } from "../disk.ts";
import type { Host } from "../world.ts";
import { frozenContent } from "./images.ts";

export interface Vm {
  sandbox: DriverSandbox;
  /** The snapshot's folder that its memory lies on. */
  base: string;
  /** Of the guest image that it was booted with. */
  guest: string;
}

export interface HeldFile {
  readonly bytes: Uint8Array;
  readonly manifest: ChunkManifest;
  /** By artifact id. */
  readonly sidecars: Map<string, ArtifactSidecar>;
}

export interface PartialFile {
  readonly manifest: ChunkManifest;
  readonly bytes: Uint8Array;
  /** As of the last checkpoint. */
  have: Uint8Array;
}

/** What is watched by who checks the simulation. */
export interface MachineEvents {
  /** Something that must not happen. */
  fail(what: string): void;
  /** The last bytes of an artifact go from this node. */
  removesBytes(node: string, digest: string, artifactId: string): void;
}

/** How often the effects of a host fail by themselves: 0 to 1 for each call. */
export interface Trouble {
  effects: number;
}

export class Machine {
  readonly host: Host;
  readonly disk: Disk;
  readonly events: MachineEvents;
  readonly trouble: Trouble;
  /** Folders of finished VM snapshots, and `.new` ones of work under way. */
  readonly dirs = new Map<string, DriverSnapshot | undefined>();
  readonly vms = new Map<string, Vm>();
  /** By digest. */
  readonly files = new Map<string, HeldFile>();
  readonly partials = new Map<string, PartialFile>();
  readonly scratch = new Map<string, Uint8Array>();
  /** The guest image that this host boots now. */
  guest = "g1";
  /** False: every boot of a guest fails. */
  boots = true;

  constructor(host: Host, disk: Disk, events: MachineEvents, trouble: Trouble) {
    this.host = host;
    this.disk = disk;
    this.events = events;
    this.trouble = trouble;
  }

  /**
   * The time that an effect takes. Nobody of a former life hears its end.
   * @throws Error the disk is full, or what the seed has drawn
   */
  async takes(lowMs: number, highMs: number, options: { signal?: AbortSignal } = {}) {
    const { world } = this.host;
    await this.host.clock().sleep(world.chance.between(lowMs, highMs), options);
    if (this.disk.fullUntil > world.now) throw new Error("ENOSPC: no space left on device");
    if (this.trouble.effects > 0 && world.chance.happens(this.trouble.effects)) {
      world.count("failed effects");
      throw new Error("EIO: i/o error");
    }
  }

  /** A folder or file goes, with all that it holds. */
  drop(path: string): void {
    this.scratch.delete(path);
    for (const dir of [...this.dirs.keys()]) {
      if (dir !== path && !dir.startsWith(`${path}/`)) continue;
      this.#assertUnused(dir, "removed");
      this.dirs.delete(dir);
    }
  }

  /** A second name for a file of a snapshot that lies here. */
  link(from: string, to: string): void {
    const dir = from.slice(0, from.lastIndexOf("/"));
    const snapshot = this.dirs.get(dir);
    if (snapshot === undefined) throw new Error(`ENOENT: ${from}`);
    this.scratch.set(to, frozenContent(snapshot, from.slice(dir.length + 1)).bytes);
  }

  /** A finished snapshot becomes visible under its name, at once. */
  publish(dir: string, snapshot: DriverSnapshot): void {
    if (this.dirs.has(dir)) this.#assertUnused(dir, "written over");
    this.dirs.delete(`${dir}.new`);
    this.dirs.set(dir, snapshot);
  }

  /** Power off: unlike a daemon's end, this ends the VMs. */
  powerOff(): void {
    this.vms.clear();
    this.boot();
  }

  /** What is only in the making goes with its process. */
  boot(): void {
    this.scratch.clear();
    for (const dir of [...this.dirs.keys()]) {
      if (dir.endsWith(".new") || dir.startsWith("/work/")) this.dirs.delete(dir);
    }
  }

  #assertUnused(dir: string, what: string): void {
    for (const [sandbox, { base }] of this.vms) {
      if (base === dir) {
        this.events.fail(`${dir} was ${what} on ${this.host.name} while ${sandbox} runs on it`);
      }
    }
  }
}
