"""Classes that the tests have served."""

import asyncio
import dataclasses
import datetime
import decimal
import enum
import os
import threading
import time
import uuid

import gatewright


class Echo:
    """Returns what it is called with, after what it was constructed with."""

    def __init__(self, *args, **kwargs):
        self.made = [list(args), kwargs]

    def __call__(self, *args, **kwargs):
        return [self.made, list(args), kwargs]


class Square:
    def __call__(self, x):
        return x**2


class Sleeper:
    def __call__(self, seconds):
        time.sleep(seconds)
        return seconds


class Unwatched(Sleeper):
    """Its calls are looked after once an hour."""

    def __init__(self):
        gatewright.connection.LONG_CALL = 3600


class Meeting:
    """Two calls must be there at once."""

    def __init__(self):
        self.barrier = threading.Barrier(2)

    def __call__(self):
        self.barrier.wait(timeout=20)
        return "met"


@dataclasses.dataclass
class Point:
    x: int
    when: datetime.date


class Odd:
    """Results that msgpack does not know, and errors."""

    def __call__(self, what):
        if what == "object":
            return object()
        if what == "keys":
            return {1: "a", None: "b"}
        if what == "dataclass":
            return Point(1, datetime.date(2026, 1, 2))
        if what == "half character":
            return "\ud800"
        if what == "deep":
            value = []
            for _ in range(5000):
                value = [value]
            return value
        if what == "digits":
            return 10**5000
        if what == "exit":
            raise SystemExit(3)
        if what == "retryable":
            error = RuntimeError("busy \ud800")
            error.retryable = True
            raise error
        return {"fine": True}


class Colour(enum.Enum):
    RED = "red"


class Rich:
    """Values that JSON does not have."""

    def __call__(self):
        import numpy

        return {
            "tuple": (1, (2,)),
            "set": {3},
            "array": numpy.arange(4, dtype="i2").reshape(2, 2),
            "scalar": numpy.float32(0.5),
            "moment": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
            "time": datetime.time(1, 2),
            "span": datetime.timedelta(minutes=1.5),
            "decimal": decimal.Decimal("1.10"),
            "uuid": uuid.UUID(int=7),
            "enum": Colour.RED,
        }


class Tokens:
    def __call__(self, count):
        for number in range(count):
            yield f"t{number} "
        yield b"\x00"
        yield {"n": 1}


class Later:
    async def __call__(self, x):
        return x + 1


class NeedsFile:
    def __init__(self, name):
        raise OSError(f"no weights in {name}")


class NotCallable:
    pass


class Token:
    def __call__(self):
        return os.environ.get("GATEWRIGHT_WORKER_TOKEN")


def double(x):
    return 2 * x


class Careful:
    """Has everything that a worker looks for besides the call."""

    def __init__(self, log, well=True):
        self.log = log
        self.well = well

    def note(self, what):
        with open(self.log, "a") as log:
            log.write(what + "\n")

    async def setup(self):
        self.note("setup")

    def teardown(self):
        self.note("teardown")

    def health(self):
        self.note("health")
        return self.well

    def __call__(self):
        request = gatewright.current_request()
        return [request.id, request.attempt, request.deadline is None, request.cancelled]


class AsyncTokens:
    async def __call__(self, count):
        for number in range(count):
            await asyncio.sleep(0)
            yield f"a{number}"


class LongAsync:
    async def __call__(self):
        await asyncio.sleep(1000)


class Lists:
    def __call__(self, items):
        if items == ["short", "short"]:
            return ["one"]
        return [object() if item == "object" else [len(items), item] for item in items]
