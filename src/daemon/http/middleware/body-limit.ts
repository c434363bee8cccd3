/** Refuses a body over LIMITS.requestBodyBytes before anybody reads it; streams have no length. */
import { boundBody } from "../body.ts";
import type { AppMiddleware } from "../ports.ts";
import { isUpload } from "../upload.ts";
import { isChange } from "./auth.ts";

/** @throws AppError payload_too_large */
export const bodyLimit: AppMiddleware = async (c, next) => {
  if (isChange(c.req.method) && !isUpload(c.req.method, c.req.path)) await boundBody(c);
  await next();
};
