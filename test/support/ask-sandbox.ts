/** The HTTP server inside a sandbox. */
import { get } from "node:http";
import { text } from "node:stream/consumers";
import { waitFor, type Row } from "./daemon.ts";

/** The answer of the sandbox's own server on its port 8080, once it gives one. */
export function askSandbox(sandbox: Row, path: string): Promise<string> {
  const ports = sandbox["ports"] as Record<string, { host: string; port: number }>;
  const at = ports["8080"];
  return waitFor(`the sandbox to answer ${path}`, async () => {
    const url = `http://${at?.host}:${at?.port}${path}`;
    return getLenient(url).catch(() => undefined);
  });
}

/** Reads what busybox's CGI sends, whose head has line feeds only, which fetch refuses. */
function getLenient(url: string): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const options = { insecureHTTPParser: true, agent: false, timeout: 5_000 };
    const asked = get(url, options, (answer) => {
      text(answer).then((body) => resolve(answer.statusCode === 200 ? body : undefined), reject);
    });
    asked.once("timeout", () => asked.destroy(new Error("no answer")));
    asked.once("error", reject);
  });
}
