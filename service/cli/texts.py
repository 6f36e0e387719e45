"""Text and tokens given on the command line, as data files that tasks take."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

from ..client.client import Client
from ..records.checkpoints import CHECKPOINT
from ..records.errors import StoreError
from ..records.kinds import Source
from ..store.store import Store
from ..terminal.show import err

__all__ = ["Text", "windows_file"]


class Text(NamedTuple):
    """What the options of a text say.

    Attributes:
        text: a text in UTF-8.
        tokens: a .npy file of tokens.
        context: tokens in a window.
        points: how many windows to take; None for all.
        seed: draws them at random; None: evenly spread.
    """

    text: Path | None
    tokens: Path | None
    context: int
    points: int | None
    seed: int | None


@contextmanager
def windows_file(source: Source, checkpoints: Sequence[Path], data: Path | None, given: Text) -> Iterator[Path | None]:
    """Provide the windows of a text, or of tokens, as a data file while the context is open; without one, the data.

    The tokenizer is that of the first checkpoint's folder. Windows that served are kept, and it is said under which
    name.

    Raises:
        StoreError: several sources of data, or windows of nothing.
        InterbasisError: whatever `tokenised`, `read_tokens` and `windows` refuse.
    """
    file = given.text or given.tokens
    if sum(each is not None for each in (data, given.text, given.tokens)) > 1:
        raise StoreError("several of --data, --text and --tokens were given: give one of them")
    if file is None:
        if given.points is not None:
            raise StoreError("--points goes with --text or --tokens: it says how many windows of them to take")
        yield data
        return
    from safetensors.torch import save_file

    from ...analysis.huggingface.text import read_tokens, tokenised, windows

    tokens = read_tokens(file) if given.text is None else tokenised(_folder(source, checkpoints[0]), file)
    found = windows(tokens, context=given.context, points=given.points, seed=given.seed)
    with tempfile.TemporaryDirectory(prefix="interbasis-") as place:
        written = Path(place) / f"{file.name}, windows of {found.shape[1]} tokens.safetensors"
        save_file({"inputs": found.contiguous()}, written)
        yield written
        err.print(f"The windows are kept: later commands take them as --data {_kept(source, written)}")


def _kept(source: Source, file: Path) -> str:
    """Keep a data file among the artifacts, and return the name under which later commands take it as --data."""
    if isinstance(source, Client):
        return source.upload(file).uri
    return cast(Store, source).add_file(file).uri


def _folder(source: Source, checkpoint: Path) -> Path:
    """Return the folder of a checkpoint, which may be a stored one."""
    if checkpoint.exists():
        return checkpoint if checkpoint.is_dir() else checkpoint.parent
    path = source.get(CHECKPOINT, str(checkpoint)).path
    if path is None:
        raise StoreError(f"{checkpoint} was uploaded without its tokenizer: name its folder, or give --tokens FILE")
    return Path(path).parent
