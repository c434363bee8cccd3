/**
 * Against DNS rebinding: a page on another name that resolves to this host sends that name in
 * Host, and is refused. IP literals, localhost and configured names pass; the unix socket is not
 * reachable from a browser.
 */
import { isIP } from "node:net";
import { AppError } from "../../../domain/index.ts";
import { doorOf, type AppMiddleware } from "../ports.ts";

/** Host name of a Host header, lower case, without port, brackets and a trailing dot. */
export function hostName(header: string): string {
  const text = header.trim().toLowerCase();
  const bracketed = /^\[([^\]]*)\](?::\d*)?$/.exec(text);
  if (bracketed !== null) return bracketed[1] ?? "";
  return text.replace(/:\d*$/, "").replace(/\.$/, "");
}

export type HostCheck = (door: "tcp" | "unix", hostHeader: string | undefined) => void;

/** @returns a check that throws AppError host_not_allowed */
export function createHostCheck(allowedHosts: readonly string[]): HostCheck {
  const names = new Set(["localhost", ...allowedHosts.map(hostName)]);
  // Answers for the few Host values that really come; bounded, because anybody may send more.
  const passed = new Set<string>();
  return (door, hostHeader) => {
    if (door === "unix") return;
    const header = hostHeader ?? "";
    if (passed.has(header)) return;
    const name = hostName(header);
    const allowed = names.has(name) || name.endsWith(".localhost") || isIP(name) !== 0;
    if (!allowed) {
      throw new AppError(
        "host_not_allowed",
        `host ${JSON.stringify(name.slice(0, 256))} is not a name of this daemon`,
        { meta: { hint: "use an IP address, localhost, or add the name to allowed_hosts" } },
      );
    }
    if (passed.size < 64) passed.add(header);
  };
}

export const hostMiddleware =
  (check: HostCheck): AppMiddleware =>
  async (c, next) => {
    check(doorOf(c), c.req.header("host"));
    await next();
  };
