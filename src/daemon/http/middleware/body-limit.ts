/** Refuses a body over LIMITS.requestBodyBytes before anybody reads it. */
import { boundBody } from "../body.ts";
import type { AppMiddleware } from "../ports.ts";
import { isChange } from "./auth.ts";

/** @throws AppError payload_too_large */
export const bodyLimit: AppMiddleware = async (c, next) => {
  if (isChange(c.req.method)) await boundBody(c);
  await next();
};
