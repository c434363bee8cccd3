import { describe, expect, it } from "vitest";
import { AppError } from "../../../src/domain/index.ts";
import {
  apiHost,
  normalizedReference,
  parseReference,
} from "../../../src/daemon/build/source/reference.ts";

const digest = `sha256:${"a".repeat(64)}`;

describe("image references", () => {
  it.each([
    ["localhost/app", "localhost/app:latest"],
    ["library/nginx", "docker.io/library/nginx:latest"],
    ["nginx", "docker.io/library/nginx:latest"],
    ["  nginx:1.25 ", "docker.io/library/nginx:1.25"],
    ["index.docker.io/x", "docker.io/library/x:latest"],
    ["docker://ghcr.io/a/b:c", "ghcr.io/a/b:c"],
    ["[::1]:5000/a", "[::1]:5000/a:latest"],
    ["[::1]/a:t", "[::1]/a:t"],
    ["http://host:5000/a/b", "http://host:5000/a/b:latest"],
    ["https://host/a", "https://host/a:latest"],
    ["HOST.example/a", "host.example/a:latest"],
    ["host:80/a", "host:80/a:latest"],
    [`nginx:1@${digest}`, `docker.io/library/nginx@${digest}`],
    [`a/b__c/d-e.f@${digest}`, `docker.io/a/b__c/d-e.f@${digest}`],
    ["oci:/srv/img", "oci:/srv/img"],
    ["oci:/srv/img:v1", "oci:/srv/img:v1"],
    ["oci-archive:/srv/i.tar:host:5000/a:b", "oci-archive:/srv/i.tar:host:5000/a:b"],
    ["docker-archive:/srv/i.tar:@1", "docker-archive:/srv/i.tar:@1"],
  ])("reads %j as %s, and that as itself", (text, normalized) => {
    expect(normalizedReference(parseReference(text))).toBe(normalized);
    expect(normalizedReference(parseReference(normalized))).toBe(normalized);
  });

  it.each([
    ["docker://"],
    [""],
    ["   "],
    ["-v /x"],
    ["-v"],
    ["docker://-v"],
    ["a b"],
    ["a\nb"],
    ["a;rm"],
    ["a$(id)"],
    ["a`id`"],
    ["a|b"],
    ["library/nginx:"],
    ["nginx:-x"],
    ["nginx@sha256:abc"],
    [`nginx@sha256:${"A".repeat(64)}`],
    [`nginx@sha512:${"a".repeat(128)}`],
    [`nginx@${digest}@${digest}`],
    ["Nginx"],
    ["host.example/Upper/x"],
    ["a//b"],
    ["host:0/a"],
    ["host:70000/a"],
    ["[::zz]/a"],
    ["host..x/a"],
    ["../etc/passwd"],
    ["host.example/../x"],
    ["https://user:secret@host/a"],
    ["ftp://host/a"],
    ["b".repeat(64).replaceAll("b", "0")],
    [`x/${"a".repeat(300)}`],
    ["oci:"],
    ["oci:/a:"],
    ["oci:/a;b"],
    ["oci:-x"],
    ["docker-archive:/a b"],
  ])("refuses %j and names the field, not the text", (text) => {
    try {
      parseReference(text);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(AppError);
      const { code, meta, message } = error as AppError;
      expect(code).toBe("invalid_image_reference");
      expect(meta.errors?.[0]?.pointer).toBe("/source_image_ref");
      expect(message).not.toContain("secret");
    }
  });

  it("asks Docker Hub's API where it lives", () => {
    const reference = parseReference("index.docker.io/me/app");
    expect(reference.kind === "registry" && apiHost(reference)).toBe("registry-1.docker.io");
    expect(reference).toMatchObject({ host: "docker.io", repository: "me/app", scheme: "auto" });
  });
});
