/** Real guests under the unit's own sandbox: they outlive the daemon that started them. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assembleDemoImage } from "../../scripts/lib/demo-image.mjs";
import { guestDir, waitFor } from "../support/daemon.ts";
import { Container } from "./container.ts";

const data = "/var/lib/templatecenter";
const text = "answered by a sandbox under systemd";
let image: string;
let container: Container;
let sandboxId: string;
let guest: { pid: number; url: string };

const cli = (...args: string[]) => container.output("templatecenter", ...args, "--data-dir", data);
const property = (name: string) =>
  container.output("systemctl", "show", "-P", name, "templatecenter");
const answer = async () => (await container.run("curl", ["-fsS", "-m", "10", guest.url])).stdout;

interface Sandbox {
  readonly sandbox_id: string;
  readonly status: string;
  readonly pid: number;
  readonly ports: Readonly<Record<string, { host: string; port: number }>>;
}
async function sandboxes(): Promise<Sandbox[]> {
  const { items } = JSON.parse(await cli("sandbox", "list", "--json")) as { items: Sandbox[] };
  return items;
}

/** Processes of the unit's control group, by name. */
async function processes(name: string): Promise<number[]> {
  const { stdout } = await container.run("pgrep", ["-u", "templatecenter", "-f", `^[^ ]*${name}`]);
  return stdout.trim().split("\n").filter(Boolean).map(Number);
}

/** Resolves when another process than `pid` serves. */
const replaced = (pid: string) =>
  waitFor("the next daemon", async () => {
    const now = await property("MainPID");
    return now !== pid && now !== "0" && (await property("ActiveState")) === "active";
  });

beforeAll(async () => {
  image = await mkdtemp(join(tmpdir(), "tc-image-"));
  await assembleDemoImage(image, { text });
  container = await Container.boot({
    files: {
      "etc/systemd/system/probe.target":
        "[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n",
      "etc/templatecenter/config.toml": 'driver = "qemu"\nlisten = "127.0.0.1:0"\n',
    },
    folders: { "srv/image": image, "srv/guest": guestDir },
  });
  await container.output("templatecenter", "install-units");
  await container.output("systemd-sysusers");
  await container.output("systemd-tmpfiles", "--create", "--prefix=/etc/templatecenter");
  await container.output("systemd-tmpfiles", "--create", `--prefix=${data}`);
  await container.output("cp", "-r", "/srv/guest", `${data}/guest`);
  await container.output("systemctl", "daemon-reload");
  await container.output("systemctl", "enable", "--now", "templatecenter");
}, 120_000);

afterAll(async () => {
  await container.end();
  await rm(image, { recursive: true, force: true });
});

describe("sandboxes under templatecenter.service", () => {
  test("a guest boots, is snapshotted and restored inside the unit's sandbox", async () => {
    const source = ["--image", "oci:/srv/image:demo", "--writable-layer-size", "1Gi"];
    const probe = ["--expose-port", "8080", "--probe", "8080", "--probe-path", "/health"];
    // Room is held for all of its memory, and the container has little.
    const small = ["--memory", "256"];
    await cli(
      "tpl",
      "create-from-image",
      "--name",
      "demo",
      ...source,
      ...probe,
      ...small,
      "--wait",
    );
    await cli("sandbox", "run", "demo");
    const [sandbox] = await sandboxes();
    const port = sandbox?.ports["8080"];
    sandboxId = sandbox?.sandbox_id ?? "";
    guest = { pid: sandbox?.pid ?? 0, url: `http://${port?.host}:${port?.port}/` };
    expect(await answer()).toBe(`${text}\n`);
    expect(await processes("qemu-system")).toContain(guest.pid);
  }, 120_000);

  test.each([
    ["a kill -9 of the daemon", ["kill", "--kill-whom=main", "--signal=KILL", "templatecenter"]],
    ["a restart of the service", ["restart", "templatecenter"]],
  ])(
    "its process goes on and is found again after %s",
    async (_, verb) => {
      const before = await property("MainPID");
      await container.output("systemctl", ...verb);
      await replaced(before);
      expect(await answer()).toBe(`${text}\n`);
      const found = await waitFor("the sandbox", async () => (await sandboxes())[0]);
      expect([found.sandbox_id, found.pid]).toEqual([sandboxId, guest.pid]);
    },
    60_000,
  );

  test("the daemon that took it up again can end it", async () => {
    await cli("sandbox", "delete", sandboxId);
    expect(await sandboxes()).toEqual([]);
    await waitFor("its end", async () => (await processes("qemu-system")).length === 0);
  });

  test("a stop of the service leaves nothing of its own behind", async () => {
    await container.output("systemctl", "stop", "templatecenter");
    expect(await property("Result")).toBe("success");
    expect((await container.run("pgrep", ["-u", "templatecenter"])).stdout).toBe("");
  });
});
