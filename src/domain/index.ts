export * from "./errors.ts";
export * from "./chunk-manifest.ts";
export type * from "./ports.ts";
