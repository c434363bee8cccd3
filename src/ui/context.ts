/** What the page is given, and what its routes share. */
import type { ServerResponse } from "node:http";
import type { Context } from "hono";
import type {
  CallContext,
  Clock,
  Commands,
  Log,
  Queries,
  Random,
  SignIns,
} from "../domain/index.ts";
import type { PageContext, PageView } from "./layout.ts";
import type { Session } from "./session.ts";
import type { Access } from "./access.ts";
import type { StreamHub } from "./stream.ts";

/** How bundles go over a socket: as the API's do. */
export interface BundleFiles {
  send(
    parts: { readonly commands: Commands; readonly log: Log },
    id: string,
    context: CallContext,
    headers: Readonly<Record<string, string>>,
    outgoing: ServerResponse | undefined,
  ): Promise<Response>;
  /** What is left of it is read, when it is given up, so that the sender hears why. */
  read(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array>;
}

export interface UiDependencies {
  readonly queries: Queries;
  readonly commands: Commands;
  readonly signIns: SignIns;
  readonly bundleFiles: BundleFiles;
  readonly version: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Ends all streams when it aborts. */
  readonly signal?: AbortSignal;
}

export interface UiEnv {
  Bindings: { readonly outgoing?: ServerResponse };
  Variables: {
    session: Session;
    requestId: string;
    access: Access;
    /** What the HTTP side has found before; absent where the page is served alone. */
    actor?: string;
    trusted?: boolean;
    from?: string;
    failure?: unknown;
  };
}
export type UiContext = Context<UiEnv>;

/** What the routes share. */
export interface Ui extends UiDependencies {
  readonly hub: StreamHub;
  pageOf(c: UiContext): PageContext;
  show(c: UiContext, view: PageView, code?: 200 | 401 | 403 | 409 | 422 | 429): Promise<Response>;
}
