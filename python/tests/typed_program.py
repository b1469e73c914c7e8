"""A small program of a user, for the type checker: see test_types.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Optional

import gatewright
from gatewright import Hub, HubClosed, HubError, QueueFull, Request, UserCodeException, Worker, WorkerLost


class Square:
    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause

    async def __call__(self, x: int) -> int:
        request: Optional[Request] = gatewright.current_request()
        if request is not None and not request.cancelled:
            left: Optional[float] = request.remaining
            number: int = request.id
            print(number, left, request.attempt, request.deadline)
        await asyncio.sleep(self.pause)
        return x * x


def scale(view: gatewright.ScalerView) -> Optional[int]:
    return view.ready + 1 if view.queued > 0 else None


def rehearse() -> gatewright.Simulated:
    result = gatewright.simulate("scenario.toml", set={"cache.memory": "1MB"}, autoscaler={"f": scale})
    print(result.summary["requests"], result.seed + result.events, (result.records or {}).keys())
    return gatewright.simulate({"demand": []}, autoscaler=scale, balancer=lambda free, key: len(free) - 1)


async def pieces(hub: Hub) -> AsyncIterator[str]:
    async for piece in hub.stream(3, timeout=1.0):
        yield piece if isinstance(piece, str) else piece.decode()


async def main() -> None:
    async with Hub(port=0, resp_buffer_size=8, attempts=1) as hub:
        worker = Worker(Square, 0.1, port=hub.port)
        worker.start()
        try:
            answer = await hub.request(3, timeout=1.0, retries=2, total_timeout=5.0)
            answer = await hub.call([3], {"x": 1}, urgency=0)
        except QueueFull as error:
            seconds: float = error.retry_after
            print(seconds)
        except UserCodeException as error:
            text: str = error.type + error.message
            print(text, error.traceback)
        except (WorkerLost, HubClosed):
            raise
        except HubError:
            raise
        else:
            print(answer, hub.is_host)
        status: dict[str, int] = hub.status()
        print(status["workers"], gatewright.__version__)


if __name__ == "__main__":
    asyncio.run(main())
