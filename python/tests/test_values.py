"""Values there and back."""

import collections
import dataclasses
import datetime
import decimal
import enum
import uuid

import msgpack
import pytest

from gatewright.values import pack, unpack

numpy = pytest.importorskip("numpy")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**64 - 1,
        2**64,
        -(10**100),
        1.5,
        float("inf"),
        "text",
        b"bytes",
        [1, [2]],
        (1, (2, [3])),
        (),
        {"a": (1,), 2: None, (3, 4): "tuple as key"},
        {1, 2},
        frozenset({(1, 2)}),
        datetime.datetime(2026, 1, 2, 3, 4, 5, 6),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=30))),
        datetime.date(2026, 1, 2),
        datetime.time(1, 2, 3),
        datetime.timedelta(days=-3, seconds=2, microseconds=1),
        1 + 2j,
        decimal.Decimal("1.10"),
        uuid.UUID(int=7),
    ],
    ids=repr,
)
def test_comes_back_as_it_was(value):
    back = unpack(pack(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("dtype", ["u1", "i8", "f4", "f8", "?", "c16", "U3", "S2", "M8[ns]", ">i4"])
@pytest.mark.parametrize("shape", [(0,), (4,), (2, 3), (), (2, 0, 3)])
def test_arrays_keep_type_and_shape(dtype, shape):
    array = numpy.ones(shape, dtype) if "M" not in dtype else numpy.full(shape, "2026-01-02", dtype)
    back = unpack(pack({"x": array}))["x"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert (back == array).all()


def test_a_slice_of_an_array_is_sent_as_what_it_shows():
    array = numpy.arange(24).reshape(4, 6)[::2, ::-1]
    assert (unpack(pack(array)) == array).all()


def test_an_array_that_arrives_is_a_view_of_what_was_received():
    back = unpack(pack(numpy.arange(1000)))
    assert not back.flags.owndata
    assert not back.flags.writeable


def test_scalars_of_numpy_keep_their_type():
    for value in (numpy.float32(1.5), numpy.int8(-3), numpy.bool_(True), numpy.float64(2.5)):
        back = unpack(pack(value))
        assert back == value and type(back) is type(value)


def test_subclasses_come_as_what_they_are_made_of():
    class Colour(enum.IntEnum):
        RED = 1

    Point = collections.namedtuple("Point", "x y")

    @dataclasses.dataclass
    class Thing:
        name: str
        size: tuple

    assert unpack(pack(Colour.RED)) == 1
    assert unpack(pack(Point(1, 2))) == (1, 2)
    assert unpack(pack(collections.OrderedDict(a=1))) == {"a": 1}
    assert unpack(pack(Thing("t", (1,)))) == {"name": "t", "size": (1,)}
    assert unpack(pack(bytearray(b"x"))) == b"x"
    assert unpack(pack([memoryview(b"xyz")[1:]])) == [b"yz"]


@pytest.mark.parametrize("value", [object(), lambda: 1, [{1: object()}], numpy.array([object()], dtype=object)])
def test_what_has_no_form_is_refused(value):
    with pytest.raises(TypeError, match="cannot be sent"):
        pack(value)


def test_what_is_too_much_is_refused():
    with pytest.raises(OverflowError):
        pack(10**5000)
    round_and_round = []
    round_and_round.append(round_and_round)
    with pytest.raises((ValueError, RecursionError)):
        pack(round_and_round)
    round_and_round = []
    round_and_round.append((round_and_round,))
    with pytest.raises((ValueError, RecursionError)):
        pack(round_and_round)


def test_an_unknown_extension_stays_one():
    assert unpack(msgpack.packb(msgpack.ExtType(99, b"x"))) == msgpack.ExtType(99, b"x")
