#!/usr/bin/env python3
"""How long after its upstream's answer a herd has its own: so many clients, a connection each, opened beforehand, ask
for one URL that nobody asked for before, whose upstream takes 1 s or 6 s.

The clients do nothing while answers come: when the last bytes of each came is asked of the kernel afterwards (TCP_INFO,
to the millisecond), so what is measured is the gateway and not its clients. Where other work shares the processors, it
counts how long the gateway's threads ran for the answers, and how long they were ready and had no processor: that is the
kernel's account of each (schedstat). It needs a built gateway, and Linux. It writes HERD.md.
"""

import argparse
import os
import resource
import socket
import statistics
import struct
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from run import GATEWRIGHT, HERE, Server, free_ports

# Where tcpi_last_data_recv is in the kernel's struct tcp_info.
LAST_DATA_RECV = 52
CASES = [("slow", "1 s"), ("slow6", "6 s"), ("own", "1 s, not to be stored")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gatewright", type=Path, default=HERE / "../../target/release/gatewright")
    parser.add_argument("--clients", type=int, nargs="*", default=[1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write HERD.md")
    arguments = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    lines = [
        "# Herds",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cpus, load average at the start {os.getloadavg()[0]:.1f}, "
        f"{arguments.rounds} rounds. Milliseconds after the upstream's (last) answer.",
        "",
        "| clients | upstream takes | upstream requests | errors | half have theirs | the last has its own (all rounds) "
        "| its busiest thread ran | and had no processor | CPU of the gateway, all in all |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for clients in arguments.clients:
        for path, what in CASES:
            if path == "own" and clients > 1_000:
                continue
            rounds = [fresh_herd(arguments, path, clients) for _ in range(arguments.rounds)]
            asked, errors = max(one[0] for one in rounds), sum(one[1] for one in rounds)
            half = statistics.median(one[2] for one in rounds)
            every = ", ".join(f"{one[3] * 1e3:.0f}" for one in rounds)
            last = statistics.median(one[3] for one in rounds)
            ran, waited, cpu = (statistics.median(one[what] for one in rounds) for what in (4, 5, 6))
            lines.append(
                f"| {clients:,} | {what} | {asked:,} | {errors} | {half * 1e3:.0f} | {last * 1e3:.0f} ({every}) "
                f"| {ran * 1e3:.0f} | {waited * 1e3:.0f} | {cpu * 1e3:.0f} |"
            )
            print(lines[-1], file=sys.stderr)
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.write:
        (HERE / "HERD.md").write_text(text)


def fresh_herd(arguments, path, clients):
    """A herd before a gateway that was just started."""
    cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        origin, port, admin = free_ports(3)
        (Path(folder) / "gatewright.toml").write_text(GATEWRIGHT.format(port=port, admin=admin, origin=origin))
        upstream = Server([sys.executable, HERE / "origin.py", origin], origin, cpus)
        command = [arguments.gatewright.resolve(), "serve", Path(folder) / "gatewright.toml"]
        gateway = Server(command, port, cpus)
        try:
            return herd(gateway, upstream, f"/{path}/{clients}", clients)
        finally:
            gateway.stop()
            upstream.stop()


def herd(gateway, upstream, path, clients):
    """Upstream requests, errors, how long after the upstream's answer half of them and all of them had theirs, how long
    the gateway's busiest thread ran and waited for a processor meanwhile, and its CPU time since the first request."""
    opened = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(clients)]
    request = f"GET {path} HTTP/1.1\r\nhost: h\r\n\r\n".encode()
    began = time.monotonic()
    cpu = gateway.cpu_seconds()
    for one in opened:
        one.send(request)
    # Shortly before the upstream answers, when all have asked.
    time.sleep(max(0, began + (5.9 if "slow6" in path else 0.9) - time.monotonic()))
    before = threads(gateway.process.pid)
    # Until nothing has come any more for twice as long as an upstream takes that is asked once more.
    while True:
        time.sleep(1)
        now = time.monotonic()
        came = [now - since_data(one) for one in opened]
        if now - max(came) > 2 or now - began > 60:
            break
    cpu = gateway.cpu_seconds() - cpu
    spans = threads(gateway.process.pid)
    ran, waited = max((spans[one][0] - before[one][0], spans[one][1] - before[one][1]) for one in before)
    asked, answered = said(upstream, "count"), said(upstream, "last")
    errors = 0
    for one in opened:
        one.setblocking(False)
        try:
            answer = one.recv(65536)
        except OSError:
            answer = b""
        errors += not (answer.startswith(b"HTTP/1.1 200") and answer.endswith(b'a"}'))
        one.close()
    after = sorted(moment - answered for moment in came)
    return int(asked), errors, after[len(after) // 2], after[-1], ran, waited, cpu


def threads(pid):
    """Seconds that each thread ran, and was ready without a processor."""
    spans = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        ran, waited, _ = (thread / "schedstat").read_text().split()
        spans[thread.name] = (int(ran) / 1e9, int(waited) / 1e9)
    return spans


def since_data(one):
    """Seconds since the last byte came."""
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, LAST_DATA_RECV + 4)
    return struct.unpack_from("I", info, LAST_DATA_RECV)[0] / 1e3


def said(upstream, what):
    with urllib.request.urlopen(f"http://127.0.0.1:{upstream.port}/{what}") as answer:
        return float(answer.read())


if __name__ == "__main__":
    main()
