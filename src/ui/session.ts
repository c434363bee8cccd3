/**
 * A browser's session: a random cookie of this node's own name (cookies ignore ports, and many
 * daemons share localhost), the form token derived from it, and a few settings.
 * The cookie is Lax: the page must open from a link in a ticket with the same session, and unsafe
 * requests are checked by origin and token anyway.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { Context } from "hono";
import { getCookie, setCookie } from "hono/cookie";
import type { Random } from "../domain/index.ts";

export interface Settings {
  readonly theme: "auto" | "light" | "dark";
  readonly density: "comfortable" | "compact";
  readonly shortcuts: "on" | "off";
}

export interface Session {
  readonly id: string;
  readonly token: string;
  readonly settings: Settings;
}

const digest = (text: string): string => createHash("sha256").update(text).digest("hex");

/** `tc-session-` and eight characters that stand for the node. */
export const cookieName = (nodeId: string): string => `tc-session-${digest(nodeId).slice(0, 8)}`;

const tokenOf = (id: string): string => digest(`form token of ${id}`).slice(0, 32);

const pick = <T extends string>(value: string | undefined, values: readonly [T, ...T[]]): T =>
  values.find((entry) => entry === value) ?? values[0];

/** Settings from untrusted text; what is not known is the default. */
export const readSettings = (values: Readonly<Record<string, string | undefined>>): Settings => ({
  theme: pick(values["theme"], ["auto", "light", "dark"]),
  density: pick(values["density"], ["comfortable", "compact"]),
  shortcuts: pick(values["shortcuts"], ["on", "off"]),
});

const ATTRIBUTES = { path: "/ui", httpOnly: true, sameSite: "Lax", maxAge: 43_200 } as const;

/** The session of the request; a new one where there is none, with its cookie set. */
export function openSession(c: Context, nodeId: string, random: Random): Session {
  const name = cookieName(nodeId);
  let id = getCookie(c, name) ?? "";
  if (!/^[0-9a-f]{48}$/.test(id)) {
    id = Buffer.from(random.bytes(24)).toString("hex");
    setCookie(c, name, id, ATTRIBUTES);
  }
  const stored = new URLSearchParams(getCookie(c, `${name}-settings`) ?? "");
  return { id, token: tokenOf(id), settings: readSettings(Object.fromEntries(stored)) };
}

/** Keeps the settings in the browser for a year. */
export function keepSettings(c: Context, nodeId: string, settings: Settings): void {
  const value = new URLSearchParams({ ...settings }).toString();
  setCookie(c, `${cookieName(nodeId)}-settings`, value, { ...ATTRIBUTES, maxAge: 31_536_000 });
}

/** Whether the token sent with a form is that session's. */
export function isTokenOf(session: Session, sent: string | undefined): boolean {
  const given = Buffer.from(digest(sent ?? ""));
  return timingSafeEqual(given, Buffer.from(digest(session.token)));
}
