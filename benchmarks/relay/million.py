#!/usr/bin/env python3
"""Asks the relay for a million URLs, each once, and says how much memory it took.

The bound is `cache.memory`; the goal is that the gateway as a whole stays within it plus 20 % (and what it took before
it stored anything). It needs a built gateway, and writes MEMORY.md with --write.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
import urllib.request
import json
import os
from pathlib import Path

from run import HERE, free_ports

SYSTEM = """\
[gateway]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"

[cache]
memory = "{memory}MiB"

[function.origin]
http = "http://127.0.0.1:{origin}"

[[route]]
path = "/{{*path}}"
to = "origin"
cache = {{ tags = ["all", "page"] }}
"""


def resident(pid):
    """Resident memory of a process in MiB: now, and at most so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if "kB" in line}
    return values["VmRSS"], values["VmHWM"]


async def ask(port, first, count):
    """Asks for `count` URLs on one connection, a few at a time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(first, first + count, 16):
        batch = range(number, min(number + 16, first + count))
        writer.write(b"".join(b"GET /page/%d HTTP/1.1\r\nhost: h\r\n\r\n" % page for page in batch))
        for _ in batch:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(head.decode())
            length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
            await reader.readexactly(int(length))
    writer.close()


async def ask_all(port, urls, clients):
    await asyncio.gather(*(ask(port, client * urls // clients, urls // clients) for client in range(clients)))


def wait(port, path):
    for _ in range(1200):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").read()
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nobody listens at {port}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gatewright", type=Path, default=HERE / "../../target/release/gatewright")
    parser.add_argument("--urls", type=int, default=1_000_000)
    parser.add_argument("--memory", type=int, nargs="*", default=[64, 256], help="MiB")
    parser.add_argument("--write", action="store_true", help="write MEMORY.md")
    arguments = parser.parse_args()
    lines = [
        "# A million URLs",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cpus; {arguments.urls:,} URLs of 1 kB, two tags each, asked once.",
        "",
        "| cache.memory | before | at the end | at most | over the bound | keys kept | bytes counted |",
        "|---|---|---|---|---|---|---|",
    ]
    for memory in arguments.memory:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(measure(arguments, memory, Path(folder)))
    text = "\n".join([*lines, ""])
    print(text)
    if arguments.write:
        (HERE / "MEMORY.md").write_text(text)


def measure(arguments, memory, folder):
    origin, port, admin = free_ports(3)
    system = SYSTEM.format(port=port, admin=admin, origin=origin, memory=memory)
    (folder / "gatewright.toml").write_text(system)
    upstream = subprocess.Popen([sys.executable, HERE / "origin.py", str(origin)])
    command = [arguments.gatewright.resolve(), "serve", folder / "gatewright.toml"]
    gateway = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait(origin, "/count")
        wait(admin, "/healthz")
        asyncio.run(ask_all(port, 64, 16))
        before, _ = resident(gateway.pid)
        asyncio.run(ask_all(port, arguments.urls, 16))
        after, most = resident(gateway.pid)
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/system/cache") as answer:
            numbers = json.load(answer)
    finally:
        for process in (gateway, upstream):
            process.terminate()
            process.wait()
    over = (most - before) / memory - 1
    return (
        f"| {memory} MiB | {before:.0f} MiB | {after:.0f} MiB | {most:.0f} MiB | {over:+.0%} "
        f"| {numbers['keys']:,} | {numbers['bytes'] / 2**20:.0f} MiB |"
    )


if __name__ == "__main__":
    main()
