"""The client: the methods of the store, on a remote service."""

from .client import Client, JobHandle

__all__ = ["Client", "JobHandle"]
