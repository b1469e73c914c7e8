"""What the hub has to say, in Python's ``logging``: logger ``gatewright`` and those below it.

The hub's thread never waits for Python. It leaves its messages where a thread of Python's finds them, as many as a
thousand; more are counted and dropped.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Optional

from . import _hub

logger = logging.getLogger("gatewright")

_starting = threading.Lock()
_log: Optional[_hub.Log] = None
_process = 0


def forward() -> None:
    """Has the hub's messages logged from now on. The logger's level is looked at now, and with each message."""
    global _log, _process
    with _starting:
        if _log is not None and _process == os.getpid():
            _log.set_level(logger.getEffectiveLevel())
            return
        _log, _process = _hub.Log(), os.getpid()
        _log.set_level(logger.getEffectiveLevel())
        threading.Thread(target=_forward, args=(_log,), name="gatewright-log", daemon=True).start()


def _forward(log: _hub.Log) -> None:
    while True:
        os.read(log.fileno(), 8)
        for level, target, message in log.collect():
            logging.getLogger(target).log(level, message)
        log.set_level(logger.getEffectiveLevel())
