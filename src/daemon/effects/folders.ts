import { readdir, rm } from "node:fs/promises";
import type { Folders } from "../../domain/index.ts";
import { linkOrCopy } from "../runtime/file-copy.ts";

/** The host's file system. */
export const realFolders: Folders = {
  names: (dir) => readdir(dir).catch(() => []),
  remove: (path) => rm(path, { recursive: true, force: true }),
  link: linkOrCopy,
};
