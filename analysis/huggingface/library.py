"""The package transformers: loaded when a model of its is read, quiet, and never asking the network for anything."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import CheckpointError

__all__ = ["OFFLINE", "library", "offline"]

OFFLINE = {"local_files_only": True, "trust_remote_code": False}
"""Options of every `from_pretrained`: nothing is downloaded, and no code that a folder holds is run."""


def library() -> Any:
    """Import transformers.

    Raises:
        CheckpointError: it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise CheckpointError(
            'models of save_pretrained need the package transformers: pip install "interbasis[hf]"'
        ) from error


@contextmanager
def offline() -> Iterator[Any]:
    """Provide transformers with HF_HUB_OFFLINE set, and without messages and progress bars, while the context is open.

    Raises:
        CheckpointError: it is not installed.
    """
    found = library()
    hub: Any = importlib.import_module("huggingface_hub.constants")
    log = found.utils.logging
    before = hub.HF_HUB_OFFLINE, log.get_verbosity(), log.is_progress_bar_enabled()
    hub.HF_HUB_OFFLINE = True
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield found
    finally:
        hub.HF_HUB_OFFLINE = before[0]
        log.set_verbosity(before[1])
        if before[2]:
            log.enable_progress_bar()
