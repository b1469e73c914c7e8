"""The Python side of Gatewright: workers that serve your classes."""

from .context import Request, current_request

__version__ = "0.1.0"

__all__ = ["Request", "__version__", "current_request"]
