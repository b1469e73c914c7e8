"""The Python side of Gatewright: workers that serve your classes."""

__version__ = "0.1.0"

__all__ = ["__version__"]
