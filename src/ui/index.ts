export { createUi, type UiDependencies } from "./routes.ts";
