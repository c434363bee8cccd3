/** A form of the page, opened and sent without a browser. */
import type { Hono } from "hono";

const HTML = { headers: { accept: "text/html" } };

export interface OpenedForm {
  readonly markup: string;
  /** Posts the form's own hidden fields with these changes, as its page's session. */
  send(fields?: Record<string, string>, headers?: Record<string, string>): Promise<Response>;
}

/** The post form of a page of the page. @throws Error when the page has none */
export async function openForm(app: Hono, path: string, cookies = ""): Promise<OpenedForm> {
  const headers = cookies === "" ? HTML.headers : { ...HTML.headers, cookie: cookies };
  const page = await app.request(path, { headers });
  const markup = await page.text();
  const form = /<form[^>]*\smethod="post"[\s\S]*?<\/form>/.exec(markup)?.[0];
  const action = /\saction="([^"]+)"/.exec(form ?? "")?.[1];
  if (form === undefined || action === undefined) throw new Error(`no form on ${path}`);
  const session = page.headers.get("set-cookie")?.split(";")[0] ?? "";
  const cookie = [cookies, session].filter((one) => one !== "").join("; ");
  const hidden = [...form.matchAll(/<input\s[^>]*type="hidden"[^>]*>/g)].map(([input]) => [
    /\sname="([^"]+)"/.exec(input)?.[1] ?? "",
    /\svalue="([^"]*)"/.exec(input)?.[1] ?? "",
  ]);
  return {
    markup,
    async send(fields = {}, more = {}) {
      return app.request(action, {
        method: "POST",
        headers: {
          "content-type": "application/x-www-form-urlencoded",
          origin: "http://localhost",
          cookie,
          ...more,
        },
        body: new URLSearchParams({ ...Object.fromEntries(hidden), ...fields }).toString(),
      });
    },
  };
}
