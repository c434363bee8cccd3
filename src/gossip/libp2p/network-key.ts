/**
 * The pre-shared key, with an answer to a question that libp2p leaves open: what a peer with
 * another key sends decrypts to noise, of which libp2p says that some length is not valid, or waits
 * for the rest. The first bytes of either side are always the same greeting, so whoever says
 * anything else belongs to another cluster, or is no member of any.
 */
import type { ConnectionProtector, MessageStream, MultiaddrConnection } from "@libp2p/interface";
import { preSharedKey } from "@libp2p/pnet";
import { AppError } from "../../domain/index.ts";

const HELLO_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 1_000;
/** Of multistream-select: a length, a name, a line feed. */
const GREETING = new TextEncoder().encode("\x13/multistream/1.0.0\n");

const keyFile = (hex: string): Uint8Array =>
  new TextEncoder().encode(`/key/swarm/psk/1.0.0/\n/base16/\n${hex}`);

/**
 * @param hex 64 digits
 * @param onForeign called with the address and direction of a connection whose other side has
 *   another key; the connection is aborted with cluster_mismatch
 */
export function networkKey(
  hex: string,
  onForeign: (address: string, direction: "inbound" | "outbound") => void,
): () => ConnectionProtector {
  const create = preSharedKey({ psk: keyFile(hex), timeout: HELLO_TIMEOUT_MS });
  return () => {
    const inner = create();
    return {
      [Symbol.toStringTag]: "templatecenter/network-key",
      async protect(connection, options) {
        const opened = await inner.protect(connection, options);
        checkGreeting(opened, () => {
          // libp2p protects connections only, whatever the interface says.
          const { remoteAddr, direction } = connection as MultiaddrConnection;
          onForeign(remoteAddr.toString(), direction);
        });
        return opened;
      },
    };
  };
}

/** Looks at the first bytes before anybody else does. */
function checkGreeting(connection: MessageStream, onForeign: () => void): void {
  const dispatch = connection.dispatchEvent.bind(connection);
  let seen = 0;
  connection.dispatchEvent = (event) => {
    if (seen >= GREETING.length || event.type !== "message" || !("data" in event)) {
      return dispatch(event);
    }
    const { data } = event as { data: Uint8Array | { subarray(): Uint8Array } };
    const expected = GREETING.subarray(seen);
    const got = data.subarray().subarray(0, expected.length);
    seen += got.length;
    if (got.every((byte, at) => byte === expected[at])) return dispatch(event);
    // Nothing of it is read any more.
    seen = GREETING.length;
    onForeign();
    // Who called has not heard anything yet that tells it the same.
    if (connection.direction === "inbound") connection.send(GREETING);
    void refuse(connection);
    return true;
  };
}

/** Lets what was sent go out first. */
async function refuse(connection: MessageStream): Promise<void> {
  const reason = new AppError("cluster_mismatch", "the other side has another network key");
  await connection.close({ signal: AbortSignal.timeout(CLOSE_TIMEOUT_MS) }).catch(() => undefined);
  connection.abort(reason);
}
