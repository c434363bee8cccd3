export { createUi } from "./routes.ts";
