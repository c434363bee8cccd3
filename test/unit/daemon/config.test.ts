import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { loadConfig } from "../../../src/daemon/config.ts";

describe("the configuration", () => {
  it("takes relative folders from where the daemon was started", () => {
    const flags = { data_dir: "some/data", guest_dir: "../guest" };
    const { config } = loadConfig({ flags, environment: {}, hostname: "host" });
    expect(config.data_dir).toBe(resolve("some/data"));
    expect(config.guest_dir).toBe(resolve("../guest"));
  });
});
