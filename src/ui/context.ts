/** What the page is given, and what its routes share. */
import type { Context } from "hono";
import type { Clock, Commands, Log, Queries, Random, SignIns } from "../domain/index.ts";
import type { PageContext, PageView } from "./layout.ts";
import type { Session } from "./session.ts";
import type { Access } from "./access.ts";
import type { StreamHub } from "./stream.ts";

export interface UiDependencies {
  readonly queries: Queries;
  readonly commands: Commands;
  readonly signIns: SignIns;
  readonly version: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Ends all streams when it aborts. */
  readonly signal?: AbortSignal;
}

export interface UiEnv {
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
