"""Workers: processes that answer a hub's requests by calling an object."""

from __future__ import annotations

import logging
import multiprocessing
import os
import select
import signal
import socket
import struct
import threading
import time
from typing import Any, Callable, Mapping, Optional, Union

from . import protocol
from .connection import Connection, GatewayGone
from .tls import context, secure
from .worker import Service, _sendable

logger = logging.getLogger("gatewright")

#: Requests that a hub may send ahead; the hub's ``window`` says how many it does.
AHEAD = 1024
#: Seconds between attempts to connect: the first, and the longest.
BACKOFF, BACKOFF_MAX = 0.02, 1.0


class Worker(multiprocessing.Process):
    """A process that makes one object of ``worker_cls`` and calls it for each request of a hub.

    :meth:`start` runs it in a process of its own, :meth:`run` in this one. The hub may be started later, and may go
    and come again: the worker connects for ever. It ends on SIGTERM or SIGINT, after it has answered what it has.

    - ``args``, ``kwargs``: what the object is made with.
    - ``host``, ``port``: where the hub listens.
    - ``token``: what the hub wants to see, or the environment's ``GATEWRIGHT_TOKEN``.
    - ``labels``: of this machine, such as ``{"zone": "a"}``; the hub shows them.
    - ``tls``: ``True`` to speak TLS with a hub that this system's roots vouch for, or the file with other roots.
    - ``heartbeat_interval``: seconds of silence after which an idle worker asks whether the hub is there.
    - ``reset_after_n_miss``: how many such questions may be left unanswered before it connects anew.

    Each has a second name that begins with ``gibbs_``.
    """

    def __init__(
        self,
        worker_cls: Callable[..., Any],
        *args: Any,
        host: str = "localhost",
        port: int = 5019,
        token: Optional[str] = None,
        labels: Optional[Mapping[str, str]] = None,
        tls: Union[bool, str, None] = None,
        heartbeat_interval: float = 1,
        reset_after_n_miss: int = 2,
        gibbs_host: Optional[str] = None,
        gibbs_port: Optional[int] = None,
        gibbs_heartbeat_interval: Optional[float] = None,
        gibbs_reset_after_n_miss: Optional[int] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.worker_cls = worker_cls
        self.worker_args = args
        self.worker_kwargs = kwargs
        self.hub_host = host if gibbs_host is None else gibbs_host
        self.hub_port = port if gibbs_port is None else gibbs_port
        self.token = token
        self.labels = labels
        self.tls = tls
        self.heartbeat_interval = heartbeat_interval if gibbs_heartbeat_interval is None else gibbs_heartbeat_interval
        self.reset_after_n_miss = reset_after_n_miss if gibbs_reset_after_n_miss is None else gibbs_reset_after_n_miss

    def run(self) -> None:
        """Answers requests until it is told to stop. What the class raises when the object is made, this raises."""
        told = threading.Event()
        session: list[_Remote] = []

        def stop(_number: int, _frame: Any) -> None:
            told.set()
            for connection in session:
                connection.drain()
            if not session:
                raise SystemExit(0)

        in_main = threading.current_thread() is threading.main_thread()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)} if in_main else {}
        try:
            for number in handlers:
                signal.signal(number, stop)
            if multiprocessing.parent_process() is not None:
                _end_with_parent()
            target = self.worker_cls(*self.worker_args, **self.worker_kwargs)
            if not callable(target):
                raise TypeError(f"{self.worker_cls!r} has no method `__call__`, so its objects cannot be called")
            service = Service(
                lambda _args, _kwargs: target,
                name=_sendable(getattr(self.worker_cls, "__qualname__", "worker"))[:200],
                token=self.token if self.token is not None else os.environ.get("GATEWRIGHT_TOKEN", ""),
                ahead=AHEAD,
                rich=True,
                labels=self.labels,
            )
            self._serve_for_ever(service, told, session)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _serve_for_ever(self, service: Service, told: threading.Event, session: list[_Remote]) -> None:
        pause, said = BACKOFF, ""
        terminate = signal.getsignal(signal.SIGTERM)
        while not told.is_set():
            try:
                connection = self._connect()
                session.append(connection)
                try:
                    status = service.serve(connection)
                    if connection.told:
                        connection.wait_for_end()
                        break
                    if status != 0:
                        raise SystemExit(status)
                    pause, said = BACKOFF, ""
                finally:
                    if connection.told:
                        told.set()  # whether or not the hub was there to hear it
                    session.clear()
                    connection.close()
                    if threading.current_thread() is threading.main_thread():
                        signal.signal(signal.SIGTERM, terminate)  # the service had its own
            except (GatewayGone, protocol.ProtocolError, OSError) as error:
                if str(error) != said:
                    logger.info("no hub at %s:%s yet: %s", self.hub_host, self.hub_port, error)
                    said = str(error)
                told.wait(pause)
                pause = min(pause * 2, BACKOFF_MAX)
        service.tear_down()

    def _connect(self) -> _Remote:
        near = None if self.tls else _near(self.hub_host, self.hub_port)
        if near is not None:
            return _Remote(near, self.heartbeat_interval, self.reset_after_n_miss)
        sock = socket.create_connection((self.hub_host, self.hub_port), timeout=10)
        if sock.getsockname() == sock.getpeername():
            # Linux may connect a socket to itself when nobody listens and its own port is drawn to be this one.
            sock.close()
            raise ConnectionRefusedError("nobody listens")
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            sock = secure(sock, context(None if self.tls is True else self.tls), self.hub_host)
        return _Remote(sock, self.heartbeat_interval, self.reset_after_n_miss)


def _near(host: str, port: int) -> Optional[socket.socket]:
    """A connection to a hub of this machine and user by the Unix socket beside its port: half the way of TCP."""
    if host not in ("localhost", "127.0.0.1", "::1") or not hasattr(socket, "SO_PEERCRED"):
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(b"\0gatewright-hub/%d/workers" % port)
        _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid in (os.geteuid(), 0):  # anybody may take such a name
            return sock
    except OSError:
        pass
    sock.close()
    return None


class _Remote(Connection):
    """A connection to a hub that may be on another machine: it may fall silent, and it may be made anew."""

    def __init__(self, sock: socket.socket, heartbeat: float, misses: int) -> None:
        # The hub may go, or let go of this worker, while a call runs: that goes on, and its answer goes nowhere.
        super().__init__(sock, on_gone=lambda: None, on_bye=lambda: None)
        #: Whether this process was told to end.
        self.told = False
        self._misses = misses
        self._missed = 0
        # The kernel ends a receive that has waited this long; without a poll before each, as settimeout would add.
        seconds = max(heartbeat, 0.001)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), int(seconds % 1 * 1e6)))

    def leave(self) -> None:
        self.told = True
        super().leave()

    def drain(self) -> None:
        self.told = True
        super().drain()

    def wait_for_end(self) -> None:
        """Says that nothing will follow, and waits until the hub has seen it."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
            end = time.monotonic() + 1
            while time.monotonic() < end and self._socket.recv(65536):
                pass
        except OSError:
            pass

    def close(self) -> None:
        super().close()
        # Not while the other thread may still read from them; it looks up every tenth of a second.
        if self._reading.acquire(timeout=1):
            os.close(self._wake_reader)
            os.close(self._wake_writer)

    def _read_more(self) -> bool:
        while True:
            try:
                count = self._socket.recv_into(self._decoder.space())
                self._missed = 0
                break
            except BlockingIOError:
                if self._missed >= self._misses:
                    count = 0
                    break
                self._missed += 1
                self.send(self._encoder.encode(protocol.PING, self._missed))
            except OSError:
                count = 0
                break
        self._decoder.received(count)
        return count > 0


def _end_with_parent() -> None:
    """Drains this worker when the process that started it is gone, however it went: none is left over."""
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None
    try:
        descriptor = os.pidfd_open(parent.pid)
    except (AttributeError, OSError):
        descriptor = parent.sentinel
    if os.getppid() != parent.pid and multiprocessing.get_start_method(allow_none=True) != "forkserver":
        raise SystemExit(1)

    def watch() -> None:
        select.select([descriptor], [], [])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)  # what runs may be finished; a call that takes longer has nobody to go to
        os._exit(1)

    threading.Thread(target=watch, name="gatewright-parent", daemon=True).start()
