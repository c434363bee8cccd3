/**
 * Against requests that a page of another site makes with the user's browser: changes are refused
 * when the browser says that they come from elsewhere. Programs send neither header.
 */
import { AppError } from "../../../domain/index.ts";
import { doorOf, type AppMiddleware } from "../ports.ts";
import { isChange } from "./auth.ts";

export const sameOrigin: AppMiddleware = async (c, next) => {
  if (isChange(c.req.method) && doorOf(c) === "tcp") {
    const site = c.req.header("sec-fetch-site");
    const origin = c.req.header("origin");
    const foreignSite = site !== undefined && site !== "same-origin" && site !== "none";
    if (foreignSite || (origin !== undefined && !isOwnOrigin(origin, c.req.header("host")))) {
      throw new AppError("forbidden", "changes from a page of another site are not allowed");
    }
  }
  await next();
};

function isOwnOrigin(origin: string, host: string | undefined): boolean {
  try {
    return new URL(origin).host === host?.toLowerCase();
  } catch {
    return false;
  }
}
