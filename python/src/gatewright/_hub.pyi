from typing import Any, Optional

class Mailbox:
    """Where the answers for one event loop wait for it."""

    def __new__(cls) -> Mailbox: ...
    def fileno(self) -> int: ...
    def collect(self) -> list[tuple[int, int, Any]]: ...

class Hub:
    """A hub that listens, and the thread that does its work."""

    def __new__(
        cls,
        *,
        listen: str,
        token: Optional[str],
        queue_capacity: int,
        window: int,
        attempts: int,
        silence: float,
    ) -> Hub: ...
    @property
    def port(self) -> int: ...
    def submit(
        self, mailbox: Mailbox, args: bytes, kwargs: bytes, timeout: Optional[float], urgency: int
    ) -> int: ...
    def cancel(self, id: int) -> None: ...
    def status(self) -> dict[str, int]: ...
    def close(self) -> None: ...
