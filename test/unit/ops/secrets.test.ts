import { expect, test } from "vitest";
import { loadConfig } from "../../../src/daemon/config.ts";
import { isolatesGuests, readTokens } from "../../../src/daemon/secrets.ts";

const config = (flags: Record<string, string>) =>
  loadConfig({ flags, environment: {}, hostname: "host" }).config;

test.each(["0.0.0.0:1", "127.example.com:1", "192.0.2.1:1"])(
  "%s without a token is refused: only loopback may be open",
  async (listen) => {
    await expect(readTokens(config({ listen }))).rejects.toMatchObject({ code: "config_invalid" });
  },
);
test.each(["127.0.0.1:1", "localhost:1", "[::1]:1"])("%s needs no token", async (listen) => {
  expect(await readTokens(config({ listen }))).toEqual([]);
});
test("guests are cut off while the API needs no token, or when it is asked for", () => {
  expect(isolatesGuests(config({}))).toBe(true);
  expect(isolatesGuests(config({ guest_network: "open" }))).toBe(false);
  expect(isolatesGuests(config({ api_token_file: "/t" }))).toBe(false);
  expect(isolatesGuests(config({ api_token_file: "/t", guest_network: "isolated" }))).toBe(true);
});
