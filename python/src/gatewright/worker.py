"""The process that runs user code: ``python -m gatewright.worker --connect unix:PATH --class module:Class``.

With ``--hub HOST:PORT`` instead of ``--connect`` it joins a hub elsewhere, and joins it again when it comes back.

It connects to its gateway, says hello, constructs the object with the arguments it is given, and calls it once
for each request until it is told to stop. The gateway starts it; the secret that it must present is in the
environment variable ``GATEWRIGHT_WORKER_TOKEN``.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import inspect
import json
import os
import random
import signal
import socket
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional, Sequence

from . import protocol
from .connection import Batch, Connection, GatewayGone, Unhealthy
from .context import current
from .protocol import Encoder

if TYPE_CHECKING:
    # Imported where they are used: together they are a third of the memory of a worker that needs none of them.
    import asyncio
    import ssl

#: Longest error message and traceback that are passed on, in characters.
MAX_MESSAGE = 4_000
MAX_TRACEBACK = 32_000
#: Types of results that are neither awaited nor sent bit by bit.
PLAIN = frozenset((type(None), bool, int, float, str, bytes, list, tuple, dict))


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
    import difflib

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

    def __init__(
        self,
        connection: Connection,
        target: Callable[..., Any],
        window: int,
        limit: int,
        loops: "Loops",
        rich: bool = False,
    ) -> None:
        self._connection = connection
        self._target = target
        self._window = window
        self._limit = limit
        self._loops = loops
        self._rich = rich
        self._local = threading.local()

    def run(self) -> None:
        """Answers requests until there are no more."""
        next_request, answer = self._connection.next_request, self._answer
        if self._window == 1:
            while (request := next_request()) is not None:
                if type(request) is Batch:
                    self._answer_batch(request)
                else:
                    answer(request)
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(self._window, "gatewright-call") as pool:
            while (request := next_request()) is not None:
                pool.submit(self._answer_in_thread, request)

    def _answer_in_thread(self, request: list) -> None:
        try:
            self._answer(request)
        except GatewayGone:
            self._connection.drain()

    def _answer(self, request: list) -> None:
        _, number, _deadline_ms, _attempt, args, kwargs = request
        connection = self._connection
        try:
            if connection.is_cancelled(number):
                return self._fail(number, "Cancelled", "cancelled before its call", None, False)
            begun = time.monotonic()
            current.set((connection, request, begun))
            try:
                result = self._target(*args, **kwargs)
                if type(result) not in PLAIN:
                    if inspect.iscoroutine(result):
                        result = self._await(number, result)
                    if inspect.isgenerator(result) or inspect.isasyncgen(result):
                        result = self._stream(number, result)
                frame = self._encoder().encode(protocol.RESPONSE, number, result)
            except GatewayGone:
                raise
            except KeyboardInterrupt as error:
                # Somebody ends this process, which is not the request's fault.
                self._fail(number, *describe(error), True)
                raise
            except BaseException as error:
                kind, message, trace = describe(error)
                return self._fail(number, kind, message, trace, getattr(error, "retryable", False) is True)
            if self._window == 1:
                connection.answer(frame, time.monotonic() - begun)
            else:
                connection.send(frame)
        finally:
            connection.answered(number)

    def _answer_batch(self, batch: Batch) -> None:
        """Calls the object once with the list of what each request has as its argument."""
        connection, encoder = self._connection, self._encoder()
        members: list[list] = []
        items = []
        for request in batch:
            number = request[1]
            try:
                if connection.is_cancelled(number):
                    self._fail(number, "Cancelled", "cancelled before its call", None, False)
                    connection.answered(number)
                else:
                    items.append(batch_item(request[4], request[5]))
                    members.append(request)
            except TypeError as error:
                self._fail(number, "TypeError", str(error), None, False)
                connection.answered(number)
        if not members:
            return
        current.set((connection, members[0], time.monotonic()))
        try:
            results = self._target(items)
            if inspect.iscoroutine(results):
                results = self._loops.own().run_until_complete(results)
            results = batch_results(results, len(items))
        except BaseException as error:
            kind, message, trace = describe(error)
            retryable = getattr(error, "retryable", False) is True
            frames = [encoder.encode(protocol.ERROR, m[1], kind, message, trace, retryable) for m in members]
        else:
            frames = [self._result_frame(m[1], result) for m, result in zip(members, results)]
        connection.send(b"".join(frames))
        for member in members:
            connection.answered(member[1])

    def _result_frame(self, number: int, result: Any) -> bytes:
        try:
            return self._encoder().encode(protocol.RESPONSE, number, result)
        except Exception as error:
            return self._encoder().encode(protocol.ERROR, number, *describe(error), False)

    def _await(self, number: int, coroutine: Any) -> Any:
        """Runs a coroutine to its end, or until its request is cancelled."""
        loop = self._loops.own()
        task = loop.create_task(coroutine)
        self._connection.when_cancelled(number, lambda: loop.call_soon_threadsafe(task.cancel))
        return loop.run_until_complete(task)

    def _stream(self, number: int, pieces: Any) -> None:
        """Sends what a generator yields: strings and bytes as they are, anything else as a line of JSON. One that
        nobody waits for is closed."""
        if inspect.isasyncgen(pieces):
            pieces = in_turn(self._loops.own(), pieces)
        for piece in pieces:
            if self._connection.is_cancelled(number):
                pieces.close()
                raise Cancelled("cancelled during its call")
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
            self._local.encoder = Encoder(self._limit, self._rich)
            return self._local.encoder


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


class Loops:
    """An event loop for each thread that needs one."""

    def __init__(self) -> None:
        self._local = threading.local()

    def own(self) -> asyncio.AbstractEventLoop:
        """That of the calling thread."""
        try:
            return self._local.loop
        except AttributeError:
            import asyncio

            self._local.loop = asyncio.new_event_loop()
            return self._local.loop

    def finish(self, value: Any) -> Any:
        """What a method returned, awaited if it is a coroutine."""
        return self.own().run_until_complete(value) if inspect.iscoroutine(value) else value


def batch_item(args: list, kwargs: dict) -> Any:
    """What stands for a request in the list of a batch: its one argument, or its keyword arguments as a dict."""
    if len(args) == 1 and not kwargs:
        return args[0]
    if kwargs and not args:
        return kwargs
    raise TypeError("a request of a batched function has one positional argument, or only keyword arguments")


def batch_results(results: Any, count: int) -> list:
    """The results of a batch; raises an error unless there is one for each request."""
    if not isinstance(results, (list, tuple)) and not hasattr(results, "tolist"):
        kind = type(results).__qualname__
        raise TypeError(f"a batched function returns a list with a result for each request, not {kind}")
    if len(results) != count:
        raise ValueError(f"a batch of {count} requests was answered with {len(results)} results")
    return list(results)


def in_turn(loop: asyncio.AbstractEventLoop, pieces: Any) -> Any:
    """What an asynchronous generator yields, one after another."""
    try:
        while True:
            try:
                yield loop.run_until_complete(pieces.__anext__())
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(pieces.aclose())


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


def connect(address: str, tls: Optional[ssl.SSLContext] = None) -> socket.socket:
    """Connects to ``unix:PATH`` or ``tcp:HOST:PORT``, the latter with TLS if so told."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix" and rest:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(rest)
        return sock
    host, colon, port = rest.rpartition(":")
    if scheme != "tcp" or not (host and colon and port.isdecimal()):
        raise ValueError(f"`{address}` is neither of the form unix:PATH nor tcp:HOST:PORT")
    sock = socket.create_connection((host.strip("[]"), int(port)), timeout=10)
    sock.settimeout(None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A hub whose machine is gone says nothing: noticed in a dozen seconds.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 4), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if tls is None:
        return sock
    from .tls import secure

    return secure(sock, tls, host.strip("[]"))


def machine(labels: Mapping[str, str]) -> tuple[dict[str, str], Optional[int], Optional[int]]:
    """What a hello tells of this machine: labels, processors, and memory in bytes."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory = 0
    return dict(labels), os.cpu_count(), memory if memory > 0 else None


class Service:
    """An object that is served, on one connection after another."""

    def __init__(
        self,
        make: Callable[[Sequence[Any], dict], Callable[..., Any]],
        *,
        name: str,
        token: str = "",
        function: Optional[str] = None,
        window: int = 1,
        batch: int = 0,
        ahead: int = 0,
        rich: bool = False,
        labels: Optional[Mapping[str, str]] = None,
    ) -> None:
        """``ahead``: requests that may be sent before they can be worked on; ``rich``: values keep their types;
        ``labels``: of this machine, for a hub elsewhere."""
        self._make = make
        self._rich = rich
        self._window = batch or window
        self._threads = 1 if batch else window
        node = socket.gethostname()
        self._hello = (name, os.getpid(), max(self._window, ahead), token, function, node, *machine(labels or {}))
        self._loops = Loops()
        self._target: Optional[Callable[..., Any]] = None
        self._made_with: Any = None
        #: Why :meth:`serve` returned another status than 0.
        self.failure = ""

    def serve(self, connection: Connection) -> int:
        """Its life on a connection; returns the exit status, 0 if it was told to end."""
        encoder = Encoder()
        connection.send(encoder.encode(protocol.HELLO, protocol.VERSION, *self._hello))
        _, limit, args, kwargs = connection.receive(protocol.INIT)
        connection.watch()
        try:
            target = self._construct(args, kwargs)
        except BaseException as error:
            kind, message, trace = describe(error)
            self.failure = f"{kind}: {message}"
            connection.send(encoder.encode(protocol.INIT_ERROR, kind, message, trace))
            if isinstance(error, KeyboardInterrupt):
                raise
            return 1
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: connection.leave())
        if callable(getattr(target, "health", None)):
            connection.health = self._check_health
        connection.send(encoder.encode(protocol.READY))
        try:
            Worker(connection, target, self._threads, limit, self._loops, self._rich).run()
        except Unhealthy as error:
            self.failure = f"not healthy: {error}"[:MAX_MESSAGE]
            connection.send(encoder.encode(protocol.BYE, self.failure))
            return 1
        connection.send(encoder.encode(protocol.BYE, "done"))
        return 0

    def _construct(self, args: Sequence[Any], kwargs: dict) -> Callable[..., Any]:
        """The object, made once for the same arguments."""
        if self._target is None or self._made_with != (args, kwargs):
            target = self._make(args, kwargs)
            setup = getattr(target, "setup", None)
            if callable(setup) and not inspect.isfunction(target):
                self._loops.finish(setup())
            self._target, self._made_with = target, (args, kwargs)
        return self._target

    def _check_health(self) -> None:
        try:
            well = self._loops.finish(self._target.health())  # type: ignore[union-attr]
        except Exception as error:
            raise Unhealthy(f"{type(error).__name__}: {error}") from error
        if well is False:
            raise Unhealthy("health() returned False")

    def tear_down(self) -> None:
        """Lets the object clean up at the end."""
        teardown = getattr(self._target, "teardown", None)
        if not callable(teardown) or inspect.isfunction(self._target):
            return
        try:
            self._loops.finish(teardown())
        except Exception:
            traceback.print_exc()


#: Longest pause between two tries to reach a hub, in seconds.
MAX_PAUSE = 5.0


def join(
    service: Service,
    address: str,
    restart: Callable[[], None] = lambda: os._exit(1),
    tls: Optional[ssl.SSLContext] = None,
) -> int:
    """Serves a hub at ``tcp:HOST:PORT``, and again whenever it comes back, until SIGTERM.

    ``restart`` is called when the hub takes a call for hung: it is to end this process.
    """
    stopping = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    pause, said = 0.1, ""
    while not stopping.is_set():
        connection = None
        try:
            # A call that runs when the hub goes away is finished; its answer finds nobody.
            # Its machine is its own, as a rule: the gateway and whoever loads it need no processor here.
            gateway = connect(address, tls)
            connection = Connection(gateway, on_gone=lambda: None, on_bye=restart, awake=True)
            status = service.serve(connection)
            if status != 0:
                print(f"gatewright worker: {service.failure}", file=sys.stderr, flush=True)
            if status != 0 or connection.leaving:
                service.tear_down()
                return status
            pause, said = 0.1, ""
        except (GatewayGone, protocol.ProtocolError, OSError) as error:
            if connection is not None and connection.leaving:
                break
            if str(error) != said:
                said = str(error)
                print(f"gatewright worker: {address}: {error}; trying again", file=sys.stderr, flush=True)
        finally:
            if connection is not None:
                connection.close()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: stopping.set())
        stopping.wait(pause * (0.5 + random.random() / 2))
        pause = min(pause * 2, MAX_PAUSE)
    service.tear_down()
    return 0


def again() -> None:
    """Begins this process anew, whatever its threads are doing."""
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def arguments_parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="gatewright.worker", description="Serves a class to a gateway.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--connect", metavar="ADDRESS", help="where the gateway that started it listens, unix:PATH")
    where.add_argument("--hub", metavar="HOST:PORT", help="where a hub listens; joined again when it comes back")
    parser.add_argument("positional", nargs="?", metavar="module:Class", help="what to serve")
    parser.add_argument("--class", dest="target", metavar="module:Class", help="the same")
    parser.add_argument("--function", help="name of the function that it answers for, at a hub")
    parser.add_argument("--name", default="worker", help="name of this worker in the gateway's log")
    parser.add_argument("--window", type=int, default=1, help="requests at a time; more than 1 uses threads")
    parser.add_argument("--batch", type=int, default=0, help="requests in a batch, which are one call with a list")
    parser.add_argument("--ahead", type=int, default=0, help="requests that may be sent before they can be worked on")
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="label of this machine, at a hub")
    parser.add_argument("--tls", action="store_true", help="speak TLS with the hub, which this system's roots vouch for")
    parser.add_argument("--tls-ca", metavar="FILE", help="the same, with the roots in this file, PEM")
    parser.add_argument("--tls-certificate", metavar="FILE", help="shown to a hub that asks for one, PEM")
    parser.add_argument("--tls-key", metavar="FILE", help="its key, PEM")
    parser.add_argument("--path", help="directory to import from, before all others")
    parser.add_argument("--parent", type=int, help="process id of the gateway: die when it does")
    return parser


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command."""
    parser = arguments_parser()
    options = parser.parse_args(arguments)
    target = options.target or options.positional
    if target is None:
        parser.error("say what to serve: module:Class")
    if options.window < 1 or options.batch < 0:
        parser.error("--window must be at least 1, --batch at least 0")
    if not all(label.partition("=")[1] and label[0] != "=" for label in options.label):
        parser.error("--label is KEY=VALUE")
    if options.parent is not None:
        die_with_parent(options.parent)
    sys.path.insert(0, options.path if options.path is not None else os.getcwd())
    signal.signal(signal.SIGINT, signal.SIG_IGN if options.connect else signal.default_int_handler)
    token = os.environ.get("GATEWRIGHT_WORKER_TOKEN", "")
    if options.connect:
        # Kept from user code. A worker of a hub needs it again when it begins anew.
        os.environ.pop("GATEWRIGHT_WORKER_TOKEN", None)
    service = Service(
        lambda args, kwargs: construct(target, args, kwargs),
        name=options.name,
        token=token,
        function=options.function,
        window=options.window,
        batch=options.batch,
        ahead=options.ahead,
        labels=dict(label.split("=", 1) for label in options.label),
    )
    try:
        if options.hub:
            secured = options.tls or options.tls_ca or options.tls_certificate
            tls = None
            if secured:
                from .tls import context

                tls = context(options.tls_ca, options.tls_certificate, options.tls_key)
            return join(service, f"tcp:{options.hub}", again, tls)
        status = service.serve(Connection(connect(options.connect)))
        service.tear_down()
        return status
    except KeyboardInterrupt:
        return 130
    except (GatewayGone, protocol.ProtocolError, OSError, ValueError) as error:
        print(f"gatewright worker: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
