/**
 * The part of the domain without schemas: for build threads, which must not spend 100 ms on
 * loading a validator that they never use.
 */
export * from "./chunk-manifest.ts";
export * from "./errors.ts";
