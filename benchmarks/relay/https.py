#!/usr/bin/env python3
"""Compares 1 kB hits over TLS 1.3, in HTTP/1.1 and HTTP/2, with those of nginx, in turn and in the same minutes.

Server pinned to cpu 1, h2load (one thread) to cpu 0: 64 connections with a request each in HTTP/1.1; 8 connections with
16 requests each in HTTP/2. It needs h2load, openssl, nginx and a built gateway. It writes HTTPS.md.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from run import GATEWRIGHT, HERE, NGINX, Server, free_ports, nginx_version

TLS = """\
    ssl_certificate {folder}/own.pem;
    ssl_certificate_key {folder}/own.key;
    ssl_protocols TLSv1.3;
"""
LOADS = {
    "HTTP/1.1, TLS 1.3": ["--h1", "-c64", "-m1"],
    "HTTP/2, TLS 1.3": ["-c8", "-m16"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gatewright", type=Path, default=HERE / "../../target/release/gatewright")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write HTTPS.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        text = compare(arguments, Path(folder))
    print(text)
    if arguments.write:
        (HERE / "HTTPS.md").write_text(text)


def compare(arguments, folder):
    origin, gateway, admin, nginx = free_ports(4)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        + ["-keyout", folder / "own.key", "-out", folder / "own.pem"],
        check=True,
        capture_output=True,
    )
    ours = GATEWRIGHT.format(port=gateway, admin=admin, origin=origin)
    tls = '[gateway]\ntls = { certificate = "own.pem", key = "own.key" }\n'
    (folder / "gatewright.toml").write_text(ours.replace("[gateway]\n", tls))
    user = "user root;" if os.getuid() == 0 else ""
    theirs = NGINX.format(folder=folder, port=nginx, origin=origin, user=user)
    theirs = theirs.replace("backlog=4096;", "backlog=4096 ssl http2;\n" + TLS.format(folder=folder))
    (folder / "nginx.conf").write_text(theirs)
    upstream = Server([sys.executable, HERE / "origin.py", origin], origin, 0)
    servers = {
        "gatewright": Server([arguments.gatewright.resolve(), "serve", folder / "gatewright.toml"], gateway, 1),
        "nginx": Server(["nginx", "-c", folder / "nginx.conf"], nginx, 1),
    }
    try:
        return "\n".join(hits(servers, arguments))
    finally:
        for server in [*servers.values(), upstream]:
            server.stop()


def hits(servers, arguments):
    lines = [
        "# Hits over TLS",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cpus, load average at the start {os.getloadavg()[0]:.1f}; "
        f"{nginx_version()}; h2load -t1 -D{arguments.seconds}, {arguments.rounds} rounds in turn, 1 kB from the cache. "
        "Other work on the machine adds noise: the ratios count, those of CPU most.",
        "",
        "| | server | requests/s, median (all rounds) | CPU a request, median |",
        "|---|---|---|---|",
    ]
    ratios = []
    for load, flags in LOADS.items():
        rates, costs = {name: [] for name in servers}, {name: [] for name in servers}
        for server in servers.values():
            h2load(server.port, flags, 1)
        for _ in range(arguments.rounds):
            for name, server in servers.items():
                before = server.cpu_seconds()
                rate, count = h2load(server.port, flags, arguments.seconds)
                rates[name].append(rate)
                costs[name].append((server.cpu_seconds() - before) / count * 1e6)
        for name in servers:
            every = ", ".join(f"{rate:,.0f}" for rate in rates[name])
            rate, cost = statistics.median(rates[name]), statistics.median(costs[name])
            lines.append(f"| {load} | {name} | {rate:,.0f} ({every}) | {cost:.2f} us |")
        more = [ours / theirs for ours, theirs in zip(rates["gatewright"], rates["nginx"])]
        less = [theirs / ours for ours, theirs in zip(costs["gatewright"], costs["nginx"])]
        ratios.append(
            f"- {load}: requests/s, gatewright / nginx: median {statistics.median(more):.2f}; "
            f"CPU a request, nginx / gatewright: median {statistics.median(less):.2f}"
        )
    return [*lines, "", *ratios, ""]


def h2load(port, flags, seconds):
    """Requests a second, and how many were answered well."""
    command = ["taskset", "-c", "0", "h2load", "-t1", *flags, f"-D{seconds}", f"https://127.0.0.1:{port}/hit"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    good, others = re.search(r"status codes: (\d+) 2xx, (.*)", said).groups()
    assert others == "0 3xx, 0 4xx, 0 5xx" and " 0 failed" in said and "TLSv1.3" in said, said
    return float(re.search(r"([\d.]+) req/s", said)[1]), int(good)


if __name__ == "__main__":
    main()
