/** Headers that every answer carries; a handler's own (the page's policy) are left as they are. */
import { API_HEADERS } from "../answer.ts";
import type { AppMiddleware } from "../ports.ts";

const DEFAULTS = Object.entries(API_HEADERS).filter(([name]) => name !== "content-type");

export const secureHeaders: AppMiddleware = async (c, next) => {
  await next();
  const { headers } = c.res;
  for (const [name, value] of DEFAULTS) if (!headers.has(name)) headers.set(name, value);
};
