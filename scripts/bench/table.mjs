// Rows of the bench: what was measured, against what, and the target of the issue.
export const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

/**
 * @param {{name: string, ours: string, reference?: string, ratio: number, target: string, met:
 * boolean}} row
 */
export function printRow(row) {
  const reference = row.reference === undefined ? "" : ` against ${row.reference}`;
  const verdict = row.met ? "met" : "NOT MET";
  console.log(
    `${row.name}\n  ${row.ours}${reference}: ${row.ratio} (target ${row.target}: ${verdict})`,
  );
  return row;
}
