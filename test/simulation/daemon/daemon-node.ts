/**
 * A simulated member that runs the whole daemon: the services, workers and wiring that ship, the
 * cluster's side included. Only what touches a host is simulated: disk, network, clock, images, and
 * the runtime driver.
 */
import { loadConfig, type Config } from "../../../src/daemon/config.ts";
import type { Health } from "../../../src/daemon/health.ts";
import type { Metrics } from "../../../src/daemon/metrics.ts";
import { createState, type State } from "../../../src/daemon/state.ts";
import { createBuilds, type Work } from "../../../src/daemon/wire-builds.ts";
import { createCore } from "../../../src/daemon/wire-core.ts";
import {
  createRuntime,
  createSnapshotWork,
  type Runtime,
} from "../../../src/daemon/wire-runtime.ts";
import { storageFrom, type ClusterConfig } from "../../../src/domain/index.ts";
import { createFence } from "../../../src/gossip/fence.ts";
import { openSimulatedCatalog, type OnMerge } from "../disk.ts";
import { SimNode, type Life } from "../node.ts";
import type { Network, World } from "../world.ts";
import { simDriver } from "./driver.ts";
import { simBuilder, simSource, type BuildUnderWay } from "./images.ts";
import { Machine, type MachineEvents, type Trouble } from "./machine.ts";
import { SimStore } from "./store.ts";

export interface DaemonLife {
  readonly state: State;
  readonly runtime: Runtime;
  readonly work: Work;
  readonly core: ReturnType<typeof createCore>;
}

export interface DaemonSettings {
  /** Seconds. */
  readonly sessionTerm: number;
  readonly artifactGraceMs: number;
  readonly jobDeadlineMs: number;
  readonly trouble: Trouble;
  readonly events: MachineEvents;
  readonly builds: Set<BuildUnderWay>;
}

const LIMITS = { warn: 70, reject: 85, deleteOnly: 95 };
const TERABYTE = 2 ** 40;
const NAMES = ["catalog", "artifacts", "templates", "snapshots", "sandboxes", "work"] as const;

/** Everything that is counted goes nowhere: it is none of what is looked at here. */
const noMetrics = new Proxy({}, { get: () => () => undefined }) as Metrics;

export class DaemonNode extends SimNode {
  readonly machine: Machine;
  readonly #settings: DaemonSettings;
  daemon: DaemonLife | undefined;
  /** Starts that failed, of this host: its supervisor tries again. */
  failedStarts = 0;

  constructor(
    world: World,
    network: Network,
    name: string,
    config: ClusterConfig,
    onMerge: OnMerge,
    peers: () => readonly SimNode[],
    settings: DaemonSettings,
  ) {
    super(world, network, name, config, onMerge, peers);
    this.#settings = settings;
    this.machine = new Machine(this.host, this.disk, settings.events, settings.trouble);
  }

  override async start(begin: (node: SimNode, life: Life) => void): Promise<void> {
    const { host, machine } = this;
    host.up = true;
    machine.boot();
    const started = host.life;
    const parts = {
      config: this.#config(),
      version: "0.0.0",
      log: host.log(),
      clock: host.clock(),
      random: host.random(),
      metrics: noMetrics,
      health: {} as Health,
    };
    const state = this.#state(parts);
    const { cluster, catalog } = state;
    const driver = { driver: simDriver(machine), detail: () => "simulated", nodeIp: this.#ip() };
    const driven = await createRuntime(parts, state, driver);
    const work = createBuilds(parts, state, {
      source: simSource(machine),
      builder: simBuilder(machine, this.#settings.builds),
      platform: { os: "linux", architecture: "amd64" },
      scratchDir: async (jobId) => `/work/job-${jobId}`,
      dropScratch: async (jobId) => machine.drop(`/work/job-${jobId}`),
      bakePlan: async () => ({ inputs: {}, caFingerprint: "", envdSha256: "" }),
    });
    const runtime = { ...driven, snapshotWork: createSnapshotWork(parts, state, driven, work) };
    const core = createCore(parts, state, runtime, work, {
      isDraining: () => false,
      restart: () => undefined,
      address: () => "",
      cpuCount: 2,
      memoryBytes: 2 ** 33,
    });
    const { registers, leadership, transport } = cluster;
    this.life = { catalog, transport, registers, leadership, fence: createFence(catalog) };
    cluster.attach(this.network.transport(host));
    await core.recover();
    await core.work([]);
    if (host.life !== started) return;
    this.daemon = { state, runtime, work, core };
    begin(this, this.life);
  }

  override crash(): void {
    super.crash();
    this.daemon = undefined;
  }

  #state(parts: Parameters<typeof createState>[0]): State {
    const { host, machine } = this;
    const store = new SimStore(machine);
    const dirs = Object.fromEntries(NAMES.map((name) => [name, `/${name}`])) as State["dirs"];
    const measured = () =>
      storageFrom(
        { total_bytes: TERABYTE, used_bytes: 2 ** 30, volume_count: 0, snapshot_count: 0 },
        Math.floor(parts.clock.now() / 1_000),
        LIMITS,
      );
    const ground: Parameters<typeof createState>[1] = {
      dirs,
      catalog: openSimulatedCatalog(host, this.disk, this.onMerge),
      membership: {
        file: undefined,
        catalogId: this.name,
        presharedKey: () => "",
        forgetIdentity: async () => undefined,
        connect: () => Promise.reject(new Error("membership is not simulated")),
        signer: () => Promise.reject(new Error("bundles are not simulated")),
      },
      store,
      folders: {
        names: async (dir) =>
          [...machine.dirs.keys()]
            .filter((path) => path.startsWith(`${dir}/`))
            .map((path) => path.slice(dir.length + 1)),
        remove: async (path) => machine.drop(path),
        link: async (from, to) => machine.link(from, to),
      },
      meter: { measure: async () => measured(), latest: measured, thresholds: LIMITS },
    };
    return createState(parts, ground, []);
  }

  #ip(): string {
    return `10.0.0.${this.name.charCodeAt(0)}`;
  }

  #config(): Config {
    const { sessionTerm, artifactGraceMs, jobDeadlineMs } = this.#settings;
    return loadConfig({
      flags: {
        node_id: this.name,
        data_dir: "/",
        session_term: sessionTerm,
        job_deadline: `${jobDeadlineMs}ms`,
        artifact_grace: `${artifactGraceMs}ms`,
      },
      environment: {},
      hostname: this.name,
    }).config;
  }
}
