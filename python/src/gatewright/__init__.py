"""Gatewright for Python: put any class behind an async call, in processes of its own.

>>> import asyncio, gatewright
>>> class Square:
...     def __call__(self, x):
...         return x**2
>>> gatewright.Worker(Square).start()           # doctest: +SKIP
>>> hub = gatewright.Hub()
>>> asyncio.run(hub.request(5))                 # doctest: +SKIP
25
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .context import Request, current_request

if TYPE_CHECKING:
    from .errors import HubClosed, HubError, QueueFull, UserCodeException, WorkerLost
    from .hub import Hub
    from .process import Worker
    from .simulation import CallView, NodeView, Records, ScalerView, Simulated, WantView, simulate

__version__ = "0.1.0"

__all__ = [
    "CallView",
    "Hub",
    "HubClosed",
    "HubError",
    "NodeView",
    "QueueFull",
    "Records",
    "Request",
    "ScalerView",
    "Simulated",
    "UserCodeException",
    "WantView",
    "Worker",
    "WorkerLost",
    "__version__",
    "current_request",
    "simulate",
]

_SIMULATION = dict.fromkeys(
    ("CallView", "NodeView", "Records", "ScalerView", "Simulated", "WantView", "simulate"), ".simulation"
)
_HOMES = {"Hub": ".hub", "Worker": ".process", **_SIMULATION}


def __getattr__(name: str) -> Any:
    # At their first use: the workers of a gateway import this package and need neither asyncio's hub nor its memory.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, ".errors"), __name__), name)
