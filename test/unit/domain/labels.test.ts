import { expect, test } from "vitest";
import { labelFilter } from "../../../src/domain/index.ts";

test.each([
  ["team", { team: "red" }, true],
  ["team", { crew: "red" }, false],
  ["team=red", { team: "red" }, true],
  ["team=", { team: "red" }, false],
  ["team=", { team: "" }, true],
  ["query=a=1&b=2", { query: "a=1&b=2" }, true],
  ["query=a", { query: "a=1&b=2" }, false],
  ["toString", { team: "red" }, false],
])("the filter %s on %j: %s", (filter, labels, matches) => {
  expect(labelFilter(filter)(labels as Record<string, string>)).toBe(matches);
});
