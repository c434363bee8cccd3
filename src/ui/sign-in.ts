/**
 * Signing in with a token of the API, for daemons that ask for one. The browser keeps a random
 * secret in a cookie that scripts cannot read and other sites cannot make it send; never the token.
 */
import type { Hono } from "hono";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { AppError, LIMITS, isAppError } from "../domain/index.ts";
import type { SignIns } from "../domain/index.ts";
import { readNext, type Access } from "./access.ts";
import { readForm, withNotice } from "./actions.ts";
import type { Ui, UiContext, UiEnv } from "./context.ts";
import { signInPage } from "./pages/sign-in.ts";
import { cookieName } from "./session.ts";

const nameOf = (nodeId: string): string => `${cookieName(nodeId)}-signin`;
const ATTRIBUTES = { path: "/ui", httpOnly: true, sameSite: "Strict" } as const;
const isSecure = (c: UiContext): boolean => new URL(c.req.url).protocol === "https:";

const secretOf = (c: UiContext, nodeId: string): string => {
  const value = getCookie(c, nameOf(nodeId)) ?? "";
  return /^[0-9a-f]{64}$/.test(value) ? value : "";
};

/** Who asks: by the page's cookie, or as the listener has found (unix socket, bearer token). */
export function findAccess(c: UiContext, nodeId: string, signIns: SignIns): Access {
  const { required } = signIns;
  if (!required) return { required, mayChange: true };
  const secret = secretOf(c, nodeId);
  const name = secret === "" ? undefined : signIns.whoIs(secret);
  if (name !== undefined) return { required, mayChange: true, name };
  return { required, mayChange: c.get("trusted") === true };
}

/** What changes nothing but the visitor's own cookies. */
const OPEN: ReadonlySet<string> = new Set(["/ui/sign-in", "/ui/sign-out", "/ui/settings"]);

/** @throws AppError unauthorized: a change by somebody who is not signed in */
export function assertMayChange(c: UiContext, access: Access): void {
  if (access.mayChange || ["GET", "HEAD", "OPTIONS"].includes(c.req.method)) return;
  if (OPEN.has(new URL(c.req.url).pathname)) return;
  throw new AppError("unauthorized", "changes need a token: sign in, then send the form again");
}

export function registerSignIn(app: Hono<UiEnv>, ui: Ui): void {
  const { signIns, queries } = ui;
  const show = (c: UiContext, next: string, error?: AppError) =>
    ui.show(
      c,
      {
        title: error === undefined ? "Sign in" : "Not signed in",
        tone: error === undefined ? "idle" : "bad",
        section: "help",
        path: "/ui/sign-in",
        body: signInPage(ui.pageOf(c), next, error),
      },
      error === undefined ? 200 : error.code === "unauthorized" ? 401 : 429,
    );
  app.get("/sign-in", (c) => show(c, readNext(c.req.query("next"))));
  app.post("/sign-in", async (c) => {
    const form = await readForm(c);
    const next = readNext(form["next"]);
    try {
      const { secret } = signIns.signIn(form["api_token"] ?? "", c.get("from") ?? "");
      setCookie(c, nameOf(queries.nodeId), secret, {
        ...ATTRIBUTES,
        secure: isSecure(c),
        maxAge: LIMITS.pageSessionMs / 1_000,
      });
      c.set("actor", `token:${signIns.whoIs(secret) ?? ""}`);
      return c.redirect(next, 303);
    } catch (error) {
      if (!isAppError(error) || !["unauthorized", "too_many_requests"].includes(error.code)) {
        throw error;
      }
      // For the audit row: it was refused, though it is answered with a page.
      c.set("failure", error);
      return show(c, next, error);
    }
  });
  app.post("/sign-out", async (c) => {
    await readForm(c);
    signIns.signOut(secretOf(c, queries.nodeId));
    deleteCookie(c, nameOf(queries.nodeId), { path: "/ui", secure: isSecure(c) });
    return c.redirect(withNotice("/ui/", "signed-out"), 303);
  });
}
