/** The real HTTP application over a fake service, with in-memory neighbours that record. */
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { Registry } from "prom-client";
import { createApp, type HttpApp } from "../../src/daemon/http/app.ts";
import type { AppDeps, AuditRow, StoredAnswer } from "../../src/daemon/http/ports.ts";
import { AppError, type Clock, type Log, type Random } from "../../src/domain/index.ts";
import { createFakeService, type FakeService } from "./fake-http-service.ts";

export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  after(ms, callback) {
    const timer = setTimeout(callback, ms).unref();
    return { cancel: () => clearTimeout(timer) };
  },
};

export const realRandom: Random = { bytes: (length) => randomBytes(length), uuid: randomUUID };

export interface LogRecord {
  readonly level: string;
  readonly message: string;
  readonly fields: Record<string, unknown>;
}

export function recordingLog(records: LogRecord[]): Log {
  const at =
    (level: string) =>
    (message: string, fields: Record<string, unknown> = {}) => {
      records.push({ level, message, fields });
    };
  const log: Log = {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: () => log,
  };
  return log;
}

/** The contract of the storage's idempotency store, in a map. */
export function memoryIdempotency(): AppDeps["idempotency"] & { readonly keys: () => string[] } {
  const rows = new Map<string, { hash: string; answer?: StoredAnswer }>();
  return {
    async begin(key, bodyHash) {
      const row = rows.get(key);
      if (row === undefined) {
        rows.set(key, { hash: bodyHash });
        return { state: "new" };
      }
      if (row.hash !== bodyHash) throw new AppError("idempotency_mismatch");
      if (row.answer === undefined) throw new AppError("idempotency_in_progress");
      return { state: "replay", answer: row.answer };
    },
    async finish(key, answer) {
      rows.set(key, { hash: rows.get(key)?.hash ?? "", answer });
    },
    async abandon(key) {
      rows.delete(key);
    },
    keys: () => [...rows.keys()],
  };
}

export const tokenHash = (token: string): string =>
  createHash("sha256").update(token).digest("hex");

export interface HttpFixture {
  readonly app: HttpApp;
  readonly service: FakeService;
  readonly logs: LogRecord[];
  readonly audit: AuditRow[];
  readonly deps: AppDeps;
  readonly idempotencyKeys: () => string[];
}

export function httpFixture(over: Partial<AppDeps> = {}): HttpFixture {
  const service = createFakeService();
  const logs: LogRecord[] = [];
  const audit: AuditRow[] = [];
  const idempotency = memoryIdempotency();
  const ok = () => ({ ok: true, checks: [{ name: "catalog", ok: true, detail: "" }] });
  const deps: AppDeps = {
    queries: service.queries,
    commands: service.commands,
    idempotency,
    audit: {
      append: async (row) => {
        audit.push(row);
      },
    },
    health: { live: ok, ready: ok },
    metrics: new Registry(),
    auth: { tokens: [] },
    log: recordingLog(logs),
    clock: realClock,
    random: realRandom,
    version: "0.1.0",
    allowedHosts: ["cp1.example"],
    ...over,
  };
  return { app: createApp(deps), service, logs, audit, deps, idempotencyKeys: idempotency.keys };
}
