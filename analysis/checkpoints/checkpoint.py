"""Load a checkpoint: a .safetensors file beside a JSON file that names family, cuts and data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..devices.device import find_device, placed
from ..devices.memory import check_memory, limited_memory
from ..errors import CheckpointError, CutError, DataError, InputError, InterbasisError
from ..huggingface.folder import hash_of, is_saved, read_folder
from ..huggingface.language import CountedAt, numbered
from ..huggingface.text import read_tokens, token_strings, tokenised, windows
from ..names import Names
from ..network.batches import Batch
from ..network.network import Network
from ..results import by_value
from .components import Components, find_components
from .datasets import Dataset, load_dataset, read_dataset
from .families import _family, _loaded, _network, _registered
from .tensors import read_tensors
from .weights import as_double, fill

__all__ = ["Checkpoint", "components_of", "load_checkpoint"]

_LOGITS = 2**25  # numbers of the output in a batch of windows


@by_value
@dataclass(frozen=True, repr=False)
class Checkpoint:
    """A loaded checkpoint: the network with its cuts, its data, and where it comes from.

    Attributes:
        network: in float64, or in float32 on a device without float64.
        batches: training data (inputs).
        test_batches: held-out data.
        step: training step, or None.
        label: name of the checkpoint.
        model: name of the model whose training the checkpoint belongs to (JSON `model`, else the label).
        sha256: of the .safetensors file.
        family, config: the family that built the model, and its config.
        path: of the .safetensors file.
        about: the content of its JSON file.
        notes: remarks on how the file was read, as sentences.
        positions: which positions count, where a test on the model or the caller chose them (see `assumed_network`).
    """

    network: Network
    batches: Dataset
    test_batches: Dataset
    step: int | None
    label: str
    model: str
    sha256: str
    family: str
    config: dict[str, Any]
    path: Path
    about: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    positions: CountedAt | None = None

    def __repr__(self) -> str:
        """Describe the checkpoint, with a line for each note."""
        head = f"Checkpoint({self.label!r}, step={self.step}, family={self.family!r}, cuts={list(self.network.cuts)})"
        return "\n".join([head, *(f"  note: {note}" for note in self.notes)])


def components_of(checkpoint: Checkpoint) -> Components:
    """Return the heads and MLPs of a checkpoint's model: those that its family names, or that are found in the model.

    A family names them by its method `components(config)`; see `find_components` for the others.

    Raises:
        InputError: the family has no such method and they are not found, or it cannot be imported.
    """
    family = _loaded(checkpoint.family) if checkpoint.family in _registered() else None
    named = getattr(family, "components", None)
    if named is None:
        try:
            return find_components(checkpoint.network, next(iter(checkpoint.batches)))
        except CutError as error:
            raise InputError(f"family {checkpoint.family!r} names no heads and MLPs: {error}") from error
    found: Components = named(checkpoint.config)
    return found


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    cuts: str | Sequence[str | Sequence[str]] | None = None,
    loss: str | None = None,
    positions: str | None = None,
    data: str | os.PathLike[str] | None = None,
    text: str | os.PathLike[str] | None = None,
    tokens: str | os.PathLike[str] | None = None,
    context: int = 128,
    points: int | None = None,
    seed: int | None = None,
    batch_size: int | None = None,
    factory: Callable[..., nn.Module] | None = None,
    device: str | torch.device | None = None,
    memory: str | int | None = None,
) -> Checkpoint:
    """Rebuild the model of a checkpoint in float64, with its cuts and its data.

    A folder of `save_pretrained` (transformers) is a checkpoint, too; models of more than 10^8 numbers keep their type.

    Args:
        path: a folder of `save_pretrained`, or a .safetensors file with a .json of the same name beside it:
            `{"family", "config", "data", "step", "label", ...}`; `cuts`, `loss`, `output`, `positions`, `batch_first`,
            `skip_first` and `check` are those of `Network`.
        cuts: cuts to use instead of those of the JSON or the family.
        loss: behavioural loss, instead of the JSON's or "mse".
        positions: which positions count in a model of `save_pretrained`, see `assumed_network`.
        data: a file to read the data from (see `read_dataset`) instead of what the JSON names.
        text: a text in UTF-8, split into tokens with the tokenizer of the folder.
        tokens: a .npy file of tokens.
        context: tokens in a window of text or tokens, which is a data point.
        points: how many windows to take, evenly spread, or drawn at random with `seed`; default: all.
        seed: of the draw.
        batch_size: data points in a batch.
        factory: builds the model of family `torch` from the JSON's config.
        device: where the network computes, see `Network`; default: the CPU.
        memory: limit of memory, such as "8GiB", that data points in a batch are chosen by where `batch_size` is not
            given; default: half of what is free. Results do not depend on it.

    Raises:
        InputError: an unknown device, or one that is not there; or a model larger than the memory.
        CheckpointError: a missing or truncated file, an unknown family, tensors that do not fit, NaN weights.
        DataError: no data, or inputs that do not fit the model.
        CutError: cuts that do not exist.
    """
    where = find_device(device or "cpu")
    file, about, files = _files(Path(path))
    name, config = about["family"], about.get("config", {})
    family = _family(name, factory)
    if text is not None or tokens is not None:
        train = test = _windows(file, about, text, tokens, {"context": context, "points": points, "seed": seed})
    else:
        train, test = _data(about, data, Path(path))
    unnamed: tuple[str, ...] = ()
    if name == "hf":
        own, unnamed = _names(file, config)
        train, test = (_small_batches(data, config).named(own) for data in (train, test))
    if batch_size is not None:
        train, test = train.with_batch_size(batch_size), test.with_batch_size(batch_size)
    with limited_memory(memory):
        check_memory(sum(file.stat().st_size for file in files if file.is_file()), f"the model in {path}")
        with torch.device("cpu"):
            model, digest, notes = _model(family, name, config, files)
        train, test = (_numbered(data, model, name) for data in (train, test))
        network, counted = _network(placed(model, where), cuts, family, about, loss, positions, next(iter(train)))
        if batch_size is None:
            train, test = (_that_fit(network, data) for data in (train, test))
    label = str(about.get("label") or file.stem)
    return Checkpoint(
        network,
        train,
        test,
        about.get("step"),
        label,
        str(about.get("model") or label),
        digest,
        name,
        config,
        file,
        about,
        (*notes, *unnamed),
        counted,
    )


def _files(path: Path) -> tuple[Path, dict[str, Any], tuple[Path, ...]]:
    """Return the file that stands for a checkpoint, its JSON, and the files of its weights."""
    if is_saved(path):
        folder = read_folder(path)
        return folder.file, folder.about, folder.files
    return path, _read_json(path), (path,)


def _model(
    family: Any, name: str, config: Mapping[str, Any], files: tuple[Path, ...]
) -> tuple[nn.Module, str, tuple[str, ...]]:
    """Build a model and read its weights; return it with the hash of the files, and remarks."""
    if callable(load := getattr(family, "load", None)):
        return load(config, files), hash_of(files), ()
    file = files[0]
    try:
        tensors, digest = read_tensors(file)
    except InputError as error:
        raise CheckpointError(str(error)) from error
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights are replaced: leave the caller's random state alone
            model = family.build(config)
    except InterbasisError:
        raise
    except Exception as error:  # any error: the code is the user's, or another package's
        raise CheckpointError(
            f"{file.with_suffix('.json')}: the config does not fit family {name!r}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, nn.Module):
        raise CheckpointError(f"family {name!r} built a {type(model).__name__}: expected a torch.nn.Module")
    notes = fill(as_double(model), tensors, file, parameter=family.parameter, stored=getattr(family, "tensor", str))
    return model, digest, notes


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise CheckpointError(f"there is no checkpoint {file}")
    if file.suffix != ".safetensors":
        raise CheckpointError(
            f"{file} is not a .safetensors file: convert one of torch.save with `interbasis convert {file}`, or write "
            "the model with interbasis.analysis.save_checkpoint"
        )
    beside = file.with_suffix(".json")
    try:
        about = json.loads(beside.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f'there is no {beside}: expected JSON like {{"family": "mlp", "config": ...}}') from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {beside}: {error}") from error
    if not isinstance(about, dict) or not isinstance(about.get("family"), str):
        raise CheckpointError(f'{beside} has no "family": expected JSON like {{"family": "mlp", "config": ...}}')
    return about


def _data(about: Mapping[str, Any], data: str | os.PathLike[str] | None, path: Path) -> tuple[Dataset, Dataset]:
    if data is not None:
        described = about.get("data")
        own = Names.of(described if isinstance(described, Mapping) and "name" not in described else {}, where=str(path))
        train, test = (part.named(own) for part in read_dataset(data))
    elif isinstance(about.get("data"), Mapping | str):
        named = about["data"]
        train, test = load_dataset({"name": named} if isinstance(named, str) else named)
    elif about["family"] == "hf":
        raise DataError(
            f"{path} holds no data: give a text with --text FILE, tokens with --tokens FILE (.npy), or windows of "
            "tokens with --data FILE"
        )
    else:
        raise DataError(
            f"{path.with_suffix('.json')} names no data: pass a file with --data FILE (.npz, .npy, .safetensors)"
        )
    return _double(train), _double(test)


def _windows(
    file: Path,
    about: Mapping[str, Any],
    text: str | os.PathLike[str] | None,
    tokens: str | os.PathLike[str] | None,
    options: Mapping[str, Any],
) -> Dataset:
    """Make a data set of the windows of a text or of tokens, in batches whose logits take little memory."""
    if text is not None and tokens is not None:
        raise DataError("a text and tokens are given: give one of --text and --tokens")
    given = read_tokens(tokens) if text is None and tokens is not None else tokenised(file.parent, str(text))
    found = windows(given, **options)
    named = f"{Path(str(text if tokens is None else tokens)).name}, windows of {found.shape[1]} tokens"
    return Dataset(named, found)


def _small_batches(data: Dataset, config: Mapping[str, Any]) -> Dataset:
    """Return data of tokens in batches whose logits take little memory."""
    if data.inputs.ndim != 2 or data.inputs.is_floating_point():
        return data
    size = _LOGITS // (data.inputs.shape[1] * int(config.get("vocab_size") or 1))
    return data.with_batch_size(min(max(size, 2), data.batch_size))


def _that_fit(network: Network, data: Dataset) -> Dataset:
    """Return data in batches of as many points as fit into memory."""
    size = network.points_that_fit(_whole(data))
    return data if size is None or size >= data.batch_size else data.with_batch_size(size)


def _whole(data: Dataset) -> Batch:
    """Return all data in one batch."""
    return next(iter(data.with_batch_size(len(data.inputs))))


def _names(file: Path, config: Mapping[str, Any]) -> tuple[Names, tuple[str, ...]]:
    """Return the names in a folder of transformers, and a remark where its tokenizer cannot be loaded.

    The folder is that of the weights, or of the file that they are a link to.
    """
    try:
        found = (token_strings(folder) for folder in dict.fromkeys((file.parent, file.resolve().parent)))
        return Names(token_strings=next(filter(None, found), None), output_names=_outputs(config)), ()
    except DataError as error:
        return Names(output_names=_outputs(config)), (f"Tokens have numbers instead of names: {error}.",)


def _outputs(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names of the classes in a config of transformers, unless they are those that it gives by itself."""
    given = config.get("id2label")
    if not isinstance(given, Mapping) or config.get("num_labels", len(given)) != len(given):
        return None
    names = tuple(str(name) for _, name in sorted(given.items(), key=lambda entry: int(entry[0])))
    return None if all(name.startswith("LABEL_") for name in names) else names


def _double(data: Dataset) -> Dataset:
    if not data.inputs.is_floating_point():
        return data
    return replace(data, inputs=data.inputs.double())


def _numbered(data: Dataset, model: nn.Module, family: str) -> Dataset:
    """Return data with an attention mask with the positions of its tokens, see `numbered`.

    Raises:
        DataError: a model of another family than `hf`.
    """
    if data.attention_mask is None:
        return data
    if family != "hf":
        raise DataError(
            f"{data.name!r} has an attention_mask, which models of save_pretrained take, and not those of family "
            f"{family!r}: leave it out"
        )
    batch: Any = numbered(model, [_whole(data)])[0]
    return replace(data, attention_mask=data.attention_mask.long(), position_ids=batch.get("position_ids"))
