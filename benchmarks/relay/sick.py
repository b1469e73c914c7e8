#!/usr/bin/env python3
"""What clients get while an upstream is sick: flapping, resetting in mid-body, hanging, answering 500, each for a minute.

One gateway, one upstream, real sockets. Pages are fresh for a second. Clients ask, each a hundred times a second at most,
for pages that may be served stale for ten minutes, for pages that may be stale for a third of the sickness, and for
pages that are not cached. Each answer says when the upstream made it, so that its age is known without trusting the
gateway. A whole request has 2 s, the head of an answer 1 s. It needs a built gateway; it writes SICK.md.
"""

import argparse
import asyncio
import collections
import http.client
import json
import os
import socket
import struct
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from run import HERE, Server, free_ports

SYSTEM = """\
[gateway]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"

[function.origin]
http = "http://127.0.0.1:{origin}"
timeout = "2s"
timeouts = {{ head = "1s", idle = "1s" }}
retries = {{ attempts = 2 }}
breaker = {{ failures = 5, open = "1s", max_open = "4s" }}

[[route]]
path = "/long/{{*path}}"
to = "origin"
cache = {{ stale_if_error = "10m" }}

[[route]]
path = "/short/{{*path}}"
to = "origin"
cache = {{ stale_if_error = "{short}s" }}

[[route]]
path = "/bare/{{*path}}"
to = "origin"
"""
DEADLINE = 2.0
# A client that was not scheduled, and the clock of the gateway's timers.
GRACE = 0.1
FRESH = 1.0
CLIENTS = {"long": 4, "short": 4, "bare": 4}
PAGES = 5
FAULTS = ["flapping", "resetting", "hanging", "500"]


class Upstream:
    """Answers as its mood says, and counts whom it heard."""

    def __init__(self, port):
        self.port, self.mood, self.since, self.asked = port, "well", 0.0, 0
        threading.Thread(target=lambda: asyncio.run(self.serve()), daemon=True).start()

    def turn(self, mood):
        self.mood, self.since, self.asked = mood, time.monotonic(), 0

    async def serve(self):
        server = await asyncio.start_server(self.answer, "127.0.0.1", self.port, backlog=4096)
        await server.serve_forever()

    def now(self):
        """What it does with a request of this moment: a flapping one is gone every other second."""
        if self.mood != "flapping":
            return self.mood
        return "closing" if int(time.monotonic() - self.since) % 2 == 0 else "well"

    async def answer(self, reader, writer):
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked += 1
                mood = self.now()
                body = (b"%.6f " % time.monotonic()).ljust(1024, b"x")
                status = b"500 Sick" if mood == "500" else b"200 OK"
                # Also of errors: they are fresh as well, but must not stand in for one another.
                head = b"HTTP/1.1 %s\r\ncontent-length: 1024\r\ncache-control: max-age=1\r\n\r\n" % status
                if mood == "closing":
                    break
                if mood == "hanging":
                    await asyncio.sleep(3600)
                if mood == "resetting":
                    writer.write(head + body[:512])
                    await writer.drain()
                    await asyncio.sleep(0.01)
                    reset = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    writer.transport.abort()
                    return
                writer.write(head + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


class Tally:
    """What became of the requests of a kind."""

    def __init__(self):
        self.counts, self.slowest, self.oldest, self.late = collections.Counter(), 0.0, 0.0, 0


class Clients:
    """Ask until they are told to stop."""

    def __init__(self, port, window):
        self.port, self.window, self.going = port, window, True
        self.tallies = {kind: Tally() for kind in CLIENTS}
        self.lock = threading.Lock()
        jobs = [(kind, number) for kind, many in CLIENTS.items() for number in range(many)]
        self.threads = [threading.Thread(target=self.ask, args=job) for job in jobs]
        for one in self.threads:
            one.start()

    def stop_after(self, seconds):
        time.sleep(seconds)
        return self.stop()

    def stop(self):
        self.going = False
        for one in self.threads:
            one.join()
        return self.tallies

    def ask(self, kind, number):
        client, asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30), number
        while self.going:
            asked += 1
            began = time.monotonic()
            try:
                client.request("GET", f"/{kind}/{asked % PAGES}")
                answer = client.getresponse()
                body = answer.read()
                outcome, age = self.judge(kind, answer, body, time.monotonic())
            except (http.client.HTTPException, OSError):
                client.close()
                outcome, age = "cut off", 0.0
            took = time.monotonic() - began
            with self.lock:
                tally = self.tallies[kind]
                tally.counts[outcome] += 1
                tally.slowest = max(tally.slowest, took)
                tally.oldest = max(tally.oldest, age)
                tally.late += took > DEADLINE + GRACE
            time.sleep(0.01)
        client.close()

    def judge(self, kind, answer, body, now):
        if answer.status != 200:
            told = answer.status == 500 or b'"error"' in body
            return (str(answer.status) if told else "unclear"), 0.0
        if len(body) != 1024:
            return "short", 0.0
        age = now - float(body.split()[0])
        # Ages are whole seconds at the gateway, and a page is as old as the answer's way.
        if age <= FRESH + 1.0:
            return "fresh", age
        allowed = self.window[kind] + FRESH + 1.0 + GRACE
        return ("stale" if age <= allowed else "too old"), age


class Breaker:
    """Watches the upstream's condition over the admin API."""

    def __init__(self, admin):
        self.url, self.going = f"http://127.0.0.1:{admin}/system/function/origin", True
        self.opened = self.closed = 0
        self.condition = "healthy"
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        while self.going:
            with urllib.request.urlopen(self.url) as answer:
                condition = json.load(answer)["instances"][0]["condition"]
            self.opened += self.condition == "healthy" and condition != "healthy"
            self.closed += self.condition != "healthy" and condition == "healthy"
            self.condition = condition
            time.sleep(0.02)

    def stop(self):
        self.going = False
        self.thread.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gatewright", type=Path, default=HERE / "../../target/release/gatewright")
    parser.add_argument("--seconds", type=float, default=10, help="how long each sickness lasts")
    parser.add_argument("--faults", nargs="*", default=FAULTS, choices=FAULTS)
    parser.add_argument("--write", action="store_true", help="write SICK.md")
    arguments = parser.parse_args()
    lines, good = table(arguments)
    text = "\n".join([*lines, ""])
    print(text)
    if arguments.write:
        (HERE / "SICK.md").write_text(text)
    sys.exit(0 if good else 1)


def table(arguments):
    short = max(2, round(arguments.seconds / 3))
    lines = [
        "# An upstream that is sick",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cpus, load average at the start {os.getloadavg()[0]:.1f}; "
        f"each sickness {arguments.seconds:g} s. *long* pages may be stale for 10 minutes, *short* ones for {short} s, "
        f"*bare* ones are not cached. Every request has {DEADLINE:g} s.",
        "",
        "| upstream | pages | answers | slowest, s | beyond its deadline | oldest page, s |",
        "|---|---|---|---|---|---|",
    ]
    notes, good = [], True
    for fault in arguments.faults:
        rows, note, fine = sickness(arguments, fault, short)
        lines += rows
        notes.append(note)
        good &= fine
        print("\n".join([*rows, note]), file=sys.stderr)
    return [*lines, "", *notes], good


def sickness(arguments, fault, short):
    """Rows of the table, a note on the breaker, and whether all is as it has to be."""
    origin, port, admin = free_ports(3)
    upstream = Upstream(origin)
    window = {"long": 600.0, "short": short, "bare": 0.0}
    cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    with tempfile.TemporaryDirectory() as folder:
        system = Path(folder) / "gatewright.toml"
        system.write_text(SYSTEM.format(port=port, admin=admin, origin=origin, short=short))
        gateway = Server([arguments.gatewright.resolve(), "serve", system], port, cpus)
        try:
            Clients(port, window).stop_after(1.5)
            breaker, clients = Breaker(admin), Clients(port, window)
            upstream.turn(fault)
            tallies = clients.stop_after(arguments.seconds)
            asked, opened = upstream.asked, breaker.opened
            upstream.turn("well")
            back = until_back(port, breaker)
            breaker.stop()
        finally:
            gateway.stop()
    rows = [row(fault, kind, tally) for kind, tally in tallies.items()]
    sent = sum(sum(tally.counts.values()) for tally in tallies.values())
    note = (
        f"- {fault}: the breaker opened {opened} times and closed {breaker.closed} times; the upstream heard {asked:,} "
        f"requests where clients sent {sent:,}; {back:.1f} s after it was well it was asked as before."
    )
    return rows, note, holds(tallies, opened, breaker.closed)


def row(fault, kind, tally):
    counts = ", ".join(f"{many:,} x {what}" for what, many in sorted(tally.counts.items()))
    oldest = f"{tally.oldest:.1f}" if tally.oldest else ""
    return f"| {fault} | {kind} | {counts} | {tally.slowest:.2f} | {tally.late} | {oldest} |"


def until_back(port, breaker):
    """Seconds until the breaker is closed and a page that is not cached is answered."""
    began = time.monotonic()
    while time.monotonic() - began < 30:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        client.request("GET", "/bare/0")
        answer = client.getresponse()
        answer.read()
        client.close()
        if answer.status == 200 and breaker.condition == "healthy":
            return time.monotonic() - began
        time.sleep(0.02)
    raise SystemExit("the upstream is well and never asked again")


def holds(tallies, opened, closed):
    """Pages with a long window are always there; nothing is late, short, too old or unclear; a breaker that opened has
    closed; one that has to open did."""
    bad = [tally.counts[what] for tally in tallies.values() for what in ("too old", "short", "unclear")]
    missing = sum(many for what, many in tallies["long"].counts.items() if what not in ("fresh", "stale"))
    late = sum(tally.late for tally in tallies.values())
    return not any(bad) and not missing and not late and opened > 0 and closed >= 1


if __name__ == "__main__":
    main()
