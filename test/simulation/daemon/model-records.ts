/** Commands of a sequence that make nothing anew: tags, labels, guards, retention, compat. */
import { isUsed, removed, without, type Cluster, type State, type TemplateState } from "./model.ts";
import { expectCode, has, pick, valueOf, type Act } from "./model-asks.ts";

const TAGS = ["stable", "latest"];

/** Wherever it points, only where there is none, only from where it points, only from elsewhere. */
export const promote: Act = async ({ state, cluster, node, choice: { first, second } }) => {
  const name = pick(TAGS, second);
  const id = pick(state.templates, first);
  const now = state.tags[name]?.at(-1);
  const expectations = [undefined, null, now ?? null, pick(state.templates, first + 1)];
  const expected = expectations[second % expectations.length];
  const request = {
    template_id: id,
    ...(expected === undefined ? {} : { expected_template_id: expected }),
  };
  const call = cluster.commandsOf(node).promoteTag(name, request, cluster.context("model"));
  const isMoved = expected !== undefined && expected !== (now ?? null);
  const what = `tag ${name} to ${id} from ${String(expected)}`;
  if (!expectCode(what, await cluster.answer(call), isMoved ? "tag_moved" : "ok")) return [state];
  return [now === id ? state : pointed(state, name, id)];
};

const pointed = (state: State, name: string, id: string): State => ({
  ...state,
  tags: { ...state.tags, [name]: [...(state.tags[name] ?? []), id] },
});

export const rollbackTag: Act = async ({ state, cluster, node, choice: { second } }) => {
  const name = pick(TAGS, second);
  const history = state.tags[name];
  const before = history?.at(-2);
  const call = cluster.commandsOf(node).rollbackTag(name, {}, cluster.context("model"));
  const expected =
    history === undefined
      ? "tag_not_found"
      : before === undefined
        ? "tag_has_no_history"
        : before in state.templates
          ? "ok"
          : "template_not_found";
  const isBack = expectCode(`tag ${name} back`, await cluster.answer(call), expected);
  return [isBack ? pointed(state, name, before ?? "") : state];
};

export const deleteTag: Act = async ({ state, cluster, node, choice: { second } }) => {
  const name = pick(TAGS, second);
  const call = cluster.commandsOf(node).deleteTag(name, cluster.context("model"));
  const expected = name in state.tags ? "ok" : "tag_not_found";
  const isGone = expectCode(`deleting tag ${name}`, await cluster.answer(call), expected);
  return [isGone ? { ...state, tags: without(state.tags, name) } : state];
};

const said = (state: State, id: string, change: Partial<TemplateState>): State => {
  const { isProtected = false, labels = {} } = state.templates[id] ?? {};
  const next = { isProtected, labels, ...change };
  return { ...state, templates: { ...state.templates, [id]: next } };
};

export const label: Act = async ({ state, cluster, node, choice: { first, second } }) => {
  const id = pick(state.templates, first);
  const { labels = {} } = state.templates[id] ?? {};
  const key = `k${second % 2}`;
  const value = second % 3 === 0 ? null : `v${second}`;
  const replace = second % 4 === 0;
  const call = cluster
    .commandsOf(node)
    .labelTemplate(id, { labels: { [key]: value }, replace }, cluster.context("model"));
  expectCode(`labels of ${id}`, await cluster.answer(call), "ok");
  const kept = replace ? {} : without(labels, key);
  return [said(state, id, { labels: value === null ? kept : { ...kept, [key]: value } })];
};

export const protect: Act = async ({ state, cluster, node, choice: { first } }) => {
  const id = pick(state.templates, first);
  const isProtected = state.templates[id]?.isProtected !== true;
  const call = cluster.commandsOf(node).protectTemplate(id, isProtected, cluster.context("model"));
  expectCode(`protecting ${id}`, await cluster.answer(call), "ok");
  return [said(state, id, { isProtected })];
};

/** All templates are versions of one image: only the newest is kept for its own sake. */
export const retain: Act = async ({ state, cluster, node }) => {
  const made = cluster.truth.templates().filter((one) => one.template_id in state.templates);
  const newest =
    made
      .map((one) => one.created_at)
      .sort()
      .at(-1) ?? "";
  const needed = new Set(Object.values(state.tags).flatMap((history) => history.slice(-2)));
  const due = made
    .filter((one) => one.created_at < newest)
    .map((one) => one.template_id)
    .filter((id) => !needed.has(id) && !isUsed(state, id))
    .filter((id) => state.templates[id]?.isProtected !== true);
  const call = cluster
    .commandsOf(node)
    .applyRetention({ dryRun: false, policy: { keep_last: 1 } }, cluster.context("model"));
  const report = valueOf("retention", await cluster.answer(call));
  const gone = report.items.flatMap((one) => (one.deleted ? [one.template_id] : []));
  // Where others have just come back it waits.
  const expected = report.in_touch ? due : [];
  if (gone.sort().join() !== expected.sort().join()) {
    throw new Error(`retention has deleted ${gone.join()}, not ${expected.join()}`);
  }
  return [gone.reduce(removed, state)];
};

const scan = async (cluster: Cluster, node: string) => {
  const request = { node_ids: [], all_nodes: true };
  const call = cluster.commandsOf(node).rescanCompat(request, cluster.context("model"));
  return valueOf("a scan", await cluster.answer(call)).nodes;
};

/** Nothing is stale, and nothing is unknown that could be adopted. */
export const scanAndAdopt: Act = async ({ state, cluster, node, choice: { first } }) => {
  for (const { node_id: id, stale, unknown, changed } of await scan(cluster, node)) {
    if (stale + unknown + changed > 0) throw new Error(`replicas on ${id} are stale or unknown`);
  }
  if (!has(state.templates)) return [state];
  const call = cluster
    .commandsOf(node)
    .adoptCompatBaseline(pick(state.templates, first), cluster.context("model"));
  const { updated } = valueOf("adopting", await cluster.answer(call));
  if (updated !== 0) throw new Error(`${updated} replicas of known versions were adopted`);
  return [state];
};

/** What was made before an upgrade is not run after it, and is when that is taken back. */
export const upgrade: Act = async ({ state, cluster, node, choice: { first } }) => {
  const { machine } = cluster.node(node);
  const on = pick(state.templates, first);
  const before = machine.guest;
  const held = Object.keys({ ...state.templates, ...state.snapshots }).filter(
    (id) => cluster.node(node).daemon?.runtime.replicas.made(id) !== undefined,
  );
  for (const guest of ["g2", before]) {
    machine.guest = guest;
    await cluster.crash(node, false);
    const stale = guest === before ? 0 : held.length;
    const own = (await scan(cluster, node)).find((one) => one.node_id === node);
    if (own?.stale !== stale) throw new Error(`${node} has ${String(own?.stale)} stale replicas`);
    if (guest === before) break;
    const call = cluster.commandsOf(node).runSandbox({ template_id: on }, cluster.context("model"));
    const refused = ["template_stale_needs_redo", "template_has_no_ready_replica"] as const;
    expectCode(`running ${on}, which is stale`, await cluster.answer(call), ...refused);
  }
  return [state];
};

const onOthers = <T extends { readonly node: string }>(
  all: Readonly<Record<string, T>>,
  node: string,
): Record<string, T> =>
  Object.fromEntries(Object.entries(all).filter(([, placed]) => placed.node !== node));

export const withoutSandboxes = (state: State, node: string): State => ({
  ...state,
  sandboxes: onOthers(state.sandboxes, node),
});

/** Its refs go with it. */
export const removeNode: Act = async ({ state, cluster, node, choice: { second } }) => {
  const others = state.members.filter((one) => one !== node);
  const gone = pick(others, second);
  await cluster.removeNode(gone, node);
  const left = withoutSandboxes(state, gone);
  const members = state.members.filter((one) => one !== gone);
  return [{ ...left, members, refs: onOthers(state.refs, gone) }];
};
