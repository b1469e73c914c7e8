"""A worker's end of its connection to the gateway.

One thread reads at a time. While the worker is idle that is the thread that will make the call, so a request
costs no hand-over between threads. When a call takes long, a second thread takes over the reading: it answers
pings, notes cancellations and sees the gateway go away, and gives the reading back when the call is done.
"""

from __future__ import annotations

import math
import os
import selectors
import socket
import sys
import threading
import time
from collections import deque
from typing import Callable, Optional

from . import protocol
from .protocol import Decoder, Encoder

#: Seconds after which a call counts as long.
LONG_CALL = 0.1
#: Seconds below which a call counts as short, and how many of them in a row let answers be sent together.
SHORT_CALL, SHORT_CALLS = 0.0005, 16
#: Bytes of answers that are held at most.
HELD = 1 << 16
#: Seconds after which answers are sent that a call still holds up: one tick of these or two.
HELD_FOR = 0.002
#: Seconds for which the gateway is listened for without sleeping: to be woken costs a process on an idle processor
#: tens of microseconds. Whether that is worth it is tried once in a while.
AWAKE = 0.0001
#: Whoever gives way and gets its turn back only after so many seconds is not alone on its processor, and sleeps. Each
#: time that staying awake was in vain, twice as many waits follow that sleep at once, and at most so many.
CROWDED, ASLEEP = 0.00002, 128
#: Processors from which on there is one to spare for that.
PLENTY = 4


#: The frame that says that this worker is going.
LEAVE = Encoder().encode(protocol.DRAIN)


class GatewayGone(Exception):
    """The connection to the gateway is closed."""


class Unhealthy(Exception):
    """The object says that it cannot go on."""


class Batch(list):
    """Request frames that are to be answered by one call."""


def _processors() -> float:
    """Processors that this process may use: those it may run on, and no more than its control group is given."""
    processors = len(os.sched_getaffinity(0))
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        return processors if quota == "max" else min(processors, int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return processors


def _exit() -> None:
    os._exit(1)


class Connection:
    """Frames in and out, and the state they change.

    ``on_gone`` is called, in the reading thread, when the gateway goes away or ends this worker during a long
    call: nobody would get its answer. ``on_bye`` is called when it says so. ``awake``: whether to stay awake for a
    moment while short calls follow one another.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_gone: Callable[[], None] = _exit,
        on_bye: Callable[[], None] = _exit,
        awake: Optional[bool] = None,
    ) -> None:
        self._socket = sock
        self._on_gone = on_gone
        self._on_bye = on_bye
        #: Called when a ping comes while no call runs; raises :class:`Unhealthy` when it is not well.
        self.health: Optional[Callable[[], None]] = None
        self._cancel_hooks: dict[int, Callable[[], None]] = {}
        self._batch: Optional[Batch] = None
        self._batch_size = 0
        self._closed = False
        self._decoder = Decoder()
        self._encoder = Encoder()
        self._requests: deque[list] = deque()
        self._open: set[int] = set()
        self._cancelled: set[int] = set()
        self._reading = threading.Lock()
        self._sending = threading.Lock()
        self._wake_reader, self._wake_writer = os.pipe()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._holding = threading.Event()
        self._looked_after = self._reads_apart = False
        self._short_calls = 0
        if awake is None:
            awake = _processors() >= PLENTY
        self._asleep, self._in_vain = (0 if awake else math.inf), 1
        self._calls = 0
        self._busy = False
        self._draining = False
        self._leaving = self._leave_sent = False
        self._ended = False

    def send(self, frame: bytes) -> None:
        """Sends one whole frame; raises :class:`GatewayGone` if nobody is there to take it."""
        try:
            with self._sending:
                if self._held:
                    self._held.append(frame)
                    frame = self._take_held()
                self._socket.sendall(frame)
        except OSError as error:
            raise GatewayGone(str(error)) from error
        if self._leaving and not self._leave_sent:
            self._send_leave()

    def answer(self, frame: bytes, took: float) -> None:
        """Sends the answer of a call that took so many seconds, from the one thread that makes calls.

        While one short call follows another, answers wait for the next ones, so that the socket is written to once
        for many. When a call turns out to take longer, the other thread sends them.
        """
        if took > SHORT_CALL:
            self._short_calls = 0
        elif self._short_calls < SHORT_CALLS:
            self._short_calls += 1
        elif self._requests and self._held_bytes < HELD:
            with self._sending:
                self._held.append(frame)
                self._held_bytes += len(frame)
            if not self._looked_after:
                self._looked_after = True
                self._holding.set()
                if self._reads_apart:
                    os.write(self._wake_writer, b"!")
            return
        self.send(frame)

    def _take_held(self) -> bytes:
        held, self._held, self._held_bytes = self._held, [], 0
        return b"".join(held)

    def receive(self, kind: int) -> list:
        """Waits for one frame of this kind: for the beginning, when nothing else may come."""
        while True:
            frame = self._decoder.next_frame()
            if frame is not None:
                break
            if not self._read_more():
                raise GatewayGone("the gateway closed the connection")
        if frame[0] == protocol.BYE:
            raise GatewayGone(f"the gateway refused this worker: {frame[1]}")
        if frame[0] != kind:
            raise protocol.ProtocolError(f"a frame of kind {kind} was due, one of kind {frame[0]} came")
        return frame

    def next_request(self) -> Optional[list]:
        """The next request frame or batch of them, ``None`` when there will be no more. The caller is idle until it returns."""
        self._busy = False
        if not self._requests:
            if self._held:
                self.send(b"")
            if not self._reading.acquire(blocking=False):
                os.write(self._wake_writer, b"!")
                self._reading.acquire()
            try:
                while not self._requests and not self._ended:
                    self._read_frames()
            finally:
                self._reading.release()
        self._calls += 1
        self._busy = True
        if not self._requests or (self._ended and not self._draining):
            return None
        return self._requests.popleft()

    def is_cancelled(self, request: int) -> bool:
        """Whether nobody waits for this request any more. A call that has just begun may not know yet."""
        return request in self._cancelled

    def when_cancelled(self, request: int, hook: Callable[[], None]) -> None:
        """Has ``hook`` called, in any thread, if this request is cancelled before it is answered."""
        self._cancel_hooks[request] = hook
        if request in self._cancelled:
            hook()

    def answered(self, request: int) -> None:
        """Says that this request is answered."""
        self._open.discard(request)
        if self._cancelled:
            self._cancelled.discard(request)
        if self._cancel_hooks:
            self._cancel_hooks.pop(request, None)

    @property
    def leaving(self) -> bool:
        """Whether this worker itself was told to end, and not only this connection."""
        return self._leaving

    def leave(self) -> None:
        """Asks the gateway for no more requests: it says drain when everything that it has sent is answered. The second
        time, nothing is waited for. Safe in a signal handler."""
        if self._leaving:
            self.drain()
        else:
            self._leaving = True
            self._send_leave()

    def _send_leave(self) -> None:
        # A signal may have come in the middle of a frame: whoever sends it sends this one after it.
        if not self._sending.acquire(blocking=False):
            return
        try:
            self._leave_sent = True
            self._socket.sendall(LEAVE)
        except OSError:
            pass  # the reader sees that the gateway is gone
        finally:
            self._sending.release()

    def drain(self) -> None:
        """Takes no more from the socket; what was received will still be handed out. Safe in a signal handler."""
        self._draining = True
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            self._ended = True

    def watch(self) -> None:
        """Starts the thread that reads during long calls. The caller counts as busy from now on."""
        self._busy = True
        self._act_on_frames()  # what came together with the first frame
        threading.Thread(target=self._watch, name="gatewright-watch", daemon=True).start()

    def close(self) -> None:
        """Closes the connection."""
        self._closed = True
        self._socket.close()

    def _watch(self) -> None:
        seen = -1
        while not self._closed:
            if self._holding.wait(LONG_CALL):
                self._holding.clear()
                self._looked_after = False
                self._send_held()
            if not self._busy or self._calls != seen:
                seen = self._calls
            elif self._reading.acquire(blocking=False):
                try:
                    self._reads_apart = True
                    # Said before it is asked: one of the two threads sees what the other has said.
                    if not self._holding.is_set():
                        self._read_until_woken()
                except (GatewayGone, protocol.ProtocolError) as error:
                    # Nobody would get the answer of the call that runs in the other thread.
                    print(f"gatewright worker: {error}", file=sys.stderr, flush=True)
                    self._on_gone()
                    return
                finally:
                    self._reads_apart = False
                    self._reading.release()

    def _send_held(self) -> None:
        """For as long as a call may be short: sends the answers that it holds up, as soon as it is not."""
        seen = -1
        for _ in range(round(LONG_CALL / HELD_FOR)):
            time.sleep(HELD_FOR)
            if self._held and self._calls == seen:
                try:
                    self.send(b"")
                except GatewayGone:
                    return  # the reader sees it
            seen = self._calls

    def _read_until_woken(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_reader, selectors.EVENT_READ)
            selector.register(self._socket, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if self._socket.fileno() in ready:
                    self._read_frames()
                    if self._ended and not self._draining:
                        self._on_gone()  # nobody waits for this call
                    if self._ended:
                        selector.unregister(self._socket)
                if self._wake_reader in ready:
                    os.read(self._wake_reader, 64)
                    return

    def _read_more(self) -> bool:
        space = self._decoder.space()
        try:
            count = -1
            if self._asleep:
                self._asleep -= 1
            else:
                count = self._look(space)
            if count < 0:
                count = self._socket.recv_into(space)
        except OSError:
            count = 0
        self._decoder.received(count)
        return count > 0

    def _look(self, space: memoryview) -> int:
        """Receives what comes soon, without sleeping; -1 if nothing does. Gives way to whoever wants the processor."""
        receive, clock = self._socket.recv_into, time.monotonic
        looked = clock()
        end = looked + AWAKE
        while True:
            try:
                count = receive(space, 0, socket.MSG_DONTWAIT)
                self._in_vain = 1
                return count
            except BlockingIOError:
                os.sched_yield()
            now = clock()
            if now > end or now - looked > CROWDED:
                self._asleep = self._in_vain
                self._in_vain = min(2 * self._in_vain, ASLEEP)
                return -1
            looked = now

    def _read_frames(self) -> None:
        """Receives once and acts on every whole frame. Only for the thread that holds the reading."""
        if not self._read_more():
            self._ended = True
            return
        self._act_on_frames()

    def _act_on_frames(self) -> None:
        next_frame = self._decoder.next_frame
        while (frame := next_frame()) is not None:
            kind = frame[0]
            if kind == protocol.REQUEST:
                self._open.add(frame[1])
                if self._batch is None:
                    self._requests.append(frame)
                else:
                    self._batch.append(frame)
                    if len(self._batch) == self._batch_size:
                        self._requests.append(self._batch)
                        self._batch = None
            elif kind == protocol.PING:
                self.send(self._encoder.encode(protocol.PONG, frame[1]))
                if self.health is not None and not self._busy:
                    self.health()
            elif kind == protocol.CANCEL:
                if frame[1] in self._open:
                    self._cancelled.add(frame[1])
                    hook = self._cancel_hooks.get(frame[1])
                    if hook is not None:
                        hook()
            elif kind == protocol.BATCH:
                self._batch, self._batch_size = Batch(), frame[1]
            elif kind == protocol.DRAIN:
                self._draining = self._ended = True
            elif kind == protocol.BYE:
                self._ended = True
                if self._busy:
                    self._on_bye()
            elif kind != protocol.PONG:
                raise protocol.ProtocolError(f"a frame of kind {kind} is not for a worker")
