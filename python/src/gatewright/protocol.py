"""The frames that a worker and its gateway exchange.

A frame is a 4-byte little-endian length and that many bytes of msgpack: an array whose first element says what
kind of frame it is. ``docs/reference/worker-protocol.md`` describes every kind.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import Any, Optional

import msgpack

from . import values

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

#: A frame that is longer is taken for garbage.
MAX_FRAME = 1 << 30

_LENGTH = struct.Struct("<I")


_unpack = partial(msgpack.unpackb, ext_hook=values.unpack_extension, strict_map_key=False)


class ProtocolError(Exception):
    """The peer sent bytes that are no frame of this protocol."""


class Encoder:
    """Makes the bytes of frames. For one thread at a time: msgpack's packer keeps its buffer."""

    def __init__(self, limit: int = MAX_FRAME, rich: bool = False) -> None:
        #: Longest frame in bytes that the peer takes.
        self.limit = limit
        default = values.rich if rich else values.plain
        self._pack = msgpack.Packer(default=default, strict_types=rich).pack

    def encode(self, *fields: Any) -> bytes:
        """One frame. Raises what msgpack raises for values that have no form in it."""
        body = self._pack(list(fields))
        if len(body) > self.limit:
            raise ValueError(f"{len(body)} bytes are too long for one frame, the gateway takes {self.limit}")
        return _LENGTH.pack(len(body)) + body


class Decoder:
    """Makes frames of the bytes of a connection, in whatever pieces they come."""

    def __init__(self, capacity: int = 1 << 16) -> None:
        self._view = memoryview(bytearray(capacity))
        self._start = 0
        self._end = 0

    def space(self) -> memoryview:
        """Where the next bytes are to be received. Never empty."""
        if self._start == self._end:
            self._start = self._end = 0
        if len(self._view) - self._end < 4096:
            self._make_room()
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """Says how many bytes were put into :meth:`space`."""
        self._end += count

    def next_frame(self) -> Optional[list]:
        """The next whole frame, ``None`` until more bytes have come."""
        body = self._start + 4
        if self._end < body:
            return None
        (length,) = _LENGTH.unpack_from(self._view, body - 4)
        if length > MAX_FRAME:
            raise ProtocolError(f"a frame of {length} bytes is announced, at most {MAX_FRAME} are taken")
        end = body + length
        if self._end < end:
            return None
        try:
            frame = _unpack(self._view[body:end])
        except Exception as error:
            raise ProtocolError(f"a frame is not msgpack: {error}") from error
        self._start = end
        if type(frame) is not list or not frame or type(frame[0]) is not int:
            raise ProtocolError("a frame is not an array that begins with a number")
        return frame

    def _make_room(self) -> None:
        """Moves what is left to the front of a buffer that holds the frame that has begun."""
        rest = self._end - self._start
        needed = rest + 4096
        if rest >= 4:
            (length,) = _LENGTH.unpack_from(self._view, self._start)
            needed = max(needed, min(length, MAX_FRAME) + 4 + 4096)
        view = memoryview(bytearray(max(needed, 1 << 16)))
        view[:rest] = self._view[self._start : self._end]
        self._view = view
        self._start, self._end = 0, rest
