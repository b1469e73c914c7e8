"""The process that runs user code: ``python -m gatewright.worker --connect unix:PATH --class module:Class``.

It connects to its gateway, says hello, constructs the object with the arguments it is given, and calls it once
for each request until it is told to stop. The gateway starts it; the secret that it must present is in the
environment variable ``GATEWRIGHT_WORKER_TOKEN``.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import difflib
import importlib
import inspect
import json
import os
import signal
import socket
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Optional, Sequence

from . import protocol
from .connection import Connection, GatewayGone
from .protocol import Encoder

#: Longest error message and traceback that are passed on, in characters.
MAX_MESSAGE = 4_000
MAX_TRACEBACK = 32_000


def load(target: str) -> Any:
    """The class or function that ``module:Name`` stands for; raises an error that says what is missing."""
    module_name, colon, path = target.partition(":")
    if not (colon and module_name and path):
        raise ValueError(f"`{target}` is not of the form module:Class")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise ModuleNotFoundError(
            f"there is no module `{error.name}` in `{os.getcwd()}` or on Python's path", name=error.name
        ) from None
    for name in path.split("."):
        if not hasattr(found, name):
            raise AttributeError(_no_such_name(found, name, module_name))
        found = getattr(found, name)
    return found


def _no_such_name(found: Any, name: str, module_name: str) -> str:
    text = f"module `{module_name}` has no class `{name}`"
    names = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"{text}, but `{near[0]}`"
    return f"{text}; it has {', '.join(f'`{key}`' for key in sorted(names)[:10])}" if names else text


def construct(target: str, args: Sequence[Any], kwargs: dict) -> Callable[..., Any]:
    """The object that will be called: an instance of the class, or the function itself."""
    found = load(target)
    if inspect.isclass(found):
        instance = found(*args, **kwargs)
        if not callable(instance):
            raise TypeError(f"class `{target}` has no method `__call__`, so its objects cannot be called")
        return instance
    if not callable(found):
        raise TypeError(f"`{target}` is neither a class nor a function")
    if args or kwargs:
        raise TypeError(f"`{target}` is not a class, so it takes no constructor arguments")
    return found


class Worker:
    """Answers the requests of one connection by calling one object."""

    def __init__(self, connection: Connection, target: Callable[..., Any], window: int, limit: int) -> None:
        self._connection = connection
        self._target = target
        self._window = window
        self._limit = limit
        self._local = threading.local()

    def run(self) -> None:
        """Answers requests until there are no more."""
        next_request, answer = self._connection.next_request, self._answer
        if self._window == 1:
            while (request := next_request()) is not None:
                answer(request)
            return
        with ThreadPoolExecutor(self._window, "gatewright-call") as pool:
            while (request := next_request()) is not None:
                pool.submit(self._answer_in_thread, request)

    def _answer_in_thread(self, request: list) -> None:
        try:
            self._answer(request)
        except GatewayGone:
            os._exit(1)

    def _answer(self, request: list) -> None:
        _, number, _deadline_ms, _attempt, args, kwargs = request
        if self._connection.take_cancelled(number):
            self._fail(number, "Cancelled", "cancelled before its call", None, False)
            return
        try:
            result = self._target(*args, **kwargs)
            if inspect.iscoroutine(result):
                result = self._loop().run_until_complete(result)
            if inspect.isgenerator(result):
                result = self._stream(number, result)
            frame = self._encoder().encode(protocol.RESPONSE, number, result)
        except GatewayGone:
            raise
        except (Exception, SystemExit) as error:
            kind, message, trace = describe(error)
            self._fail(number, kind, message, trace, getattr(error, "retryable", False) is True)
            return
        self._connection.send(frame)

    def _stream(self, number: int, pieces: Any) -> None:
        """Sends what a generator yields: strings and bytes as they are, anything else as a line of JSON."""
        for piece in pieces:
            if not isinstance(piece, (str, bytes)):
                piece = json.dumps(piece) + "\n"
            self._connection.send(self._encoder().encode(protocol.CHUNK, number, piece))

    def _fail(self, number: int, kind: str, message: str, trace: Optional[str], retryable: bool) -> None:
        encoder = self._encoder()
        self._connection.send(encoder.encode(protocol.ERROR, number, kind, message, trace, retryable))

    def _encoder(self) -> Encoder:
        try:
            return self._local.encoder
        except AttributeError:
            self._local.encoder = Encoder(self._limit)
            return self._local.encoder

    def _loop(self) -> asyncio.AbstractEventLoop:
        try:
            return self._local.loop
        except AttributeError:
            self._local.loop = asyncio.new_event_loop()
            return self._local.loop


def describe(error: BaseException) -> tuple[str, str, str]:
    """Type, message and traceback of an error, in lengths and characters that can always be sent."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except Exception as second:
        message = f"(its message could not be made: {type(second).__name__})"
    # The first step is in this file and says nothing about the user's code.
    steps = error.__traceback__.tb_next if error.__traceback__ else None
    try:
        trace = "".join(traceback.format_exception(kind, error, steps))
    except Exception:
        trace = "".join(traceback.format_tb(steps))
    return _sendable(name[:MAX_MESSAGE]), _sendable(message[:MAX_MESSAGE]), _sendable(trace[-MAX_TRACEBACK:])


def _sendable(text: str) -> str:
    """Without the half characters that Python's strings can hold and UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def die_with_parent(parent: int) -> None:
    """Asks Linux to kill this process when the gateway ends, however it ends."""
    if sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("gatewright worker: the gateway that started it is gone")


def connect(address: str) -> socket.socket:
    """Connects to ``unix:PATH``."""
    scheme, _, path = address.partition(":")
    if scheme != "unix" or not path:
        raise ValueError(f"`{address}` is not of the form unix:PATH")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    return sock


def serve(connection: Connection, options: argparse.Namespace) -> int:
    """The life of a worker on its connection; returns its exit status."""
    encoder = Encoder()
    token = os.environ.pop("GATEWRIGHT_WORKER_TOKEN", "")
    pid, window = os.getpid(), options.window
    connection.send(encoder.encode(protocol.HELLO, protocol.VERSION, options.name, pid, window, token))
    _, limit, args, kwargs = connection.receive(protocol.INIT)
    connection.watch()
    try:
        target = construct(options.target, args, kwargs)
    except (Exception, SystemExit) as error:
        connection.send(encoder.encode(protocol.INIT_ERROR, *describe(error)))
        return 1
    signal.signal(signal.SIGTERM, lambda *_: connection.drain())
    connection.send(encoder.encode(protocol.READY))
    Worker(connection, target, window, limit).run()
    connection.send(encoder.encode(protocol.BYE, "done"))
    return 0


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="gatewright.worker", description="Serves a class to a gateway.")
    parser.add_argument("--connect", required=True, metavar="unix:PATH", help="where the gateway listens")
    parser.add_argument("--class", required=True, dest="target", metavar="module:Class", help="what to serve")
    parser.add_argument("--name", default="worker", help="name of this worker in the gateway's log")
    parser.add_argument("--window", type=int, default=1, help="requests at a time; more than 1 uses threads")
    parser.add_argument("--path", help="directory to import from, before all others")
    parser.add_argument("--parent", type=int, help="process id of the gateway: die when it does")
    options = parser.parse_args(arguments)
    if options.window < 1:
        parser.error("--window must be at least 1")
    if options.parent is not None:
        die_with_parent(options.parent)
    if options.path is not None:
        sys.path.insert(0, options.path)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the gateway, which then drains its workers
    try:
        connection = Connection(connect(options.connect))
        return serve(connection, options)
    except (GatewayGone, protocol.ProtocolError, OSError) as error:
        print(f"gatewright worker: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
