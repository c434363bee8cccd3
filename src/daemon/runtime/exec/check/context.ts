/** What the conformance checks share: a folder, instances on demand, and eyes for what runs. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { cp, mkdir, readFile, readdir, readlink, rename, truncate } from "node:fs/promises";
import { get } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { AppError, errorText, type Clock, type GuestSpec } from "../../../../domain/index.ts";
import { awaitReady } from "../../readiness.ts";
import type { Executable } from "../call.ts";
import { guestOf, type Answer, type Capability, type Instance } from "../contract.ts";
import { instanceOf } from "../sandbox-folder.ts";
import { measureFiles } from "../snapshot-folder.ts";

export interface CheckGuest extends GuestSpec {
  readonly probe: NonNullable<GuestSpec["probe"]>;
  /** `GET` answers the guest's note, and with a query sets it first. */
  readonly notePath: string;
}

export interface CheckParts {
  readonly executable: Executable;
  readonly clock: Clock;
  /** An empty folder for everything; removed by the caller. */
  readonly dir: string;
  readonly rootfsPath: string;
  readonly guest: CheckGuest;
}

type Ports = Answer<"boot">["instance"]["ports"];
export interface Running {
  readonly instance: Instance;
  readonly ports: Ports;
  readonly pid?: number;
}
export interface Frozen {
  readonly dir: string;
  readonly files: readonly string[];
  readonly description: Readonly<Record<string, number>>;
}

export interface Check {
  readonly id: string;
  readonly rule: string;
  /** Left out when the executable does not declare it. */
  readonly needs?: Capability;
  /** Rejects when the rule is not kept. */
  readonly run: (on: CheckContext) => Promise<unknown>;
}

/** What a check found to be against the contract. */
export class Violation extends Error {}
/** What a check is about was not reached: another check tells why. */
export class Unreached extends Error {}

/** The note of the guest that the snapshot is made of. */
export const FROZEN = "frozen";
const HTTP_MS = 10_000;

export class CheckContext {
  readonly executable: Executable;
  readonly clock: Clock;
  readonly dir: string;
  readonly rootfsPath: string;
  readonly guest: CheckGuest;
  /** How long the first boot and the last rollback took. */
  bootMs = 0;
  rollbackMs = 0;
  /** Of the root filesystem, before anything. */
  rootfsHash = "";
  readonly #instances: Instance[] = [];
  readonly #made = new Map<string, Promise<unknown>>();
  #count = 0;

  constructor(parts: CheckParts) {
    this.executable = parts.executable;
    this.clock = parts.clock;
    this.dir = parts.dir;
    this.rootfsPath = parts.rootfsPath;
    this.guest = parts.guest;
  }

  async remember(): Promise<void> {
    this.rootfsHash = await this.hashOf(this.rootfsPath);
  }

  /** Makes something once; whoever needs it later and finds that it failed was not reached. */
  #once<T>(name: string, make: () => Promise<T>): Promise<T> {
    const known = this.#made.get(name) as Promise<T> | undefined;
    if (known !== undefined) {
      return known.catch((error: unknown) => {
        throw new Unreached(`there is no ${name}: ${errorText(error)}`);
      });
    }
    const making = make();
    this.#made.set(name, making);
    return making;
  }

  capabilities = (): Promise<readonly string[]> =>
    this.#once("answer to capabilities", async () => {
      const told = await this.executable.call("capabilities", {});
      return told.capabilities;
    });

  offers = async (capability: Capability): Promise<boolean> =>
    (await this.capabilities()).includes(capability);

  /** An empty folder for an instance. */
  async instance(): Promise<Instance> {
    const id = `check-${++this.#count}`;
    const instance = instanceOf(id, join(this.dir, "instances", id));
    await mkdir(instance.dir, { recursive: true, mode: 0o750 });
    this.#instances.push(instance);
    return instance;
  }

  bootRequest = (instance: Instance) => ({
    instance,
    generation: 1,
    template_id: "tpl-check",
    rootfs_path: this.rootfsPath,
    guest: guestOf(this.guest),
  });

  booted = (): Promise<Running> =>
    this.#once("booted guest", async () => {
      const instance = await this.instance();
      const began = this.clock.monotonic();
      const request = this.bootRequest(instance);
      const told = await this.executable.call("boot", request, { dir: instance.dir });
      this.bootMs = this.clock.monotonic() - began;
      this.assertPorts(told.instance.ports);
      return { instance, ...told.instance };
    });

  assertPorts(ports: Ports): void {
    const missing = this.guest.exposedPorts.find((port) => ports[port] === undefined);
    if (missing !== undefined) throw new Violation(`ports tells nothing of port ${missing}`);
  }

  /** Waits until the guest answers. */
  async ready({ ports }: Pick<Running, "ports">): Promise<void> {
    const { probe } = this.guest;
    const target = ports[probe.port];
    if (target === undefined) throw new Violation(`ports tells nothing of port ${probe.port}`);
    const signal = AbortSignal.timeout(probe.timeoutMs + HTTP_MS);
    await awaitReady(probe, target, { clock: this.clock, signal });
  }

  /** A snapshot of a guest whose note is FROZEN; the guest is stopped, the folder has moved. */
  template = (): Promise<Frozen> =>
    this.#once("snapshot of a booted guest", async () => {
      const on = await this.booted();
      await this.ready(on);
      await this.note(on, FROZEN);
      const made = await this.freeze(on.instance, false);
      await this.stop(on.instance);
      return made;
    });

  /** A snapshot in a folder that was another one when it was made. */
  async freeze(instance: Instance, live: boolean): Promise<Frozen> {
    const dir = join(this.dir, "snapshots", `${++this.#count}`);
    await mkdir(`${dir}.new`, { recursive: true, mode: 0o750 });
    const request = { instance, snapshot: { dir: `${dir}.new` }, live };
    const told = await this.executable.call("snapshot", request, { dir: instance.dir });
    await measureFiles(`${dir}.new`, told.files);
    await rename(`${dir}.new`, dir);
    return { dir, files: told.files, description: told.description };
  }

  restoreRequest = (instance: Instance, snapshot: Frozen, generation = 1) => ({
    ...{ instance, generation, snapshot },
    ...{ rootfs_path: this.rootfsPath, guest: guestOf(this.guest) },
  });

  async restore(snapshot: Frozen): Promise<Running> {
    const instance = await this.instance();
    const request = this.restoreRequest(instance, snapshot);
    const told = await this.executable.call("restore", request, { dir: instance.dir });
    this.assertPorts(told.instance.ports);
    return { instance, ...told.instance };
  }

  /** One that runs, from the template's snapshot. */
  running = async (): Promise<Running> => this.restore(await this.template());

  async stop(instance: Instance): Promise<void> {
    await this.executable.call("stop", { instance }, { dir: instance.dir });
  }

  async listed(...instances: Instance[]) {
    return (await this.executable.call("list", { instances })).instances;
  }

  /** A copy of the snapshot whose files are empty. */
  async damaged(snapshot: Frozen): Promise<Frozen> {
    const dir = join(this.dir, "snapshots", `${++this.#count}`);
    await cp(snapshot.dir, dir, { recursive: true });
    for (const name of snapshot.files) await truncate(join(dir, name), 0);
    return { ...snapshot, dir };
  }

  async copied(snapshot: Frozen): Promise<Frozen> {
    const dir = join(this.dir, "snapshots", `${++this.#count}`);
    await cp(snapshot.dir, dir, { recursive: true });
    return { ...snapshot, dir };
  }

  /** The guest's note, after it was set when there is a word. */
  async note({ ports }: Pick<Running, "ports">, word = ""): Promise<string> {
    const { probe, notePath } = this.guest;
    const at = ports[probe.port];
    if (at === undefined) throw new Violation(`ports tells nothing of port ${probe.port}`);
    const path = word === "" ? notePath : `${notePath}?${word}`;
    return (await getText({ ...at, path })).trim();
  }

  async assertNote(on: Pick<Running, "ports">, expected: string, when: string): Promise<void> {
    await this.ready(on);
    const found = await this.note(on);
    if (found === expected) return;
    throw new Violation(`${when} the note is ${JSON.stringify(found)}, not ${expected}`);
  }

  /** Processes whose folder, command or environment names the folder. */
  async processesOf(dir: string): Promise<number[]> {
    const found: number[] = [];
    for (const name of await readdir("/proc")) {
      if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
      const cwd = await readlink(`/proc/${name}/cwd`).catch(() => "");
      const command = await readFile(`/proc/${name}/cmdline`, "utf8").catch(() => "");
      const environment = await readFile(`/proc/${name}/environ`, "utf8").catch(() => "");
      if ([cwd, command, environment].some((text) => text.includes(dir))) found.push(Number(name));
    }
    return found;
  }

  /** What was killed may take a moment to go. */
  async assertNoProcess(dir: string, when: string): Promise<void> {
    let left = await this.processesOf(dir);
    for (let tries = 150; left.length > 0 && tries > 0; tries--) {
      await this.clock.sleep(20);
      left = await this.processesOf(dir);
    }
    if (left.length > 0) throw new Violation(`${when} processes are left: ${left.join(", ")}`);
  }

  /** SHA-256 of the file, or of the files of a snapshot. */
  async hashOf(...paths: string[]): Promise<string> {
    const hash = createHash("sha256");
    for (const path of paths) {
      for await (const part of createReadStream(path)) hash.update(part as Buffer);
    }
    return hash.digest("hex");
  }

  /** Ends whatever the checks have started, as well as the executable can. */
  async clear(): Promise<void> {
    for (const instance of this.#instances) await this.stop(instance).catch(() => undefined);
  }

  /** Ends what is left after all, so that a faulty executable costs its user no processes. */
  async killLeft(): Promise<void> {
    for (const pid of await this.processesOf(this.dir)) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // Gone in between.
      }
    }
  }
}

function getText(at: { host: string; port: number; path: string }): Promise<string> {
  return new Promise((resolve, reject) => {
    // A guest's server may end its lines with LF alone.
    const options = { ...at, agent: false, insecureHTTPParser: true, timeout: HTTP_MS };
    const asked = get(options, (answer) => void text(answer).then(resolve, reject));
    asked.once("timeout", () => asked.destroy(new Error("the guest does not answer")));
    asked.once("error", (cause) =>
      reject(new AppError("guest_probe_failed", "the guest does not answer its note", { cause })),
    );
  });
}
