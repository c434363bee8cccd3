/** A cluster of daemons with real guests, each with guest assets of its own that can be changed. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { assembleDemoImage } from "../../scripts/lib/demo-image.mjs";
import { TestCluster } from "./cluster.ts";
import { waitFor, type Row } from "./daemon.ts";
import { TestGuestDir, type GuestVersions } from "./guest-versions.ts";

/** Of a test that boots guests under emulation on a loaded machine. */
export const LONG_MS = 300_000;

interface Line {
  readonly template_id: string;
  readonly overall: string;
  readonly nodes: readonly (Row & { readonly node_id: string; readonly compat_status: string })[];
}

export class CompatCluster {
  readonly cluster: TestCluster;
  readonly guests: readonly TestGuestDir[];
  readonly #dir: string;
  readonly #image: string;
  /** The versions of the host's own assets. */
  readonly installed: GuestVersions;

  private constructor(
    cluster: TestCluster,
    guests: readonly TestGuestDir[],
    dir: string,
    image: string,
    installed: GuestVersions,
  ) {
    this.cluster = cluster;
    this.guests = guests;
    this.#dir = dir;
    this.#image = image;
    this.installed = installed;
  }

  static async make(count: number, flags: readonly string[] = []): Promise<CompatCluster> {
    const dir = await mkdtemp(join(tmpdir(), "tc-compat-"));
    const image = (await assembleDemoImage(join(dir, "image"))).reference;
    const guests = Array.from({ length: count }, (_, at) => new TestGuestDir(join(dir, `${at}`)));
    const installed = (guests[0] as TestGuestDir).versions;
    const cluster = await TestCluster.make(count, (index) => [
      ...["--driver", "qemu", "--guest-dir", (guests[index] as TestGuestDir).dir],
      ...["--session-term", "3", ...flags],
    ]);
    return new CompatCluster(cluster, guests, dir, image, installed);
  }

  async remove(): Promise<void> {
    await this.cluster.remove();
    await rm(this.#dir, { recursive: true, force: true });
  }

  guest(index: number): TestGuestDir {
    return this.guests[index] as TestGuestDir;
  }

  /** A template of the demo image, as soon as every node says that it has that status. */
  async template(name: string, status: string): Promise<string> {
    const { job_id } = await this.cluster.node(0).submit({
      source_image_ref: this.#image,
      writable_layer_size: "64Mi",
      display_name: name,
      exposed_ports: [8080],
      container_overrides: {
        resources: { cpu: "1000m", mem: "128Mi" },
        probe: { port: 8080, path: "/health", timeout_ms: 120_000 },
      },
    });
    const job = await this.cluster.node(0).ended(job_id, LONG_MS);
    expect(job).toMatchObject({ status: "READY" });
    await waitFor(
      `${name} to be ${status} on every node`,
      async () => {
        const seen = await Promise.all(
          this.cluster.nodes.map((node) => node.ask("GET", `/v1/templates/${job.template_id}`)),
        );
        return seen.every(({ body }) => body["status"] === status);
      },
      LONG_MS,
    );
    return job.template_id;
  }

  /** What each scan found. */
  async rescan(body: Row = { all_nodes: true }): Promise<Row[]> {
    const answer = await this.cluster.node(0).ask("POST", "/v1/compat/rescan", body);
    expect(answer.status, JSON.stringify(answer.body)).toBe(200);
    return answer.body["nodes"] as Row[];
  }

  /** The template's row of the matrix, as that node sees it. */
  async line(index: number, template: string): Promise<Line | undefined> {
    const matrix = await this.cluster.node(index).get("/v1/compat");
    return (matrix["templates"] as Line[]).find((one) => one.template_id === template);
  }

  /** What a node sees of a template, once it is so: `OK STALE OK`. */
  sees(index: number, template: string, statuses: string, timeoutMs = 60_000): Promise<Line> {
    return waitFor(
      `node ${index} to see ${statuses}`,
      async () => {
        const one = await this.line(index, template);
        const seen = one?.nodes.map((cell) => cell.compat_status).join(" ");
        return seen === statuses ? one : undefined;
      },
      timeoutMs,
    );
  }
}
