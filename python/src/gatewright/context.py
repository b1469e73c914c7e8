"""What user code may know of the request that it answers."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Optional

from .connection import Connection

#: The connection, the request frame, and when it was begun.
current: ContextVar[Optional[tuple[Connection, list, float]]] = ContextVar("gatewright_request", default=None)


class Request:
    """The request that is being answered."""

    __slots__ = ("_connection", "attempt", "deadline", "id")

    def __init__(self, connection: Connection, frame: list, begun: float) -> None:
        self._connection = connection
        #: Number of the request, unique on this worker's connection.
        self.id: int = frame[1]
        #: When the caller gives up, as :func:`time.monotonic` counts; ``None`` if it never does.
        self.deadline: Optional[float] = None if frame[2] is None else begun + frame[2] / 1000
        #: 1 for the first attempt, 2 when the first one was lost, and so on.
        self.attempt: int = frame[3]

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more. Known within some tenths of a second."""
        return self._connection.is_cancelled(self.id)

    @property
    def remaining(self) -> Optional[float]:
        """Seconds until the caller gives up, never below 0; ``None`` if it never does."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def __repr__(self) -> str:
        return f"<Request {self.id} attempt={self.attempt} cancelled={self.cancelled}>"


def current_request() -> Optional[Request]:
    """The request that the calling code answers; ``None`` outside of a call. In a batch: its first one."""
    found = current.get()
    return None if found is None else Request(*found)
