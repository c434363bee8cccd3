/**
 * A cluster of real daemons, each in a network namespace of its own on one bridge, so that links
 * can be cut between any two of them. Needs root, as the tests of loop mounts do.
 */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { TestDaemon, waitFor, type Row, type Surroundings } from "./daemon.ts";

const ip = (...args: string[]): void => void execFileSync("ip", args, { stdio: "pipe" });
const quietly = (...args: string[]): void => {
  try {
    ip(...args);
  } catch {
    // Gone already, or never there.
  }
};

export interface Member extends Row {
  readonly node_id: string;
  readonly liveness: string;
  readonly in_sync: boolean | null;
  readonly warm: boolean;
  readonly coverage_pct: number;
  readonly voter: boolean;
}

export interface Warning extends Row {
  readonly code: string;
  readonly node_id: string;
  readonly detail: string;
}

export interface ClusterState extends Row {
  readonly clustered: boolean;
  readonly state_hash: string;
  readonly members: readonly Member[];
  readonly warnings: readonly Warning[];
  readonly quorum: {
    readonly available: boolean;
    readonly voters: string[];
    readonly note: string;
  };
}

/** The place of a clone on the network. */
const CLONE = 99;

export class TestCluster {
  readonly nodes: TestDaemon[] = [];
  readonly #id = randomBytes(3).toString("hex");
  readonly #flags: (index: number) => readonly string[];

  private constructor(flags: (index: number) => readonly string[]) {
    this.#flags = flags;
  }

  /** `count` daemons that are one cluster, in sync; `flags` for all, or for each by its index. */
  static async make(
    count: number,
    flags: readonly string[] | ((index: number) => readonly string[]) = [],
  ): Promise<TestCluster> {
    const cluster = new TestCluster(typeof flags === "function" ? flags : () => flags);
    ip("netns", "add", cluster.#bridgeSpace);
    ip("-n", cluster.#bridgeSpace, "link", "add", "br0", "type", "bridge");
    ip("-n", cluster.#bridgeSpace, "link", "set", "br0", "up");
    try {
      for (let index = 0; index < count; index++) await cluster.add();
      await cluster.inSync();
    } catch (error) {
      await cluster.remove();
      throw error;
    }
    return cluster;
  }

  get #bridgeSpace(): string {
    return `tc-${this.#id}-br`;
  }

  #space(index: number): string {
    return `tc-${this.#id}-${index}`;
  }

  static address(index: number): string {
    return `10.77.0.${index + 1}`;
  }

  static nodeId(index: number): string {
    return `node-${index}`;
  }

  node(index: number): TestDaemon {
    const node = this.nodes[index];
    if (node === undefined) throw new Error(`there is no node ${index}`);
    return node;
  }

  /** A daemon in a namespace of its own, started, alone. */
  async addAlone(flags: readonly string[] = [], around: Surroundings = {}): Promise<number> {
    const index = this.nodes.length;
    const daemon = await this.#make(index, TestCluster.nodeId(index), flags, around);
    this.nodes.push(daemon);
    await daemon.start();
    return index;
  }

  /** Another host with the data folder of a member: same name, same path; not started. */
  clone(index: number, folder: string): Promise<TestDaemon> {
    const around = { dataDir: folder, seenAt: this.node(index).dataDir };
    return this.#make(CLONE, TestCluster.nodeId(index), [], around);
  }

  async #make(
    index: number,
    nodeId: string,
    flags: readonly string[],
    around: Surroundings,
  ): Promise<TestDaemon> {
    const space = this.#space(index);
    ip("netns", "add", space);
    ip("-n", space, "link", "set", "lo", "up");
    const peer = ["peer", "name", `b${index}`, "netns", this.#bridgeSpace];
    ip("link", "add", "eth0", "netns", space, "type", "veth", ...peer);
    ip("-n", this.#bridgeSpace, "link", "set", `b${index}`, "master", "br0", "up");
    ip("-n", space, "address", "add", `${TestCluster.address(index)}/24`, "dev", "eth0");
    ip("-n", space, "link", "set", "eth0", "up");
    const own = ["--node-id", nodeId];
    own.push("--p2p-listen", `/ip4/${TestCluster.address(index)}/tcp/7331`);
    const all = [...own, ...this.#flags(index), ...flags];
    return TestDaemon.make("rootfs", all, { ...around, namespace: space });
  }

  /** One more member; the first one makes the cluster. */
  async add(around: Surroundings = {}): Promise<number> {
    const index = await this.addAlone([], around);
    if (index > 0) await this.join(index);
    return index;
  }

  async token(from = 0, request: Row = {}): Promise<string> {
    const { status, body } = await this.node(from).ask("POST", "/v1/cluster/join-tokens", request);
    if (status !== 201) throw new Error(`no token: ${status} ${JSON.stringify(body)}`);
    return String(body["token"]);
  }

  async join(index: number, from = 0): Promise<void> {
    const token = await this.token(from);
    const { status, body } = await this.node(index).ask("POST", "/v1/cluster/join", { token });
    if (status >= 300) throw new Error(`node ${index} did not join: ${JSON.stringify(body)}`);
    await this.until(index, `node ${index} to be a member`, (state) => state.clustered);
  }

  async state(index: number): Promise<ClusterState> {
    return (await this.node(index).get("/v1/cluster")) as ClusterState;
  }

  until(
    index: number,
    what: string,
    holds: (state: ClusterState) => boolean,
    timeoutMs = 30_000,
  ): Promise<ClusterState> {
    return waitFor(
      what,
      async () => {
        const state = await this.state(index).catch(() => undefined);
        return state !== undefined && holds(state) ? state : undefined;
      },
      timeoutMs,
    );
  }

  /** Every running node sees every member alive, and all hold the same. */
  async inSync(indexes = this.nodes.map((_, index) => index), timeoutMs = 30_000): Promise<void> {
    const names = indexes.map((index) => TestCluster.nodeId(index));
    await waitFor(
      "the nodes to agree",
      async () => {
        const states = await Promise.all(indexes.map((index) => this.state(index)));
        const hashes = new Set(states.map(({ state_hash }) => state_hash));
        const isSeen = (state: ClusterState) =>
          names.every((name) =>
            state.members.some((m) => m.node_id === name && m.liveness === "alive"),
          );
        return hashes.size === 1 && (indexes.length === 1 || states.every(isSeen));
      },
      timeoutMs,
    );
  }

  /** No packet passes between the two groups. */
  cut(left: readonly number[], right: readonly number[]): void {
    this.#routes("add", left, right);
  }

  heal(left: readonly number[], right: readonly number[]): void {
    this.#routes("del", left, right);
  }

  #routes(verb: "add" | "del", left: readonly number[], right: readonly number[]): void {
    for (const a of left) {
      for (const b of right) {
        for (const [from, to] of [
          [a, b],
          [b, a],
        ] as const) {
          const route = `${TestCluster.address(to)}/32`;
          ip("-n", this.#space(from), "route", verb, "blackhole", route);
        }
      }
    }
  }

  /** The cable of one node. */
  link(index: number, state: "up" | "down"): void {
    ip("-n", this.#space(index), "link", "set", "eth0", state);
  }

  async remove(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.remove()));
    for (let index = 0; index < this.nodes.length; index++) {
      quietly("netns", "del", this.#space(index));
    }
    quietly("netns", "del", this.#space(CLONE));
    quietly("netns", "del", this.#bridgeSpace);
    const bugs = this.nodes.flatMap((node) =>
      node.output.split("\n").filter((line) => line.includes("a programming error")),
    );
    if (bugs.length > 0) throw new Error(bugs.join("\n"));
  }
}
