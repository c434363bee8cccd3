/** Text output: tables whose columns fit, `name: value` lines, sizes. */

// Terminals obey control characters; what came from an image or a registry must not steer them.
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

export const plain = (text: string): string => text.replaceAll(CONTROL, "").replaceAll("\n", " ");

/** Columns two spaces apart, as wide as their widest cell; an empty cell is shown as `-`. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = [head, ...rows.map((row) => row.map((cell) => plain(cell) || "-"))];
  const widths = head.map((_, column) =>
    Math.max(...cells.map((row) => (row[column] ?? "").length)),
  );
  return cells
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join("");
}

/** `name: value` lines; pairs without a value are left out. */
export const lines = (pairs: readonly (readonly [string, unknown])[]): string =>
  pairs
    .filter(([, value]) => value !== undefined && value !== "")
    .map(([name, value]) => `${name}: ${plain(String(value))}\n`)
    .join("");

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function sizeText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1_024 && unit < UNITS.length - 1) {
    value /= 1_024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit] ?? ""}`;
}

export const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;
