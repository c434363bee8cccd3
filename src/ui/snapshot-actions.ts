/** Forms about snapshots: taking one, going back to one, bringing one elsewhere, deleting one. */
import type { Hono } from "hono";
import { AppError, errorText, isAppError } from "../domain/index.ts";
import type { SandboxInfo, SnapshotOperation } from "../domain/index.ts";
import { act, ask, guardOf, withNotice } from "./actions.ts";
import { commandLines } from "./command-lines.ts";
import type { Ui, UiEnv } from "./context.ts";
import { html } from "./html.ts";
import { deliverFields } from "./pages/deliver.ts";
import {
  createEffects,
  deletionPlan,
  deliveryPlan,
  readDelivery,
  rollbackPlan,
  snapshotName,
} from "./snapshot-models.ts";
import { lineageOf } from "./snapshot-routes.ts";
import { createSubmissions, type Submissions } from "./submissions.ts";
import { guardText } from "./view-models.ts";

/** So long a browser waits for what may take minutes; then it is led on, and the work goes on. */
const WAIT_MS = 4_000;

export function registerSnapshotActions(app: Hono<UiEnv>, ui: Ui): void {
  const submissions = createSubmissions<string>();
  registerCreate(app, ui, submissions);
  registerRollback(app, ui, submissions);
  registerDeliver(app, ui, submissions);
  registerDelete(app, ui, submissions);
}

/**
 * Where to go when it is done; where to look meanwhile when it takes longer.
 * @throws AppError of the operation, when it fails in time
 */
async function soon(
  { clock, log }: Ui,
  operation: Promise<SnapshotOperation>,
  done: (operation: SnapshotOperation) => string,
  meanwhile: string,
): Promise<string> {
  let timer: { cancel(): void } | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = clock.after(WAIT_MS, () => resolve(undefined));
  });
  try {
    const ended = await Promise.race([operation, late]);
    if (ended !== undefined) return done(ended);
  } finally {
    timer?.cancel();
  }
  operation.catch((error: unknown) =>
    log.warn("page: a snapshot operation failed later", { error: errorText(error) }),
  );
  return meanwhile;
}

/** The notice beside a filter. */
const listOf = (sandbox: string): string =>
  `/ui/snapshots?${new URLSearchParams({ sandbox_id: sandbox, notice: "snapshot-goes-on" }).toString()}`;

function registerCreate(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  const { queries, commands } = ui;
  app.get("/sandboxes/:id/snapshot", (c) => {
    const box = queries.sandbox(c.req.param("id"));
    return ask(ui, c, "snapshots", {
      title: `Take a snapshot of ${box.sandbox_id}?`,
      effects: createEffects(box),
      action: `/ui/sandboxes/${box.sandbox_id}/snapshot`,
      verb: "Take snapshot",
      kind: "primary",
      command: commandLines.createSnapshot(box.sandbox_id, ""),
      back: `/ui/nodes/${box.node_id}`,
      fields: html`<div class="field">
        <label for="snapshot-name">Name, if you like</label
        ><input id="snapshot-name" name="display_name" maxlength="256" autocomplete="off" />
      </div>`,
      ...(box.status === "RUNNING" ? {} : { blocked: "The sandbox does not run." }),
    });
  });
  app.post("/sandboxes/:id/snapshot", (c) =>
    act(c, submissions, (form, context) => {
      const id = c.req.param("id");
      const name = (form["display_name"] ?? "").trim();
      const request = name === "" ? {} : { display_name: name };
      return soon(
        ui,
        commands.createSnapshot(id, request, context),
        (done) => withNotice(`/ui/snapshots/${done.snapshot_id}`, "snapshot-taken"),
        listOf(id),
      );
    }),
  );
}

function registerRollback(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  const { queries, commands } = ui;
  const findBox = (id: string): SandboxInfo | undefined => {
    try {
      return queries.sandbox(id);
    } catch (error) {
      if (isAppError(error)) return undefined;
      throw error;
    }
  };
  app.get("/snapshots/:id/rollback", (c) => {
    const snapshot = queries.snapshot(c.req.param("id"));
    const { snapshot_id: id, origin_sandbox_id: sandbox } = snapshot;
    const { effects, blocked } = rollbackPlan(snapshot, findBox(sandbox), queries.nodeId);
    return ask(ui, c, "snapshots", {
      title: `Roll ${sandbox} back?`,
      effects,
      action: `/ui/snapshots/${id}/rollback`,
      verb: "Roll back",
      kind: "danger",
      command: commandLines.rollback(sandbox, id),
      back: `/ui/snapshots/${id}`,
      ...(blocked === undefined ? {} : { blocked }),
    });
  });
  app.post("/snapshots/:id/rollback", (c) =>
    act(c, submissions, (_form, context) => {
      const { snapshot_id: id, origin_sandbox_id: sandbox } = queries.snapshot(c.req.param("id"));
      return soon(
        ui,
        commands.rollbackSandbox(sandbox, { snapshot_id: id }, context),
        () => withNotice(`/ui/snapshots/${id}`, "sandbox-rolled-back"),
        listOf(sandbox),
      );
    }),
  );
}

function registerDeliver(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  const { queries, commands } = ui;
  app.get("/snapshots/:id/deliver", (c) => {
    const snapshot = queries.snapshot(c.req.param("id"));
    const id = snapshot.snapshot_id;
    const { effects, blocked, choices } = deliveryPlan(snapshot, queries.nodes());
    return ask(ui, c, "snapshots", {
      title: `Bring ${snapshotName(snapshot)} to other nodes?`,
      effects,
      action: `/ui/snapshots/${id}/deliver`,
      verb: "Deliver",
      kind: "primary",
      command: commandLines.deliverSnapshot(id),
      back: `/ui/snapshots/${id}`,
      fields: deliverFields(choices),
      ...(blocked === undefined ? {} : { blocked }),
    });
  });
  app.post("/snapshots/:id/deliver", (c) =>
    act(c, submissions, (form, context) => {
      const id = c.req.param("id");
      const nodes = readDelivery(form);
      if (nodes.length === 0) {
        throw new AppError("invalid_request", "no node is ticked: go back and choose one");
      }
      return soon(
        ui,
        commands.deliverSnapshot(id, { nodes }, context),
        () => withNotice(`/ui/snapshots/${id}`, "snapshot-delivered"),
        withNotice(`/ui/snapshots/${id}`, "snapshot-delivering"),
      );
    }),
  );
}

function registerDelete(app: Hono<UiEnv>, ui: Ui, submissions: Submissions<string>): void {
  const { queries, commands } = ui;
  app.get("/snapshots/:id/delete", async (c) => {
    const snapshot = queries.snapshot(c.req.param("id"));
    const id = snapshot.snapshot_id;
    const children = lineageOf(queries, id).filter((entry) => entry.parent_id === id);
    const guard = guardText(snapshot);
    const { effects, blocked } = deletionPlan(snapshot, await queries.runtimeRefs(id), children);
    return ask(ui, c, "snapshots", {
      title: `Delete snapshot ${snapshotName(snapshot)}?`,
      effects,
      action: `/ui/snapshots/${id}/delete`,
      verb: "Delete snapshot",
      kind: "danger",
      command: commandLines.deleteSnapshot(id),
      back: `/ui/snapshots/${id}`,
      ...(blocked === undefined ? {} : { blocked }),
      ...(guard === undefined ? {} : guardOf(id, guard)),
    });
  });
  app.post("/snapshots/:id/delete", (c) =>
    act(c, submissions, (_form, context) =>
      soon(
        ui,
        commands.deleteSnapshot(c.req.param("id"), {}, context),
        () => withNotice("/ui/snapshots", "snapshot-deleted"),
        withNotice("/ui/snapshots", "snapshot-goes-on"),
      ),
    ),
  );
}
