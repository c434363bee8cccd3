/** A request id for every request: the caller's when it is a sane token, else a new one. */
import type { Random } from "../../../domain/index.ts";
import type { AppMiddleware } from "../ports.ts";

const SANE = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;

export const requestIdOf = (given: string | undefined, random: Random): string =>
  given !== undefined && SANE.test(given) ? given : random.uuid();

export const requestId =
  (random: Random): AppMiddleware =>
  async (c, next) => {
    const id = requestIdOf(c.req.header("x-request-id"), random);
    c.set("requestId", id);
    await next();
    c.res.headers.set("x-request-id", id);
  };
