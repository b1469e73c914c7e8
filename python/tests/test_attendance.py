"""Who hears the workers: the event loop that asks them, and the hub's thread when that does something else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time

import pytest

from gatewright import Hub, Worker


class Mixed:
    """Answers at once, later, in pieces, or not at all."""

    def __call__(self, what, value=None):
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "sleep":
            time.sleep(value)
        if what == "pieces":
            return (str(number) for number in range(value))
        return value


@pytest.fixture
def hub():
    with contextlib.ExitStack() as stack:

        def make(workers=1, **options):
            hub = stack.enter_context(Hub(port=0, **options))
            for _ in range(workers):
                worker = Worker(Mixed, port=hub.port)
                worker.start()
                stack.callback(worker.kill)
            return hub

        yield make


async def attended(hub):
    """Until the loop itself hears the workers: from their next words on."""
    for number in range(50):
        assert await hub.request("echo", number) == number


def test_workers_get_their_next_requests_while_the_loop_does_something_else(hub):
    async def main():
        one = hub()
        await attended(one)
        calls = [asyncio.ensure_future(one.request("sleep", 0.001)) for _ in range(20)]
        await asyncio.sleep(0)
        time.sleep(1)
        status = one.status()
        assert (status["queued"], status["in_flight"]) == (0, 0)
        assert await asyncio.gather(*calls) == [0.001] * 20

    asyncio.run(main())


def test_workers_are_not_silent_because_the_loop_does_not_listen(hub):
    async def main():
        one = hub(heartbeat_interval=0.04)
        await attended(one)
        for _ in range(3):
            time.sleep(0.5)
            assert await one.request("echo", 1) == 1
        assert one.status()["workers_left"] == 0

    asyncio.run(main())


def test_pieces_pass_and_calls_go_on(hub):
    async def main():
        one = hub()
        for _ in range(3):
            await attended(one)
            assert [piece async for piece in one.stream("pieces", 200)] == [str(number) for number in range(200)]

    asyncio.run(main())


def test_a_worker_that_dies_is_noticed_by_a_loop_that_hears_it(hub):
    async def main():
        one = hub(workers=2, attempts=1)
        await attended(one)
        with pytest.raises(Exception, match="lost"):
            await one.request("die")
        await attended(one)
        assert (await asyncio.to_thread(one.status))["workers_left"] == 1

    asyncio.run(main())


def test_others_have_their_turn_beside_one_call_after_another(hub):
    async def main():
        one, turns, over = hub(), 0, False

        async def other():
            nonlocal turns
            while not over:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.ensure_future(other())
        await attended(one)
        over = True
        await beside
        assert turns >= 50

    asyncio.run(main())


def test_two_loops_have_their_own_answers_whoever_hears_them(hub):
    one, failed = hub(workers=2), []

    async def calls(base):
        for round in range(10):
            numbers = range(base + round * 20, base + round * 20 + 20)
            assert await asyncio.gather(*(one.request("echo", number) for number in numbers)) == list(numbers)

    def run(base):
        try:
            for turn in range(3):
                asyncio.run(calls(base + turn * 1000))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(base,)) for base in (0, 100_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    run(200_000)
    assert not failed and not any(thread.is_alive() for thread in threads)
