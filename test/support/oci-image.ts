/** Images for tests, assembled by the code that the demo uses. */
export {
  assembleOciLayout,
  digestOf,
  makeTar,
  ociArchitecture,
  writeImage,
  writeIndex,
} from "../../scripts/lib/oci-layout.mjs";
export type {
  Descriptor,
  Image,
  Layer,
  LayerEntry,
  WrittenImage,
} from "../../scripts/lib/oci-layout.mjs";
