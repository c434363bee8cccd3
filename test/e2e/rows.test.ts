/** Rows of the specification's list of given, when and then, against a real daemon. */
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rename, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assembleOciLayout } from "../../scripts/lib/oci-layout.mjs";
import { TestDaemon, frames, waitFor, type Job, type Row } from "../support/daemon.ts";

const LONG_MS = 180_000;
let dir: string;
let daemon: TestDaemon;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-rows-"));
  const file = { path: "data", type: "file" as const, content: randomBytes(200_000) };
  const config = { Env: ["B=2", "A=1"], Cmd: ["/serve"] };
  await assembleOciLayout(join(dir, "small"), {
    layers: [{ entries: [file] }],
    tag: "demo",
    config,
  });
  daemon = await TestDaemon.make("rootfs", ["--node-id", "here", "--artifact-grace", "1h"]);
  await daemon.start();
}, LONG_MS);

afterAll(async () => {
  await daemon.remove();
  await rm(dir, { recursive: true, force: true });
}, LONG_MS);

const request = (more: Row = {}): Row => ({
  source_image_ref: `oci:${join(dir, "small")}:demo`,
  writable_layer_size: "64Mi",
  ...more,
});

/** The job of a template that was made, READY. */
async function made(more: Row = {}): Promise<Job> {
  const job = await daemon.ended((await daemon.submit(request(more))).job_id);
  expect([job.status, job.error_message]).toEqual(["READY", ""]);
  return job;
}

const refused = async (more: Row) => {
  const { status, body } = await daemon.ask("POST", "/v1/templates/from-image", request(more));
  return [
    status,
    body["code"],
    (body["errors"] as Row[] | undefined)?.map((one) => one["pointer"]),
  ];
};
const createRequest = async (job: Job): Promise<Row> =>
  daemon.get(`/v1/templates/${job.template_id}/request`);

const annotationsOf = async (job: Job) => (await createRequest(job))["annotations"] as Row;
const built = async (job: Job): Promise<boolean> =>
  (await daemon.log(job.job_id)).some((line) => / built: /.test(line));

describe("ids and normalising", { timeout: LONG_MS }, () => {
  it("rows 1, 5, 15 and 43: given a template id, then a fresh one is made, with version v2", async () => {
    const job = await made({ template_id: "tpl-mine" });
    expect(job.template_id).toMatch(/^tpl-[0-9a-f]{24}$/);
    expect(await createRequest(job)).toMatchObject({
      template_id: job.template_id,
      instance_type: "cubebox",
      annotations: {
        "cube.master.appsnapshot.template.id": job.template_id,
        "cube.master.appsnapshot.create": "true",
        "cube.master.appsnapshot.version": "v2",
        "cube.master.appsnapshot.template.version": "v2",
      },
    });
    const template = await daemon.get(`/v1/templates/${job.template_id}`);
    expect(template).toMatchObject({ version: "v2", kind: "template" });
    const kind = await daemon.get(`/v1/templates/${job.template_id}/kind`);
    expect(kind).toEqual({ template_id: job.template_id, kind: "template" });
  });

  it("row 2: given a blank id, then template_id_required", async () => {
    for (const template_id of ["", "   "]) {
      const { status, body } = await daemon.ask("POST", "/v1/resolve", { template_id });
      expect([status, body["code"]]).toEqual([400, "template_id_required"]);
    }
  });

  it("row 3: given ids that are none, then no template is found by them", async () => {
    for (const id of ["template-1", "sb-123", "tpl-", "snap-"]) {
      const { status } = await daemon.ask("POST", "/v1/resolve", { template_id: id });
      expect([id, status]).toEqual([id, 404]);
    }
  });

  it("rows 6 and 7: given a domain in allow_out, then the internet has to be closed", async () => {
    const open = { cube_network_config: { allow_out: ["api.example.com"] } };
    expect(await refused(open)).toEqual([
      400,
      "invalid_request",
      ["/cube_network_config/allow_out/0"],
    ]);
    const closed = { allow_out: ["api.example.com"], allow_internet_access: false };
    const job = await made({ cube_network_config: closed });
    expect((await createRequest(job))["cube_network_config"]).toEqual(closed);
  });

  it("row 10: given ports twice and in disorder, then they are stored once, ascending", async () => {
    const job = await made({ exposed_ports: [9000, 80, 8080, 9000] });
    expect(await annotationsOf(job)).toMatchObject({ "com.exposed_ports": "80:8080:9000" });
    for (const port of [0, 70_000]) {
      expect(await refused({ exposed_ports: [port] })).toEqual([
        400,
        "invalid_request",
        ["/exposed_ports/0"],
      ]);
    }
  });

  it("row 11: given four ports of one's own and 49983, then all are stored", async () => {
    const job = await made({ exposed_ports: [1001, 1002, 1003, 1004, 49_983] });
    const ports = "1001:1002:1003:1004:49983";
    expect(await annotationsOf(job)).toMatchObject({ "com.exposed_ports": ports });
  });

  it.each(["docker://", "-v /x", "a b", "a;rm"])(
    "row 13: given the image %j, then it is rejected",
    async (source_image_ref) => {
      const [status, code] = await refused({ source_image_ref });
      expect([status, code]).toEqual([400, "invalid_image_reference"]);
    },
  );

  it("row 13: given a blank image, then it is rejected", async () => {
    const blank = [400, "invalid_request", ["/source_image_ref"]];
    expect(await refused({ source_image_ref: " " })).toEqual(blank);
  });

  it("row 16: given a password, then it is in no answer, no log and no stored request", async () => {
    const job = await made({ registry_username: "user", registry_password: "hunter2-secret" });
    const template = await daemon.get(`/v1/templates/${job.template_id}?include_request=true`);
    const lines = await daemon.log(job.job_id);
    expect(JSON.stringify([job, template, lines]) + daemon.output).not.toContain("hunter2-secret");
  });

  it("row 61: given a volume mounted on /, then it is rejected", async () => {
    const volume_mounts = [{ name: "x", mount_path: "/" }];
    const [status, code] = await refused({ container_overrides: { volume_mounts } });
    expect([status, code]).toEqual([400, "invalid_request"]);
  });

  it("row 62: given no override of envs, then the image's come sorted; given one, it replaces them", async () => {
    const envsOf = async (job: Job) =>
      ((await createRequest(job))["containers"] as Row[])[0]?.["envs"];
    expect(await envsOf(await made())).toEqual([
      { key: "A", value: "1" },
      { key: "B", value: "2" },
    ]);
    const envs = [{ key: "C", value: "3" }];
    expect(await envsOf(await made({ container_overrides: { envs } }))).toEqual(envs);
  });

  it("row 63: given a writable layer of 2048Mi, then the system disk has 2", async () => {
    const job = await made({ writable_layer_size: "2048Mi" });
    expect(await annotationsOf(job)).toMatchObject({ "cube.master.system_disk_size": "2" });
  });
});

describe("artifacts", { timeout: LONG_MS }, () => {
  const spec = { writable_layer_size: "80Mi" };
  const folderOf = async (job: Job): Promise<string> => {
    const { digest } = await daemon.get(`/v1/artifacts/${String(job.artifact_id)}`);
    return join(daemon.dataDir, "artifacts/sha256", String(digest).replace("sha256:", ""));
  };

  it("rows 33 and 35: given the same spec but another name or ivshmem, then the same artifact", async () => {
    const one = await made({ ...spec, display_name: "one" });
    const two = await made({ ...spec, display_name: "two", enable_ivshmem: true });
    expect(two.artifact_id).toBe(one.artifact_id);
    expect(await built(two)).toBe(false);
  });

  it("row 34: given another port, then another artifact", async () => {
    const [one, two] = [await made(spec), await made({ ...spec, exposed_ports: [81] })];
    expect(two.artifact_id).not.toBe(one.artifact_id);
  });

  it("row 37: given two submits of one spec at once, then one build and one artifact", async () => {
    const fresh = request({ writable_layer_size: "512Mi" });
    const jobs = await Promise.all([daemon.submit(fresh), daemon.submit(fresh)]);
    const ended = await Promise.all(jobs.map(({ job_id }) => daemon.ended(job_id)));
    expect(ended.map(({ status }) => status)).toEqual(["READY", "READY"]);
    expect(ended[0]?.artifact_id).toBe(ended[1]?.artifact_id);
    const builds = await Promise.all(ended.map(built));
    expect(builds.filter(Boolean)).toHaveLength(1);
  });

  const damages: Record<string, (path: string) => Promise<void>> = {
    "is missing": (path) => rm(path),
    "has no bytes": (path) => truncate(path, 0),
    "has another size": (path) => truncate(path, 4_096),
    "is a folder": async (path) => {
      await rename(path, `${path}.away`);
      await mkdir(path);
    },
  };
  it.each(Object.keys(damages))(
    "row 38: given a READY artifact whose file %s, then it is built again",
    async (damage) => {
      const before = await made(spec);
      await damages[damage]?.(join(await folderOf(before), "rootfs.ext4"));
      const after = await made(spec);
      expect([after.artifact_id, await built(after)]).toEqual([before.artifact_id, true]);
    },
  );

  it("row 44: given a build that fails, then its reason is kept and no file", async () => {
    await writeFile(join(dir, "broken.tar"), "this is no archive");
    const fails = request({ source_image_ref: `oci-archive:${join(dir, "broken.tar")}` });
    const job = await daemon.ended((await daemon.submit(fails)).job_id);
    expect(job).toMatchObject({ status: "FAILED", phase: "PULLING" });
    expect(job.error_message).not.toBe("");
    expect(await daemon.names("work/artifacts")).toEqual([]);
  });
});

describe("redo", { timeout: LONG_MS }, () => {
  const redone = async (templateId: string): Promise<Job> => {
    const asked = await daemon.ask("POST", `/v1/templates/${templateId}/redo`, {});
    expect(asked.status).toBe(202);
    return daemon.ended(String(asked.body["job_id"]));
  };

  it("row 75: given a redo that builds again, then what it generates has the template's own id", async () => {
    const job = await made({ writable_layer_size: "96Mi" });
    const { digest } = await daemon.get(`/v1/artifacts/${String(job.artifact_id)}`);
    const folder = String(digest).replace("sha256:", "");
    await rm(join(daemon.dataDir, "artifacts/sha256", folder, "rootfs.ext4"));
    const again = await redone(job.template_id);
    expect(again).toMatchObject({ status: "READY", template_id: job.template_id });
    expect(await annotationsOf(job)).toMatchObject({
      "cube.master.appsnapshot.template.id": job.template_id,
    });
  });

  it("row 76: given a snapshot, which has no source image, then its redo is refused before any cleanup", async () => {
    const { template_id } = await made();
    const run = { template_id, sandbox_id: "sb-row-76" };
    expect((await daemon.ask("POST", "/v1/sandboxes", run)).status).toBe(201);
    const frozen = await daemon.ask("POST", "/v1/sandboxes/sb-row-76/snapshots", {});
    const id = String(frozen.body["snapshot_id"]);
    const before = await daemon.items(`/v1/templates/${id}/replicas`);
    const { status, body } = await daemon.ask("POST", `/v1/templates/${id}/redo`, {});
    expect([status, body["code"]]).toEqual([409, "redo_not_allowed"]);
    expect(await daemon.items(`/v1/templates/${id}/replicas`)).toEqual(before);
    await daemon.ask("DELETE", "/v1/sandboxes/sb-row-76");
    expect((await daemon.ask("DELETE", `/v1/snapshots/${id}`)).status).toBe(200);
  });
});

describe("what is asked of a template", { timeout: LONG_MS }, () => {
  it("its job, definition, request, replicas and artifact name each other", async () => {
    const job = await made({ display_name: "asked", labels: { team: "a" } });
    const { template_id, artifact_id } = job;
    const template = await daemon.get("/v1/templates/asked");
    expect(template).toMatchObject({
      ...{ template_id, artifact_id, job_id: job.job_id, status: "READY", labels: { team: "a" } },
      replicas: [{ node_id: "here", status: "READY" }],
    });
    const [one, two] = [await createRequest(job), await createRequest(job)];
    expect(one["request_id"]).not.toBe(two["request_id"]);
    expect({ ...one, request_id: "" }).toEqual({ ...two, request_id: "" });
    const artifact = await daemon.get(`/v1/artifacts/${String(artifact_id)}`);
    expect(artifact).toMatchObject({ artifact_id, status: "READY" });
    expect(artifact["digest"]).toBe(template["artifact_digest"]);
    expect(await daemon.get(`/v1/jobs/${job.job_id}`)).toMatchObject({
      ...{ operation: "CREATE", resource_type: "template", resource_id: template_id },
      ...{ phase: "READY", progress: 100, ready_node_count: 1, failed_node_count: 0 },
    });
  });

  it("all are listed, the newest first, in pages", async () => {
    const [older, newer] = [await made(), await made()];
    const first = await daemon.get("/v1/templates?limit=1");
    expect(first["items"]).toMatchObject([{ template_id: newer.template_id }]);
    const next = encodeURIComponent(String(first["next_token"]));
    const second = await daemon.items(`/v1/templates?limit=1&next_token=${next}`);
    expect(second).toMatchObject([{ template_id: older.template_id }]);
  });

  it("row 113: given a page token that is none, then it is refused", async () => {
    for (const token of ["x", "-1"]) {
      const { status, body } = await daemon.ask("GET", `/v1/templates?next_token=${token}`);
      expect([token, status, body["code"]]).toEqual([token, 400, "invalid_request"]);
    }
  });
});

describe("distribution and resolving", { timeout: LONG_MS }, () => {
  it("row 67: given a scope with unknown nodes, then the error lists them in order", async () => {
    const asked = request({ distribution_scope: ["here", "zz", "aa"] });
    const { status, body } = await daemon.ask("POST", "/v1/templates/from-image", asked);
    expect(status).toBe(400);
    expect(body["detail"]).toBe("target nodes are not healthy or not found: aa,zz");
  });

  it("row 68: given a scope by address, then that node gets it", async () => {
    const { node_ip } = await daemon.get("/v1/nodes/self");
    const job = await made({ distribution_scope: [node_ip] });
    const replicas = await daemon.items(`/v1/templates/${job.template_id}/replicas`);
    expect(replicas).toMatchObject([{ node_id: "here", status: "READY", phase: "READY" }]);
  });

  it("a replica tells each of its phases", async () => {
    const stop = new AbortController();
    const stream = frames(`${daemon.url}/v1/events?types=replica`, stop.signal);
    await stream.next();
    const job = await made();
    const phases: unknown[] = [];
    for await (const { data } of stream) {
      const { phase } = data["data"] as Row;
      if (data["subject"] === job.template_id) phases.push(phase);
      if (phase === "READY") break;
    }
    stop.abort();
    expect(phases).toEqual(["DISTRIBUTING", "DISTRIBUTED", "SNAPSHOTTING", "READY"]);
  });

  it("row 77: given an unknown template, when deleting, then template_not_found", async () => {
    const { status, body } = await daemon.ask("DELETE", "/v1/templates/tpl-none");
    expect([status, body["code"]]).toEqual([404, "template_not_found"]);
  });

  it("row 81: given a sandbox of it, when deleting, then template_in_use until it ends", async () => {
    const { template_id } = await made();
    const run = { template_id, sandbox_id: "sb-row-81" };
    expect((await daemon.ask("POST", "/v1/sandboxes", run)).status).toBe(201);
    const { body } = await daemon.ask("DELETE", `/v1/templates/${template_id}`);
    expect(body["code"]).toBe("template_in_use");
    expect((await daemon.ask("DELETE", "/v1/sandboxes/sb-row-81")).status).toBe(204);
    await waitFor("the template to go", async () => {
      const { status } = await daemon.ask("DELETE", `/v1/templates/${template_id}`);
      return status < 300;
    });
  });

  it("row 92: given readers while a template goes, then none resolves to it afterwards", async () => {
    const { template_id } = await made();
    const resolve = () => daemon.ask("POST", "/v1/resolve", { template_id });
    const reading = Array.from({ length: 20 }, resolve);
    const gone = daemon.ask("DELETE", `/v1/templates/${template_id}`);
    reading.push(...Array.from({ length: 20 }, resolve));
    expect((await gone).status).toBe(200);
    const after = await resolve();
    expect([after.status, after.body["code"]]).toEqual([404, "template_not_found"]);
    await Promise.all(reading);
    expect((await resolve()).status).toBe(404);
  });

  it("row 96: given a preferred node that has none, then an error although another is ready", async () => {
    const { template_id } = await made();
    const asked = { template_id, preferred_node_id: "elsewhere" };
    const { body } = await daemon.ask("POST", "/v1/resolve", asked);
    expect(body["code"]).toBe("template_has_no_ready_replica");
    expect((await daemon.ask("POST", "/v1/resolve", { template_id })).body).toMatchObject({
      node_id: "here",
    });
  });
});

describe("what becomes of a replica", { timeout: LONG_MS }, () => {
  const BOUND = ["guest_image_version", "agent_version", "compat_status", "compat_policy"] as const;

  it("row 103: given one that failed and says nothing of versions, then the stored ones survive", async () => {
    const { template_id, artifact_id } = await made({ writable_layer_size: "80Mi" });
    const replica = async () => (await daemon.items(`/v1/templates/${template_id}/replicas`))[0];
    const before = await replica();
    expect(before).toMatchObject({ status: "READY", compat_status: "OK" });
    const { digest } = await daemon.get(`/v1/artifacts/${String(artifact_id)}`);
    const hash = String(digest).replace("sha256:", "");
    await daemon.kill();
    // Neither the replica nor what it could be made of again.
    for (const name of await daemon.names("templates")) {
      if (!name.startsWith(template_id)) continue;
      await rm(join(daemon.dataDir, "templates", name), { recursive: true });
    }
    await rm(join(daemon.dataDir, "artifacts/sha256", hash), { recursive: true });
    await daemon.start();
    const failed = await waitFor("the replica to fail", async () => {
      const one = await replica();
      return one?.["status"] === "FAILED" ? one : undefined;
    });
    expect(failed).toMatchObject({ last_error_phase: "DISTRIBUTING", cleanup_required: true });
    const boundOf = (one: Row | undefined) => BOUND.map((name) => one?.[name]);
    expect(boundOf(failed)).toEqual(boundOf(before));
    expect(boundOf(failed)).not.toContain("");
    // What is not READY is judged as missing all the same.
    const { templates } = await daemon.get(`/v1/compat?template_id=${template_id}`);
    expect(templates).toMatchObject([
      { overall: "MISSING", nodes: [{ compat_status: "MISSING" }] },
    ]);
  });
});
