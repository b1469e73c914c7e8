"""Systems in virtual time: what `gatewright simulate` does, for programs and notebooks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, TypeVar, Union

from ._hub import CallView, NodeView, ScalerView, Table, WantView
from ._hub import simulate as _simulate

__all__ = ["CallView", "NodeView", "Records", "ScalerView", "Simulated", "WantView", "simulate"]

Source = Union[str, "os.PathLike[str]", Mapping[str, Any]]
Autoscaler = Callable[[ScalerView], Optional[int]]
Balancer = Callable[[list[tuple[int, int]], int], int]
KeepAlive = Any
Service = Callable[[CallView], float]
Scheduler = Callable[[WantView, NodeView], float]
_Policy = TypeVar("_Policy")


class Records(Mapping[str, "list[Any]"]):
    """Records of requests in columns, with the names that they have in files.

    A mapping from names to lists; and a table by Arrow's PyCapsule interface, which pandas, polars, DuckDB and pyarrow
    take without copying: `polars.DataFrame(records)`, `pandas.DataFrame.from_arrow(records)`, `pyarrow.table(records)`.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    @property
    def rows(self) -> int:
        """Requests."""
        return len(self._table)

    def __getitem__(self, name: str) -> list[Any]:
        return self._table.column(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.names())

    def __len__(self) -> int:
        return len(self._table.names())

    def __arrow_c_stream__(self, requested_schema: Optional[object] = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"<records of {self.rows} requests: {', '.join(self)}>"


@dataclass(frozen=True)
class Simulated:
    """What a simulation comes to. Times of requests are in nanoseconds, those of functions in seconds."""

    seed: int
    """The seed of the first replication."""
    events: int
    """Events dealt with, in all replications."""
    summary: dict[str, Any]
    """All requests of all replications: counts, rates, distributions of times."""
    replications: list[dict[str, Any]]
    """The same for each replication."""
    demands: list[dict[str, Any]]
    """The same for each demand of the scenario, with its function and route."""
    functions: list[dict[str, Any]]
    """What each function did in the first replication: replicas, requests in service, requests that waited."""
    nodes: list[dict[str, Any]]
    """What each node did in the first replication."""
    records: Optional[Records] = field(default=None, repr=False, compare=False)
    """A record of every request in columns, if they were asked for."""


def simulate(
    scenario: Source,
    *,
    system: Optional[Source] = None,
    model: Union[Source, Sequence[Source], None] = None,
    seed: Optional[int] = None,
    set: Optional[Mapping[str, Any]] = None,
    replications: int = 1,
    records: bool = False,
    autoscaler: Union[Autoscaler, Mapping[str, Autoscaler], None] = None,
    interval: float = 10.0,
    balancer: Union[Balancer, Mapping[str, Balancer], None] = None,
    keep_alive: Union[KeepAlive, Mapping[str, KeepAlive], None] = None,
    service: Union[Service, Mapping[str, Service], None] = None,
    scheduler: Optional[Scheduler] = None,
) -> Simulated:
    """Run a scenario in virtual time, with the decisions of the gateway.

    `scenario` is the path of a scenario file or a dict of what would stand in one; so are `system` and `model`, which
    take the place of what the scenario names (a dict may hold them itself, as "system" and "model"). `set` changes keys
    of the system: `{"function.square.replicas.max": 8}`. Replications have seeds one apart and run on all cores.

    `autoscaler` is called every `interval` seconds of virtual time with a `ScalerView`, and returns how many replicas
    there should be, or None to leave it so. `balancer` is called for each request that can be given to a replica, with
    a list of (number of the replica's place, requests in flight there) of those with a free slot, and a hash of what
    the request asks for; it returns an index of that list.

    `keep_alive` is called when a replica has nothing to do, and returns how many seconds it stays so, or None for ever;
    or a pair of that and `(away, stay)`: one is started `away` seconds after the last has gone, and stays so long. An
    object with a method `idle` in place of a call may have two more: `arrived(idle)`, told of every request, with the
    seconds that the function had had nothing to do; and `worth(used, requests, start_seconds, memory)`, of which the
    least goes first where a node has no room.

    `service` is called with a `CallView` when a request begins to be served, and returns the seconds that takes, in
    place of the model's law. Its `seed` is for `random.Random`. `scheduler` is called with a `WantView` and a `NodeView`
    for each node that can hold a new replica, and returns a score: the node with the highest takes it, the first among
    equals.

    All but the scheduler are for every function, or a dict by function; of a class, an instance is made for each
    function and replication. What a policy raises, this raises.

    Raises ValueError for what cannot be simulated, before anything has run, and OSError for what cannot be read.
    """
    folder = "."
    if isinstance(scenario, Mapping):
        contents = dict(scenario)
        system = _own(contents, "system", system)
        model = _own(contents, "model", model)
        scenario = contents
    else:
        folder = os.path.dirname(os.fspath(scenario)) or "."
        scenario = os.path.basename(os.fspath(scenario))
    if replications < 1 or (records and replications > 1):
        raise ValueError("replications: give 1 or more, and 1 where records are wanted")
    models = [model] if isinstance(model, (str, os.PathLike, Mapping)) else model
    text, table = _simulate(
        _given(scenario),
        system=None if system is None else _given(system),
        models=None if models is None else [_given(one) for one in models],
        folder=folder,
        set=[(key, _json(value)) for key, value in (set or {}).items()],
        seed=seed,
        replications=replications,
        records=records,
        autoscaler=_policies(autoscaler),
        interval=interval,
        balancer=_policies(balancer),
        keep_alive=_policies(keep_alive),
        service=_policies(service),
        scheduler=scheduler,
    )
    result = json.loads(text)
    records_of = None if table is None else Records(table)
    return Simulated(summary=result.pop("report"), records=records_of, **result)


def _own(contents: dict[str, Any], key: str, given: Any) -> Any:
    """What the dict holds under `key`, unless it was given beside it."""
    held = contents.pop(key, None)
    return held if given is None else given


def _given(source: Source) -> tuple[bool, str]:
    if isinstance(source, Mapping):
        return False, _json(source)
    return True, os.fspath(source)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"a value that a file cannot hold: {error}") from None


def _policies(given: Union[_Policy, Mapping[str, _Policy], None]) -> list[tuple[str, _Policy]]:
    if given is None:
        return []
    # For every function, unless it says for which.
    return list(given.items()) if isinstance(given, Mapping) else [("", given)]
