#!/usr/bin/env python3
"""Every fault ten times under load: what became of each request, and of the pool.

    make build venv && python3 benchmarks/faults/run.py

Runs a real gateway with real workers for each fault, breaks something, and counts: requests sent, their answers by
status, connections cut (which only the death of the gateway itself may do), requests that nobody ever answered,
refusals that do not say what is wrong and when to come back, and calls that were begun twice. Each fault is tried
with `retries.attempts` 1 (nothing may be begun twice) and 2 (answered all the same wherever that can be).

Prints a table and writes it to RESULTS.md beside this file. Linux only: it looks into /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import statistics
import struct
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Awaitable, Callable

import harness
from harness import Books, Cable, Client, Gateway, remote_worker, send

HERE = Path(__file__).resolve().parent


@dataclass
class Row:
    """What came of a fault."""

    fault: str
    attempts: int
    rounds: int
    books: Books
    recovered: list[float] = field(default_factory=list)
    before: int = 0
    after: int = 0
    notes: list[str] = field(default_factory=list)

    def cells(self) -> list[str]:
        books = self.books
        statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(books.statuses.items()))
        twice = "" if self.attempts > 1 else str(books.twice())
        back = ""
        if self.recovered:
            back = f"{statistics.median(self.recovered) * 1e3:,.0f} ({max(self.recovered) * 1e3:,.0f})"
        memory = f"{self.before / 2**20:.1f} -> {self.after / 2**20:.1f}"
        numbers = [f"{books.sent:,}", statuses, str(books.cut), str(books.lost), str(books.unclear + books.wrong)]
        return [self.fault, str(self.attempts), *numbers, twice, back, memory, "; ".join(self.notes)]


HEAD = ["fault", "attempts", "sent", "answered", "cut", "lost", "unclear", "twice", "pool whole after ms (worst)",
        "gateway MiB", "notes"]

NOTES = """Made by `benchmarks/faults/run.py`. *cut* are connections that ended before their answer; *lost* are requests that
were never answered; *unclear* are refusals without an error or a time to come back, and wrong answers; *twice* are
requests that were begun more than once with one attempt. A 502 is a request whose worker was lost after it may have
begun: one for each death at most with one attempt; with two, one whose second worker dies as well. A 504 is the
request that a frozen worker had. A call takes 20 ms (2 ms in the flood), so that all workers of a loaded pool are busy.
"""

#: What one fault does to a gateway, once; the number of the round is given.
Strike = Callable[[Gateway, Books, int], Awaitable[None]]


@dataclass
class Fault:
    """A fault that a running gateway lives through."""

    name: str
    strike: Strike
    clients: int = 8
    function: str = ""
    replaced: bool = True
    full: bool = False

    async def run(self, options: argparse.Namespace, attempts: int) -> Row:
        gateway = Gateway(options.gatewright, definition(attempts, self.function), hub=True, full=self.full)
        await gateway.start()
        books = Books(gateway)
        row = Row(self.name, attempts, options.rounds, books)
        async with books.under_load(self.clients):
            row.before = gateway.rss()
            for number in range(options.rounds):
                lost = (await gateway.view())["totals"]["replicas_lost"]
                old = set(gateway.workers())
                begin = time.monotonic()
                await self.strike(gateway, books, number)
                if self.replaced:
                    await gateway.until(lambda view: view["totals"]["replicas_lost"] > lost or not old & set(gateway.workers()))
                await gateway.until(lambda view: view["availableReplicas"] == 2)
                row.recovered.append(time.monotonic() - begin)
                await asyncio.sleep(0.2)
            row.after = gateway.rss()
        await close(gateway, row)
        return row


def definition(attempts: int, more: str = "") -> str:
    return (
        f'python = "models:Journal"\nreplicas = {{ min = 2 }}\n'
        f"retries = {{ attempts = {attempts}, budget = 10.0 }}\n{more}\n"
    )


async def close(gateway: Gateway, row: Row) -> None:
    """Checks the books of a gateway and ends it."""
    await gateway.until(lambda view: view["inFlight"] == 0 and view["queued"] == 0)
    totals = (await gateway.view())["totals"]
    ended = sum(totals[name] for name in ("ok", "error", "timed_out", "cancelled", "shed", "lost"))
    if totals["arrived"] != ended:
        row.notes.append(f"BOOKS: {totals}")
    status = await gateway.stop()
    if status != 0:
        row.notes.append(f"exit status {status}")
    await no_worker_left(gateway, row)


async def no_worker_left(gateway: Gateway, row: Row) -> None:
    end = time.monotonic() + 5
    while gateway.workers() and time.monotonic() < end:
        await asyncio.sleep(0.02)
    if gateway.workers():
        row.notes.append(f"ORPHANS: {len(gateway.workers())}")


# What happens to workers.


async def kill_idle(gateway: Gateway, books: Books, number: int) -> None:
    busy = gateway.last_worker()
    send(next(pid for pid in gateway.workers() if pid != busy), signal.SIGKILL)


async def kill_busy(gateway: Gateway, books: Books, number: int) -> None:
    send(gateway.last_worker(), signal.SIGKILL)


async def kill_all(gateway: Gateway, books: Books, number: int) -> None:
    for pid in gateway.workers():
        send(pid, signal.SIGKILL)


async def terminate(gateway: Gateway, books: Books, number: int) -> None:
    send(gateway.last_worker(), signal.SIGTERM)


async def freeze(gateway: Gateway, books: Books, number: int) -> None:
    send(gateway.last_worker(), signal.SIGSTOP)


async def hoard(gateway: Gateway, books: Books, number: int) -> None:
    old = set(gateway.workers())
    await books.ask(Client(gateway.port), "hoard")
    while len(old & set(gateway.workers())) == len(old):
        await asyncio.sleep(0.02)


def call(what: str, times: int = 20) -> Strike:
    async def strike(gateway: Gateway, books: Books, number: int) -> None:
        client = Client(gateway.port)
        for _ in range(times):
            await books.ask(client, what)

    return strike


async def fail_once(gateway: Gateway, books: Books, number: int) -> None:
    (gateway.folder / "broken").write_text("1")
    send(gateway.last_worker(), signal.SIGKILL)


async def fail_long(gateway: Gateway, books: Books, number: int) -> None:
    """No worker starts any more, until the cause is gone: what is asked meanwhile is refused at once."""
    shed = (await gateway.view())["totals"]["shed"]
    (gateway.folder / "broken").write_text("1000000")
    await kill_all(gateway, books, number)
    await gateway.until(lambda view: view["availableReplicas"] == 0 and view["totals"]["shed"] > shed)
    begin = time.monotonic()
    status = await books.ask(Client(gateway.port))
    if status != 503 or time.monotonic() - begin > 1:
        raise AssertionError(f"a crash loop was answered with {status} after {time.monotonic() - begin} s")
    (gateway.folder / "broken").write_text("0")


# What happens at the worker port.


def frame(*fields: object) -> bytes:
    """A frame of small numbers, short strings and nil."""
    body = bytes([0x90 + len(fields)])
    for value in fields:
        if value is None:
            body += b"\xc0"
        elif isinstance(value, int):
            body += b"\xce" + struct.pack(">I", value)
        else:
            text = str(value).encode()
            body += b"\xd9" + bytes([len(text)]) + text
    return struct.pack("<I", len(body)) + body


def hello(token: str) -> bytes:
    return frame(1, 1, "stranger", 1, 1, token, "f", "here")


async def say(gateway: Gateway, data: bytes) -> bytes:
    """Says something at the worker port, and hears what is answered until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.hub)
    try:
        writer.write(data)
        if data[4:] and data[:4] != hello(harness.TOKEN)[:4]:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(65536), 15)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def garbage(gateway: Gateway, books: Books, number: int) -> None:
    """Bytes that are no frames, and frames that are no hello, on sixty connections."""
    luck = random.Random(number)
    bad = [luck.randbytes(luck.randint(1, 5000)) for _ in range(55)]
    bad += [b"\xff\xff\xff\xff" + b"x" * 100, struct.pack("<I", 1 << 31), frame(3), frame(6, 1, 1), b"\0\0\0\0"]
    await asyncio.gather(*(say(gateway, data) for data in bad))


async def break_the_protocol(gateway: Gateway, books: Books, number: int) -> None:
    """A worker with the right token says garbage after its hello, or after it is ready."""
    luck = random.Random(number)
    for data in (luck.randbytes(300), frame(3) + frame(3), frame(3) + frame(6, 12345, 1), frame(3) + b"\xff" * 40,
                 frame(3) + frame(8, 77, "E", "m", None, None), frame(14, 3), frame(2, 2)):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.hub)
        writer.write(hello(harness.TOKEN))
        await asyncio.wait_for(reader.readexactly(4), 10)
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(65536), 15)
        writer.close()


def stranger(token: str) -> Strike:
    async def strike(gateway: Gateway, books: Books, number: int) -> None:
        answers = await asyncio.gather(*(say(gateway, hello(token)) for _ in range(20)))
        if not all(b"token" in answer for answer in answers):
            raise AssertionError(f"a stranger was not refused: {answers}")

    return strike


# What clients do.


async def leave(gateway: Gateway, books: Books, number: int) -> None:
    """Twenty clients ask for ten seconds of work and go, some before it begins: their work is given up."""
    writers = []
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        body = f'[{books.number()}, "slow"]'.encode()
        writer.write(b"POST /function/f HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        writers.append(writer)
    await asyncio.sleep(0.1)
    for writer in writers:
        writer.transport.abort()
    begin = time.monotonic()
    await books.ask(Client(gateway.port))
    if time.monotonic() - begin > 2:
        raise AssertionError("abandoned work was not given up")


async def read_slowly(gateway: Gateway, books: Books, number: int) -> None:
    """A client reads 13 MB at its leisure while others go on."""
    await books.ask(Client(gateway.port), "stream", pause=0.002)


# Faults in which the gateway or its connections end.


async def flood(options: argparse.Namespace, attempts: int) -> Row:
    gateway = await Gateway(options.gatewright, definition(attempts, "args = [0.002]")).start()
    books = Books(gateway)
    row = Row("5,000 requests at once on two workers", attempts, options.rounds, books, before=gateway.rss())
    for _ in range(options.rounds):
        begin = time.monotonic()
        clients = [Client(gateway.port) for _ in range(5_000)]
        await asyncio.gather(*(books.ask(client) for client in clients))
        row.recovered.append(time.monotonic() - begin)
        for client in clients:
            client.close()
    row.after = gateway.rss()
    row.notes.append("the time is that of all 5,000 answers")
    await close(gateway, row)
    return row


async def end_gateway(options: argparse.Namespace, attempts: int) -> Row:
    """SIGTERM: what was taken is answered, and the exit status is 0."""
    row = None
    for _ in range(options.rounds):
        gateway = await Gateway(options.gatewright, definition(attempts)).start()
        books = Books(gateway)
        row = row or Row("SIGTERM of the gateway", attempts, options.rounds, books, before=gateway.rss())
        async with books.under_load(16):
            begin = time.monotonic()
            row.after = gateway.rss()
            status = await gateway.stop()
            row.recovered.append(time.monotonic() - begin)
            if await books.ask(Client(gateway.port)) != 0:
                row.notes.append("STILL ANSWERS")
        if status != 0:
            row.notes.append(f"EXIT STATUS {status}")
        await no_worker_left(gateway, row)
        merge(row, books)
    assert row is not None
    row.notes.append("the time is that to its end")
    return row


async def kill_gateway(options: argparse.Namespace, attempts: int) -> Row:
    """SIGKILL: its clients' connections end, and its workers with them."""
    row = None
    for _ in range(options.rounds):
        gateway = await Gateway(options.gatewright, definition(attempts)).start()
        books = Books(gateway)
        row = row or Row("SIGKILL of the gateway", attempts, options.rounds, books, before=gateway.rss())
        async with books.under_load(8):
            row.after = gateway.rss()
            assert gateway.process is not None
            gateway.process.kill()
            begin = time.monotonic()
            gateway.process.wait()
            while gateway.workers() and time.monotonic() - begin < 5:
                await asyncio.sleep(0.005)
            row.recovered.append(time.monotonic() - begin)
        await no_worker_left(gateway, row)
        merge(row, books)
    assert row is not None
    row.notes.append("the time is that until its last worker is gone")
    return row


def merge(row: Row, books: Books) -> None:
    """Adds the books of a round that had a gateway of its own."""
    if row.books is books:
        return
    row.books.statuses += books.statuses
    for name in ("sent", "cut", "lost", "unclear", "wrong"):
        setattr(row.books, name, getattr(row.books, name) + getattr(books, name))
    if books.twice():
        row.notes.append(f"TWICE: {books.twice()}")


REMOTE = "remote = true\nretries = {{ attempts = {}, budget = 10.0 }}\ntimeout = \"60s\"\n"


async def restart_hub(options: argparse.Namespace, attempts: int) -> Row:
    """The hub ends, well and badly in turn, and comes back; workers from elsewhere come back by themselves."""
    gateway = await Gateway(options.gatewright, REMOTE.format(attempts), hub=True).start()
    workers = [remote_worker(gateway, gateway.hub) for _ in range(2)]
    books = Books(gateway)
    row = Row("hub restarted, two remote workers", attempts, options.rounds, books)
    await gateway.until(lambda view: view["availableReplicas"] == 2)
    async with books.under_load(8):
        row.before = gateway.rss()
        for number in range(options.rounds):
            assert gateway.process is not None
            send(gateway.process.pid, signal.SIGKILL if number % 2 else signal.SIGTERM)
            await asyncio.to_thread(gateway.process.wait)
            begin = time.monotonic()
            await gateway.start()
            await gateway.until(lambda view: view["availableReplicas"] == 2)
            row.recovered.append(time.monotonic() - begin)
            await asyncio.sleep(0.2)
        row.after = gateway.rss()
    row.notes.append("every second time by SIGKILL, which cuts")
    await close_remote(gateway, row, workers)
    return row


async def cut_cable(options: argparse.Namespace, attempts: int) -> Row:
    """A connection to a remote worker goes dead without a word, one after another of as many as there are rounds."""
    gateway = await Gateway(options.gatewright, REMOTE.format(attempts), hub=True).start()
    cables = [await Cable(gateway.hub).open() for _ in range(options.rounds)]
    workers = [remote_worker(gateway, cable.port) for cable in cables]
    workers.append(remote_worker(gateway, gateway.hub))
    books = Books(gateway)
    row = Row("TCP cut to a remote worker", attempts, options.rounds, books)
    await gateway.until(lambda view: view["availableReplicas"] == len(workers))
    async with books.under_load(8):
        row.before = gateway.rss()

        async def cut(number: int) -> None:
            await asyncio.sleep(number)
            cables[number].cut = True
            begin = time.monotonic()
            await gateway.until(lambda view: view["totals"]["replicas_lost"] > number)
            row.recovered.append(time.monotonic() - begin)

        await asyncio.gather(*(cut(number) for number in range(len(cables))))
        for cable in cables:
            cable.cut = False
        row.notes.append("the time is that until the hub notices")
        back = await gateway.until(lambda view: view["availableReplicas"] == len(workers))
        row.notes.append(f"all back {back:.1f} s after the cables")
        row.after = gateway.rss()
    await close_remote(gateway, row, workers)
    for cable in cables:
        cable.close()
    return row


async def close_remote(gateway: Gateway, row: Row, workers: list[subprocess.Popen]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        status = await asyncio.to_thread(worker.wait, 30)
        if status != 0:
            row.notes.append(f"a worker's exit status {status}")
    await close(gateway, row)


FAULTS: list[Fault] = [
    Fault("SIGKILL of an idle worker", kill_idle, clients=1),
    Fault("SIGKILL of a busy worker", kill_busy),
    Fault("SIGKILL of all workers", kill_all),
    Fault("SIGTERM of a worker", terminate),
    Fault("SIGTERM of an idle worker", lambda g, b, n: terminate_idle(g), clients=1),
    Fault("frozen past max_execution", freeze, function='max_execution = "500ms"'),
    Fault("worker beyond its memory limit", hoard, function='memory_limit = "100MiB"', replaced=False),
    Fault("exception", call("raise"), replaced=False),
    Fault("result that cannot be sent", call("object"), replaced=False),
    Fault("os._exit() in a call", call("exit", 1)),
    Fault("malformed frames and random bytes", garbage, replaced=False),
    Fault("worker that breaks the protocol", break_the_protocol, replaced=False),
    Fault("peer without a token", stranger(""), replaced=False),
    Fault("peer with a wrong token", stranger("the wrong one"), replaced=False),
    Fault("client gone, queued and running", leave, replaced=False),
    Fault("__init__ fails once", fail_once),
    Fault("__init__ fails always, then no more", fail_long),
    Fault("slow reader of a streamed answer", read_slowly, replaced=False),
    Fault("records cannot be written", call("", 20), replaced=False, full=True),
]
WHOLE = [flood, end_gateway, kill_gateway, restart_hub, cut_cable]


async def terminate_idle(gateway: Gateway) -> None:
    busy = gateway.last_worker()
    send(next(pid for pid in gateway.workers() if pid != busy), signal.SIGTERM)


def table(rows: list[Row]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    return "\n".join(lines)


async def run(options: argparse.Namespace) -> list[Row]:
    rows = []
    everything: list[tuple[str, Callable[[argparse.Namespace, int], Awaitable[Row]]]] = []
    everything += [(fault.name, fault.run) for fault in FAULTS]
    everything += [(make.__name__, make) for make in WHOLE]
    for name, make in everything:
        if options.only and not any(part in name for part in options.only):
            continue
        for attempts in options.attempts:
            row = await make(options, attempts)
            rows.append(row)
            print("| " + " | ".join(row.cells()) + " |", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gatewright", type=Path, default=harness.ROOT / "target" / "release" / "gatewright")
    parser.add_argument("--python", type=Path, help="the Python that runs workers; that of .venv unless set")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--attempts", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", help="faults whose names have one of these in them")
    parser.add_argument("--out", type=Path, help="where the table goes; RESULTS.md beside this file unless set")
    options = parser.parse_args()
    options.gatewright = options.gatewright.resolve()
    if options.python:
        harness.PYTHON = options.python.absolute()
    begin = time.monotonic()
    print("| " + " | ".join(HEAD) + " |\n" + "|" + "---|" * len(HEAD))
    rows = asyncio.run(run(options))
    minutes = (time.monotonic() - begin) / 60
    text = f"{table(rows)}\n\nEach fault {options.rounds} times; {minutes:.0f} minutes; {os.cpu_count()} cores.\n"
    out = options.out or HERE / "RESULTS.md"
    if options.only is None or options.out:
        out.write_text(f"# Every fault under load\n\n{NOTES}\n{text}")


if __name__ == "__main__":
    main()
