/** Everything that changes, for pages and scripts. */
import { z } from "@hono/zod-openapi";
import { eventSchema, type ChangeEvent, type Queries } from "../../../domain/index.ts";
import { invalidField } from "../answer.ts";
import { route, type Route } from "../route.ts";
import type { EventSink } from "../ports.ts";

const TYPES: ReadonlySet<string> = new Set(eventSchema.shape.type.options);

/** @throws AppError invalid_request for a type that does not exist */
function typesOf(text: string | undefined): ReadonlySet<string> {
  if (text === undefined) return TYPES;
  const types = text.split(",").map((type) => type.trim());
  const unknown = types.find((type) => !TYPES.has(type));
  if (unknown !== undefined) {
    throw invalidField("/types", `has ${JSON.stringify(unknown)}; known: ${[...TYPES].join(", ")}`);
  }
  return new Set(types);
}

function relay(queries: Queries, types: ReadonlySet<string>, after: string | undefined) {
  return (sink: EventSink): (() => void) => {
    const send = (event: ChangeEvent): void => {
      if (types.has(event.type)) sink.send({ event: event.type, id: event.id, data: event });
    };
    const missed = after === undefined ? undefined : queries.eventsSince(after);
    if (missed === undefined) {
      const id = queries.lastEventId();
      // `resync`: what the caller had is too old, it must read the state again.
      sink.send({ event: after === undefined ? "hello" : "resync", id, data: { last_id: id } });
    } else {
      missed.forEach(send);
    }
    return queries.subscribe(send);
  };
}

const events = route(
  {
    method: "get",
    path: "/v1/events",
    summary: "Changes as they happen; hello or resync first, then one event per change",
    tag: "events",
    query: z.strictObject({
      types: z.string().max(256).optional().describe("event types, with commas"),
      since: z.string().max(128).optional().describe("as Last-Event-ID"),
    }),
    headers: { "Last-Event-ID": "id of the last event that was received" },
    answers: { 200: { description: "server-sent events", contentType: "text/event-stream" } },
  },
  (deps, c, { query }) => {
    const after = c.req.header("last-event-id") ?? query.since;
    return deps.streams.open(c, relay(deps.queries, typesOf(query.types), after));
  },
);

export const eventRoutes: readonly Route[] = [events];
