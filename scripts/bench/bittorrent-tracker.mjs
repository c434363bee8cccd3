// A tracker of one torrent: whoever announces itself hears of all others. Its address is the first
// argument.
import { createServer } from "node:http";

/** Seconds until a peer asks again. */
const INTERVAL_S = 5;
const peers = new Map();

/** Six bytes: address and port. */
function compact({ address, port }) {
  return Buffer.from([...address.split(".").map(Number), port >> 8, port & 255]);
}

createServer((request, response) => {
  const { searchParams } = new URL(request.url, "http://tracker");
  const address = request.socket.remoteAddress.replace("::ffff:", "");
  const self = `${address}:${searchParams.get("port")}`;
  if (searchParams.get("event") === "stopped") peers.delete(self);
  else peers.set(self, compact({ address, port: Number(searchParams.get("port")) }));
  const others = [...peers].filter(([name]) => name !== self).map(([, bytes]) => bytes);
  const list = Buffer.concat(others);
  response.end(
    Buffer.concat([
      Buffer.from(`d8:intervali${INTERVAL_S}e5:peers${list.length}:`),
      list,
      Buffer.from("e"),
    ]),
  );
}).listen(6969, process.argv[2]);
