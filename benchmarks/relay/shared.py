#!/usr/bin/env python3
"""What the shared tier costs: hits and misses of a relay whose Redis is well, frozen, killed, back, and full.

One client asks for a page that is in memory and for one that nobody asked for, in turn. It needs redis-server and a
built gateway, and writes SHARED.md with --write.
"""

import argparse
import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from run import GATEWRIGHT, HERE, Server, free_ports


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gatewright", type=Path, default=HERE / "../../target/release/gatewright")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--write", action="store_true", help="write SHARED.md")
    arguments = parser.parse_args()
    lines = [
        "# The shared tier in trouble",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cpus, load average {os.getloadavg()[0]:.1f}; one client, "
        f"{arguments.seconds:g} s each. Milliseconds.",
        "",
        "| Redis is | requests | failed | hit, median | hit, most | miss, median | miss, 99 % | miss, most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        lines += measure(arguments, Path(folder))
    text = "\n".join([*lines, ""])
    print(text)
    if arguments.write:
        (HERE / "SHARED.md").write_text(text)


def measure(arguments, folder):
    origin, port, admin, redis, alone, alone_admin = free_ports(6)
    shared = f'[cache]\nshared = "redis://127.0.0.1:{redis}"\n'
    for name, listen, operations, more in [("shared", port, admin, shared), ("alone", alone, alone_admin, "")]:
        text = GATEWRIGHT.format(port=listen, admin=operations, origin=origin) + more
        (folder / f"{name}.toml").write_text(text)
    upstream = Server([sys.executable, HERE / "origin.py", origin], origin, 0)
    store = Server(["redis-server", "--port", redis, "--save", ""], redis, 0)
    servers = [
        Server([arguments.gatewright.resolve(), "serve", folder / f"{name}.toml"], at, 1)
        for name, at in [("alone", alone), ("shared", port)]
    ]
    rows = []
    try:
        rows.append(phase("not configured", alone, arguments.seconds))
        rows.append(phase("well", port, arguments.seconds))
        os.kill(store.process.pid, signal.SIGSTOP)
        rows.append(phase("frozen", port, arguments.seconds))
        os.kill(store.process.pid, signal.SIGCONT)
        time.sleep(3)
        rows.append(phase("well again", port, arguments.seconds))
        store.process.kill()
        store.process.wait()
        rows.append(phase("killed", port, arguments.seconds))
        store = Server(["redis-server", "--port", redis, "--save", ""], redis, 0)
        time.sleep(3)
        rows.append(phase("back", port, arguments.seconds))
        for setting in ["maxmemory-policy noeviction", "maxmemory 1mb"]:
            with socket.create_connection(("127.0.0.1", redis)) as ask:
                ask.sendall(f"CONFIG SET {setting}\r\n".encode())
                ask.recv(64)
        rows.append(phase("full", port, arguments.seconds))
    finally:
        for server in [*servers, store, upstream]:
            server.stop()
    return rows


def phase(name, port, seconds):
    client = http.client.HTTPConnection("127.0.0.1", port)
    hits, misses, failed = [], [], 0
    end = time.monotonic() + seconds
    ask(client, "/hot")
    while time.monotonic() < end:
        for times, path in [(hits, "/hot"), (misses, f"/{name.replace(' ', '-')}/{len(misses)}")]:
            began = time.monotonic()
            failed += ask(client, path) != 200
            times.append((time.monotonic() - began) * 1e3)
    client.close()
    misses.sort()
    return (
        f"| {name} | {len(hits) + len(misses):,} | {failed} | {statistics.median(hits):.2f} | {max(hits):.1f} "
        f"| {statistics.median(misses):.2f} | {misses[int(len(misses) * 0.99)]:.1f} | {misses[-1]:.1f} |"
    )


def ask(client, path):
    client.request("GET", path)
    answer = client.getresponse()
    answer.read()
    return answer.status


if __name__ == "__main__":
    main()
