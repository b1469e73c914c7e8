"""One hub for several processes: the first has it, the others share it, and one of them takes it over."""

from __future__ import annotations

import asyncio
import collections
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from gatewright import Hub, HubError, QueueFull, UserCodeException, Worker, WorkerLost


class Notes:
    """Notes its calls in a file."""

    def __init__(self, path):
        self.path = path

    def __call__(self, name, seconds=0.0):
        if name == "raise":
            raise ValueError("no such thing")
        with open(self.path, "a") as file:
            file.write(f"{name}\n")
        time.sleep(seconds)
        return name, os.getpid()


class Pieces:
    def __init__(self, path):
        self.path = path

    def __call__(self, count, size):
        for number in range(count):
            with open(self.path, "a") as file:
                file.write(f"{number}\n")
            yield "x" * size


HOST = """
import asyncio, sys
from gatewright import Hub
port, attempts = int(sys.argv[1]), int(sys.argv[2])
hub = Hub(port, attempts=attempts).start()
assert hub.is_host
print("ready", flush=True)

async def request():
    print("answer", (await hub.request(*command[1:]))[0], flush=True)

for line in sys.stdin:
    command = line.split()
    if command[0] == "close":
        hub.close()
        print("closed", flush=True)
    elif command[0] == "request":
        asyncio.run(request())
"""


class Host:
    """A process that has the hub."""

    def __init__(self, port, attempts=2):
        command = [sys.executable, "-c", HOST, str(port), str(attempts)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.read() == "ready"

    def read(self):
        return self.process.stdout.readline().strip()

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def host(port):
    hosts = []

    def start(**options):
        hosts.append(Host(port, **options))
        return hosts[-1]

    yield start
    for one in hosts:
        one.kill()
        one.process.stdin.close()
        one.process.stdout.close()


@pytest.fixture
def start():
    workers = []

    def start(port, worker_cls, *args):
        worker = Worker(worker_cls, *args, port=port)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.kill()
        worker.join()


async def until(condition, what="it"):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{what} did not come to be within 20 s")


def noted(path):
    return path.read_text().split() if path.exists() else []


def test_a_second_process_shares_the_hub_of_the_first(port, host, start, tmp_path):
    async def main():
        first = host()
        with Hub(port) as hub:
            assert not hub.is_host
            assert hub.port == port
            worker = start(port, Notes, str(tmp_path / "calls"))
            assert await hub.request("mine") == ("mine", worker.pid)
            first.tell("request theirs")
            assert first.read() == "answer theirs"
            with pytest.raises(UserCodeException) as caught:
                await hub.request("raise")
            assert (caught.value.type, caught.value.message) == ("ValueError", "no such thing")
            assert "Traceback" in caught.value.traceback
            status = hub.status()
            assert (status["workers"], status["requests"]) == (1, 3), "one hub's, whoever asks"

    asyncio.run(main())


def test_limits_and_cancellation_hold_for_who_shares(port, host, start, tmp_path):
    async def main():
        host()
        with Hub(port) as hub:
            with pytest.raises(asyncio.TimeoutError):
                await hub.request("never", timeout=0.05)
            first = asyncio.ensure_future(hub.request("cancelled"))
            await until(lambda: hub.status()["queued"] == 1)
            first.cancel()
            await until(lambda: hub.status()["queued"] == 0)
            start(port, Notes, str(tmp_path / "calls"))
            await hub.request("last")
            assert noted(tmp_path / "calls") == ["last"]

    asyncio.run(main())


def test_a_full_queue_refuses_who_shares_and_says_when_to_come_back(port, start, tmp_path):
    async def main():
        with Hub(port, resp_buffer_size=2) as first, Hub(port, resp_buffer_size=2) as second:
            assert first.is_host and not second.is_host
            start(port, Notes, str(tmp_path / "calls"))
            await first.request("measured", 0.2)
            running = [asyncio.ensure_future(first.request("slow", 0.2))]
            await until(lambda: first.status()["in_flight"] == 1)
            running += [asyncio.ensure_future(hub.request("waits")) for hub in (first, second)]
            await until(lambda: first.status()["queued"] == 2)
            for hub in (first, second):
                with pytest.raises(QueueFull) as caught:
                    await hub.request("too many")
                assert 0.1 < caught.value.retry_after < 10
            await asyncio.gather(*running)

    asyncio.run(main())


def test_when_its_process_dies_another_has_the_hub_and_runs_what_was_under_way(port, host, start, tmp_path):
    async def main():
        first = host()
        with Hub(port) as hub:
            start(port, Notes, str(tmp_path / "calls"))
            running = asyncio.ensure_future(hub.request("running", 0.3))
            await until(lambda: hub.status()["in_flight"] == 1)
            waiting = [asyncio.ensure_future(hub.request(f"waiting{x}")) for x in range(20)]
            await until(lambda: hub.status()["queued"] == 20)
            first.kill()
            assert (await asyncio.wait_for(running, 20))[0] == "running"
            answers = await asyncio.wait_for(asyncio.gather(*waiting), 20)
            assert [name for name, _ in answers] == [f"waiting{x}" for x in range(20)]
            assert hub.is_host
            calls = noted(tmp_path / "calls")
            assert calls.count("running") == 2, "its first run was lost with the hub"
            assert calls[2:] == [f"waiting{x}" for x in range(20)], "in their order, once each"
            assert await hub.request("afterwards")

    asyncio.run(main())


def test_at_most_once_holds_when_the_hub_dies(port, host, start, tmp_path):
    async def main():
        first = host(attempts=1)
        with Hub(port, attempts=1) as hub:
            start(port, Notes, str(tmp_path / "calls"))
            running = asyncio.ensure_future(hub.request("once", 0.3))
            await until(lambda: hub.status()["in_flight"] == 1)
            first.kill()
            with pytest.raises(WorkerLost):
                await asyncio.wait_for(running, 20)
            assert (await asyncio.wait_for(hub.request("next"), 20))[0] == "next"
            assert noted(tmp_path / "calls") == ["once", "next"]

    asyncio.run(main())


def test_a_hub_that_is_closed_loses_nothing_of_the_others(port, host, start, tmp_path):
    async def main():
        first = host(attempts=1)
        with Hub(port, attempts=1) as hub:
            start(port, Notes, str(tmp_path / "calls"))
            running = asyncio.ensure_future(hub.request("running", 0.5))
            await until(lambda: hub.status()["in_flight"] == 1)
            waiting = [asyncio.ensure_future(hub.request(f"waiting{x}")) for x in range(5)]
            await until(lambda: hub.status()["queued"] == 5)
            first.tell("close")
            await until(lambda: hub.is_host)
            answers = await asyncio.wait_for(asyncio.gather(running, *waiting), 20)
            assert [name for name, _ in answers] == ["running", *(f"waiting{x}" for x in range(5))]
            assert noted(tmp_path / "calls") == [name for name, _ in answers], "each of them once"
            assert first.read() == "closed"

    asyncio.run(main())


def test_requests_made_while_nobody_has_the_hub_keep_their_time_limit(port, host):
    async def main():
        first = host()
        with Hub(port) as hub:
            os.kill(first.process.pid, signal.SIGSTOP)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(hub.request("frozen", timeout=0.1), 10)
            first.kill()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(hub.request("orphan", timeout=0.1), 10)

    asyncio.run(main())


def test_the_requests_of_a_process_that_dies_are_given_up(port, start, tmp_path):
    async def main():
        with Hub(port) as hub:
            start(port, Notes, str(tmp_path / "calls"))
            first = asyncio.ensure_future(hub.request("first", 0.5))
            await until(lambda: hub.status()["in_flight"] == 1)
            script = "import asyncio, sys; from gatewright import Hub; asyncio.run(Hub(int(sys.argv[1])).request('theirs'))"
            other = subprocess.Popen([sys.executable, "-c", script, str(port)])
            await until(lambda: hub.status()["queued"] == 1)
            other.kill()
            other.wait()
            await until(lambda: hub.status()["queued"] == 0)
            await first
            await hub.request("last")
            assert noted(tmp_path / "calls") == ["first", "last"]

    asyncio.run(main())


def test_pieces_come_to_who_shares_and_wait_for_it(port, host, start, tmp_path):
    async def main():
        host()
        with Hub(port) as hub:
            start(port, Pieces, str(tmp_path / "made"))
            pieces = hub.stream(1000, 100_000)
            assert len(await anext(pieces)) == 100_000
            await settled(tmp_path / "made")
            assert len(noted(tmp_path / "made")) < 300
            rest = [piece async for piece in pieces]
            assert len(rest) == 999

    asyncio.run(main())


async def settled(path):
    """Waits until nothing more is noted."""
    before = -1
    while len(noted(path)) != before:
        before = len(noted(path))
        await asyncio.sleep(0.3)


def test_other_terms_are_refused(port, host):
    host()
    with pytest.raises(HubError, match="attempts 2.*this process.*attempts 1"):
        Hub(port, attempts=1).start()
    with pytest.raises(HubError, match="token"):
        Hub(port, token="another").start()


def test_loops_in_threads_of_several_processes_share_a_hub(port, host, start, tmp_path):
    host()
    answers = {}
    with Hub(port) as hub:
        start(port, Notes, str(tmp_path / "calls"))

        def run(number):
            async def main():
                return [(await hub.request(f"{number}/{x}"))[0] for x in range(25)]

            answers[number] = asyncio.run(main())

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {n: [f"{n}/{x}" for x in range(25)] for n in range(4)}


APP = """
    import os
    from fastapi import FastAPI
    from gatewright import Hub

    app = FastAPI()
    hub = Hub(port=int(os.environ["HUB_PORT"]))


    @app.get("/")
    async def answer(name: str):
        return {"answer": (await hub.request(name, 0.005))[0], "pid": os.getpid(), "host": hub.is_host}
"""


@pytest.fixture
def uvicorn(port, tmp_path):
    """``uvicorn --workers 3``, and where it listens."""
    pytest.importorskip("uvicorn")
    pytest.importorskip("fastapi")
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        http = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "app:app", "--workers", "3", "--port", str(http)]
    command += ["--log-level", "warning"]
    environment = {**os.environ, "HUB_PORT": str(port)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    yield f"http://127.0.0.1:{http}/"
    process.terminate()
    process.wait()


def test_uvicorn_s_workers_share_a_hub_and_lose_nothing_when_one_is_killed(uvicorn, port, start, tmp_path):
    httpx = pytest.importorskip("httpx")
    workers = [start(port, Notes, str(tmp_path / "calls")) for _ in range(2)]

    async def main():
        seen, broken, hosts = collections.Counter(), [], set()
        killed = None

        async def ask(name):
            # A connection of its own each time: they spread over the processes.
            async with httpx.AsyncClient(timeout=30) as client:
                response = await client.get(uvicorn, params={"name": name})
            assert response.status_code == 200, response.text
            body = response.json()
            assert body["answer"] == name
            seen[body["pid"]] += 1
            if body["host"]:
                hosts.add(body["pid"])

        async def first():
            for _ in range(600):
                try:
                    return await ask("first")
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
            raise AssertionError("uvicorn did not start")

        async def client(number, done):
            count = 0
            while not done.is_set():
                try:
                    await ask(f"{number}/{count}")
                except httpx.TransportError as error:
                    # Who was connected to the killed process is told so at once.
                    assert killed is not None, error
                    broken.append(error)
                count += 1

        await first()
        done = asyncio.Event()
        clients = [asyncio.ensure_future(client(number, done)) for number in range(12)]
        await until(lambda: len(seen) == 3 and hosts, "a request to each process")
        (killed,) = hosts
        os.kill(killed, signal.SIGKILL)
        await until(lambda: len(hosts) == 2, "another process with the hub")
        before = sum(seen.values())
        await until(lambda: sum(seen.values()) > before + 100, "answers after it")
        await until(lambda: len(seen) == 4, "the process that uvicorn starts instead")
        done.set()
        await asyncio.wait_for(asyncio.gather(*clients), 30)
        assert len(broken) <= 24, "only connections of the one that was killed"
        assert all(worker.is_alive() for worker in workers)

    asyncio.run(main())
