"""What can go wrong with a request, besides :class:`asyncio.TimeoutError`."""

from __future__ import annotations

from typing import Optional

__all__ = ["HubClosed", "HubError", "QueueFull", "UserCodeException", "WorkerLost"]


class HubError(Exception):
    """The hub has no answer, and it is not the function's doing."""


class QueueFull(HubError):
    """As many requests as may are waiting already; this one was refused at once."""

    def __init__(self, message: str = "too many requests are waiting", retry_after: Optional[float] = None) -> None:
        super().__init__(message)
        #: Seconds until there is a place again, reckoned from the queue's length, the workers, and how long calls
        #: have taken so far; 0.0 before the first one has ended. What a ``Retry-After`` header wants, rounded up.
        self.retry_after: float = retry_after or 0.0


class WorkerLost(HubError):
    """The worker was lost while it had the request, and so were those of the attempts before."""


class HubClosed(HubError):
    """The hub was closed."""


class UserCodeException(Exception):
    """What the worker's class raised. The message ends with the traceback."""

    def __init__(self, t: str, *, type: str = "", message: str = "") -> None:
        super().__init__(f"Exception raised in user-defined code. Traceback :\n{t}")
        #: Name of the exception's type, with its module unless it is a builtin.
        self.type = type
        #: What the exception said.
        self.message = message
        #: Where it was raised.
        self.traceback: Optional[str] = t
