import { randomBytes, randomUUID } from "node:crypto";
import type { Random } from "../../domain/index.ts";

/** The operating system's random numbers. */
export const realRandom: Random = {
  bytes: (length) => randomBytes(length),
  uuid: () => randomUUID(),
};
