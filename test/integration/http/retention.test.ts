import { afterEach, beforeEach, expect, it } from "vitest";
import { openCliShell, type CliShell } from "../../support/cli-shell.ts";

let shell: CliShell;

beforeEach(async () => {
  shell = await openCliShell();
});
afterEach(() => shell.close());

it("says what would go and what keeps the others, under another policy when asked", async () => {
  const { code, out } = await shell.run("retention --dry-run --keep-last 2 --unused-ttl 720h");
  expect([code, shell.fixture.service.calls[0]?.argument]).toEqual([
    0,
    { dryRun: true, policy: { keep_last: 2, unused_ttl_ms: 720 * 60 * 60_000 } },
  ]);
  expect(out).toMatch(/^tpl-old +web +READY .* superseded +would go$/m);
  expect(out).toMatch(/^tpl-kept +web +READY .* unused +kept: tag prod$/m);
  expect(JSON.parse((await shell.run("retention --json")).out)).toMatchObject({ dry_run: false });
  expect(shell.fixture.service.calls[1]?.argument).toEqual({ dryRun: false, policy: {} });
  expect((await shell.run("retention --unused-ttl soon")).code).toBe(2);
});
