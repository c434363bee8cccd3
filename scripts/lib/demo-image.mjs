// The image of the demo and of the benches: static busybox, a web page and its server, in 3 layers.
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { assembleOciLayout } from "./oci-layout.mjs";

const BUSYBOX = ["/bin/busybox", "/usr/bin/busybox"];

/** Static busybox of this host, or of the guest's package cache. */
function findBusybox() {
  const found = BUSYBOX.find((path) => existsSync(path));
  if (found === undefined) throw new Error("busybox-static is not installed");
  return readFileSync(found);
}

/**
 * Writes an OCI layout to `dir`, tagged `demo`. `pages`: shell programs more, by name in /cgi-bin.
 * @returns {Promise<{reference: string, layers: number, bytes: number}>}
 */
export async function assembleDemoImage(dir, { text = "hello from a sandbox", pages = {} } = {}) {
  mkdirSync(dir, { recursive: true });
  const applets = [
    "sh",
    "httpd",
    "ls",
    "cat",
    "sleep",
    "ps",
    "mkdir",
    "echo",
    "date",
    "od",
    "head",
  ];
  const file = (path, content, mode = 0o644) => ({ path, type: "file", mode, content });
  const folder = (path) => ({ path, type: "directory", mode: 0o755 });
  const layers = [
    {
      entries: [
        ...["bin", "etc", "www", "www/cgi-bin", "tmp", "root"].map(folder),
        file("bin/busybox", findBusybox(), 0o755),
        ...applets.map((name) => ({
          path: `bin/${name}`,
          type: "symlink",
          mode: 0o777,
          target: "busybox",
        })),
      ],
    },
    {
      entries: [
        file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        file("etc/group", "root:x:0:\n"),
        file("www/index.html", "this page is replaced by the next layer\n"),
        file("www/unwanted.html", "and this one is removed by it\n"),
      ],
    },
    {
      entries: [
        file("www/index.html", `${text}\n`),
        file("www/.wh.unwanted.html", ""),
        file("www/health", "ok\n"),
        file(
          "www/cgi-bin/random",
          "#!/bin/sh\necho 'content-type: text/plain'\necho\nod -An -tx1 -N16 /dev/urandom\ndate +%s\n",
          0o755,
        ),
        // Keeps the word it is given on the disk, and says it: what a rollback takes back.
        file(
          "www/cgi-bin/note",
          "#!/bin/sh\necho 'content-type: text/plain'\necho\n" +
            '[ -z "$QUERY_STRING" ] || echo "$QUERY_STRING" > /tmp/note\ncat /tmp/note\n',
          0o755,
        ),
        ...Object.entries(pages).map(([name, commands]) =>
          file(
            `www/cgi-bin/${name}`,
            `#!/bin/sh\necho 'content-type: text/plain'\necho\n${commands}\n`,
            0o755,
          ),
        ),
      ],
    },
  ];
  const made = await assembleOciLayout(dir, {
    layers,
    tag: "demo",
    config: {
      Entrypoint: ["/bin/httpd", "-f", "-v", "-p", "8080"],
      Cmd: ["-h", "/www"],
      Env: ["PATH=/bin", "DEMO=yes"],
      WorkingDir: "/www",
      ExposedPorts: { "8080/tcp": {} },
    },
  });
  const bytes = made.layers.reduce((sum, layer) => sum + (layer.size ?? 0), 0);
  return { reference: `oci:${dir}:demo`, layers: layers.length, bytes };
}
