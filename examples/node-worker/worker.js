// A worker of Gatewright in Node.js, without packages: node worker.js HOST:PORT FUNCTION
// The protocol is docs/reference/worker-protocol.md. What it serves is `call`.
const net = require("node:net"), os = require("node:os");
const call = async (x) => ({ square: x * x, by: `node ${process.version}` });

// msgpack, as much of it as JSON has, and bytes.
function pack(v, out = []) {
  const head = (byte, size, n) => { const b = Buffer.alloc(1 + size); b[0] = byte; b.writeUIntBE(n, 1, size); out.push(b); };
  if (v === null || v === undefined) out.push(Buffer.from([0xc0]));
  else if (typeof v === "boolean") out.push(Buffer.from([v ? 0xc3 : 0xc2]));
  else if (typeof v === "bigint") { const b = Buffer.alloc(9); b[0] = 0xcf; b.writeBigUInt64BE(v, 1); out.push(b); }
  else if (Number.isInteger(v) && v >= 0 && v < 2 ** 32) head(0xce, 4, v);
  else if (Number.isSafeInteger(v)) { const b = Buffer.alloc(9); b[0] = 0xd3; b.writeBigInt64BE(BigInt(v), 1); out.push(b); }
  else if (typeof v === "number") { const b = Buffer.alloc(9); b[0] = 0xcb; b.writeDoubleBE(v, 1); out.push(b); }
  else if (typeof v === "string") { const b = Buffer.from(v); head(0xdb, 4, b.length); out.push(b); }
  else if (Buffer.isBuffer(v)) { head(0xc6, 4, v.length); out.push(v); }
  else if (Array.isArray(v)) { head(0xdd, 4, v.length); for (const item of v) pack(item, out); }
  else { const all = Object.entries(v); head(0xdf, 4, all.length); for (const [k, item] of all) { pack(k, out); pack(item, out); } }
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
    const t = b[at++];
    if (t < 0x80) return t;
    if (t < 0x90) return map(t & 15);
    if (t < 0xa0) return list(t & 15);
    if (t < 0xc0) return bytes(t & 31).toString();
    if (t >= 0xe0) return t - 256;
    if (t >= 0xc4 && t <= 0xc6) return bytes(uint(1 << (t - 0xc4)));
    if (t === 0xca) return at += 4, b.readFloatBE(at - 4);
    if (t === 0xcb) return at += 8, b.readDoubleBE(at - 8);
    if (t >= 0xcc && t <= 0xcf) return uint(1 << (t - 0xcc));
    if (t >= 0xd0 && t <= 0xd3) return int(1 << (t - 0xd0));
    if (t >= 0xd9 && t <= 0xdb) return bytes(uint(1 << (t - 0xd9))).toString();
    if (t === 0xdc || t === 0xdd) return list(uint(t === 0xdc ? 2 : 4));
    if (t === 0xde || t === 0xdf) return map(uint(t === 0xde ? 2 : 4));
    if (t === 0xc0 || t === 0xc2 || t === 0xc3) return { 0xc0: null, 0xc2: false, 0xc3: true }[t];
    throw new Error(`msgpack 0x${t.toString(16)} is not understood`);
  }
  return value();
}

const [address, name] = process.argv.slice(2), [host, port] = address.split(":");
function join() {
  const socket = net.connect(Number(port), host), send = (...frame) => {
    const body = Buffer.concat(pack(frame)), length = Buffer.alloc(4);
    length.writeUInt32LE(body.length);
    socket.write(Buffer.concat([length, body]));
  };
  let buffer = Buffer.alloc(0);
  socket.on("connect", () => send(1, 1, "node", process.pid, 1, process.env.GATEWRIGHT_WORKER_TOKEN ?? "", name, os.hostname()));
  socket.on("error", () => {}).on("close", () => setTimeout(join, 500));
  socket.on("data", (data) => {
    buffer = Buffer.concat([buffer, data]);
    for (let end; buffer.length >= 4 && buffer.length >= (end = 4 + buffer.readUInt32LE(0)); buffer = buffer.subarray(end))
      hear(...unpack(buffer.subarray(4, end)));
  });
  async function hear(kind, id, _deadline, _attempt, args) {
    if (kind === 2) send(3); // init: ready
    if (kind === 5) await call(...args).then((result) => send(6, id, result), (e) => send(8, id, e.name, e.message, e.stack, false));
    if (kind === 10) send(11, id); // ping: pong
    if (kind === 12) { send(13, "done"); socket.end(); } // drain: bye
  }
}
join();
