/** The real registry of the distribution's package `docker-registry`, on a port of its own. */
import { spawn, execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface DockerRegistry {
  /** `127.0.0.1:<port>` */
  readonly host: string;
  /** Copies any skopeo source (`oci:DIR:TAG`, …) to `name:tag` here. */
  push(source: string, nameAndTag: string, options?: readonly string[]): Promise<void>;
  stop(): Promise<void>;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

/** bcrypt, the only form the registry reads, by the C library's crypt(3). */
async function htpasswd(username: string, password: string): Promise<string> {
  const script = "print crypt($ARGV[0], q{$2y$05$abcdefghijklmnopqrstuu})";
  const { stdout } = await run("perl", ["-e", script, password]);
  return `${username}:${stdout}\n`;
}

export async function startDockerRegistry(
  options: { username?: string; password?: string } = {},
): Promise<DockerRegistry> {
  const dir = await mkdtemp(join(tmpdir(), "tc-registry-"));
  const { username, password } = options;
  const isProtected = username !== undefined && password !== undefined;
  const port = await freePort();
  const host = `127.0.0.1:${port}`;
  const lines = [
    "version: 0.1",
    `storage: {filesystem: {rootdirectory: ${JSON.stringify(join(dir, "data"))}}}`,
    `http: {addr: ${JSON.stringify(host)}}`,
    "log: {level: error, accesslog: {disabled: true}}",
  ];
  if (isProtected) {
    const file = join(dir, "htpasswd");
    await writeFile(file, await htpasswd(username, password));
    lines.push(`auth: {htpasswd: {realm: test, path: ${JSON.stringify(file)}}}`);
  }
  await writeFile(join(dir, "config.yml"), lines.join("\n"));
  const child = spawn("docker-registry", ["serve", join(dir, "config.yml")], { stdio: "ignore" });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  for (let tries = 0; ; tries += 1) {
    const answer = await fetch(`http://${host}/v2/`).catch(() => undefined);
    if (answer !== undefined) break;
    if (tries > 200 || child.exitCode !== null) throw new Error("docker-registry did not start");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return {
    host,
    push: async (source, nameAndTag, extra = []) => {
      const login = isProtected ? ["--dest-creds", `${username}:${password}`] : [];
      const flags = ["--insecure-policy", "copy", "--dest-tls-verify=false", ...login, ...extra];
      await run("skopeo", [...flags, source, `docker://${host}/${nameAndTag}`]);
    },
    stop: async () => {
      child.kill("SIGTERM");
      await ended;
      await rm(dir, { recursive: true, force: true });
    },
  };
}
