import { AppError } from "../../../domain/core.ts";

/**
 * Why an image is refused. Stable names: they are shown to users as `meta.reason` of
 * `image_refused` and `image_too_large`.
 */
export type RefusalReason =
  | "ambiguous_size"
  | "bad_checksum"
  | "bad_gzip"
  | "bad_number"
  | "bad_pax_record"
  | "bad_sparse_map"
  | "bad_whiteout"
  | "bad_zstd"
  | "compressed_trailing_data"
  | "decompression_bomb"
  | "empty_link"
  | "empty_name"
  | "hardlink_missing_target"
  | "hardlink_to_directory"
  | "link_loop"
  | "link_parent_escapes"
  | "name_too_long"
  | "not_a_tar"
  | "nul_in_name"
  | "out_of_memory"
  | "parent_not_directory"
  | "path_traversal"
  | "pax_header_too_large"
  | "pax_size_smuggling"
  | "reserved_name"
  | "root_not_directory"
  | "too_many_entries"
  | "truncated_gzip"
  | "truncated_tar"
  | "truncated_zstd"
  | "unsupported_entry_type"
  | "xattr_invalid";

export interface RefusalPlace {
  /** Index of the layer, lowest is 0. */
  readonly layer?: number;
  /** Name of the entry as it stands in the archive; bytes that are not UTF-8 are replaced. */
  readonly path?: string;
}

/** Names travel as byte strings (rootfs-tree.ts); people read UTF-8. Cut: they can be long. */
export const readableName = (name: string): string =>
  Buffer.from(name.slice(0, 512), "latin1").toString("utf8");

/** The error for an image that is hostile or broken, by the name of the reason. */
export function refusal(
  reason: RefusalReason,
  message: string,
  place: RefusalPlace = {},
  cause?: unknown,
): AppError {
  const meta = {
    reason,
    ...(place.layer === undefined ? {} : { layer: place.layer }),
    ...(place.path === undefined ? {} : { path: readableName(place.path) }),
  };
  return new AppError(tooLarge.has(reason) ? "image_too_large" : "image_refused", message, {
    meta,
    cause,
  });
}

const tooLarge = new Set<RefusalReason>([
  "decompression_bomb",
  "too_many_entries",
  "out_of_memory",
]);
