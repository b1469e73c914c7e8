"""Python values as msgpack, and back.

What msgpack has goes as it is. The rest goes as msgpack *extensions* whose numbers and payloads
``docs/reference/values.md`` lists, so that a tuple arrives as a tuple and an array as an array.

There are two ways to write: :func:`rich` keeps every type, for peers in Python; :func:`plain` turns them into what
JSON has, for a gateway that answers HTTP. Reading understands both.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import struct
import sys
import uuid
from typing import Any, Callable, Union

import msgpack

# Looked up once: `unpack` is called for every answer.
_unpackb = msgpack.unpackb

#: Integer outside 64 bits: decimal digits in ASCII.
BIG_INTEGER = 1
TUPLE = 2
SET = 3
FROZENSET = 4
#: ISO 8601 in ASCII.
DATETIME = 5
DATE = 6
TIME = 7
#: Array of days, seconds and microseconds.
TIMEDELTA = 8
#: Array of the dtype's string and the shape, and the elements in C order.
ARRAY = 9
#: Two 64-bit floats, little-endian: real and imaginary part.
COMPLEX = 10
#: Its digits in ASCII.
DECIMAL = 11
#: Its 16 bytes.
UUID = 12
#: A numpy scalar: an array of no dimensions.
SCALAR = 13

#: Digits that a big integer may have at most.
BIG_INTEGER_DIGITS = 4096

Buffer = Union[bytes, bytearray, memoryview]
_COMPLEX = struct.Struct("<dd")


def unsendable(value: Any) -> TypeError:
    """The error about a value that has no form."""
    kind = type(value)
    return TypeError(f"a value that holds a {kind.__module__}.{kind.__qualname__} cannot be sent")


def big_integer(value: int) -> msgpack.ExtType:
    """An integer outside 64 bits."""
    # 13 600 bits are 4 094 digits: checked first, because Python refuses to write out longer ones.
    if value.bit_length() > 13_600:
        raise OverflowError(f"an integer of more than {BIG_INTEGER_DIGITS} digits cannot be sent")
    return msgpack.ExtType(BIG_INTEGER, b"%d" % value)


def plain(value: Any) -> Any:
    """What msgpack cannot pack by itself, as something that JSON has too."""
    if isinstance(value, int):
        return big_integer(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)  # JSON's numbers are floats for most who read them
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    for convert in ("tolist", "isoformat"):  # numpy arrays and scalars; dates and times
        method = getattr(value, convert, None)
        if callable(method):
            return method()
    raise unsendable(value)


def rich(value: Any) -> Any:
    """What msgpack cannot pack by itself, with its type. For packers with ``strict_types``."""
    form = _FORMS.get(type(value))
    if form is not None:
        return form(value)
    numpy = sys.modules.get("numpy")  # who has not imported it, has no array
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return _array(ARRAY, value, numpy)
        if isinstance(value, numpy.generic):
            return _array(SCALAR, numpy.asarray(value), numpy)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    for base, convert in _BASES:
        if isinstance(value, base):
            return convert(value)
    raise unsendable(value)


def unpack_extension(code: int, data: bytes) -> Any:
    """The value of an extension; one that is not known stays an ``ExtType``."""
    read = _READERS.get(code)
    return msgpack.ExtType(code, data) if read is None else read(data)


def pack(value: Any) -> bytes:
    """The msgpack of a value, with its types.

    Raises :class:`TypeError`, :class:`ValueError` or :class:`OverflowError` for what cannot be sent.
    """
    return msgpack.packb(value, default=rich, strict_types=True)


class Packing:
    """Makes the msgpack of values with one packer, which is faster than :func:`pack`. For one thread."""

    #: Bytes after which a packer's own memory, which never shrinks, is given back.
    _LARGE = 1 << 20

    def __init__(self) -> None:
        self._pack = msgpack.Packer(default=rich, strict_types=True).pack

    def __call__(self, value: Any) -> bytes:
        packed: bytes = self._pack(value)
        if len(packed) > self._LARGE:
            self._pack = msgpack.Packer(default=rich, strict_types=True).pack
        return packed


def unpack(data: Buffer) -> Any:
    """The value of some msgpack."""
    return _unpackb(data, ext_hook=unpack_extension, strict_map_key=False)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _sequence(code: int) -> Callable[[Any], msgpack.ExtType]:
    return lambda value: msgpack.ExtType(code, pack(list(value)))


def _text(code: int) -> Callable[[Any], msgpack.ExtType]:
    return lambda value: msgpack.ExtType(code, value.isoformat().encode("ascii"))


def _array(code: int, value: Any, numpy: Any) -> msgpack.ExtType:
    kind = value.dtype
    if kind.hasobject or kind.names is not None:
        raise TypeError(f"a numpy array of dtype {kind} cannot be sent; arrays of numbers, text and dates can")
    head = msgpack.packb([kind.str, list(value.shape)])
    if not value.flags.c_contiguous:
        value = numpy.ascontiguousarray(value)
    # One copy, from the array's own memory. Dates do not show theirs, so they are looked at as bytes.
    body = value.reshape(-1).view(numpy.uint8).data if value.size else b""
    return msgpack.ExtType(code, b"".join((head, body)))


def _read_array(data: bytes) -> Any:
    import numpy

    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(data[:4096])  # the head is a few dozen bytes
    kind, shape = unpacker.unpack()
    dtype = numpy.dtype(kind)
    if dtype.hasobject:
        raise ValueError("an array of Python objects is not taken")
    count = 1
    for length in shape:
        count *= length
    if count == 0:
        return numpy.empty(shape, dtype)
    # A view of the received bytes, not a copy: so it is read-only.
    return numpy.frombuffer(data, dtype, count, unpacker.tell()).reshape(shape)


def _read_big_integer(data: bytes) -> Any:
    if len(data) > BIG_INTEGER_DIGITS + 1:
        return msgpack.ExtType(BIG_INTEGER, data)
    return int(data)


_FORMS: dict[type, Callable[[Any], Any]] = {
    int: big_integer,
    tuple: _sequence(TUPLE),
    set: _sequence(SET),
    frozenset: _sequence(FROZENSET),
    datetime.datetime: _text(DATETIME),
    datetime.date: _text(DATE),
    datetime.time: _text(TIME),
    datetime.timedelta: lambda v: msgpack.ExtType(TIMEDELTA, msgpack.packb([v.days, v.seconds, v.microseconds])),
    complex: lambda v: msgpack.ExtType(COMPLEX, _COMPLEX.pack(v.real, v.imag)),
    decimal.Decimal: lambda v: msgpack.ExtType(DECIMAL, str(v).encode("ascii")),
    uuid.UUID: lambda v: msgpack.ExtType(UUID, v.bytes),
}

#: What instances of subclasses (an ``IntEnum``, a named tuple, an ordered dictionary) are sent as.
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (bool, bool),
    (int, lambda v: int(v) if -(2**63) <= v < 2**64 else big_integer(int(v))),
    (float, float),
    (str, lambda v: str.__str__(v)),
    (bytes, bytes),
    (bytearray, bytes),
    (dict, dict),
    (tuple, lambda v: _FORMS[tuple](v)),
    (list, list),
    (set, lambda v: _FORMS[set](v)),
    (frozenset, lambda v: _FORMS[frozenset](v)),
)

_READERS: dict[int, Callable[[bytes], Any]] = {
    BIG_INTEGER: _read_big_integer,
    TUPLE: lambda data: tuple(unpack(data)),
    SET: lambda data: set(unpack(data)),
    FROZENSET: lambda data: frozenset(unpack(data)),
    DATETIME: lambda data: datetime.datetime.fromisoformat(data.decode("ascii")),
    DATE: lambda data: datetime.date.fromisoformat(data.decode("ascii")),
    TIME: lambda data: datetime.time.fromisoformat(data.decode("ascii")),
    TIMEDELTA: lambda data: datetime.timedelta(*msgpack.unpackb(data)),
    ARRAY: _read_array,
    COMPLEX: lambda data: complex(*_COMPLEX.unpack(data)),
    DECIMAL: lambda data: decimal.Decimal(data.decode("ascii")),
    UUID: lambda data: uuid.UUID(bytes=data),
    SCALAR: lambda data: _read_array(data)[()],
}
