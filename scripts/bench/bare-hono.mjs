// The reference of the resolve bench: a route that returns bytes it is given, and nothing else.
import { serve } from "@hono/node-server";
import { Hono } from "hono";

process.once("message", (bytes) => {
  const app = new Hono();
  app.post("/", (c) => c.body(bytes, 200, { "content-type": "application/json" }));
  const server = serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" }, ({ port }) =>
    process.send(port),
  );
  process.once("disconnect", () => server.close());
});
