"""An upstream for the relay's benchmarks: 1024 bytes of JSON, fresh for an hour; `/slow*` after a second, `/slow6*`
after six, `/own*` not to be stored; `/count` says how many requests there were,
`/last` at which moment of the machine's monotonic clock the last of them was answered."""

import asyncio
import sys
import time

BODY = b'{"x":"' + b"a" * 1016 + b'"}'
count, last = 0, 0.0


def head(length, control):
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\ncache-control: %s\r\n\r\n"
        % (length, control)
    )


async def serve(reader, writer):
    global count, last
    try:
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            path = request.split(b" ", 2)[1].decode()
            if path.startswith("/count"):
                body = b"%d" % count
                writer.write(head(len(body), b"no-store") + body)
                continue
            if path.startswith("/last"):
                body = b"%.6f" % last
                writer.write(head(len(body), b"no-store") + body)
                continue
            count += 1
            if "/slow6" in path:
                await asyncio.sleep(6)
            elif "/slow" in path or "/own" in path:
                await asyncio.sleep(1)
            control = b"private" if "/own" in path else b"max-age=3600"
            last = time.monotonic()
            writer.write(head(len(BODY), control) + BODY)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()


asyncio.run(main())
