/** Addresses of a page: its own, its twin of the API, its stream. */
import type { Ui, UiContext } from "./context.ts";

/** The API's twin of a page, for those who ask for JSON and not for a page. */
export function twin(c: UiContext, url: string): Response | undefined {
  const accept = c.req.header("accept") ?? "";
  const wantsJson = accept.includes("application/json") && !accept.includes("text/html");
  return wantsJson ? c.redirect(url, 303) : undefined;
}

/** The page's own address with its query. */
export const pathOf = (c: UiContext): string => {
  const url = new URL(c.req.url);
  url.searchParams.delete("notice");
  return url.pathname + url.search;
};

/** The stream of what changes on a page that was rendered now. */
export const streamUrl = (ui: Ui, topic: string, log = 0): string =>
  `/ui/stream?${new URLSearchParams({ topic, since: `${ui.queries.lastEventId()}~${log}` }).toString()}`;
