"""The store as users see it: save, read, search and compare results."""

from .store import Store

__all__ = ["Store"]
