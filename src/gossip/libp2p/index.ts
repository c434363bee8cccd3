/** libp2p, and only here. */
import "./polyfill.ts";

export { openIdentity } from "./identity.ts";
export { createTransport, type TransportOptions } from "./transport.ts";
