/** Escaping is hono/html's; this file only names its type and joins pieces. */
import { html } from "hono/html";

export { html };
export type Html = ReturnType<typeof html>;

export const nothing: Html = html``;

/** Pieces in a row, with nothing between them. */
export const join = (pieces: readonly Html[]): Html => html`${pieces}`;
