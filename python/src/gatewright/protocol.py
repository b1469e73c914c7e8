"""The frames that a worker and its gateway exchange.

A frame is a 4-byte little-endian length and that many bytes of msgpack: an array whose first element says what
kind of frame it is. ``docs/reference/worker-protocol.md`` describes every kind.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Any, Iterator, Optional

import msgpack

VERSION = 1

HELLO = 1
INIT = 2
READY = 3
INIT_ERROR = 4
REQUEST = 5
RESPONSE = 6
CHUNK = 7
ERROR = 8
CANCEL = 9
PING = 10
PONG = 11
DRAIN = 12
BYE = 13
BATCH = 14

#: Extension type of an integer outside 64 bits: decimal digits in ASCII.
BIG_INTEGER = 1
#: Digits that such an integer may have at most.
BIG_INTEGER_DIGITS = 4096
#: A frame that is longer is taken for garbage.
MAX_FRAME = 1 << 30

_LENGTH = struct.Struct("<I")


class ProtocolError(Exception):
    """The peer sent bytes that are no frame of this protocol."""


def _default(value: Any) -> Any:
    """What msgpack cannot pack by itself and this protocol has a form for."""
    if isinstance(value, int):
        # 13 600 bits are 4 094 digits: checked first, because Python refuses to write out longer ones.
        if value.bit_length() > 13_600:
            raise OverflowError(f"an integer of more than {BIG_INTEGER_DIGITS} digits cannot be sent")
        return msgpack.ExtType(BIG_INTEGER, b"%d" % value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for convert in ("tolist", "isoformat"):  # numpy arrays and scalars; dates and times
        method = getattr(value, convert, None)
        if callable(method):
            return method()
    kind = type(value)
    raise TypeError(f"a result that holds a {kind.__module__}.{kind.__qualname__} cannot be sent")


def _ext(code: int, data: bytes) -> Any:
    if code == BIG_INTEGER and len(data) <= BIG_INTEGER_DIGITS + 1:
        return int(data)
    return msgpack.ExtType(code, data)


class Encoder:
    """Makes the bytes of frames. For one thread at a time: msgpack's packer keeps its buffer."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        #: Longest frame in bytes that the peer takes.
        self.limit = limit
        self._packer = msgpack.Packer(default=_default)

    def encode(self, *fields: Any) -> bytes:
        """One frame. Raises what msgpack raises for values that have no form in it."""
        body = self._packer.pack(fields)
        if len(body) > self.limit:
            raise ValueError(f"{len(body)} bytes are too long for one frame, the gateway takes {self.limit}")
        return _LENGTH.pack(len(body)) + body


class Decoder:
    """Makes frames of the bytes of a connection, in whatever pieces they come."""

    def __init__(self, capacity: int = 1 << 16) -> None:
        self._buffer = bytearray(capacity)
        self._start = 0
        self._end = 0

    def space(self) -> memoryview:
        """Where the next bytes are to be received. Never empty."""
        if self._start == self._end:
            self._start = self._end = 0
        if len(self._buffer) - self._end < 4096:
            self._make_room()
        return memoryview(self._buffer)[self._end :]

    def received(self, count: int) -> None:
        """Says how many bytes were put into :meth:`space`."""
        self._end += count

    def frames(self) -> Iterator[list]:
        """Every whole frame so far."""
        while True:
            frame = self.next_frame()
            if frame is None:
                return
            yield frame

    def next_frame(self) -> Optional[list]:
        """The next whole frame, ``None`` until more bytes have come."""
        start = self._start
        if self._end - start < 4:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer, start)
        if length > MAX_FRAME:
            raise ProtocolError(f"a frame of {length} bytes is announced, at most {MAX_FRAME} are taken")
        end = start + 4 + length
        if self._end < end:
            return None
        try:
            body = memoryview(self._buffer)[start + 4 : end]
            frame = msgpack.unpackb(body, ext_hook=_ext, strict_map_key=False)
        except Exception as error:
            raise ProtocolError(f"a frame is not msgpack: {error}") from error
        self._start = end
        if not isinstance(frame, list) or not frame or not isinstance(frame[0], int):
            raise ProtocolError("a frame is not an array that begins with a number")
        return frame

    def _make_room(self) -> None:
        """Moves what is left to the front of a buffer that holds the frame that has begun."""
        rest = self._end - self._start
        needed = rest + 4096
        if rest >= 4:
            (length,) = _LENGTH.unpack_from(self._buffer, self._start)
            needed = max(needed, min(length, MAX_FRAME) + 4 + 4096)
        buffer = bytearray(max(needed, 1 << 16))
        buffer[:rest] = self._buffer[self._start : self._end]
        self._buffer = buffer
        self._start, self._end = 0, rest
