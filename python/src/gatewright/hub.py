"""The hub: requests from asyncio, answered by workers.

The queue, the choice of a worker, deadlines and retries are those of the gateway, in Rust, on a thread of their
own. What is here makes Python values of them, and futures.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import time
import types
import weakref
from asyncio import get_running_loop
from types import TracebackType
from typing import Any, AsyncIterator, Generator, Mapping, Optional, Sequence, Union

from . import _hub, logs
from .errors import HubClosed, HubError, QueueFull, UserCodeException, WorkerLost
from .values import Packing, pack, unpack

DEFAULT_PORT = 5019
#: Pings that a worker may leave unanswered.
_PINGS = 5
#: The urgency of a request that names none (RFC 9218): 0 is served before 1, and 7 last.
DEFAULT_URGENCY = 3

_NO_KWARGS = pack({})
# What a letter from the hub says; see rust/mailbox.rs.
_VALUE, _RAISED, _UNANSWERED, _TEXT_PIECE = 0, 1, 2, 3

_live: weakref.WeakSet[Hub] = weakref.WeakSet()


class Hub:
    """Gives requests to the workers that connect to it.

    It listens from its first request on, or from :meth:`start`. Several event loops, in one thread or many, may
    use one hub. So may several processes of one machine and user: each makes its ``Hub`` with the same arguments,
    the first one has the port, and the others' requests join its queue. When that process ends, another one takes
    the port and the workers come to it; requests that were under way are sent again, as ``attempts`` allows.

    - ``port``: where workers connect to; 0 for any free one.
    - ``heartbeat_interval``: seconds between pings to a worker. One that leaves five unanswered is given up. A
      worker that dies is noticed at once, without them.
    - ``resp_buffer_size``: requests that may wait for a worker; one more is refused with :class:`QueueFull`.
    - ``host``: the address to listen at. Any but a loopback one needs a ``token``.
    - ``token``: what workers must present, or the environment's ``GATEWRIGHT_TOKEN``.
    - ``window``: requests that a worker is sent at a time. It works on one after the other; more than 1 saves the
      way to and fro for very short calls, and costs that a request may wait behind a long one.
    - ``attempts``: attempts in all at a request whose worker is lost; 1 for what must not run twice.
    """

    def __init__(
        self,
        port: int = DEFAULT_PORT,
        heartbeat_interval: float = 1,
        resp_buffer_size: int = 4096,
        host: str = "127.0.0.1",
        token: Optional[str] = None,
        *,
        window: int = 1,
        attempts: int = 2,
    ) -> None:
        self._native: Optional[_hub.Hub] = None
        self._address = (host, port)
        self._options = {
            "token": token if token is not None else os.environ.get("GATEWRIGHT_TOKEN"),
            "queue_capacity": resp_buffer_size,
            "window": window,
            "attempts": attempts,
            "silence": heartbeat_interval * _PINGS,
        }
        self._starting = threading.Lock()
        self._closed = False
        self._process = os.getpid()
        self._inboxes: dict[asyncio.AbstractEventLoop, _Inbox] = {}

    def start(self) -> Hub:
        """Listens, if it does not yet. Raises :class:`HubError` if it cannot, saying why."""
        self._started()
        return self

    async def request(
        self,
        *args: Any,
        timeout: Optional[float] = None,
        retries: int = 0,
        total_timeout: Optional[float] = None,
        gibbs_timeout: Optional[float] = None,
        gibbs_retries: Optional[int] = None,
        **kwargs: Any,
    ) -> Any:
        """Calls the workers' object with these arguments and returns what it returns.

        ``timeout`` is in seconds; ``None`` waits for ever. After a timeout the request is given up and, ``retries``
        times, made anew (-1: for ever), all within ``total_timeout`` if there is one. Use :meth:`call` for functions
        that have arguments of these names.

        Raises :class:`asyncio.TimeoutError`; :class:`UserCodeException` if the object raised; :class:`QueueFull`,
        :class:`WorkerLost` or :class:`HubClosed`; and :class:`TypeError`, :class:`ValueError` or
        :class:`OverflowError` for arguments that cannot be sent.
        """
        if gibbs_timeout is not None:
            timeout = gibbs_timeout
        if gibbs_retries is not None:
            retries = gibbs_retries
        native = self._native
        if native is None:
            native = self._started()
        inbox = self._inboxes.get(get_running_loop()) or self._inbox()
        packed_args = inbox.pack(list(args))
        packed_kwargs = inbox.pack(kwargs) if kwargs else _NO_KWARGS
        if retries or total_timeout is not None:
            return await self._retried(packed_args, packed_kwargs, timeout, retries, total_timeout, DEFAULT_URGENCY)
        # As in _attempt, once more: a coroutine less on the shortest way.
        future = inbox.new_future()
        number = native.submit(inbox.mailbox, packed_args, packed_kwargs, timeout, DEFAULT_URGENCY)
        waiting = inbox.waiting
        waiting[number] = future
        try:
            if len(waiting) == 1 and inbox.mailbox.linger():
                inbox.deliver()
                # Others have their turn all the same.
                await _turn()
            return unpack(await future)
        except asyncio.CancelledError:
            inbox.give_up(native, number)
            raise

    async def call(
        self,
        args: Sequence[Any] = (),
        kwargs: Optional[Mapping[str, Any]] = None,
        *,
        timeout: Optional[float] = None,
        retries: int = 0,
        total_timeout: Optional[float] = None,
        urgency: int = DEFAULT_URGENCY,
    ) -> Any:
        """As :meth:`request`, with the function's arguments apart from the request's, and an urgency (RFC 9218):
        0 is served before 1, and 7 last; within one, first come is first served."""
        self._started()
        packed_args, packed_kwargs = pack(list(args)), pack(dict(kwargs or {}))
        return await self._retried(packed_args, packed_kwargs, timeout, retries, total_timeout, urgency)

    async def stream(
        self,
        *args: Any,
        timeout: Optional[float] = None,
        **kwargs: Any,
    ) -> AsyncIterator[Union[str, bytes]]:
        """The pieces of an answer as they come, if the workers' object is a generator: ``str`` or ``bytes`` as it
        yields, anything else as a line of JSON. A generator whose pieces are not taken has to wait: at most 32 of
        them, and what fits into a socket's buffers, are on the way. Left before its end, the request is given up."""
        native = self._started()
        packed_args, packed_kwargs = pack(list(args)), pack(kwargs)
        inbox = self._inbox()
        future = inbox.loop.create_future()
        pieces: asyncio.Queue[Union[str, bytes, None]] = asyncio.Queue()
        future.add_done_callback(lambda _: pieces.put_nowait(None))
        number = native.submit(inbox.mailbox, packed_args, packed_kwargs, timeout, DEFAULT_URGENCY)
        inbox.waiting[number] = future
        inbox.streams[number] = pieces.put_nowait
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
                # Only now: a generator is no more than some pieces ahead of who reads it.
                native.more(number, 1)
            value = unpack(await future)
            if value is not None:
                raise TypeError(f"the answer is one {type(value).__name__}, not pieces; use request()")
        finally:
            inbox.give_up(native, number)

    def status(self) -> dict[str, int]:
        """How many there are of ``workers``, ``queued`` requests and requests ``in_flight``, and how many there have
        been of ``requests``, ``retries`` and ``workers_left``."""
        return self._started().status()

    @property
    def port(self) -> int:
        """The port that workers connect to."""
        return self._started().port

    @property
    def is_host(self) -> bool:
        """Whether this process has the hub; ``False`` while it shares the one of another process."""
        return self._started().is_host

    def close(self) -> None:
        """Ends every request with :class:`HubClosed` and lets go of the workers. The port is free afterwards."""
        self._closed = True
        native, self._native = self._native, None
        for inbox in list(self._inboxes.values()):
            inbox.closing = True
        if native is not None:
            native.close()
        for inbox in list(self._inboxes.values()):
            inbox.close()
        self._inboxes.clear()

    def __enter__(self) -> Hub:
        return self.start()

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    async def __aenter__(self) -> Hub:
        return self.start()

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_native", None) is not None:
            self.close()

    async def _retried(
        self,
        args: bytes,
        kwargs: bytes,
        timeout: Optional[float],
        retries: int,
        total: Optional[float],
        urgency: int,
    ) -> Any:
        """Attempts until one is in time, or there may be no more."""
        end = None if total is None else time.monotonic() + total
        while True:
            limit = timeout
            if end is not None:
                left = max(end - time.monotonic(), 0.0)
                limit = left if timeout is None else min(timeout, left)
            try:
                return unpack(await self._attempt(args, kwargs, limit, urgency))
            except asyncio.TimeoutError:
                if retries == 0 or (end is not None and time.monotonic() >= end):
                    raise
                retries = max(retries - 1, -1)

    async def _attempt(self, args: bytes, kwargs: bytes, timeout: Optional[float], urgency: int) -> bytes:
        native = self._started()
        inbox = self._inbox()
        future = inbox.loop.create_future()
        number = native.submit(inbox.mailbox, args, kwargs, timeout, urgency)
        inbox.waiting[number] = future
        try:
            return await future
        except asyncio.CancelledError:
            inbox.give_up(native, number)
            raise

    def _inbox(self) -> _Inbox:
        loop = asyncio.get_running_loop()
        try:
            return self._inboxes[loop]
        except KeyError:
            return self._new_inbox(loop)

    def _new_inbox(self, loop: asyncio.AbstractEventLoop) -> _Inbox:
        for other in [other for other in self._inboxes if other.is_closed()]:
            inbox = self._inboxes.pop(other, None)
            if inbox is not None:
                inbox.mailbox.leave()
        inbox = self._inboxes[loop] = _Inbox(loop, self._started())
        return inbox

    def _started(self) -> _hub.Hub:
        if self._native is not None:
            return self._native
        with self._starting:
            if self._native is None:
                self._listen()
            assert self._native is not None
            return self._native

    def _listen(self) -> None:
        if self._closed:
            raise HubClosed("the hub was closed")
        if self._process != os.getpid():
            # Made before a fork: here it is another hub.
            self._process = os.getpid()
            self._inboxes = {}
        host, port = self._address
        listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self._native = _hub.Hub(listen=listen, **self._options)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise HubError(
                    f"port {port} of {host} is taken by something that is no hub of this machine and network "
                    "namespace; give Hub and Worker another one"
                ) from None
            raise HubError(f"cannot listen at {host}:{port}: {error}") from None
        _live.add(self)
        logs.forward()

    def _forked(self) -> None:
        """In a child that was forked: the sockets are the parent's, and would stay open after it."""
        native, self._native = self._native, None
        self._starting = threading.Lock()
        if native is not None:
            _close_sockets_at(native.port)
        for inbox in self._inboxes.values():
            inbox.forget()


class _Inbox:
    """What the hub has for one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, native: _hub.Hub) -> None:
        self.loop = loop
        self.native = native
        self.new_future = loop.create_future
        self.pack = Packing()
        self.mailbox = _hub.Mailbox(native)
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self.streams: dict[int, Any] = {}
        self.texts: dict[int, list[Union[str, bytes]]] = {}
        self.closing = False
        loop.add_reader(self.mailbox.fileno(), self.deliver)
        self.attending = self.mailbox.attend()
        loop.add_reader(self.attending, self.deliver)

    def deliver(self) -> None:
        """Called by the loop when there are letters."""
        waiting = self.waiting
        for number, what, content in self.mailbox.collect():
            if what > _UNANSWERED:
                self.take_piece(number, content.decode() if what == _TEXT_PIECE else content)
                continue
            future = waiting.pop(number, None)
            if future is None or future.done():
                self.texts.pop(number, None)
            elif what == _VALUE:
                if number in self.texts:
                    content = self.joined(number)
                future.set_result(content)
            else:
                self.texts.pop(number, None)
                future.set_exception(_error(what, ("closed", None) if self.closing and what == _UNANSWERED else content))

    def take_piece(self, number: int, piece: Union[str, bytes]) -> None:
        stream = self.streams.get(number)
        if stream is not None:
            stream(piece)
        elif number in self.waiting:
            self.texts.setdefault(number, []).append(piece)
            self.native.more(number, 1)

    def joined(self, number: int) -> bytes:
        """The value of an answer that came in pieces to somebody who wants it whole."""
        pieces = self.texts.pop(number)
        if all(isinstance(piece, str) for piece in pieces):
            return pack("".join(pieces))  # type: ignore[arg-type]
        return pack(b"".join(piece.encode() if isinstance(piece, str) else piece for piece in pieces))

    def give_up(self, native: _hub.Hub, number: int) -> None:
        self.streams.pop(number, None)
        self.texts.pop(number, None)
        if self.waiting.pop(number, None) is not None:
            native.cancel(number)

    def close(self) -> None:
        """Ends what still waits, from any thread."""
        self.closing = True
        try:
            self.loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            pass  # the loop is closed: nobody waits

    def forget(self) -> None:
        """In a fork: no loop runs here."""
        self.waiting.clear()

    def _end(self) -> None:
        self.deliver()
        self.loop.remove_reader(self.mailbox.fileno())
        self.loop.remove_reader(self.attending)
        self.mailbox.leave()
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(HubClosed("the hub was closed"))
        self.waiting.clear()


@types.coroutine
def _turn() -> Generator[None, None, None]:
    """Lets what else is ready run, as ``asyncio.sleep(0)`` does."""
    yield


def _error(what: int, content: Any) -> Exception:
    if what == _RAISED:
        kind, message, trace = content
        return UserCodeException(trace or f"{kind}: {message}", type=kind, message=message)
    why, retry_after = content
    if why == "timed_out":
        return asyncio.TimeoutError("no answer in time")
    if why == "queue_full":
        return QueueFull("as many requests as may are waiting for a worker (resp_buffer_size)", retry_after)
    if why == "worker_lost":
        return WorkerLost("the worker was lost while it had the request; see its log")
    return HubClosed("the hub was closed")


def _close_sockets_at(port: int) -> None:
    """Closes this process's copies of every socket of the hub at this port: listeners and connections."""
    beside = b"\0gatewright-hub/%d/" % port
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            sock = socket.socket(fileno=number)
        except OSError:
            continue
        if _belongs_to(sock, port, beside):
            sock.close()
        else:
            sock.detach()


def _belongs_to(sock: socket.socket, port: int, beside: bytes) -> bool:
    try:
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            return bool(sock.getsockname()[1] == port)
        if sock.family != socket.AF_UNIX:
            return False
        names = [sock.getsockname()]
        if not names[0]:
            names.append(sock.getpeername())
        return any(isinstance(name, bytes) and name.startswith(beside) for name in names)
    except OSError:
        return False


def _after_fork() -> None:
    for hub in list(_live):
        hub._forked()


os.register_at_fork(after_in_child=_after_fork)
