import { execFileSync } from "node:child_process";
import { open, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readBundle } from "../../../src/daemon/bundle/read.ts";
import { storedBytes } from "../../../src/daemon/bundle/format.ts";
import { BLOCK_BYTES, tarHeader } from "../../../src/daemon/bundle/tar.ts";
import {
  aManifest,
  bundleOf,
  fakeSignature,
  sparseFile,
  type TestFile,
} from "../../support/bundle.ts";

let file: TestFile;
let bundle: Buffer;

beforeAll(async () => {
  file = await sparseFile();
  bundle = await bundleOf(file);
});
afterAll(() => file.close());

/** In pieces of odd lengths, as a network hands them on. */
async function* pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0, size = 1; at < bytes.length; at += size, size = (size * 7 + 13) % 100_003) {
    yield bytes.subarray(at, at + size);
  }
}

/** Reads it into a file; what `tell` asks of the signature is here that it is the fake's. */
async function read(bytes: Uint8Array, path: string): Promise<void> {
  await writeFile(path, "");
  const target = await open(path, "r+");
  try {
    await readBundle(pieces(bytes), {
      async onManifest(_manifest, signed) {
        if (!fakeSignature(signed.bytes).equals(signed.signature)) throw new Error("not signed");
      },
      async onFile(_file, { sizeBytes }) {
        await target.truncate(sizeBytes);
        return {
          async write(at, some) {
            await target.write(some, 0, undefined, at);
          },
        };
      },
    });
  } finally {
    await target.close();
  }
}
const refusal = (bytes: Uint8Array): Promise<string> =>
  read(bytes, join(file.dir, "refused")).then(
    () => "taken",
    (error: unknown) => String(error),
  );

/** Members by name, with where each begins and how long its bytes are. */
function membersOf(bytes: Buffer) {
  const found = [];
  for (let at = 0; bytes[at] !== 0;) {
    const name = bytes.toString("latin1", at, bytes.indexOf(0, at));
    const sizeBytes = Number.parseInt(bytes.toString("latin1", at + 124, at + 135), 8);
    found.push({ name, at, sizeBytes });
    at += BLOCK_BYTES + Math.ceil(sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;
  }
  return found;
}

describe("a bundle", () => {
  it("comes out as it went in, holes and short end included", async () => {
    const path = join(file.dir, "copy");
    await read(bundle, path);
    expect((await readFile(path)).equals(await readFile(file.path))).toBe(true);
    expect(storedBytes(file.manifest)).toBe(41 * 65_536 + 1_000);
    // Neither holes nor words take room.
    expect(bundle.length).toBeLessThan(37 * 65_536);
    expect((await bundleOf(file)).equals(bundle)).toBe(true);
  });

  it("is an archive that tar lists and extracts", async () => {
    const path = join(file.dir, "it.tar");
    await writeFile(path, bundle);
    const names = execFileSync("tar", ["tf", path], { encoding: "utf8" }).trim().split("\n");
    expect(names).toEqual(membersOf(bundle).map(({ name }) => name));
    expect(names.slice(0, 3)).toEqual(["manifest.json", "manifest.sig", "files/0/chunks"]);
    const text = execFileSync("tar", ["xOf", path, "manifest.json"], { encoding: "utf8" });
    expect(JSON.parse(text)).toEqual(aManifest(file));
    await rm(path);
  });
});

describe("a damaged bundle is refused", () => {
  it("with one bit changed in each part of each member", async () => {
    const places = membersOf(bundle).flatMap(({ name, at, sizeBytes }) => {
      const body = at + BLOCK_BYTES;
      const padding = sizeBytes % BLOCK_BYTES === 0 ? [] : [body + sizeBytes];
      // Name, mode, owner, size, time, checksum, type, link name, magic, user, prefix, its end.
      const header = [0, 99, 101, 110, 120, 134, 140, 150, 156, 160, 258, 266, 350, 511];
      const inside = [body, body + Math.floor(sizeBytes / 2), body + sizeBytes - 1];
      return [...header.map((place) => at + place), ...inside, ...padding].map((place) => ({
        name,
        place,
      }));
    });
    places.push({ name: "the end", place: bundle.length - 1 });
    for (const { name, place } of places) {
      const damaged = Buffer.from(bundle);
      damaged[place] = (damaged[place] ?? 0) ^ 1;
      expect(await refusal(damaged), `${name} at ${place}`).toMatch(/^(App)?Error: /);
    }
  });

  it("cut off anywhere, also between two members", async () => {
    const ends = membersOf(bundle).flatMap(({ at }) => [at, at + 1, at + BLOCK_BYTES]);
    for (const end of [...ends, bundle.length - 1_024, bundle.length - 1]) {
      expect(await refusal(bundle.subarray(0, end)), String(end)).toMatch(/it is cut off/);
    }
  });

  it("with more behind its end, or between its members", async () => {
    expect(await refusal(Buffer.concat([bundle, Buffer.alloc(1)]))).toMatch(/more behind its end/);
    const [, second] = membersOf(bundle);
    const more = Buffer.concat([
      bundle.subarray(0, second?.at),
      tarHeader("../../etc/passwd", 0),
      bundle.subarray(second?.at),
    ]);
    expect(await refusal(more)).toMatch(/manifest.sig is not where it should be/);
  });

  it("with members swapped", async () => {
    const segments = membersOf(bundle).filter(({ name }) => /files\/0\/\d/.test(name));
    const [one, two] = segments;
    const [end] = membersOf(bundle).filter(({ name }) => name === "bundle.sha256");
    const swapped = Buffer.concat([
      bundle.subarray(0, one?.at),
      bundle.subarray(two?.at, end?.at),
      bundle.subarray(one?.at, two?.at),
      bundle.subarray(end?.at),
    ]);
    expect(segments).toHaveLength(2);
    expect(await refusal(swapped)).toMatch(/is not where it should be/);
  });

  it("when it says that a member is larger than it may be", async () => {
    const big = Buffer.concat([tarHeader("manifest.json", 4 * 2 ** 30), Buffer.alloc(512)]);
    expect(await refusal(big)).toMatch(/manifest.json has 4294967296 bytes/);
  });
});

describe("a manifest is refused", () => {
  const cases: readonly [string, object][] = [
    ["of a later version", { version: 2 }],
    ["of another format", { format: "other" }],
    ["with a field that is not known", { more: 1 }],
    ["with a file whose name is a path", { files: [{ name: "../rootfs" }] }],
    ["without files", { files: [] }],
    ["of a snapshot without memory", { kind: "snapshot" }],
  ];
  it.each(cases)("%s", async (_name, over) => {
    const manifest = aManifest(file, over);
    expect(await refusal(await bundleOf(file, manifest))).toMatch(/the bundle is damaged or none/);
  });

  it.each([
    ["../../tpl-1", "an id that is a path"],
    ["snap-1", "an id of another kind"],
    ["tpl-../x", "an id with dots"],
  ])("with the id %s: %s", async (template_id) => {
    const { template } = aManifest(file);
    const manifest = aManifest(file, { template: { ...template, template_id } });
    expect(await refusal(await bundleOf(file, manifest))).toMatch(/the bundle is damaged or none/);
  });

  it("whose artifact is not the file, or not of its fingerprint", async () => {
    const { artifact } = aManifest(file);
    const other = { ...artifact, digest: `sha256:${"0".repeat(64)}` };
    expect(await refusal(await bundleOf(file, aManifest(file, { artifact: other })))).toMatch(
      /the first file is not the artifact/,
    );
    const named = { ...artifact, artifact_id: "rfs-000000000000000000000000" };
    expect(await refusal(await bundleOf(file, aManifest(file, { artifact: named })))).toMatch(
      /not that of its fingerprint/,
    );
  });
});
