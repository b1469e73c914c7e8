// A worker of Gatewright in Node.js, without packages: node worker.js HOST:PORT FUNCTION
// The protocol is docs/reference/worker-protocol.md. What it serves is `call`.
const net = require("node:net"), os = require("node:os");
const call = async ([x], named) => ({ square: (x ?? named.x) ** 2, by: `node ${process.version}` });

// msgpack, as much of it as JSON has, and bytes. What it writes is never the shortest form, and need not be.
function pack(v, out = []) {
  const put = (byte, write, n, ...rest) => { const b = Buffer.alloc(9, byte); out.push(b.subarray(0, b[write](n, 1)), ...rest); };
  if (v === null || v === undefined) out.push(Buffer.of(0xc0));
  else if (typeof v === "boolean") out.push(Buffer.of(v ? 0xc3 : 0xc2));
  else if (typeof v === "bigint" && v >= 0) put(0xcf, "writeBigUInt64BE", v);
  else if (typeof v === "bigint" || Number.isSafeInteger(v)) put(0xd3, "writeBigInt64BE", BigInt(v));
  else if (typeof v === "number") put(0xcb, "writeDoubleBE", v);
  else if (typeof v === "string") put(0xdb, "writeUInt32BE", Buffer.byteLength(v), Buffer.from(v));
  else if (Buffer.isBuffer(v)) put(0xc6, "writeUInt32BE", v.length, v);
  else if (Array.isArray(v)) { put(0xdd, "writeUInt32BE", v.length); for (const item of v) pack(item, out); }
  else { put(0xdf, "writeUInt32BE", Object.keys(v).length); for (const part of Object.entries(v).flat()) pack(part, out); }
  return out;
}
function unpack(b, at = 0) {
  const int = (sign, n) => (at += n, n === 8 ? Number(b[`readBig${sign}Int64BE`](at - 8)) : b[`read${sign}IntBE`](at - n, n));
  const bytes = (n) => b.subarray(at, at += n);
  const list = (n) => Array.from({ length: n }, value);
  const map = (n) => Object.fromEntries(Array.from({ length: n }, () => [value(), value()]));
  function value() {
    const t = b[at++];
    if (t < 0x80 || t >= 0xe0) return t < 0x80 ? t : t - 256;
    if (t < 0xa0) return t < 0x90 ? map(t & 15) : list(t & 15);
    if (t < 0xc0) return bytes(t & 31).toString();
    if (t < 0xc4) return [null, undefined, false, true][t - 0xc0];
    if (t < 0xc7) return bytes(int("U", 1 << (t - 0xc4)));
    if (t === 0xca || t === 0xcb) return at += t - 0xca ? 8 : 4, t - 0xca ? b.readDoubleBE(at - 8) : b.readFloatBE(at - 4);
    if (t >= 0xcc && t <= 0xd3) return t < 0xd0 ? int("U", 1 << (t - 0xcc)) : int("", 1 << (t - 0xd0));
    if (t >= 0xd9) return t < 0xdc ? bytes(int("U", 1 << (t - 0xd9))).toString() : (t < 0xde ? list : map)(int("U", t % 2 ? 4 : 2));
    throw new Error(`msgpack 0x${t.toString(16)} is not understood`);
  }
  return value();
}

let [address, name] = process.argv.slice(2), [host, port] = address.split(":"), leaving = false;
function join() {
  let buffer = Buffer.alloc(0), running = Promise.resolve();
  const socket = net.connect(Number(port), host), send = (...frame) => {
    const bytes = Buffer.concat(pack(frame, [Buffer.alloc(4)]));
    bytes.writeUInt32LE(bytes.length - 4), socket.write(bytes);
  };
  async function hear(kind, id, _deadline, _attempt, args, named) {
    if (kind === 2) send(3); // init: ready
    if (kind === 5) // request: response or error
      await call(args, named).then((result) => send(6, id, result)).catch((e) => send(8, id, e.name, e.message, e.stack, false));
    if (kind === 10) send(11, id); // ping: pong
    if (kind === 12) await running, send(13, "done"), socket.end(); // drain: bye, when all is answered
    if (kind === 13) console.error(`${address} says: ${id}`), socket.end(); // bye
  }
  process.once("SIGTERM", () => { leaving = true; socket.pending || socket.closed ? process.exit() : send(12); }); // no more, please
  socket.on("connect", () => send(1, 1, "node", process.pid, 1, process.env.GATEWRIGHT_WORKER_TOKEN ?? "", name, os.hostname()));
  socket.on("error", (e) => console.error(`${address}: ${e.message}`));
  socket.on("close", () => { process.removeAllListeners("SIGTERM"); leaving ? process.exit() : setTimeout(join, 500); });
  socket.on("data", (data) => {
    buffer = Buffer.concat([buffer, data]);
    for (let end; buffer.length >= 4 && buffer.length >= (end = 4 + buffer.readUInt32LE(0)); buffer = buffer.subarray(end))
      running = Promise.all([running, hear(...unpack(buffer.subarray(4, end)))]);
  });
}
join();
