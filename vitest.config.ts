import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Two cores: file-level parallelism above two only makes the boot tests time out.
    maxWorkers: 2,
    testTimeout: 90_000,
    hookTimeout: 120_000,
    reporters: ["default"],
    coverage: { provider: "v8", include: ["src/**"], reporter: ["text-summary"] },
  },
});
