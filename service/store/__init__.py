"""The store as its users see it: results saved whole, read back, searched and compared."""

from .store import Store

__all__ = ["Store"]
