"""Whatever value there is, it comes back as it was; whatever bytes there are, they do no harm."""

from __future__ import annotations

import datetime
import math

import pytest

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings, strategies as st  # noqa: E402

from gatewright.protocol import Decoder, Encoder, ProtocolError  # noqa: E402
from gatewright.values import pack, unpack  # noqa: E402

zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes)))
texts = st.text(st.characters(exclude_categories=["Cs"]))
hashable = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(19, 4000).map(lambda digits: 7 - 10**digits),
        st.floats(),
        texts,
        st.binary(),
        st.datetimes(timezones=st.one_of(st.none(), zones)),
        st.dates(),
        st.times(timezones=st.one_of(st.none(), zones)),
        st.timedeltas(),
        st.complex_numbers(),
        st.decimals().filter(lambda number: not number.is_snan()),  # Python cannot put those into a set
        st.uuids(),
    ),
    lambda inner: st.one_of(st.lists(inner).map(tuple), st.frozensets(inner)),
    max_leaves=8,
)
values = st.recursive(
    hashable,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(hashable, inner), st.sets(hashable)
    ),
    max_leaves=20,
)


def same(one, other):
    """Equal, of the same types all the way down, and NaN is itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    if isinstance(one, float):
        return math.copysign(1, one) == math.copysign(1, other) and (one == other or (one != one and other != other))
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    return str(one) == str(other)  # ISO 8601 has no "fold"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
@given(values)
def test_any_value_comes_back_as_it_was(value):
    assert same(unpack(pack(value)), value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
@given(st.lists(values, max_size=4), st.dictionaries(texts, values, max_size=3), st.integers(20, 500))
def test_any_request_comes_in_whatever_pieces(args, kwargs, size):
    frame = Encoder(rich=True).encode(5, 7, None, 1, args, kwargs)
    decoder, frames = Decoder(capacity=64), []
    for start in range(0, len(frame), size):
        piece = frame[start : start + size]
        decoder.space()[: len(piece)] = piece
        decoder.received(len(piece))
        while (whole := decoder.next_frame()) is not None:
            frames.append(whole)
    assert same(frames, [[5, 7, None, 1, args, kwargs]])


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_an_error(garbage):
    decoder = Decoder()
    for data in (garbage, len(garbage).to_bytes(4, "little") + garbage):
        decoder.space()[: len(data)] = data
        decoder.received(len(data))
        try:
            while (frame := decoder.next_frame()) is not None:
                assert isinstance(frame[0], int)
        except ProtocolError:
            return


numpy = pytest.importorskip("numpy")


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["u1", "<i2", ">i4", "i8", "<f2", "f4", "f8", "c8", "c16", "?"]),
    st.lists(st.integers(0, 4), max_size=4),
    st.booleans(),
)
def test_arrays_of_any_type_and_shape_come_back(dtype, shape, fortran):
    numbers = numpy.arange(math.prod(shape)).reshape(shape).astype(dtype)
    array = numpy.asfortranarray(numbers) if fortran else numbers
    back = unpack(pack([array]))[0]
    assert back.dtype == array.dtype and back.shape == array.shape
    assert numpy.array_equal(back, array)
