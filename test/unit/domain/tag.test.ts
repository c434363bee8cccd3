import { describe, expect, it } from "vitest";
import {
  claimName,
  isForgotten,
  isNameOf,
  nameSchema,
  promoteTag,
  rollbackTag,
  type TagChange,
  type TagRecord,
} from "../../../src/domain/index.ts";

let changes = 0;
const change = (more: Partial<TagChange> = {}): TagChange => ({
  name: "web",
  id: `change-${++changes}`,
  actor: "me",
  at: `2026-01-01T00:00:${String(changes).padStart(2, "0")}Z`,
  ...more,
});
const pointing = (...ids: string[]): TagRecord | undefined =>
  ids.reduce<TagRecord | undefined>((tag, id) => promoteTag(tag, id, change()) ?? tag, undefined);

describe("a tag", () => {
  it("is made, moves, and knows where it pointed, when and by whom", () => {
    const tag = pointing("tpl-1", "tpl-2");
    expect(tag).toMatchObject({ name: "web", template_id: "tpl-2" });
    expect(tag?.history.map(({ template_id }) => template_id)).toEqual(["tpl-1", "tpl-2"]);
    expect(tag?.history[1]).toMatchObject({ actor: "me", at: tag?.updated_at });
    expect(tag?.created_at).toBe(tag?.history[0]?.at);
  });

  it("that points there already is not changed", () => {
    expect(promoteTag(pointing("tpl-1"), "tpl-1", change())).toBeUndefined();
  });

  it("moves only from where it is expected", () => {
    const tag = pointing("tpl-1");
    expect(promoteTag(tag, "tpl-2", change({ expected: "tpl-1" }))?.template_id).toBe("tpl-2");
    for (const expected of ["tpl-0", null]) {
      expect(() => promoteTag(tag, "tpl-2", change({ expected }))).toThrow(
        expect.objectContaining({
          code: "tag_moved",
          meta: { expected_template_id: expected, template_id: "tpl-1" },
        }),
      );
    }
    expect(promoteTag(undefined, "tpl-2", change({ expected: null }))?.template_id).toBe("tpl-2");
    expect(() => promoteTag(undefined, "tpl-2", change({ expected: "tpl-1" }))).toThrow(
      "there is no such tag",
    );
  });

  it("bears a change that is applied twice", () => {
    const once = change({ expected: "tpl-1" });
    const tag = promoteTag(pointing("tpl-1"), "tpl-2", once);
    expect(promoteTag(tag, "tpl-2", once)).toBeUndefined();
    const back = change();
    expect(rollbackTag(rollbackTag(tag, back), back)).toBeUndefined();
  });

  it("goes back one step, and comes back", () => {
    const back = rollbackTag(pointing("tpl-1", "tpl-2"), change());
    expect(back).toMatchObject({ template_id: "tpl-1" });
    expect(back?.history.at(-1)).toMatchObject({ template_id: "tpl-1", rollback: true });
    expect(rollbackTag(back, change())?.template_id).toBe("tpl-2");
    expect(() => rollbackTag(pointing("tpl-1"), change())).toThrow(
      expect.objectContaining({ code: "tag_has_no_history" }),
    );
    expect(() => rollbackTag(undefined, change())).toThrow(
      expect.objectContaining({ code: "tag_not_found" }),
    );
    expect(() => rollbackTag(pointing("tpl-1", "tpl-2"), change({ expected: "tpl-1" }))).toThrow(
      expect.objectContaining({ code: "tag_moved" }),
    );
  });

  it("keeps fifty steps", () => {
    const tag = pointing(...Array.from({ length: 60 }, (_, index) => `tpl-${index % 2}`));
    expect(tag?.history).toHaveLength(50);
    expect(rollbackTag(tag, change())?.template_id).toBe("tpl-0");
  });

  it("is forgotten with the last template that it ever pointed at", () => {
    const tag = pointing("tpl-1", "tpl-2");
    expect(tag && isForgotten(tag, (id) => id === "tpl-1")).toBe(false);
    expect(tag && isForgotten(tag, () => false)).toBe(true);
  });
});

describe("a display name", () => {
  const build = (askedAt: string) => ({ ...change({ at: "2026-01-01T01:00:00Z" }), askedAt });

  it("is of the build that was asked for last, whichever ends last", () => {
    const newer = claimName(undefined, "tpl-2", build("2026-01-01T00:00:30Z"));
    expect(newer?.template_id).toBe("tpl-2");
    expect(claimName(newer, "tpl-1", build("2026-01-01T00:00:10Z"))).toBeUndefined();
    expect(claimName(newer, "tpl-3", build("2026-01-01T00:00:40Z"))?.template_id).toBe("tpl-3");
  });

  it("stays where somebody moved it while the build ran", () => {
    const at = "2026-01-01T00:00:50Z";
    const moved = promoteTag(pointing("tpl-1"), "tpl-9", change({ at }));
    expect(claimName(moved, "tpl-2", build("2026-01-01T00:00:45Z"))).toBeUndefined();
  });

  it("is taken by a redo only when nobody has it", () => {
    const redo = build("2026-01-02T00:00:00Z");
    expect(claimName(pointing("tpl-1"), "tpl-2", redo, true)).toBeUndefined();
    expect(claimName(undefined, "tpl-2", redo, true)?.template_id).toBe("tpl-2");
  });

  it("is no template's that the name has left", () => {
    expect(isNameOf(undefined, "tpl-1")).toBe(true);
    expect(isNameOf(pointing("tpl-1"), "tpl-1")).toBe(true);
    expect(isNameOf(pointing("tpl-1", "tpl-2"), "tpl-1")).toBe(false);
  });

  it.each(["", "Web", "-web", "a.b", "tpl-web", "snap-1", "x".repeat(65)])("is not %j", (name) => {
    expect(nameSchema.safeParse(name).success).toBe(false);
  });
});
