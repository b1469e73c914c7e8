"""A gateway in a folder of its own, clients that count what they are told, and the books at the end."""

from __future__ import annotations

import asyncio
import atexit
import collections
import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Optional

ROOT = Path(__file__).resolve().parent.parent.parent
#: The Python that runs workers, and the token that those from elsewhere present.
PYTHON = ROOT / ".venv" / "bin" / "python"
TOKEN = "the right one"
#: Seconds after which a request without an answer counts as lost.
PATIENCE = 60.0

MODELS = '''
import os, time
import gatewright

class Journal:
    """Notes every call before it begins, with the process that makes it."""
    def __init__(self, pause=0.02):
        self.pause = pause
        if os.path.exists("broken"):
            left = int(open("broken").read())
            if left > 0:
                with open("broken", "w") as file:
                    file.write(str(left - 1))
                raise RuntimeError("told to fail")
        self.log = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.hoard = []

    def __call__(self, number, what=""):
        os.write(self.log, b"%d %d\\n" % (number, os.getpid()))
        if what == "raise":
            raise ValueError("no")
        if what == "object":
            return object()
        if what == "exit":
            os._exit(3)
        if what == "hoard":
            self.hoard.append(b"x" * (120 << 20))
        if what == "stream":
            return (b"x" * 65536 for _ in range(200))
        if what == "slow":
            end = time.monotonic() + 10
            while time.monotonic() < end and not gatewright.current_request().cancelled:
                time.sleep(0.01)
        time.sleep(self.pause)
        return number
'''


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def resident(pid: int) -> int:
    """Resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Gateway:
    """A gateway with the function `f` in a folder of its own."""

    def __init__(self, program: Path, function: str, *, hub: bool = False, full: bool = False) -> None:
        self.program = program
        self.folder = Path(tempfile.mkdtemp(prefix="gatewright-faults-"))
        self.port, self.admin, self.hub = free_port(), free_port(), free_port()
        #: Whether its records go to a disk that is full.
        self.full = full
        self.log = self.folder / "gateway.log"
        (self.folder / "models.py").write_text(MODELS)
        text = f'[gateway]\nlisten = "127.0.0.1:{self.port}"\nadmin = "127.0.0.1:{self.admin}"\n'
        # One process here is 5,000 clients, which may take longer to speak than a client is usually given.
        text += 'header_timeout = "2m"\n'
        if hub:
            text += f'[hub]\nlisten = "127.0.0.1:{self.hub}"\n'
        (self.folder / "gatewright.toml").write_text(text + "[function.f]\n" + function)
        self.process: Optional[subprocess.Popen] = None

    def environment(self) -> dict[str, str]:
        return {**os.environ, "GATEWRIGHT_PYTHON": str(PYTHON), "GATEWRIGHT_WORKER_TOKEN": TOKEN}

    async def start(self) -> "Gateway":
        command = [str(self.program), "serve", "gatewright.toml"]
        if self.full:
            (self.folder / "records.jsonl").symlink_to("/dev/full")
            command += ["--records", "records.jsonl"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment(), stdout=log, stderr=log, start_new_session=True
            )
        atexit.register(self.process.kill)
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                # It listens before it serves: an answer, whatever it is, says that it does.
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                answer = await reader.read(12)
                writer.close()
                if answer:
                    return self
            await asyncio.sleep(0.02)
        raise SystemExit(f"the gateway did not start; see {self.log}")

    async def stop(self) -> int:
        """Has it end; returns its exit status."""
        assert self.process is not None
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, 60)

    def workers(self) -> list[int]:
        """Processes that serve from this folder, of this machine and of elsewhere."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal():
                    line = (entry / "cmdline").read_bytes()
                    # A zombie has no command line.
                    if b"models:Journal" in line and str(self.folder).encode() in line:
                        found.append(int(entry.name))
        return sorted(found)

    def last_worker(self) -> int:
        """The one that began a call last."""
        journal = self.folder / "journal"
        with journal.open("rb") as file:
            file.seek(-min(64, journal.stat().st_size), os.SEEK_END)
            return int(file.read().splitlines()[-1].split()[1])

    async def view(self) -> dict[str, Any]:
        """What the admin API says of the function."""

        def get() -> dict[str, Any]:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/system/function/f", timeout=10) as answer:
                return json.load(answer)

        return await asyncio.to_thread(get)

    async def until(self, what: Callable[[dict[str, Any]], bool], seconds: float = 90.0) -> float:
        """Waits until the view of the function is as asked; returns for how long, in seconds."""
        begin = time.monotonic()
        while not what(view := await self.view()):
            if time.monotonic() - begin > seconds:
                raise AssertionError(f"not within {seconds} s: {view}; see {self.log}")
            await asyncio.sleep(0.02)
        return time.monotonic() - begin

    def rss(self) -> int:
        assert self.process is not None
        return resident(self.process.pid)


class Client:
    """One connection over HTTP/1.1, made anew when it has ended."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: Optional[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = None

    async def ask(self, body: bytes, pause: float = 0.0) -> tuple[int, dict[str, str], bytes]:
        """Status, fields and body of the answer; `pause` seconds between the chunks of one that comes in pieces."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        try:
            head = f"POST /function/f HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await asyncio.wait_for(self._answer(reader, pause), PATIENCE)
        except BaseException:
            self.close()
            raise
        if answer[1].get("connection") == "close":
            self.close()
        return answer

    async def _answer(self, reader: asyncio.StreamReader, pause: float) -> tuple[int, dict[str, str], bytes]:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        if "content-length" in fields:
            body = await reader.readexactly(int(fields["content-length"]))
        else:
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
                await asyncio.sleep(pause)
            await reader.readline()
        return int(lines[0].split()[1]), fields, body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Books:
    """What was asked and what came of it."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.statuses: collections.Counter[int] = collections.Counter()
        self.sent = self.cut = self.lost = self.unclear = 0
        self.wrong = 0
        self._numbers = iter(range(1, 1 << 60))
        self.stopping = False

    def number(self) -> int:
        return next(self._numbers)

    async def ask(self, client: Client, what: str = "", pause: float = 0.0) -> int:
        """Asks once and notes what comes of it: a status, 0 for a connection that was refused or cut."""
        number = self.number()
        body = json.dumps([number, what] if what else [number]).encode()
        try:
            status, fields, answer = await client.ask(body, pause)
        except ConnectionRefusedError:
            return 0
        except (ConnectionError, asyncio.IncompleteReadError):
            self.sent += 1
            self.cut += 1
            return 0
        except asyncio.TimeoutError:
            self.sent += 1
            self.lost += 1
            return 0
        self.sent += 1
        self.statuses[status] += 1
        if status == 200:
            right = answer == b"x" * (200 * 65536) if what == "stream" else answer == str(number).encode()
            self.wrong += not right
        else:
            clear = status not in (429, 503) or "retry-after" in fields
            try:
                clear = clear and isinstance(json.loads(answer)["error"], str)
            except (ValueError, KeyError):
                clear = False
            self.unclear += not clear
        return status

    async def load(self, clients: int) -> None:
        """Asks for as long as nobody says stop."""

        async def closed_loop() -> None:
            client = Client(self.gateway.port)
            while not self.stopping:
                if await self.ask(client) == 0:
                    await asyncio.sleep(0.01)
            client.close()

        await asyncio.gather(*(closed_loop() for _ in range(clients)))

    @contextlib.asynccontextmanager
    async def under_load(self, clients: int) -> AsyncIterator[None]:
        """Has clients ask while the block runs."""
        load = asyncio.create_task(self.load(clients))
        await asyncio.sleep(0.2)
        try:
            yield
            await asyncio.sleep(0.2)
        finally:
            self.stopping = True
            await load
            self.stopping = False

    def twice(self) -> int:
        """Requests that were begun more than once."""
        journal = self.gateway.folder / "journal"
        if not journal.exists():
            return 0
        calls = collections.Counter(line.split()[0] for line in journal.read_bytes().splitlines())
        return sum(count > 1 for count in calls.values())


def remote_worker(gateway: Gateway, port: int) -> subprocess.Popen:
    """A worker that joins the hub at a port."""
    command = [str(PYTHON), "-m", "gatewright.worker", "models:Journal", "--hub", f"127.0.0.1:{port}"]
    command += ["--function", "f", "--path", str(gateway.folder)]
    with gateway.log.open("a") as log:
        worker = subprocess.Popen(
            command, cwd=gateway.folder, env=gateway.environment(), stdout=log, stderr=log, start_new_session=True
        )
    atexit.register(worker.kill)
    return worker


class Cable:
    """A TCP proxy to a port that can be cut: it then forwards nothing and says nothing, as a pulled cable does."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.cut = False
        self._server: Optional[asyncio.Server] = None
        self._tasks: set[asyncio.Task] = set()

    async def open(self) -> "Cable":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self.cut:
            await asyncio.sleep(0.05)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.cut:
                    # What is under way is gone for good, and the connection with it.
                    while self.cut:
                        await asyncio.sleep(0.05)
                    break
                writer.write(data)
                await writer.drain()
        writer.close()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


def send(pid: int, number: signal.Signals) -> None:
    """Sends a signal to a process, which may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
