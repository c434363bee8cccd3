import { describe, expect, test } from "vitest";
import {
  AppError,
  createFromImageSchema,
  fingerprintInput,
  generateCreateRequest,
  guestSpecOf,
  isDomain,
  normalizeFromImage,
  parseSizeBytes,
  parseTemplateId,
  newTemplateId,
  sizeInGib,
  withAgentVersion,
  type CreateFromImageRequest,
  type ImageConfig,
} from "../../../src/domain/index.ts";

const request = (change: Partial<CreateFromImageRequest> = {}): CreateFromImageRequest => ({
  source_image_ref: "registry.example/app:1",
  writable_layer_size: "1Gi",
  ...change,
});
const image: ImageConfig = {
  architecture: "amd64",
  os: "linux",
  entrypoint: ["/init"],
  cmd: ["serve"],
  env: ["PATH=/bin", "A=1=2"],
  working_dir: "/srv",
  user: "",
  exposed_ports: [],
  labels: {},
};
const problems = (work: () => unknown): string[] => {
  try {
    work();
  } catch (error) {
    if (error instanceof AppError) return (error.meta.errors ?? []).map((p) => p.pointer);
    throw error;
  }
  return [];
};

describe("ids (spec §11 rows 1 to 4)", () => {
  test("row 1: a new template id is tpl- and 24 hex characters", () => {
    const uuid = "0123abcd-4567-4abc-8def-0123456789ab";
    const id = newTemplateId({ uuid: () => uuid, bytes: () => new Uint8Array() });
    expect(id).toBe("tpl-0123abcd45674abc8def0123");
  });
  test.each(["template-1", "sb-123", "tpl-", "snap-", "tpl-   ", "tpl-a/b", "tpl-.."])(
    "rows 2 and 3: %j is rejected and the field is named",
    (id) => {
      expect(problems(() => parseTemplateId(id))).toEqual(["/template_id"]);
    },
  );
  test("row 4: blanks around an id are trimmed", () => {
    expect(parseTemplateId(" tpl-abc ")).toBe("tpl-abc");
  });
});

describe("network rules (spec §11 rows 6 to 9)", () => {
  const allow = (rule: string, rest = {}) =>
    problems(() =>
      normalizeFromImage(request({ cube_network_config: { allow_out: [rule], ...rest } })),
    );
  test("row 6: a domain in allow_out with the internet open is rejected", () => {
    expect(allow("api.example.com")).toEqual(["/cube_network_config/allow_out/0"]);
  });
  test("row 7: it is accepted with allow_internet_access=false or a deny-all", () => {
    expect(allow("api.example.com", { allow_internet_access: false })).toEqual([]);
    expect(allow("api.example.com", { deny_out: ["0.0.0.0/0"] })).toEqual([]);
  });
  test("row 8: addresses and CIDRs need no deny-all", () => {
    expect(allow("8.8.8.8")).toEqual([]);
    expect(allow("10.0.0.0/8")).toEqual([]);
  });
  test("row 9: what counts as a domain", () => {
    expect(isDomain("*.example.com")).toBe(true);
    expect(isDomain("1.2.3.4")).toBe(false);
    expect(isDomain("a".repeat(63))).toBe(true);
    expect(isDomain("a".repeat(64))).toBe(false);
    expect(isDomain("-a.example")).toBe(false);
  });
});

describe("from-image requests", () => {
  test("row 5: an empty instance type becomes cubebox", () => {
    expect(normalizeFromImage(request()).instance_type).toBe("cubebox");
    expect(normalizeFromImage(request()).network_type).toBe("tap");
  });
  test("row 10: ports are unique and ascending; out of range is rejected", () => {
    const stored = normalizeFromImage(request({ exposed_ports: [9000, 80, 8080, 9000] }));
    expect(stored.exposed_ports).toEqual([80, 8080, 9000]);
    for (const port of [0, 70_000]) {
      const parsed = createFromImageSchema.safeParse(request({ exposed_ports: [port] }));
      expect(parsed.success).toBe(false);
    }
  });
  test("row 12: enable_ivshmem=false is the same as unset", () => {
    expect(normalizeFromImage(request({ enable_ivshmem: false }))).toEqual(
      normalizeFromImage(request()),
    );
  });
  test("row 16: password, envelope and ignored id are not in the stored request", () => {
    const stored = normalizeFromImage(
      request({ registry_password: "hunter2", request_id: "r", template_id: "tpl-x", wait: true }),
    );
    expect(JSON.stringify(stored)).not.toMatch(/hunter2|tpl-x|"r"|wait/);
  });
  test("row 61: a volume mount on / is rejected", () => {
    const overrides = { volume_mounts: [{ name: "v", mount_path: "/" }] };
    expect(problems(() => normalizeFromImage(request({ container_overrides: overrides })))).toEqual(
      ["/container_overrides/volume_mounts/0/mount_path"],
    );
  });
  test("every wrong field is named at once", () => {
    const wrong = request({
      writable_layer_size: "lots",
      container_overrides: { resources: { cpu: "fast", mem: "much" } },
    });
    expect(problems(() => normalizeFromImage(wrong))).toEqual([
      "/writable_layer_size",
      "/container_overrides/resources/cpu",
      "/container_overrides/resources/mem",
    ]);
  });
});

describe("fingerprint (spec §11 rows 33 to 36)", () => {
  const spec = {
    source_image_digest: "sha256:a",
    writable_layer_size: "1Gi",
    exposed_ports: [80],
    instance_type: "cubebox",
    network_type: "tap",
  };
  test("row 33: the order of keys in overrides does not matter", () => {
    expect(
      fingerprintInput({ ...spec, container_overrides: { args: ["x"], command: ["y"] } }),
    ).toBe(fingerprintInput({ ...spec, container_overrides: { command: ["y"], args: ["x"] } }));
  });
  test("row 34: digest, port, override, CA and agent each change it", () => {
    const variants = [
      spec,
      { ...spec, source_image_digest: "sha256:b" },
      { ...spec, exposed_ports: [81] },
      { ...spec, container_overrides: { dns_config: { servers: ["1.1.1.1"] } } },
      { ...spec, cube_egress_ca_fingerprint: "c" },
      { ...spec, envd_binary_sha256: "e" },
    ].map(fingerprintInput);
    expect(new Set(variants).size).toBe(variants.length);
  });
  test("row 36: an empty CA fingerprint is the same as none", () => {
    expect(fingerprintInput({ ...spec, cube_egress_ca_fingerprint: "" })).toBe(
      fingerprintInput(spec),
    );
  });
});

describe("generated create request (spec §3.10)", () => {
  const generate = (change: Partial<CreateFromImageRequest> = {}) =>
    generateCreateRequest({
      templateId: "tpl-1",
      artifactId: "rfs-1",
      fingerprint: "f",
      artifactDigest: "sha256:d",
      artifactSizeBytes: 1,
      image,
      request: normalizeFromImage(request(change)),
    });
  test("row 43: it carries the template's own id", () => {
    expect(generate().annotations?.["cube.master.appsnapshot.template.id"]).toBe("tpl-1");
  });
  test("row 62: an override of envs drops the image's; none gives them sorted by key", () => {
    expect(generate().containers?.[0]?.envs).toEqual([
      { key: "A", value: "1=2" },
      { key: "PATH", value: "/bin" },
    ]);
    const envs = [{ key: "Z", value: "1" }];
    expect(generate({ container_overrides: { envs } }).containers?.[0]?.envs).toEqual(envs);
  });
  test("row 63: system disk sizes are whole Gi, rounded up", () => {
    const disk = (size: string) =>
      generate({ writable_layer_size: size }).annotations?.["cube.master.system_disk_size"];
    expect([disk("2048Mi"), disk("20Gi"), disk("20"), disk("1500Mi")]).toEqual([
      "2",
      "20",
      "20",
      "2",
    ]);
    expect(sizeInGib(parseSizeBytes("1Gi") ?? 0)).toBe(1);
    expect(parseSizeBytes("0")).toBeUndefined();
  });
  test("ports are joined with a colon, and the probe's port is forwarded too", () => {
    const made = generate({
      exposed_ports: [8080, 80],
      container_overrides: {
        probe: {
          port: 9,
          path: "/",
          timeout_ms: 1000,
          period_ms: 100,
          success_threshold: 1,
          failure_threshold: 3,
        },
      },
    });
    expect(made.annotations?.["com.exposed_ports"]).toBe("80:8080");
    const guest = guestSpecOf(made);
    expect(guest.exposedPorts).toEqual([80, 8080, 9]);
    expect(guest).toMatchObject({ command: ["/init"], args: ["serve"], memoryMib: 2_000 });
    expect(guest.env).toEqual(["A=1=2", "PATH=/bin"]);
  });
  test("command and args are each replaced completely", () => {
    const made = generate({ container_overrides: { args: [] } });
    expect(made.containers?.[0]).toMatchObject({ command: ["/init"], args: [] });
  });
});

describe("row 69: the agent's version in what a template's sandboxes are started with", () => {
  const KEY = "cube.master.components.envd.version";
  const told = (agent_version: string, status = "READY") => ({ status, agent_version });
  test('"envd version 0.5.11" and "0.5.11" are 0.5.11, stored once', () => {
    const replicas = [told("none"), told("envd version 0.5.11"), told("0.5.11")];
    const first = withAgentVersion({ annotations: { a: "b" } }, replicas);
    expect(first).toEqual({
      request: { annotations: { a: "b", [KEY]: "0.5.11" } },
      differing: [],
    });
    expect(withAgentVersion(first.request, replicas).request).toBe(first.request);
  });
  test("the first counts, others are told; of replicas that are not READY none", () => {
    const replicas = [told("9.9.9", "FAILED"), told("1.2.3"), told("1.2.4")];
    const { request, differing } = withAgentVersion({}, replicas);
    expect([request.annotations?.[KEY], differing]).toEqual(["1.2.3", ["1.2.4"]]);
    const unchanged = { annotations: {} };
    expect(withAgentVersion(unchanged, [told("none")]).request).toBe(unchanged);
  });
});
