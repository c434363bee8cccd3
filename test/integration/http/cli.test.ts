import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { CliIo } from "../../../src/daemon/cli/io.ts";
import { runCli } from "../../../src/daemon/cli/run.ts";
import { listen, type Listening } from "../../../src/daemon/http/server.ts";
import { AppError, type CreateFromImageRequest } from "../../../src/domain/index.ts";
import { aJob, aReplica, aTemplate } from "../../support/fake-http-service.ts";
import { httpFixture, realClock, tokenHash, type HttpFixture } from "../../support/http-app.ts";

const TPL = "tpl-000000000000000000000001";

let dir: string;
let fixture: HttpFixture;
let server: Listening;

async function serve(over: Parameters<typeof httpFixture>[0] = {}): Promise<void> {
  fixture = httpFixture(over);
  const { log, clock } = fixture.deps;
  const socketPath = join(dir, "templatecenter.sock");
  server = await listen({ app: fixture.app, host: "127.0.0.1", port: 0, socketPath, log, clock });
}

interface Ran {
  code: number;
  out: string;
  err: string;
}

interface Shell {
  env?: Record<string, string>;
  isTty?: boolean;
  stdin?: string;
  interrupted?: AbortSignal;
  /** Sees what is written so far. */
  onOut?: (all: string) => void;
}

/** Runs a command line against the local socket of the test's daemon. */
async function run(line: string | readonly string[], shell: Shell = {}): Promise<Ran> {
  const ran: Ran = { code: -1, out: "", err: "" };
  const io: CliIo = {
    out(text) {
      ran.out += text;
      shell.onOut?.(ran.out + ran.err);
    },
    err(text) {
      ran.err += text;
      shell.onOut?.(ran.out + ran.err);
    },
    env: { TEMPLATECENTER_DATA_DIR: dir, ...shell.env },
    isTty: shell.isTty ?? false,
    columns: shell.isTty === true ? 80 : 0,
    readStdin: async () => shell.stdin ?? "",
    async *stdin() {
      yield Buffer.from(shell.stdin ?? "");
    },
    write: async (bytes) => void (ran.out += Buffer.from(bytes).toString("latin1")),
    interrupted: shell.interrupted ?? new AbortController().signal,
    clock: realClock,
  };
  const words = typeof line === "string" ? line.split(" ").filter((word) => word !== "") : line;
  ran.code = await runCli(words, io, { version: "1.2.3" });
  return ran;
}

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "tc-cli-"));
  await serve();
});
afterEach(async () => {
  await server.close(0);
  await rm(dir, { recursive: true });
});

describe("tpl", () => {
  it("lists with the predecessor's columns, and more with -o wide", async () => {
    fixture.service.templates[0] = { ...fixture.service.templates[0]!, display_name: "" };
    const { out, code } = await run("tpl list");
    const [head, row] = out.split("\n");
    expect(code).toBe(0);
    expect(head?.split(/ +/)).toEqual([
      "TEMPLATE_ID",
      "NAME",
      "STATUS",
      "CREATED_AT",
      "IMAGE_INFO",
    ]);
    expect(row?.split(/ +/).slice(0, 3)).toEqual([TPL, "-", "READY"]);
    const wide = await run("template ls -o wide");
    expect(wide.out).toMatch(/IMAGE_INFO +VERSION +JOB_ID +LAST_ERROR/);
    expect((await run("tpl list -o yaml")).code).toBe(2);
  });

  it("reads all pages for a list", async () => {
    const one = fixture.service.templates[0]!;
    for (let n = 0; n < 150; n += 1) {
      fixture.service.templates.push({ ...one, template_id: `tpl-many-${n}` });
    }
    const { out } = await run("tpl list --json");
    expect((JSON.parse(out) as { items: unknown[] }).items.length).toBe(151);
  });

  it("shows one by id, by name and by --template-id", async () => {
    const { out } = await run("tpl info web");
    expect(out).toContain(`template_id: ${TPL}\n`);
    expect(out).toContain("cube_egress_ca: baked");
    expect(out).toMatch(/NODE_ID +NODE_IP +STATUS +PHASE +SPEC +ERROR\nnode-a/);
    const full = await run(`tpl info --template-id ${TPL} --include-request --json`);
    expect(JSON.parse(full.out)).toMatchObject({ create_request: { request_id: "fresh" } });
    expect(JSON.parse((await run("tpl request web")).out)).toMatchObject({ template_id: TPL });
    expect((await run("tpl replicas web")).out).toContain("node-a");
  });

  it("exits 3 with a hint for a template that is not there", async () => {
    const { code, err, out } = await run("tpl info nope");
    expect([code, out]).toEqual([3, ""]);
    expect(err).toBe(
      "error: template nope not found\nhint: see what there is: templatecenter tpl list\n",
    );
  });

  it("deletes several, goes on after one that it cannot, and tells of each", async () => {
    const one = fixture.service.templates[0]!;
    fixture.service.templates.push({ ...one, template_id: "tpl-2" });
    const { code, out, err } = await run(`tpl delete tpl-3 ${TPL} tpl-4 tpl-2 --force`);
    expect(out).toBe(`template deleted: ${TPL}\ntemplate deleted: tpl-2\n`);
    expect([code, err.split("\n").slice(0, 3)]).toEqual([
      3,
      [
        "error: tpl-3: template tpl-3 not found",
        "error: tpl-4: template tpl-4 not found",
        "error: 2 of 4 were not deleted",
      ],
    ]);
    expect(fixture.service.calls[0]?.argument).toMatchObject({ force: true });
    const alone = await run("tpl delete tpl-3");
    expect([alone.code, alone.err.split("\n")[0]]).toEqual([3, "error: template tpl-3 not found"]);
    fixture.service.templates.push({ ...one, template_id: "tpl-5" });
    const told = await run("tpl delete tpl-3 tpl-5 --json");
    expect([told.code, JSON.parse(told.out)]).toEqual([
      3,
      {
        deleted: ["tpl-5"],
        failed: [
          { template: "tpl-3", code: "template_not_found", detail: "template tpl-3 not found" },
        ],
      },
    ]);
    expect((await run("tpl delete")).code).toBe(2);
  });

  it("redoes with the predecessor's flags, and prints the job", async () => {
    const { code, out } = await run("tpl redo web --node a --node b --failed-only --detach");
    expect(code).toBe(0);
    expect(out).toContain("operation: REDO\n");
    expect(fixture.service.calls[0]).toMatchObject({
      name: "redoTemplate",
      argument: { id: "web", distribution_scope: ["a", "b"], failed_only: true },
    });
    await run(`tpl redo --template-id ${TPL} --memory-only`);
    expect(fixture.service.calls[1]?.argument).toEqual({ id: TPL, memory_only: true });
    expect((await run("tpl redo")).code).toBe(2);
  });

  it("exits 4 for a template in use and says what to do", async () => {
    fixture.service.failWith = new AppError("template_in_use", "template web has 1 sandbox");
    const { code, err } = await run("tpl delete web");
    expect(code).toBe(4);
    expect(err).toContain("error: template web has 1 sandbox\nhint: end its sandboxes first");
  });
});

describe("gc and why", () => {
  it("says what would go, and collects only without --dry-run", async () => {
    const { code, out } = await run("gc --dry-run");
    expect(code).toBe(0);
    expect(out).toMatch(/rfs-old +READY +release .* node-a +nobody refers to it/);
    expect(fixture.service.calls.at(-1)?.argument).toEqual({ dryRun: true });
    expect(JSON.parse((await run("gc --json")).out)).toMatchObject({ bytes: 2_000 });
    expect(fixture.service.calls.at(-1)?.argument).toEqual({ dryRun: false });
  });
  it("names the references of an artifact, and what a template lacks on a node", async () => {
    expect((await run("why artifact rfs-1")).out).toMatch(/template +tpl-1 +READY +made from it/);
    expect((await run("why template web")).out).toMatch(/node-b +no .* the node is drained/);
    expect((await run("why artifact none")).code).toBe(3);
  });
  it("undeletes", async () => {
    expect((await run("artifact undelete rfs-1")).out).toMatch(/^artifact rfs-1 is kept until /);
    expect(fixture.service.calls.at(-1)?.name).toBe("undeleteArtifact");
  });
});

describe("compat", () => {
  const old = { guest_image_version: "g0", agent_version: "a1" };
  beforeEach(() => {
    fixture.service.templates.splice(
      0,
      Infinity,
      aTemplate({ replicas: [aReplica(old)] }),
      aTemplate({ template_id: "tpl-2", display_name: "", replicas: [] }),
    );
  });

  it("shows the matrix, which versions differ, and the sums", async () => {
    const { code, out } = await run("compat matrix");
    expect(code).toBe(0);
    expect(out).toMatch(/TEMPLATE_ID +NAME +OVERALL +node-a\n/);
    expect(out).toMatch(/web +STALE +STALE\n/);
    expect(out).toMatch(/tpl-2 +- +MISSING +MISSING\n/);
    expect(out).toMatch(/node-a +guest_image +g0 +g1\n/);
    expect(out).toContain("stale_replicas: 1\n");
    const { templates } = JSON.parse((await run("compat matrix --json --status stale")).out) as {
      templates: unknown[];
    };
    expect(templates).toHaveLength(1);
    expect((await run("compat matrix --template tpl-2")).out).not.toContain("web");
    expect((await run("compat matrix --summary")).out).toMatch(/^stale_templates: 1\n/);
  });
  it("previews an upgrade by each version that is named", async () => {
    const { out } = await run("compat preview --guest-image g0 --kernel k2 --set qemu_version=10");
    expect(out).toMatch(/^nothing would become stale\n/);
    expect(out).toContain("healed: 1\n");
    expect(out).toContain("note: a kernel alone breaks nothing");
    expect((await run("compat preview")).code).toBe(2);
  });
  it("rescans the nodes that are named, or all", async () => {
    expect((await run("compat rescan node-a")).out).toMatch(/node-a +yes +3 +1 +1 +0\n/);
    expect(fixture.service.calls.at(-1)?.argument).toEqual({
      node_ids: ["node-a"],
      all_nodes: false,
    });
    await run("compat rescan --all");
    expect(fixture.service.calls.at(-1)?.argument).toEqual({ node_ids: [], all_nodes: true });
  });
  it("shows where making again is, and resumes it", async () => {
    const { out } = await run("compat resnapshot");
    expect(out).toContain("state: stopped\ntemplate_id: tpl-1\nnode_id: node-a\njob_id: job-9\n");
    expect(out).toContain("error: the guest does not answer\npending: 4\n");
    expect((await run("compat resnapshot --resume")).out).toMatch(/^state: idle\n/);
    expect(fixture.service.calls.at(-1)?.name).toBe("resumeResnapshot");
  });
  it("adopts a baseline", async () => {
    expect((await run("compat adopt web")).out).toMatch(
      /: 1 replicas have a baseline now on node-a/,
    );
    expect((await run("compat adopt none")).code).toBe(3);
  });
});

describe("tpl create-from-image", () => {
  const words = ["tpl", "create-from-image", "--image", "r.example/web:1"];
  const asked = () => fixture.service.calls.at(-1)?.argument as CreateFromImageRequest;

  it("sends every flag as the request's field", async () => {
    const flags =
      "--writable-layer-size 2Gi --expose-port 80 --expose-port 8080 --env A=1 --env B=x=y" +
      " --cmd /bin/sh --arg -c --dns 10.0.0.1 --probe 8080 --probe-path /up --cpu 500" +
      " --memory 256 --node node-a --allow-internet-access --allow-out-cidr 10.0.0.0/8" +
      " --deny-out-cidr 0.0.0.0/0 --name web --label team=blue --no-with-cube-ca --detach";
    const { code, out, err } = await run([...words, ...flags.split(" ")]);
    expect([code, err]).toEqual([0, "hint: watch it: templatecenter tpl watch job-2\n"]);
    expect(out).toContain("job_id: job-2\n");
    expect(asked()).toEqual({
      source_image_ref: "r.example/web:1",
      writable_layer_size: "2Gi",
      display_name: "web",
      labels: { team: "blue" },
      exposed_ports: [80, 8080],
      distribution_scope: ["node-a"],
      with_cube_ca: false,
      cube_network_config: {
        allow_internet_access: true,
        allow_out: ["10.0.0.0/8"],
        deny_out: ["0.0.0.0/0"],
      },
      container_overrides: {
        command: ["/bin/sh"],
        args: ["-c"],
        envs: [
          { key: "A", value: "1" },
          { key: "B", value: "x=y" },
        ],
        dns_config: { servers: ["10.0.0.1"] },
        resources: { cpu: "500m", mem: "256Mi" },
        probe: {
          port: 8080,
          path: "/up",
          timeout_ms: 30_000,
          period_ms: 500,
          success_threshold: 1,
          failure_threshold: 60,
        },
      },
    });
  });

  it("probes the first exposed port, and has the predecessor's defaults", async () => {
    await run([...words, "--expose-port", "80", "--detach"]);
    expect(asked().container_overrides).toMatchObject({
      resources: { cpu: "2000m", mem: "2000Mi" },
      probe: { port: 80, path: "/health" },
    });
  });

  it.each([
    ["--env novalue", "must be written as KEY=VALUE"],
    ["--dns host", "a DNS server is an IP address"],
    ["--expose-port 70000", "a port is a whole number from 1 to 65535"],
    ["--cpu 0", "must be a whole number above 0"],
    ["--imag x", "(Did you mean --image?)"],
  ])("refuses %s with exit 2 and asks nothing", async (flags, text) => {
    const { code, err } = await run([...words, ...flags.split(" ")]);
    expect(code).toBe(2);
    expect(err).toContain(text);
    expect(fixture.service.calls).toEqual([]);
  });

  it("takes the registry password from stdin, a file, the environment, and a flag with a warning", async () => {
    const password = async (flags: string[], shell: Shell = {}) => {
      const { err } = await run([...words, "--detach", ...flags], shell);
      return [asked().registry_password, err.includes("warning: --registry-password shows")];
    };
    const file = join(dir, "pw");
    await writeFile(file, "from-file\n");
    expect(await password(["--registry-password-stdin"], { stdin: "from-stdin\n" })).toEqual([
      "from-stdin",
      false,
    ]);
    expect(await password(["--registry-password-file", file])).toEqual(["from-file", false]);
    const env = { TEMPLATECENTER_REGISTRY_PASSWORD: "from-env" };
    expect(await password([], { env })).toEqual(["from-env", false]);
    expect(await password(["--registry-password", "x"])).toEqual(["x", true]);
    const both = ["--registry-password", "x", "--registry-password-stdin"];
    expect((await run([...words, ...both])).code).toBe(2);
  });

  it("shows the daemon's field errors", async () => {
    const { code, err } = await run([...words, "--name", "Not Valid", "--detach"]);
    expect(code).toBe(2);
    expect(err).toContain("/display_name: must be lower-case letters, digits and dashes");
  });

  it("with --wait prints plain lines until the job is READY", async () => {
    const finish = (all: string) => {
      if (all.includes("[2/9] UNPACKING")) {
        fixture.service.updateJob("job-2", { status: "READY", phase: "READY", progress: 100 });
      } else if (all.includes("[1/9] PULLING")) {
        fixture.service.updateJob("job-2", { status: "RUNNING", phase: "UNPACKING", progress: 30 });
      }
    };
    let turn = Promise.resolve();
    const onOut = (all: string) => {
      turn = turn.then(() => finish(all));
    };
    const { code, out } = await run([...words, "--wait"], { onOut });
    expect(code).toBe(0);
    const lines = out.split("\n");
    expect(lines[0]).toBe(
      `[1/9] PULLING progress=0% template_id=${TPL} job_id=job-2 distribution=0/1 ready, 0 failed`,
    );
    expect(lines[1]).toContain("[2/9] UNPACKING progress=30%");
    expect(lines[2]).toContain("[9/9] READY progress=100%");
    expect(out).toContain("status: READY\n");
  });

  it("waits by default on a terminal, with a bar, and without colour under NO_COLOR", async () => {
    const ended = (all: string) => {
      if (all.includes("PULLING")) {
        fixture.service.updateJob("job-2", { status: "READY", phase: "READY", progress: 100 });
      }
    };
    const onOut = (all: string) => void Promise.resolve().then(() => ended(all));
    const ran = await run(words, { isTty: true, env: { NO_COLOR: "1" }, onOut });
    expect(ran.code).toBe(0);
    expect(ran.err).toContain("100% [9/9] READY");
    expect(ran.err).not.toContain("\u001b[36m");
    expect(ran.out).toContain("status: READY");
  });

  it("on Ctrl-C says that the job goes on and exits 130", async () => {
    const stop = new AbortController();
    const onOut = (all: string) => {
      if (all.includes("PULLING")) stop.abort();
    };
    const { code, err } = await run([...words, "--wait"], { interrupted: stop.signal, onOut });
    expect(code).toBe(130);
    expect(err).toContain("the job goes on; watch it with: templatecenter tpl watch job-2");
    expect(fixture.service.jobs[1]?.status).toBe("PENDING");
  });
});

describe("watching", () => {
  it("a FAILED job exits 1 with the job's error and where its log is", async () => {
    fixture.service.updateJob("job-1", {
      status: "FAILED",
      phase: "PULLING",
      error_message: "registry said no",
    });
    const { code, err } = await run("tpl watch job-1");
    expect(code).toBe(1);
    expect(err).toBe(
      "error: job job-1 failed in PULLING: registry said no\n" +
        "hint: see its log: templatecenter job log job-1\n",
    );
  });

  it("goes on through a restart of the daemon", async () => {
    let restarted: Promise<void> | undefined;
    const onOut = (all: string) => {
      if (all.includes("UNPACKING")) restarted ??= restart();
    };
    const restart = async () => {
      await server.close(0);
      await serve();
      fixture.service.updateJob("job-1", { status: "READY", phase: "READY", progress: 100 });
    };
    const { code, out } = await run("tpl watch job-1 --interval 0.1", { onOut });
    await restarted;
    expect(code).toBe(0);
    expect(out).toContain("[9/9] READY progress=100%");
  });

  it("polls when there is no place for another event stream", async () => {
    const { streams } = fixture.app;
    const open = streams.open.bind(streams);
    let refused = 0;
    streams.open = () => {
      refused += 1;
      if (refused === 2) fixture.service.updateJob("job-1", { status: "READY", phase: "READY" });
      throw new AppError("too_many_requests");
    };
    const { code, out } = await run("tpl watch job-1 --interval 0.1");
    streams.open = open;
    expect([code, refused]).toEqual([0, 2]);
    expect(out).toContain("[9/9] READY");
  });

  it("a job that is not there exits 3 at once", async () => {
    expect((await run("tpl watch nope")).code).toBe(3);
  });
});

describe("job", () => {
  it("lists, gets and cancels", async () => {
    expect((await run("job list")).out).toMatch(/^JOB_ID +TEMPLATE_ID .*\njob-1 /);
    expect((await run("job get job-1")).out).toContain("distribution: 0/1 ready, 0 failed\n");
    expect(JSON.parse((await run("tpl status --job-id job-1 --json")).out)).toMatchObject({
      job_id: "job-1",
    });
    expect((await run("job cancel job-1")).out).toBe("job is being cancelled: job-1\n");
    fixture.service.jobs.push(aJob({ job_id: "old", status: "READY" }));
    expect((await run("job cancel old")).code).toBe(4);
  });

  it("prints the log once, and what comes after with --follow", async () => {
    fixture.service.addLog("job-1", "first");
    fixture.service.addLog("job-1", "esc \u001b[31mred");
    expect((await run("job log job-1")).out).toMatch(/info {2}first\n.*esc \[31mred\n$/);
    const onOut = (all: string) => {
      if (all.includes("red")) {
        void expect
          .poll(() => fixture.service.listeners())
          .toBe(1)
          .then(() => {
            fixture.service.addLog("job-1", "third");
            fixture.service.updateJob("job-1", { status: "READY" });
          });
      }
    };
    let once = false;
    const { out } = await run("job log job-1 --follow", {
      onOut: (all) => {
        if (!once && all.includes("red")) {
          once = true;
          onOut(all);
        }
      },
    });
    expect(out.match(/first|red|third/g)).toEqual(["first", "red", "third"]);
  });

  it("prints events as JSON lines until the end", async () => {
    fixture.service.updateJob("job-1", { status: "READY" });
    const { out, code } = await run("job events job-1");
    const lines = out.trim().split("\n");
    expect(code).toBe(0);
    expect(JSON.parse(lines[0]!)).toMatchObject({ event: "job", data: { status: "READY" } });
  });
});

describe("artifact, sandbox, node, resolve", () => {
  it("downloads an artifact over the socket without a token, whole or not at all", async () => {
    const file = join(dir, "root.ext4");
    expect((await run(["artifact", "download", "rfs-1", "--output", file])).code).toBe(0);
    expect(await readFile(file)).toEqual(Buffer.from(fixture.service.bytes));
    fixture.service.failWith = new AppError("artifact_source_missing");
    const gone = await run(["artifact", "download", "rfs-1", "--output", join(dir, "b")]);
    expect(gone.code).toBe(3);
    await expect(readFile(join(dir, "b"))).rejects.toThrow("ENOENT");
    fixture.service.bytes = fixture.service.bytes.subarray(0, 400);
    const short = await run(["artifact", "download", "rfs-1", "--output", join(dir, "c")]);
    expect(short.code).toBe(1);
    await expect(readFile(join(dir, "c"))).rejects.toThrow("ENOENT");
    await expect(readFile(join(dir, "c.part"))).rejects.toThrow("ENOENT");
  });

  it("lists and shows artifacts", async () => {
    expect((await run("artifact list")).out).toContain("1000 B");
    expect((await run("artifact info rfs-1")).out).toContain("ext4_size_bytes: 1000\n");
  });

  it("runs, lists and deletes sandboxes", async () => {
    const made = await run("sandbox run web --id s1 --label a=b");
    expect(made.out).toContain("sandbox_id: s1\n");
    expect(made.out).toContain("ports: 80->127.0.0.1:40080\n");
    expect((await run("sandbox list")).out).toContain("\ns1 ");
    expect((await run("sandbox delete s1 sb-1")).out).toContain("sandbox deleted: sb-1\n");
    expect(JSON.parse((await run("sandbox list --json")).out)).toEqual({ items: [] });
  });

  it("shows nodes and resolves", async () => {
    expect((await run("node list")).out).toContain("node-a");
    expect((await run("node info")).out).toContain("state: HEALTHY\n");
    expect((await run(`resolve ${TPL}`)).out).toContain("node_id: node-a\n");
    fixture.service.failWith = new AppError("template_stale_needs_redo");
    expect((await run(`resolve ${TPL}`)).code).toBe(6);
  });
});

describe("the program", () => {
  it("exits 5 and says how to start the daemon when none answers", async () => {
    await server.close(0);
    const { code, err } = await run("tpl list");
    expect(code).toBe(5);
    expect(err).toContain(`error: no daemon answers at ${dir}/templatecenter.sock\n`);
    expect(err).toContain(`hint: start it with: templatecenter daemon --data-dir ${dir}`);
    const remote = await run(`tpl list --server ${server.url}`);
    expect([remote.code, remote.err.includes(server.url)]).toEqual([5, true]);
  });

  it("finds the socket that daemon.json names", async () => {
    const other = await mkdtemp(join(tmpdir(), "tc-cli-"));
    await writeFile(join(other, "daemon.json"), JSON.stringify({ socket: server.socket }));
    const { code } = await run(["--data-dir", other, "tpl", "list"]);
    await rm(other, { recursive: true });
    expect(code).toBe(0);
  });

  it("talks to --server with a token from a file", async () => {
    await server.close(0);
    await serve({ auth: { tokens: [{ name: "ci", sha256: tokenHash("tc_1") }] } });
    const file = join(dir, "token");
    await writeFile(file, "tc_1\n");
    const cancel = ["job", "cancel", "job-1", "--server", server.url];
    const refused = await run(cancel);
    expect(refused.code).toBe(8);
    expect(refused.err).toContain("send Authorization: Bearer TOKEN");
    expect((await run([...cancel, "--token-file", file])).code).toBe(0);
    expect(fixture.audit.at(-1)?.actor).toBe("token:ci");
    expect((await run("tpl list --server nonsense")).code).toBe(78);
  });

  it("prints an internal error's request id and no detail", async () => {
    fixture.service.failWith = new Error("secret path");
    const { code, err } = await run("job cancel job-1");
    expect(code).toBe(1);
    expect(err).toMatch(/^error: internal error\nrequest id: [0-9a-f-]+\n$/);
  });

  it("leads help with examples, knows its version, and suggests on typos", async () => {
    const help = await run("--help");
    expect([help.code, help.out.trimStart().startsWith("Examples:")]).toEqual([0, true]);
    expect((await run("tpl --help")).out.trimStart().startsWith("Examples:")).toBe(true);
    expect((await run("--version")).out).toBe("1.2.3\n");
    const typo = await run("tpl lst");
    expect([typo.code, typo.err]).toEqual([2, expect.stringMatching(/Did you mean .*list/)]);
    expect((await run("")).code).toBe(2);
  });
});
