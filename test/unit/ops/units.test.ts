import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { installUnits } from "../../../src/daemon/units.ts";

const shipped = join(import.meta.dirname, "../../../systemd");
let dir: string;
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), "tc-units-"))));
afterEach(() => rmSync(dir, { recursive: true }));

const install = () =>
  installUnits({ prefix: join(dir, "usr/local"), configDir: join(dir, "etc/templatecenter") });
const filesBelow = (folder: string) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();

describe("install-units", () => {
  test("puts every shipped file where systemd looks for it", async () => {
    const { written, kept, next } = await install();
    const places = {
      "etc/templatecenter/config.toml": "config.toml",
      "usr/local/lib/systemd/system/templatecenter.service": "templatecenter.service",
      "usr/local/lib/sysusers.d/templatecenter.conf": "templatecenter.sysusers.conf",
      "usr/local/lib/tmpfiles.d/templatecenter.conf": "templatecenter.tmpfiles.conf",
    };
    expect(filesBelow(dir)).toEqual(Object.keys(places).sort());
    for (const [place, name] of Object.entries(places)) {
      const text = readFileSync(join(dir, place), "utf8");
      expect(text, place).toBe(readFileSync(join(shipped, name), "utf8"));
    }
    expect([...written].sort()).toEqual(filesBelow(dir).map((path) => join(dir, path)));
    expect(kept).toEqual([]);
    expect(next.at(-1)).toBe("systemctl enable --now templatecenter");
  });

  test("a second time renews the units and keeps the administrator's configuration", async () => {
    await install();
    const config = join(dir, "etc/templatecenter/config.toml");
    const unit = join(dir, "usr/local/lib/systemd/system/templatecenter.service");
    writeFileSync(config, 'driver = "rootfs"\n');
    writeFileSync(unit, "of an older version\n");
    const { written, kept } = await install();
    expect(kept).toEqual([config]);
    expect(written).not.toContain(config);
    expect(readFileSync(config, "utf8")).toBe('driver = "rootfs"\n');
    expect(readFileSync(unit, "utf8")).toContain("[Service]");
  });

  test("names the path that cannot be written", async () => {
    writeFileSync(join(dir, "usr"), "in the way");
    await expect(install()).rejects.toMatchObject({
      code: "config_invalid",
      message: expect.stringContaining("templatecenter.service cannot be written") as string,
    });
  });
});
