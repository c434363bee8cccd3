import { describe, expect, test } from "vitest";
import {
  AppError,
  prepareRequest,
  type CreateTemplateRequest,
  type Random,
} from "../../../src/domain/index.ts";

const ID = "cube.master.appsnapshot.template.id";
const random: Random = {
  uuid: () => "0123abcd-4567-4abc-8def-0123456789ab",
  bytes: () => new Uint8Array(),
};
const image = { image: "rfs-1" };
const prepare = (more: Partial<CreateTemplateRequest> = {}) =>
  prepareRequest({ containers: [{ image }], ...more }, random);
const problems = (more: Partial<CreateTemplateRequest>): string[] => {
  try {
    prepare(more);
  } catch (error) {
    if (error instanceof AppError) return (error.meta.errors ?? []).map((one) => one.pointer);
    throw error;
  }
  return [];
};

describe("a prepared request", () => {
  test("row 1: without an id a new one is made", () => {
    expect(prepare().template_id).toBe("tpl-0123abcd45674abc8def0123");
    expect(prepare({ annotations: { [ID]: " " } }).template_id).toMatch(/^tpl-0123/);
  });

  test("rows 2 and 3: an id that is none is rejected, and the annotation named", () => {
    for (const id of ["tpl-   ", "template-1", "sb-123", "tpl-", "snap-", "snap-1"]) {
      expect(problems({ annotations: { [ID]: id } })).toEqual([`/annotations/${ID}`]);
    }
    expect(problems({ template_id: "x" })).toEqual(["/template_id"]);
  });

  test("row 4: an id is trimmed, and the annotation goes before the field", () => {
    const made = prepare({ annotations: { [ID]: " tpl-abc " }, template_id: "tpl-other" });
    expect([made.template_id, made.request.template_id]).toEqual(["tpl-abc", "tpl-abc"]);
    expect(made.request.annotations?.[ID]).toBe("tpl-abc");
  });

  test("row 5: instance type and versions have their defaults", () => {
    const { request } = prepare({ instance_type: " " });
    expect(request.instance_type).toBe("cubebox");
    expect(request.annotations).toMatchObject({
      "cube.master.appsnapshot.version": "v2",
      "cube.master.appsnapshot.template.version": "v2",
    });
  });

  test("rows 6 and 7: a domain needs a closed network", () => {
    const allow_out = ["api.example.com"];
    expect(problems({ cube_network_config: { allow_out } })).toEqual([
      "/cube_network_config/allow_out/0",
    ]);
    expect(problems({ cube_network_config: { allow_out, allow_internet_access: false } })).toEqual(
      [],
    );
  });

  test("its root filesystem is named by image or annotation, and must be", () => {
    expect(prepare().artifact_id).toBe("rfs-1");
    const annotations = { "cube.master.rootfs.artifact.id": "rfs-2" };
    expect(prepare({ containers: [{ image: { annotations } }] }).artifact_id).toBe("rfs-2");
    expect(prepare({ containers: [], annotations }).artifact_id).toBe("rfs-2");
    expect(problems({ containers: [{ image: { image: "nginx" } }] })).toEqual([
      "/containers/0/image/image",
    ]);
    const resources = { cpu: "bogus", mem: "0" };
    expect(problems({ containers: [{ image, resources }] })).toEqual([
      "/containers/0/resources/cpu",
      "/containers/0/resources/mem",
    ]);
  });

  test("what is of one call or one sandbox is not stored", () => {
    const { request, scope, display_name } = prepare({
      request_id: "r-1",
      preferred_node_id: "a",
      distribution_scope: ["a"],
      display_name: "web",
      annotations: {
        "cube.master.appsnapshot.create": "true",
        "cube.master.runtime.snapshot.id": "snap-1",
        "cube.master.runtime.snapshot.attached_at": "now",
        mine: "x",
      },
    });
    expect([scope, display_name]).toEqual([["a"], "web"]);
    expect(Object.keys(request).sort()).toEqual([
      "annotations",
      "containers",
      "instance_type",
      "template_id",
    ]);
    expect(Object.keys(request.annotations ?? {}).sort()).toEqual([
      "cube.master.appsnapshot.template.id",
      "cube.master.appsnapshot.template.version",
      "cube.master.appsnapshot.version",
      "cube.master.rootfs.artifact.id",
      "mine",
    ]);
  });
});
