/**
 * Yamux with fewer frames. The library answers each piece of data with a frame that opens the
 * receiver's window again, so that a request and its answer cost four encrypted messages instead of
 * two. As in the protocol's own implementation a window is opened again here when half of it is
 * used; a sender stops at an empty one only.
 */
import type { MessageStream } from "@libp2p/interface";
import { yamux } from "@libp2p/yamux";

/** A stream of it, with what its types keep private. */
interface Stream {
  state: number;
  recvWindow: number;
  recvWindowCapacity: number;
  sendWindowUpdate(): void;
}

/** Of a stream's states the one in which its windows carry no flags. */
const ESTABLISHED = 3;
/** Windows of bulk streams grow to this. */
const WINDOW_BYTES = 4 * 1024 * 1024;
/**
 * The library's pings tell it the round trip and nothing else: it does not act on one that is not
 * answered. Whether a member is there is the failure detector's business.
 */
const PING_MS = 10 * 60_000;

/** Streams over one connection, for libp2p's `streamMuxers`. */
export function muxer() {
  const create = yamux({
    keepAliveInterval: PING_MS,
    streamOptions: { maxStreamWindowSize: WINDOW_BYTES },
  });
  return () => {
    const factory = create();
    const make = factory.createStreamMuxer.bind(factory);
    factory.createStreamMuxer = (connection: MessageStream) => {
      const made = make(connection);
      const streams = made as unknown as { _newStream(...about: unknown[]): Stream };
      const open = streams._newStream.bind(streams);
      streams._newStream = (...about) => withHalfWindows(open(...about));
      return made;
    };
    return factory;
  };
}

function withHalfWindows(stream: Stream): Stream {
  const update = stream.sendWindowUpdate.bind(stream);
  stream.sendWindowUpdate = () => {
    const isOpen = stream.state === ESTABLISHED;
    if (isOpen && stream.recvWindowCapacity > stream.recvWindow / 2) return;
    update();
  };
  return stream;
}
