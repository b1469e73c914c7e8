// A worker of Gatewright in Node.js, without packages: node worker.js HOST:PORT FUNCTION
// The protocol is docs/reference/worker-protocol.md. What it serves is `call`.
const net = require("node:net"), os = require("node:os");
const call = async ([x], named) => ({ square: (x ?? named.x) ** 2, by: `node ${process.version}` });

// msgpack, as much of it as JSON has, and bytes. What it writes is never the shortest form, and need not be.
function pack(v, out = []) {
  const head = (byte, size, n) => { const b = Buffer.alloc(1 + size, byte); b.writeUIntBE(n, 1, size); out.push(b); };
  const eight = (byte, write, n) => { const b = Buffer.alloc(9, byte); b[write](n, 1); out.push(b); };
  if (v === null || v === undefined) out.push(Buffer.from([0xc0]));
  else if (typeof v === "boolean") out.push(Buffer.from([v ? 0xc3 : 0xc2]));
  else if (typeof v === "bigint") eight(...(v < 0 ? [0xd3, "writeBigInt64BE", v] : [0xcf, "writeBigUInt64BE", v]));
  else if (Number.isSafeInteger(v)) eight(0xd3, "writeBigInt64BE", BigInt(v));
  else if (typeof v === "number") eight(0xcb, "writeDoubleBE", v);
  else if (typeof v === "string") { const b = Buffer.from(v); head(0xdb, 4, b.length); out.push(b); }
  else if (Buffer.isBuffer(v)) { head(0xc6, 4, v.length); out.push(v); }
  else if (Array.isArray(v)) { head(0xdd, 4, v.length); for (const item of v) pack(item, out); }
  else { const all = Object.entries(v); head(0xdf, 4, all.length); for (const pair of all) pair.map((part) => pack(part, out)); }
  return out;
}
function unpack(b) {
  let at = 0;
  const uint = (n) => (at += n, n === 8 ? b.readBigUInt64BE(at - 8) : b.readUIntBE(at - n, n));
  const int = (n) => (at += n, n === 8 ? Number(b.readBigInt64BE(at - 8)) : b.readIntBE(at - n, n));
  const bytes = (n) => b.subarray(at, at += n);
  const list = (n) => Array.from({ length: n }, value);
  const map = (n) => Object.fromEntries(Array.from({ length: n }, () => [value(), value()]));
  function value() {
    const t = b[at++], within = (first, last) => t >= first && t <= last;
    if (t < 0x80) return t;
    if (t < 0xa0) return t < 0x90 ? map(t & 15) : list(t & 15);
    if (t < 0xc0) return bytes(t & 31).toString();
    if (t >= 0xe0) return t - 256;
    if (within(0xc4, 0xc6)) return bytes(uint(1 << (t - 0xc4)));
    if (within(0xca, 0xcb)) return at += t - 0xca ? 8 : 4, t - 0xca ? b.readDoubleBE(at - 8) : b.readFloatBE(at - 4);
    if (within(0xcc, 0xd3)) return t < 0xd0 ? uint(1 << (t - 0xcc)) : int(1 << (t - 0xd0));
    if (within(0xd9, 0xdb)) return bytes(uint(1 << (t - 0xd9))).toString();
    if (within(0xdc, 0xdf)) return (t < 0xde ? list : map)(uint(t % 2 ? 4 : 2));
    if (t in { 0xc0: 0, 0xc2: 0, 0xc3: 0 }) return { 0xc0: null, 0xc2: false, 0xc3: true }[t];
    throw new Error(`msgpack 0x${t.toString(16)} is not understood`);
  }
  return value();
}

const [address, name] = process.argv.slice(2), [host, port] = address.split(":");
let leaving = false;
function join() {
  const socket = net.connect(Number(port), host), running = new Set(), send = (...frame) => {
    const body = Buffer.concat(pack(frame)), length = Buffer.alloc(4);
    length.writeUInt32LE(body.length);
    socket.write(Buffer.concat([length, body]));
  };
  const leave = () => { leaving = true; socket.pending || socket.closed ? process.exit() : send(12); };
  process.once("SIGTERM", leave); // drain: no more requests, please
  let buffer = Buffer.alloc(0);
  socket.on("connect", () => send(1, 1, "node", process.pid, 1, process.env.GATEWRIGHT_WORKER_TOKEN ?? "", name, os.hostname()));
  socket.on("error", (e) => console.error(`${address}: ${e.message}`));
  socket.on("close", () => { process.off("SIGTERM", leave); leaving ? process.exit() : setTimeout(join, 500); });
  socket.on("data", (data) => {
    buffer = Buffer.concat([buffer, data]);
    for (let end; buffer.length >= 4 && buffer.length >= (end = 4 + buffer.readUInt32LE(0)); buffer = buffer.subarray(end))
      hear(...unpack(buffer.subarray(4, end)));
  });
  async function hear(kind, id, _deadline, _attempt, args, named) {
    if (kind === 2) send(3); // init: ready
    if (kind === 5) { // request: response or error
      const answer = call(args, named).then((result) => send(6, id, result)).catch((e) => send(8, id, e.name, e.message, e.stack, false));
      running.add(answer), await answer, running.delete(answer);
    }
    if (kind === 10) send(11, id); // ping: pong
    if (kind === 12) await Promise.all(running), send(13, "done"), socket.end(); // drain: bye, when all is answered
    if (kind === 13) console.error(`${address} says: ${id}`), socket.end(); // bye
  }
}
join();
