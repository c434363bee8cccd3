/**
 * Bundles from nodes that hold them: whoever is asked for one that it lacks passes on what a holder
 * exports, a piece at a time, each asked for when its reader has taken the one before.
 */
import { z } from "zod";
import {
  AppError,
  bundleManifestSchema,
  errorText,
  isAppError,
  type Clock,
  type Random,
} from "../../domain/index.ts";
import { decodeJson, encodeJson, type Members, type Transport } from "../../gossip/index.ts";
import type { Export } from "./exports.ts";

/** Well below the transport's frame limit, and enough to fill a link. */
const PIECE_BYTES = 1024 * 1024;
/** Reading and deflating a piece on a busy host. */
const ASK_TIMEOUT_MS = 60_000;
/** A reader that takes nothing for so long has gone, or its node has. */
const IDLE_MS = 5 * 60_000;
/** Each holds files open. */
const MOST_OPEN = 16;

const id = z.string().min(1).max(256);
const questionSchema = z.discriminatedUnion("what", [
  z.looseObject({ v: z.literal(1), what: z.literal("open"), template_id: id }),
  z.looseObject({ v: z.literal(1), what: z.literal("next"), export_id: id }),
  z.looseObject({ v: z.literal(1), what: z.literal("close"), export_id: id }),
]);
type Question = z.infer<typeof questionSchema>;
const openedSchema = z.looseObject({ export_id: id, manifest: bundleManifestSchema });

export interface RelayParts {
  readonly transport: Transport;
  readonly members: Members;
  readonly clock: Clock;
  readonly random: Random;
  /** From what this node holds itself. @throws AppError as `Exports.open` */
  readonly open: (templateId: string, signal?: AbortSignal) => Promise<Export>;
  /** A member that is believed to be there. */
  readonly isUp: (nodeId: string) => boolean;
}

interface Served {
  readonly peer: string;
  readonly body: Export["body"];
  idle: { cancel(): void };
}

/** Answers other nodes, and asks them: `open` is the same from wherever it is. */
export function createRelay(parts: RelayParts): { open: RelayParts["open"] } {
  serve(parts);
  return {
    async open(templateId, signal) {
      try {
        return await parts.open(templateId, signal);
      } catch (error) {
        const holders = holdersOf(error).filter((node) => parts.isUp(node));
        const reasons: string[] = [];
        for (const node of holders.sort()) {
          try {
            return await askFor(parts, node, templateId, signal);
          } catch (failed) {
            signal?.throwIfAborted();
            reasons.push(`${node}: ${errorText(failed)}`);
          }
        }
        if (!isAppError(error) || reasons.length === 0) throw error;
        const told = `${error.message} (${reasons.join("; ")})`;
        throw new AppError(error.code, told, { meta: { ...error.meta }, cause: error });
      }
    },
  };
}

function holdersOf(error: unknown): string[] {
  const holders = isAppError(error) ? error.meta["holders"] : undefined;
  return Array.isArray(holders) ? holders.map(String) : [];
}

function serve({ transport, clock, random, open }: RelayParts): void {
  const served = new Map<string, Served>();
  const drop = async (exportId: string): Promise<void> => {
    const one = served.get(exportId);
    served.delete(exportId);
    one?.idle.cancel();
    await one?.body.return?.();
  };
  const giveUpLater = (exportId: string) =>
    clock.after(IDLE_MS, () => void drop(exportId).catch(() => undefined));

  const begin = async (peer: string, templateId: string): Promise<Uint8Array> => {
    if (served.size >= MOST_OPEN) {
      throw new AppError("too_many_requests", `${MOST_OPEN} bundles go out to other nodes already`);
    }
    const { manifest, body } = await open(templateId);
    const export_id = random.uuid();
    served.set(export_id, { peer, body, idle: giveUpLater(export_id) });
    return encodeJson({ v: 1, export_id, manifest });
  };
  /** Nothing: it has come to its end. */
  const next = async (peer: string, exportId: string): Promise<Uint8Array> => {
    const one = served.get(exportId);
    if (one?.peer !== peer) {
      throw new AppError("artifact_source_missing", "the export is not under way here any more");
    }
    one.idle.cancel();
    try {
      const piece: Uint8Array[] = [];
      for (let bytes = 0; bytes < PIECE_BYTES;) {
        const step = await one.body.next();
        if (step.done === true) break;
        piece.push(step.value);
        bytes += step.value.length;
      }
      if (piece.length === 0) await drop(exportId);
      else one.idle = giveUpLater(exportId);
      return Buffer.concat(piece);
    } catch (error) {
      await drop(exportId);
      throw error;
    }
  };
  transport.handle("bundle", async (from, body) => {
    const question = decodeJson(questionSchema, body, "a question about a bundle");
    if (question.what === "open") return begin(from, question.template_id);
    if (question.what === "next") return next(from, question.export_id);
    if (served.get(question.export_id)?.peer === from) await drop(question.export_id);
    return encodeJson({ v: 1 });
  });
}

async function askFor(
  { transport, members }: RelayParts,
  nodeId: string,
  templateId: string,
  signal: AbortSignal | undefined,
): Promise<Export> {
  const peer = members.peerOf(nodeId);
  if (peer === undefined) throw new AppError("peer_unreachable", `${nodeId} is no member`);
  const ask = (question: Question): Promise<Uint8Array> =>
    transport.request(peer, "bundle", encodeJson(question), {
      timeoutMs: ASK_TIMEOUT_MS,
      ...(signal === undefined || question.what === "close" ? {} : { signal }),
    });
  const answer = await ask({ v: 1, what: "open", template_id: templateId });
  const opened = decodeJson(openedSchema, answer, `the answer of ${nodeId}`);
  const about = { v: 1, export_id: opened.export_id } as const;
  let isOver = false;
  const body: Export["body"] = {
    async next() {
      if (isOver) return { done: true, value: undefined };
      const value = await ask({ ...about, what: "next" });
      isOver = value.length === 0;
      return isOver ? { done: true, value: undefined } : { done: false, value };
    },
    async return() {
      // The holder gives it up by itself when it does not hear this.
      if (!isOver) void ask({ ...about, what: "close" }).catch(() => undefined);
      isOver = true;
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
  return { manifest: opened.manifest, body };
}
