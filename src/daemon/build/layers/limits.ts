/**
 * What one image may cost. Each limit has its reason here; tests and operators may lower them.
 */
export interface LayerLimits {
  /** Bytes of all layers' archives after decompression. */
  readonly expandedBytes: number;
  /** Archive entries in all layers, headers of long names and PAX records not counted. */
  readonly entries: number;
  /** Expanded over compressed bytes of one layer, looked at once `ratioFloorBytes` came out. */
  readonly ratio: number;
  readonly ratioFloorBytes: number;
  /** Bytes of one PAX extended header or sparse map. */
  readonly paxHeaderBytes: number;
  /** Bytes of a whole path, and of a symlink's target (Linux PATH_MAX less the NUL). */
  readonly pathBytes: number;
  /** Bytes of one component of a path (NAME_MAX, and what an ext4 entry can hold). */
  readonly nameBytes: number;
  /** Logical bytes of one file (ext4 with 4 KiB blocks: 2^32 - 1 blocks). */
  readonly fileBytes: number;
  /** Bytes of one attribute's value (XATTR_SIZE_MAX). */
  readonly xattrValueBytes: number;
  /** Links followed while one path is resolved (as Linux: ELOOP after 40; twice that here). */
  readonly linkHops: number;
}

export const LAYER_LIMITS: LayerLimits = {
  // Ten times the largest images in common use (CUDA and ML stacks, 5-7 GB expanded).
  expandedBytes: 64 * 1024 ** 3,
  // A full desktop distribution has about 500 000; the resolved tree is held in memory.
  entries: 2_000_000,
  // gzip cannot expand more than 1032:1. zstd can go past 100 000:1, but nothing honest needs to.
  ratio: 1_100,
  ratioFloorBytes: 64 * 1024 ** 2,
  // Ext4 holds at most 64 KiB per attribute; a dozen of them and long names fit.
  paxHeaderBytes: 1024 ** 2,
  pathBytes: 4_095,
  nameBytes: 255,
  fileBytes: (2 ** 32 - 1) * 4096,
  xattrValueBytes: 65_536,
  linkHops: 80,
};
