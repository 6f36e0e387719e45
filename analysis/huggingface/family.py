"""Family `hf`: models of transformers, from their config and the files of their weights."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError
from ..network.masks import Positions
from ..network.transitions import Transition
from .folder import check_memory, n_numbers
from .library import OFFLINE, library, offline

__all__ = ["HuggingFace"]

_DOUBLED = 10**8  # numbers; larger models keep the type of their files


class HuggingFace:
    """Family `hf`; see `Family`. transformers builds and fills its models, in float64 where they are not large."""

    @staticmethod
    def build(config: Mapping[str, Any]) -> nn.Module:
        """Build the model with random weights."""
        with offline():
            made: nn.Module = _model_class(config)._from_config(_config(config))
        return made

    @staticmethod
    def load(config: Mapping[str, Any], files: Sequence[Path]) -> nn.Module:
        """Build the model and read its weights.

        Args:
            config: content of config.json.
            files: the files of its weights.

        Raises:
            CheckpointError: no such architecture, a model that does not fit into memory, tensors that are missing or
                have another shape.
        """
        kinds = {kind for file in files for kind in n_numbers(file)}
        large = sum(n for file in files for n in n_numbers(file).values()) > _DOUBLED
        floats = sorted(kind for kind in kinds if kind.startswith(("F", "BF")))
        if large and len(floats) > 1:
            raise CheckpointError(
                f"{files[0].parent} holds weights of several types ({', '.join(floats)}), and is too large to be read "
                "in float64: convert it to one of them, model.to(torch.float32).save_pretrained(folder)"
            )
        check_memory(tuple(files), None if large else 8)
        built, _ = _model_class(config), _config(config)
        with tempfile.TemporaryDirectory(prefix="interbasis-") as place, offline():
            _laid_out(Path(place), config, files)
            try:
                model, report = built.from_pretrained(
                    place,
                    dtype="auto" if large else torch.float64,
                    use_safetensors=True,
                    output_loading_info=True,
                    **OFFLINE,
                )
            except Exception as error:  # any error: the code is another package's
                said = str(error).replace(place, str(files[0].parent))
                raise CheckpointError(
                    f"{files[0].parent}: transformers cannot load {built.__name__}: {type(error).__name__}: {said}"
                ) from error
        for key, what in (("missing_keys", "lacks"), ("mismatched_keys", "has other shapes of")):
            if names := sorted(map(str, report.get(key) or ())):
                more = f" and {len(names) - 6} more" if len(names) > 6 else ""
                raise CheckpointError(
                    f"{files[0].parent} {what} the tensors {', '.join(names[:6])}{more} of its config"
                )
        loaded: nn.Module = model
        return loaded

    @staticmethod
    def parameter(name: str) -> str:
        """See `Family`."""
        return name

    @staticmethod
    def cuts(config: Mapping[str, Any]) -> str:
        """Cut at the residual stream, see `find_cuts`."""
        return "auto"

    @staticmethod
    def positions(config: Mapping[str, Any]) -> Positions:
        """See `Family`; which positions count is found by a test on the model, see `assumed_network`."""
        return "all"

    @staticmethod
    def transitions(model: nn.Module) -> Mapping[tuple[str, str], Transition]:
        """See `Family`."""
        return {}


def _model_class(config: Mapping[str, Any]) -> Any:
    names = config.get("architectures") or []
    found = library()
    if not names:
        raise CheckpointError('the config names no "architectures": expected one like ["GPT2LMHeadModel"]')
    if (built := getattr(found, str(names[0]), None)) is None:
        raise CheckpointError(
            f"transformers {found.__version__} has no {names[0]}: install a version that has it; code that a folder "
            "holds is never run"
        )
    return built


def _config(config: Mapping[str, Any]) -> Any:
    found = library()
    try:
        kind = found.CONFIG_MAPPING[config["model_type"]]
    except KeyError as error:
        raise CheckpointError(
            f"transformers {found.__version__} knows no model_type {config.get('model_type')!r}: install a version "
            "that does; code that a folder holds is never run"
        ) from error
    return kind.from_dict(dict(config))


def _laid_out(place: Path, config: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Lay out a folder as transformers reads it."""
    (place / "config.json").write_text(json.dumps(config))
    if len(files) == 1:
        (place / "model.safetensors").symlink_to(files[0].resolve())
        return
    for file in files:
        (place / file.name).symlink_to(file.resolve())
    index = files[0].parent / "model.safetensors.index.json"
    (place / index.name).symlink_to(index.resolve())
