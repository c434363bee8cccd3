/**
 * The scenario `operations`: three daemons, each asked for everything by chance, while hosts crash,
 * stop and are cut off, disks are full, effects fail, and daemons die at a write.
 */
import {
  isAppError,
  type CallContext,
  type Commands,
  type SandboxInfo,
  type TemplateRecord,
} from "../../../src/domain/index.ts";
import type { Write } from "../disk.ts";
import type { Scenario, Simulation } from "../simulation.ts";
import { DaemonNode } from "./daemon-node.ts";
import { unsettled, useless } from "./settled.ts";
import { Truth } from "./truth.ts";

interface Drawn {
  readonly truth: Truth;
  readonly nodes: readonly DaemonNode[];
  /** Of a daemon's end around a flush that concerns an operation. */
  deaths: number;
  readonly trouble: { effects: number };
  /** Requests that were carried out, to be asked again. */
  readonly requests: { sandboxId: string; id: string; snapshot: string }[];
  /** What was answered and nobody has undone. */
  readonly promised: Map<string, "deleted" | "there">;
  calls: number;
}

const worlds = new WeakMap<Simulation, Drawn>();
const IMAGES = ["registry.sim/app:1", "registry.sim/app:2"];
const MOST_TEMPLATES = 4;
const MOST_SANDBOXES = 3;
/** Of the 30 s after which everything is settled; the rest is looked at more closely. */
const CALM_MS = 25_000;

export function drawnOf(sim: Simulation): Drawn {
  const known = worlds.get(sim);
  if (known !== undefined) return known;
  const { chance } = sim.world;
  const nodes = () => sim.nodes as unknown as readonly DaemonNode[];
  const drawn: Drawn = {
    truth: new Truth(sim.world, nodes, (what) => sim.fail(what)),
    get nodes() {
      return nodes();
    },
    deaths: chance.happens(0.5) ? 0 : chance.between(0.002, 0.03),
    trouble: { effects: chance.happens(0.5) ? 0 : chance.between(0.002, 0.05) },
    requests: [],
    promised: new Map(),
    calls: 0,
  };
  worlds.set(sim, drawn);
  return drawn;
}

/** Rows that tell how far an operation is: a daemon's death there is of interest. */
const concerns = (writes: readonly Write[]): boolean =>
  writes.some(
    ({ entries, local }) =>
      entries.some(({ kind }) => ["job", "template", "artifact", "replica"].includes(kind)) ||
      local.some(({ table }) => ["driver-snapshot", "sandbox", "runtime-ref"].includes(table)),
  );

/** What the node was at when it died. */
function countDeath(sim: Simulation, name: string): void {
  const { truth } = drawnOf(sim);
  for (const job of truth.activeJobs()) {
    if (job.worked_by !== name && job.node_id !== name) continue;
    sim.world.count(`killed in ${job.operation}/${job.phase}`);
  }
  for (const { deletion } of truth.templates()) {
    if (deletion?.node_id === name) sim.world.count("killed in DELETE");
  }
}

/** A daemon's end leaves its VMs; a host's does not. */
export function die(sim: Simulation, node: DaemonNode, isPower: boolean): void {
  countDeath(sim, node.name);
  drawnOf(sim).truth.troubled(node.name);
  if (isPower) node.machine.powerOff();
}

const operationNode: NonNullable<Scenario["node"]> = (sim, name, config) => {
  const drawn = drawnOf(sim);
  const { truth, trouble } = drawn;
  const node = new DaemonNode(sim.world, sim.network, name, config, sim.onMerge, () => sim.nodes, {
    sessionTerm: sim.world.chance.pick([2, 8]),
    artifactGraceMs: sim.world.chance.pick([0, 2_000, 10_000]),
    jobDeadlineMs: 60_000,
    trouble,
    builds: truth.builds,
    events: {
      fail: (what) => sim.fail(what),
      removesBytes: (at, _digest, artifactId) => truth.removesBytes(at, artifactId),
    },
  });
  node.disk.diesAt = (_moment, writes) => {
    if (sim.calm || !concerns(writes) || !sim.world.chance.happens(drawn.deaths)) return false;
    sim.world.count("deaths at a write");
    die(sim, node, sim.world.chance.happens(0.2));
    sim.kill(node, 10, 4_000);
    return true;
  };
  const crash = node.crash.bind(node);
  node.crash = () => {
    if (node.host.up) die(sim, node, sim.world.chance.happens(0.3));
    crash();
  };
  return node;
};

/* ---- what is asked for --------------------------------------------------------------------- */

interface Asking {
  readonly sim: Simulation;
  readonly drawn: Drawn;
  readonly node: DaemonNode;
  readonly commands: Commands;
  readonly context: CallContext;
}

const sandboxesOf = ({ daemon }: DaemonNode): readonly SandboxInfo[] =>
  daemon?.runtime.sandboxes.list() ?? [];

function anySandbox({ drawn, sim }: Asking): SandboxInfo | undefined {
  const all = drawn.nodes.flatMap(sandboxesOf);
  return all.length === 0 ? undefined : sim.world.chance.pick(all);
}

function anyTemplate(
  { drawn, sim }: Asking,
  fits: (template: TemplateRecord) => boolean = () => true,
): TemplateRecord | undefined {
  const all = drawn.truth.templates().filter(fits);
  return all.length === 0 ? undefined : sim.world.chance.pick(all);
}

type Ask = (asking: Asking) => Promise<unknown>;

const create: Ask = async ({ sim, drawn, commands, context }) => {
  const { truth } = drawn;
  const known = new Set([...truth.templates(), ...truth.activeJobs()].map((it) => it.template_id));
  if (known.size >= MOST_TEMPLATES) return;
  const source_image_ref = sim.world.chance.pick(IMAGES);
  await commands.createFromImage({ source_image_ref, writable_layer_size: "1Gi" }, context);
};

const redo: Ask = async (asking) => {
  const { sim, commands, context, node } = asking;
  const template = anyTemplate(asking, ({ kind }) => kind === "template");
  if (template === undefined) return;
  const request = sim.world.chance.pick([
    {},
    {},
    { failed_only: true },
    { memory_only: true },
    { distribution_scope: [node.name] },
  ]);
  await commands.redoTemplate(template.template_id, request, context);
};

const remove: Ask = async (asking) => {
  const { sim, drawn, commands, context } = asking;
  const template = anyTemplate(asking);
  if (template === undefined) return;
  const { template_id: id, kind } = template;
  drawn.promised.delete(id);
  const force = sim.world.chance.happens(0.2);
  if (kind === "snapshot") await commands.deleteSnapshot(id, {}, context);
  else await commands.deleteTemplate(id, { force }, context);
  drawn.promised.set(id, "deleted");
  sim.world.count("deletions answered");
};

const run: Ask = async (asking) => {
  const { sim, commands, context, node } = asking;
  if (sandboxesOf(node).length >= MOST_SANDBOXES) return;
  const template = anyTemplate(asking);
  if (template === undefined) return;
  await commands.runSandbox({ template_id: template.template_id }, context);
  sim.world.count("sandboxes started");
};

const end: Ask = async ({ sim, commands, context, node }) => {
  const own = sandboxesOf(node);
  if (own.length === 0) return;
  await commands.deleteSandbox(sim.world.chance.pick(own).sandbox_id, context);
  sim.world.count("sandboxes ended");
};

const snapshot: Ask = async (asking) => {
  const { sim, drawn, commands, context } = asking;
  const [again] = drawn.requests;
  const repeats = again !== undefined && sim.world.chance.happens(0.2);
  const sandboxId = repeats ? again.sandboxId : anySandbox(asking)?.sandbox_id;
  if (sandboxId === undefined) return;
  const id = repeats ? again.id : context.requestId;
  const request = { sandboxId, id, snapshot: repeats ? again.snapshot : "" };
  // Told before it is answered: two nodes may be asked the same at once.
  if (!repeats) drawn.requests.unshift(request);
  const done = await commands.createSnapshot(sandboxId, { request_id: id }, context);
  // Once it was deleted its operations are forgotten, and the same id may be used again.
  const isKept = request.snapshot !== "" && !drawn.truth.gone.has(request.snapshot);
  if (isKept && request.snapshot !== done.snapshot_id) {
    sim.fail(`request ${id} was answered with ${request.snapshot} and ${done.snapshot_id}`);
  }
  request.snapshot = done.snapshot_id;
  sim.world.count(repeats ? "snapshots asked for again" : "snapshots taken");
};

const rollback: Ask = async (asking) => {
  const { sim, commands, context } = asking;
  const target = anyTemplate(asking, ({ kind }) => kind === "snapshot");
  if (target === undefined) return;
  const other = anySandbox(asking)?.sandbox_id ?? "";
  const sandboxId = sim.world.chance.happens(0.9) ? (target.origin_sandbox_id ?? "") : other;
  await commands.rollbackSandbox(sandboxId, { snapshot_id: target.template_id }, context);
  sim.world.count("rollbacks");
};

const acquire: Ask = async (asking) => {
  const { sim, drawn, commands, context } = asking;
  const template = anyTemplate(asking);
  if (template === undefined) return;
  const sandbox_id = `ext-${sim.world.chance.below(4)}`;
  const node_id = sim.world.chance.pick(drawn.nodes).name;
  const request = { snapshot_id: template.template_id, sandbox_id, node_id };
  await commands.acquireRuntimeRef(request, context);
  sim.world.count("refs acquired");
};

const release: Ask = async ({ sim, commands, context }) => {
  const sandboxId = `ext-${sim.world.chance.below(4)}`;
  const released = await commands.releaseRuntimeRefs(sandboxId, "ended", context);
  if (released > 0) sim.world.count("refs released");
};

const cancelJob: Ask = async ({ sim, drawn, commands, context }) => {
  const active = drawn.truth.activeJobs();
  if (active.length === 0) return;
  await commands.cancelJob(sim.world.chance.pick(active).job_id, context);
};

const collect: Ask = ({ commands, context }) => commands.collectGarbage({ dryRun: false }, context);

const ASKED: readonly (readonly [weight: number, ask: Ask])[] = [
  [3, create],
  [2, redo],
  [3, remove],
  [4, run],
  [2, end],
  [4, snapshot],
  [3, rollback],
  [3, acquire],
  [3, release],
  [1, cancelJob],
  [1, collect],
];
const NAMES_OF = new Map(ASKED.map(([, ask]) => [ask, ask.name]));
const WEIGHTS = ASKED.flatMap(([weight, ask]) => Array.from({ length: weight }, () => ask));

/** Whatever is refused has a reason that its asker can do something about. */
function judge(sim: Simulation, error: unknown): void {
  if (isAppError(error) && error.code !== "internal") {
    sim.world.count(`refused: ${error.code}`);
    return;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  // A host whose disk is full or broken says so in its own words.
  if (/ENOSPC|EIO/.test(text)) return sim.world.count("refused: disk");
  sim.fail(`an operation failed with ${text}`);
}

export const operations: Scenario = {
  members: 3,
  voters: () => ["a", "b", "c"],
  calmMs: CALM_MS,
  restarts: true,
  faults: (chance) => ({ skewMs: chance.next() < 0.7 ? 2_000 : 3_600_000 }),
  node: operationNode,
  hear: (sim, at, entry) => drawnOf(sim).truth.hear(at, entry),
  work(sim, started) {
    const node = started as DaemonNode;
    const drawn = drawnOf(sim);
    const { daemon } = node;
    if (daemon === undefined) return;
    const { liveness } = daemon.state.cluster;
    liveness.onChange((name, state) => {
      if (state === "dead") drawn.truth.troubled(name);
    });
    sim.every(node, 400, async () => {
      const ask = sim.world.chance.pick(WEIGHTS);
      const requestId = `r${++drawn.calls}`;
      const context = { requestId, actor: node.name };
      const { commands } = daemon.core;
      // Whoever asks does not wait for ever, and what he asked for goes on.
      const patience = new Promise<void>((resolve) => {
        node.host.later(sim.world.chance.between(1_000, 20_000), resolve);
      });
      const what = `${node.name} ${requestId} ${NAMES_OF.get(ask) ?? ""}`;
      sim.world.note(`${what} is asked`);
      const asked = ask({ sim, drawn, node, commands, context }).then(
        () => sim.world.note(`${what} is done`),
        (error: unknown) => {
          sim.world.note(`${what}: ${String(error)}`);
          judge(sim, error);
        },
      );
      await Promise.race([asked, patience]);
    });
  },
  check: (sim) => drawnOf(sim).truth.check(),
  async end(sim) {
    const drawn = drawnOf(sim);
    const { truth, nodes, promised } = drawn;
    drawn.trouble.effects = 0;
    const passes = (ms: number) =>
      new Promise<void>((resolve) => void sim.world.after(ms, resolve));
    // Sessions are renewed all the time: what is on its way is not yet everywhere.
    for (let turn = 0; turn < 20 && unsettled(nodes, truth).length > 0; turn++) await passes(250);
    const [first] = unsettled(nodes, truth);
    if (first !== undefined) sim.fail(`not settled after 30 s: ${first}`);
    // A slow round looks for what is of no use, every 30 s.
    await passes(15_000);
    const [left] = useless(nodes);
    if (left !== undefined) sim.fail(`left over after 40 s: ${left}`);
    const there = new Set(truth.templates().map(({ template_id }) => template_id));
    for (const [id, what] of promised) {
      if (what === "deleted" && there.has(id)) sim.fail(`${id} was deleted and is there`);
    }
  },
};
