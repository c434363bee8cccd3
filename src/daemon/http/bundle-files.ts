/** Bundles over HTTP, for the API and for the page: one streamed out, one streamed in. */
import type { ServerResponse } from "node:http";
import type { CallContext, Commands, Log } from "../../domain/index.ts";

export const BUNDLE_TYPE = "application/x-tar";

/** A failure in mid-stream cannot be answered any more: the connection is cut short instead. */
function bodyStream(
  body: AsyncIterableIterator<Uint8Array>,
  onError: (error: unknown) => void,
): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const next = await body.next();
        if (next.done === true) controller.close();
        else controller.enqueue(next.value);
      } catch (error) {
        onError(error);
        controller.error(error);
      }
    },
    async cancel() {
      await body.return?.();
    },
  });
}

/** @param outgoing is cut when the bundle cannot be ended; undefined without a socket */
export async function sendBundle(
  { commands, log }: { readonly commands: Pick<Commands, "exportBundle">; readonly log: Log },
  id: string,
  context: CallContext,
  headers: Readonly<Record<string, string>>,
  outgoing: ServerResponse | undefined,
): Promise<Response> {
  const { manifest, body } = await commands.exportBundle(id, context);
  const name = manifest.template.template_id;
  const stream = bodyStream(body, (error) => {
    log.error("a bundle was cut short", {
      request_id: context.requestId,
      template_id: name,
      err: error,
    });
    outgoing?.destroy();
  });
  return new Response(stream, {
    headers: {
      ...headers,
      "content-type": BUNDLE_TYPE,
      "cache-control": "private, no-store",
      "content-disposition": `attachment; filename="${name}.bundle"`,
    },
  });
}

/** So much of what nobody wants is read, so that the sender is ready to read why. */
const DRAIN_BYTES = 64 * 1024 * 1024;

/** A stream that is cancelled takes the connection with it, and the answer with that. */
export async function* readOut(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  let isEnded = false;
  const next = async (): Promise<Uint8Array | undefined> => {
    const { done, value } = await reader.read();
    isEnded = done;
    return value;
  };
  try {
    for (let bytes = await next(); bytes !== undefined; bytes = await next()) yield bytes;
  } finally {
    for (let drained = 0; !isEnded && drained < DRAIN_BYTES;) {
      drained += (await next().catch(() => void (isEnded = true)))?.length ?? 0;
    }
  }
}
