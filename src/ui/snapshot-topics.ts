/** What is live of the pages of snapshots. */
import { isAppError } from "../domain/index.ts";
import type { Queries, SnapshotInfo } from "../domain/index.ts";
import type { Html } from "./html.ts";
import { snapshotHead, snapshotReplicas } from "./pages/snapshots.ts";
import type { Region, Topic } from "./topic.ts";
import { snapshotSentence } from "./snapshot-models.ts";

export const snapshotsTopic = (): Topic => ({
  touched: () => [],
  refetch: (event) => (event.type === "template" ? "snapshots-changed" : undefined),
  logJob: undefined,
  sentence: () => "",
});

export function snapshotTopic(queries: Queries, id: string): Topic {
  const find = (): SnapshotInfo | undefined => {
    try {
      return queries.snapshot(id);
    } catch (error) {
      if (isAppError(error)) return undefined;
      throw error;
    }
  };
  const of = (name: string, render: (snapshot: SnapshotInfo) => Html): Region => ({
    id: `${name}-${id}`,
    render: () => {
      const snapshot = find();
      return snapshot === undefined ? undefined : render(snapshot);
    },
  });
  const parts = [of("snapshot-head", snapshotHead), of("replicas", snapshotReplicas)];
  return {
    touched: ({ type, subject }) =>
      (type === "template" || type === "replica") && subject === id ? parts : [],
    refetch: () => undefined,
    logJob: undefined,
    sentence: () => {
      const snapshot = find();
      return snapshot === undefined ? "" : snapshotSentence(snapshot);
    },
  };
}
