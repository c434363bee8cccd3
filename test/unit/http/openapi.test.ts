import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { openApiDocument } from "../../../src/daemon/http/openapi.ts";
import { ROUTES } from "../../../src/daemon/http/routes/all.ts";
import { httpFixture } from "../../support/http-app.ts";

interface Operation {
  operationId: string;
  parameters?: { name: string; in: string; required?: boolean }[];
  requestBody?: { content: Record<string, { schema: unknown }> };
  responses: Record<string, { description: string }>;
}

const document = JSON.parse(JSON.stringify(openApiDocument("0.1.0"))) as {
  openapi: string;
  info: { title: string; version: string };
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, unknown> };
};
const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
);

function* references(value: unknown): Generator<string> {
  if (typeof value !== "object" || value === null) return;
  for (const [key, member] of Object.entries(value)) {
    if (key === "$ref" && typeof member === "string") yield member;
    else yield* references(member);
  }
}

describe("openapi.json", () => {
  it("is OpenAPI 3.1 with every route of the table, and no other", () => {
    expect(document.openapi).toBe("3.1.0");
    const described = operations.map(({ method, path }) => `${method} ${path}`).sort();
    expect(described).toEqual(ROUTES.map(({ spec }) => `${spec.method} ${spec.path}`).sort());
  });

  it("has the routes that the design names", () => {
    const paths = Object.keys(document.paths);
    for (const path of [
      "/v1/templates/from-image",
      "/v1/templates/{id}/replicas",
      "/v1/jobs/{id}/events",
      "/v1/artifacts/{id}/content",
      "/v1/resolve",
      "/v1/sandboxes/{id}",
      "/v1/nodes/self",
      "/v1/events",
      "/healthz",
      "/readyz",
      "/metrics",
    ]) {
      expect(paths).toContain(path);
    }
  });

  it("describes each path parameter, each answer, and problems", () => {
    for (const { path, operation } of operations) {
      const named = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
      const given = (operation.parameters ?? []).filter((one) => one.in === "path");
      expect(given.map((one) => [one.name, one.required])).toEqual(named.map((n) => [n, true]));
      expect(Object.keys(operation.responses)).toContain("default");
      for (const answer of Object.values(operation.responses)) {
        expect(answer.description).not.toBe("");
      }
    }
    const ids = operations.map(({ operation }) => operation.operationId);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it("refers only to schemas that it has", () => {
    const names = new Set(Object.keys(document.components.schemas));
    const refs = [...references(document)];
    expect(refs.length).toBeGreaterThan(20);
    for (const ref of refs) expect(names).toContain(ref.replace("#/components/schemas/", ""));
  });

  it("is what scripts/docs.mjs last wrote", () => {
    const file = new URL("../../../openapi.json", import.meta.url);
    expect(JSON.parse(readFileSync(file, "utf8"))).toEqual(document);
  });

  it("has a handler behind every operation", async () => {
    const { app } = httpFixture();
    for (const { path, method } of operations) {
      const url = `http://localhost${path.replace("{id}", "none")}`;
      const answer = await app.fetch(new Request(url, { method: method.toUpperCase() }));
      const body = answer.headers.get("content-type")?.includes("json")
        ? ((await answer.json()) as { code?: string })
        : {};
      await answer.body?.cancel().catch(() => undefined);
      expect([path, body.code]).not.toEqual([path, "not_found"]);
      expect([path, body.code]).not.toEqual([path, "method_not_allowed"]);
      expect([path, answer.status >= 500]).toEqual([path, false]);
    }
  });
});
