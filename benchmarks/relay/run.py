#!/usr/bin/env python3
"""Compares the relay with nginx, Varnish and the FastAPI relay that it replaces, in turn and in the same minutes.

Hits: 1 kB from the cache, server pinned to cpu 1, wrk (one thread, 64 connections) to cpu 0, rounds in turn. Herd:
so many clients with a connection each ask for one URL that nobody asked for before, whose upstream takes 1 s or 6 s.
It needs wrk, nginx and a built gateway; Varnish and Redis are taken if they are there, the FastAPI relay if --python
names a Python that has its packages. It writes RESULTS.md.
"""

import argparse
import os
import re
import resource
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent

GATEWRIGHT = """\
[gateway]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
max_connections = 20000
header_timeout = "60s"

[function.origin]
http = "http://127.0.0.1:{origin}"
timeout = "60s"

[[route]]
path = "/{{*path}}"
to = "origin"
cache = {{}}
"""

NGINX = """\
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
worker_rlimit_nofile 65536;
events {{ worker_connections 30000; }}
http {{
  access_log off;
  sendfile on;
  open_file_cache max=1000;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache keys_zone=z:10m;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://127.0.0.1:{origin};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache z;
      proxy_cache_lock on;
    }}
  }}
}}
"""


VARNISH = """\
vcl 4.0;
backend origin {{
  .host = "127.0.0.1";
  .port = "{origin}";
  .first_byte_timeout = 60s;
}}
"""


class Server:
    def __init__(self, command, port, cpu):
        pinned = ["taskset", "-c", str(cpu), *map(str, command)]
        self.process = subprocess.Popen(pinned, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.port = port
        for _ in range(1200):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{command[0]} does not listen")

    def cpu_seconds(self):
        """CPU time of the process and its children so far."""
        ticks = 0
        for pid in [self.process.pid, *children(self.process.pid)]:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gatewright", type=Path, default=HERE / "../../target/release/gatewright")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--python", type=Path, help="a Python with fastapi, httpx, redis and uvicorn[standard]")
    parser.add_argument("--herd", type=int, nargs="*", default=[1_000, 10_000])
    parser.add_argument("--write", action="store_true", help="write RESULTS.md")
    arguments = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        text = compare(arguments, Path(folder))
    print(text)
    if arguments.write:
        (HERE / "RESULTS.md").write_text(text)


def compare(arguments, folder):
    origin, gateway, admin, nginx, varnish, fastapi, redis = free_ports(7)
    (folder / "gatewright.toml").write_text(GATEWRIGHT.format(port=gateway, admin=admin, origin=origin))
    # Started by root, its worker would be somebody who may not enter the folder.
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=nginx, origin=origin, user=user))
    upstream = Server([sys.executable, HERE / "origin.py", origin], origin, 0)
    servers = {
        "gatewright": Server([arguments.gatewright.resolve(), "serve", folder / "gatewright.toml"], gateway, 1),
        "nginx": Server(["nginx", "-c", folder / "nginx.conf"], nginx, 1),
    }
    stores = []
    if shutil.which("varnishd"):
        (folder / "v.vcl").write_text(VARNISH.format(origin=origin))
        command = ["varnishd", "-j", "none", "-F", "-n", folder / "varnish", "-a", f"127.0.0.1:{varnish}", "-f", folder / "v.vcl"]
        servers["varnish"] = Server([*command, "-s", "malloc,256m"], varnish, 1)
    if arguments.python and shutil.which("redis-server"):
        stores.append(Server(["redis-server", "--port", redis, "--save", ""], redis, 1))
        command = [arguments.python, HERE / "fastapi_relay.py", fastapi, origin, redis]
        servers["FastAPI + Redis"] = Server(command, fastapi, 1)
    try:
        lines = hits(servers, arguments) + herds(servers, upstream, arguments)
    finally:
        for server in [*servers.values(), *stores, upstream]:
            server.stop()
    return "\n".join(lines)


def hits(servers, arguments):
    rates, costs = {name: [] for name in servers}, {name: [] for name in servers}
    for server in servers.values():
        wrk(server.port, 1)
    for _ in range(arguments.rounds):
        for name, server in servers.items():
            before = server.cpu_seconds()
            said = wrk(server.port, arguments.seconds)
            count = int(re.search(r"(\d+) requests in", said)[1])
            assert "Non-2xx" not in said, said
            rates[name].append(float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]))
            costs[name].append((server.cpu_seconds() - before) / count * 1e6)
    lines = [
        "# The relay beside its rivals",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cpus, load average at the start "
        f"{os.getloadavg()[0]:.1f}; {nginx_version()}; wrk -t1 -c64 -d{arguments.seconds}s, "
        f"{arguments.rounds} rounds in turn. Other work on the machine adds noise: the ratios count, those of CPU most.",
        "",
        "| 1 kB hit | requests/s, median (all rounds) | CPU a request, median |",
        "|---|---|---|",
    ]
    for name in servers:
        every = ", ".join(f"{rate:,.0f}" for rate in rates[name])
        lines.append(
            f"| {name} | {statistics.median(rates[name]):,.0f} ({every}) | {statistics.median(costs[name]):.2f} us |"
        )
    lines.append("")
    for rival in list(servers)[1:]:
        ratios = [ours / theirs for ours, theirs in zip(rates["gatewright"], rates[rival])]
        every = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        lines.append(f"- requests/s, gatewright / {rival}: {every}; median {statistics.median(ratios):.2f}")
        spent = [theirs / ours for ours, theirs in zip(costs["gatewright"], costs[rival])]
        every = ", ".join(f"{ratio:.2f}" for ratio in spent)
        lines.append(f"- CPU a request, {rival} / gatewright: {every}; median {statistics.median(spent):.2f}")
    return [*lines, ""]


def wrk(port, seconds):
    command = ["taskset", "-c", "0", "wrk", "-t1", "-c64", f"-d{seconds}s", f"http://127.0.0.1:{port}/hit"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def nginx_version():
    return subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.strip()


def herds(servers, upstream, arguments):
    lines = ["| herd on one cold URL | upstream requests | errors | last answer after |", "|---|---|---|---|"]
    for clients in arguments.herd:
        for path, what in [("slow", "1 s"), ("slow6", "6 s"), ("own", "1 s, not to be stored")]:
            if path == "own" and clients > 1_000:
                continue
            for name, server in servers.items():
                if name.startswith("FastAPI"):
                    continue
                before = counted(upstream)
                errors, last = herd(server.port, f"/{path}/{clients}", clients)
                asked = counted(upstream) - before
                lines.append(
                    f"| {name}, {clients:,} clients, upstream takes {what} | {asked:,} | {errors} | {last:.2f} s |"
                )
    return [*lines, ""]


def herd(port, path, clients):
    """Connects them all, then lets all ask; errors, and when the last answer was there. With bare sockets: a client
    that does more is slower than the servers."""
    watch = select.epoll()
    opened = {}
    for _ in range(clients):
        one = socket.create_connection(("127.0.0.1", port))
        one.setblocking(False)
        opened[one.fileno()] = [one, b""]
        watch.register(one, select.EPOLLIN)
    request = f"GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".encode()
    began = last = time.monotonic()
    for one, _ in opened.values():
        one.send(request)
    good, deadline = 0, began + 90
    while opened and time.monotonic() < deadline:
        for number, _ in watch.poll(1):
            client = opened[number]
            try:
                piece = client[0].recv(65536)
            except OSError:
                piece = b""
            client[1] += piece
            complete = client[1].endswith(b'a"}')
            if complete or not piece:
                last = time.monotonic()
                good += complete and client[1].startswith(b"HTTP/1.1 200")
                watch.unregister(number)
                client[0].close()
                del opened[number]
    return clients - good, last - began


def counted(upstream):
    with urllib.request.urlopen(f"http://127.0.0.1:{upstream.port}/count") as answer:
        return int(answer.read())


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    main()
