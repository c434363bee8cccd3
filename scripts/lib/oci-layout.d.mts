export interface LayerEntry {
  path: string;
  type: "file" | "directory" | "symlink" | "link" | "chardev" | "blockdev" | "fifo";
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: number;
  content?: string | Uint8Array;
  sourceFile?: string;
  target?: string;
  major?: number;
  minor?: number;
  xattrs?: Record<string, string | Uint8Array>;
}
export interface Layer {
  entries?: LayerEntry[];
  tar?: Uint8Array;
  compression?: "gzip" | "zstd" | "none";
  level?: number;
  blob?: Uint8Array;
  mediaType?: string;
}
export interface Image {
  layers: Layer[];
  config?: Record<string, unknown>;
  architecture?: string;
  variant?: string;
  tag?: string;
  types?: "oci" | "docker";
}
export interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
}
export interface WrittenImage {
  manifest: Descriptor & { platform: { architecture: string; os: string; variant?: string } };
  config: Descriptor;
  layers: Descriptor[];
  diffIds: string[];
}
export function ociArchitecture(arch?: string): string;
export function digestOf(bytes: Uint8Array): string;
export function makeTar(entries: LayerEntry[]): Promise<Buffer>;
export function writeImage(dir: string, image: Image): Promise<WrittenImage>;
export function writeIndex(dir: string, manifests: object[]): Promise<void>;
export function assembleOciLayout(
  dir: string,
  image: Image,
): Promise<WrittenImage & { digest: string }>;
