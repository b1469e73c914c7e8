"""Answers in pieces: who takes them slowly slows the generator down."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gatewright import Hub, UserCodeException, Worker, WorkerLost


class Pieces:
    """Notes in a file what it has made."""

    def __init__(self, path):
        self.path = path

    def note(self, what):
        with open(self.path, "a") as file:
            file.write(f"{what}\n")

    def __call__(self, count, size=1, fail=False):
        try:
            for number in range(count):
                self.note(number)
                yield "x" * size
            if fail:
                raise ValueError("no more")
        except GeneratorExit:
            self.note("closed")
            raise


class AsyncPieces(Pieces):
    async def __call__(self, count, size=1):
        try:
            for number in range(count):
                self.note(number)
                yield b"x" * size
                await asyncio.sleep(0)
        finally:
            self.note("closed")


#: A piece's bytes: some dozens of them fill the buffers of any socket.
BIG = 200_000


def noted(path):
    return path.read_text().split() if path.exists() else []


async def settled(path):
    """What was made when nothing more is."""
    before = -1
    while len(noted(path)) != before:
        before = len(noted(path))
        await asyncio.sleep(0.3)
    return before


@pytest.fixture
def serve(tmp_path):
    workers = []

    def serve(hub, worker_cls):
        worker = Worker(worker_cls, str(tmp_path / "made"), port=hub.port)
        worker.start()
        workers.append(worker)
        return worker

    yield serve
    for worker in workers:
        worker.kill()
        worker.join()


@pytest.mark.parametrize("worker_cls", [Pieces, AsyncPieces])
def test_a_generator_waits_for_who_takes_its_pieces(serve, tmp_path, worker_cls):
    async def main():
        with Hub(port=0, heartbeat_interval=0.05) as hub:
            worker = serve(hub, worker_cls)
            pieces = hub.stream(2000, BIG)
            for _ in range(3):
                assert len(await anext(pieces)) == BIG
            ahead = await settled(tmp_path / "made")
            assert ahead < 200, f"{ahead} made, 3 taken"
            # Longer than the hub bears silence: it is not taken for frozen.
            await asyncio.sleep(0.5)
            for _ in range(100):
                await anext(pieces)
            assert await settled(tmp_path / "made") < ahead + 200
            await pieces.aclose()
            await until(lambda: noted(tmp_path / "made")[-1] == "closed")
            assert hub.status()["workers_left"] == 0 and worker.is_alive()

    asyncio.run(main())


def test_all_pieces_come_in_their_order_to_who_is_slow_and_who_is_quick(serve):
    async def main():
        with Hub(port=0) as hub:
            serve(hub, Pieces)
            count = 0
            async for piece in hub.stream(500, 10):
                assert piece == "x" * 10
                count += 1
                if count % 50 == 0:
                    await asyncio.sleep(0.01)
            assert count == 500
            assert await hub.request(300, 2) == "x" * 600, "the same in one piece"

    asyncio.run(main())


def test_an_answer_that_has_begun_is_not_begun_again_elsewhere(serve):
    async def main():
        with Hub(port=0) as hub:
            worker = serve(hub, Pieces)
            pieces = hub.stream(100_000, BIG)
            await anext(pieces)
            serve(hub, Pieces)
            worker.kill()
            with pytest.raises(WorkerLost):
                async for _ in pieces:
                    pass
            assert await hub.request(1) == "x"

    asyncio.run(main())


def test_an_error_comes_after_the_pieces_before_it(serve):
    async def main():
        with Hub(port=0) as hub:
            serve(hub, Pieces)
            count = 0
            with pytest.raises(UserCodeException, match="no more"):
                async for _ in hub.stream(100, 1, fail=True):
                    count += 1
            assert count == 100

    asyncio.run(main())


def test_a_time_limit_holds_while_nobody_takes_pieces(serve, tmp_path):
    async def main():
        with Hub(port=0) as hub:
            serve(hub, Pieces)
            pieces = hub.stream(100_000, BIG, timeout=0.5)
            await anext(pieces)
            await until(lambda: noted(tmp_path / "made")[-1] == "closed")
            with pytest.raises(asyncio.TimeoutError):
                async for _ in pieces:
                    pass
            assert await hub.request(1) == "x", "its worker is free again"

    asyncio.run(main())


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to be within 20 s")


def test_what_the_hub_has_to_say_is_logged(serve, caplog):
    async def main():
        with Hub(port=0) as hub:
            worker = serve(hub, Pieces)
            await hub.request(1)
            worker.kill()
            await until(lambda: any(record.levelno == logging.WARNING for record in caplog.records))

    caplog.set_level(logging.INFO, logger="gatewright")
    asyncio.run(main())
    records = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert any(name == "gatewright.hub" and level == "INFO" and "joined" in text for name, level, text in records)
    assert any(level == "WARNING" and "lost" in text for _, level, text in records), records


def test_the_level_of_the_logger_holds(serve, caplog):
    async def main():
        with Hub(port=0) as hub:
            worker = serve(hub, Pieces)
            await hub.request(1)
            worker.kill()
            await until(lambda: hub.status()["workers_left"] == 1)
            await asyncio.sleep(0.2)

    caplog.set_level(logging.ERROR, logger="gatewright")
    asyncio.run(main())
    assert [record for record in caplog.records if record.name.startswith("gatewright")] == []
