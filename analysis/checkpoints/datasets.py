"""Data sets: those that checkpoints name, and data that the user brings in a file. Every data set has a fingerprint."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, InputError
from ..names import NAMES, Names
from ..network.batches import Batch
from ..results import by_value
from .tensors import converted, named, read_tensors

__all__ = ["DATASETS", "Dataset", "load_dataset", "modular_addition", "read_dataset", "two_digits"]

_T = TypeVar("_T")

_BATCH_SIZE = 512

_FLOATS = (torch.float16, torch.float32, torch.float64)

_WHOLE = (torch.bool, torch.int32, torch.int64)  # not uint8: as an index torch takes it for a mask

_ARRAYS = ("inputs", "targets", "attention_mask", "test_inputs", "test_targets", "test_attention_mask")

_EXPECTED = "expected a .npz or .safetensors file with `inputs` and, where known, `targets`, or a .npy file of inputs"


@by_value
@dataclass(frozen=True, repr=False)
class Dataset:
    """Inputs, and targets if there are any; iteration yields batches of inputs, any number of times.

    With an attention mask inputs are tokens, and batches are mappings of `input_ids` and `attention_mask`.

    Attributes:
        name: name to show.
        inputs: (n, ...); the model's argument.
        targets: (n, ...) or None.
        batch_size: data points in a batch; results do not depend on it.
        attention_mask: (n, positions), true or 1 where a token is no padding; None where all tokens are.
        position_ids: the position of each token where it is not that in the tensor (padding on the left).
        token_strings, image_shape, feature_names, output_names, class_names, modulus: see `Names`; the fingerprint
            does not depend on them.

    >>> data = Dataset("two", torch.zeros(2, 3), feature_names=["a", "b", "c"])
    >>> data.names.feature_names, data.sha256 == Dataset("two", torch.zeros(2, 3)).sha256
    (('a', 'b', 'c'), True)
    """

    name: str
    inputs: Tensor
    targets: Tensor | None = None
    batch_size: int = _BATCH_SIZE
    attention_mask: Tensor | None = field(default=None, kw_only=True)
    position_ids: Tensor | None = field(default=None, kw_only=True)
    token_strings: Sequence[str] | None = field(default=None, kw_only=True)
    image_shape: Sequence[int] | None = field(default=None, kw_only=True)
    feature_names: Sequence[str] | None = field(default=None, kw_only=True)
    output_names: Sequence[str] | None = field(default=None, kw_only=True)
    class_names: Sequence[str] | None = field(default=None, kw_only=True)
    modulus: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        names = Names.of({name: getattr(self, name) for name in NAMES}, where=repr(self.name))
        for name in NAMES:
            object.__setattr__(self, name, getattr(names, name))
        if self.inputs.ndim == 0:
            raise DataError(
                f"the inputs of the data set {self.name!r} are a single number: expected (data points, ...)"
            )
        if len(self.inputs) == 0:
            raise DataError(f"the data set {self.name!r} is empty: expected at least one data point")
        if self.inputs.numel() == 0:
            raise DataError(f"the inputs of {self.name!r} have shape {tuple(self.inputs.shape)}: they hold no numbers")
        for what, tensor in (("inputs", self.inputs), ("targets", self.targets)):
            if tensor is not None and not torch.isfinite(tensor).all():
                raise DataError(
                    f"the {what} of the data set {self.name!r} hold NaN or infinite values: clean them first"
                )
        if self.targets is not None and (self.targets.ndim == 0 or len(self.targets) != len(self.inputs)):
            n = len(self.targets) if self.targets.ndim else "a single number as"
            raise DataError(f"{self.name!r} has {len(self.inputs)} inputs but {n} targets")
        if self.attention_mask is not None:
            _check_mask(self.attention_mask, self.inputs, repr(self.name))
        names.check_inputs(self.inputs.shape[1:], where=repr(self.name))

    @property
    def names(self) -> Names:
        """The names of tokens, pictures, features, outputs and classes."""
        return Names.of({name: getattr(self, name) for name in NAMES})

    def named(self, names: Names) -> Dataset:
        """Return the same data with these names where it has none of its own."""
        return replace(self, **vars(self.names.filled(names)))

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.inputs) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if self.attention_mask is None:
            yield from self.inputs.split(self.batch_size)
            return
        named = {"input_ids": self.inputs, "attention_mask": self.attention_mask, "position_ids": self.position_ids}
        given = {name: value for name, value in named.items() if value is not None}
        for start in range(0, len(self.inputs), self.batch_size):
            yield {name: value[start : start + self.batch_size] for name, value in given.items()}

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self.inputs)} data points)"

    def with_batch_size(self, batch_size: int) -> Dataset:
        """Return the same data in batches of another size."""
        if batch_size < 1:
            raise DataError(f"batch size {batch_size}: expected at least 1")
        return replace(self, batch_size=batch_size)

    @property
    def sha256(self) -> str:
        """Fingerprint of inputs, targets and attention mask: their types, shapes and values."""
        digest = hashlib.sha256()
        mask = None if self.attention_mask is None else self.attention_mask != 0
        for name, tensor in (("", self.inputs), ("", self.targets), ("attention_mask", mask)):
            if tensor is not None:
                digest.update(name.encode())
                digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def load_dataset(description: Mapping[str, Any]) -> tuple[Dataset, Dataset]:
    """Build the training and test sets that a checkpoint's JSON describes by `name` and options.

    Names in the description (`output_names`, ...; see `Names`) take the place of those that the data set has.

    Raises:
        DataError: an unknown name, or options that the data set does not accept.
    """
    options = dict(description)
    name = options.pop("name", None)
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}: known are {', '.join(DATASETS)}; bring your own with --data FILE")
    taken = inspect.signature(DATASETS[name]).parameters
    given = Names.of({key: options.pop(key) for key in NAMES if key in options and key not in taken})
    try:
        train, test = DATASETS[name](**options)
    except TypeError as error:
        raise DataError(f"the data set {name!r} does not take these options: {error}") from error
    return tuple(replace(part, **vars(given.filled(part.names))) for part in (train, test))  # type: ignore[return-value]


def read_dataset(path: str | os.PathLike[str]) -> tuple[Dataset, Dataset]:
    """Read training and test sets from a .npz or .safetensors file with `inputs` and, where known, `targets`.

    `attention_mask` says which tokens of the inputs are no padding. `test_inputs`, `test_targets` and
    `test_attention_mask` make up the test set; without them the training set serves as both. A .npy file
    holds the inputs alone. A .npz file may hold names, as `Dataset` calls them (`feature_names`, ...); a
    .safetensors file holds them as JSON in its metadata.

    Values stay exact: other byte orders and small types are converted to wider ones, and types that would have to be
    rounded are refused.

    Raises:
        DataError: the file is missing, cannot be read, has no `inputs`, or holds an unsupported type of numbers, which
            the message names.
    """
    file = Path(path)
    if file.is_file() and file.suffix.lower() not in (".npz", ".npy", ".safetensors"):
        raise DataError(f"cannot read the data file {file}: {_EXPECTED}; write one with numpy.savez")
    arrays, given = _of_safetensors(file) if file.suffix.lower() == ".safetensors" else _of_numpy(file)
    tensors = {name: _plain(array, f"{file}: {name}") for name, array in arrays.items()}
    names = vars(Names.of(given, where=str(file)))
    mask = tensors.get("attention_mask")
    train = Dataset(file.stem, tensors["inputs"], tensors.get("targets"), attention_mask=mask, **names)
    if "test_inputs" not in tensors:
        return train, train
    mask = tensors.get("test_attention_mask")
    if (mask is None) != (train.attention_mask is None):
        which = "attention_mask" if mask is None else "test_attention_mask"
        raise DataError(f"{file} has {which} alone: expected a mask of both training and test inputs, or of neither")
    test = tensors["test_inputs"], tensors.get("test_targets")
    return train, Dataset(f"{file.stem} (test)", *test, attention_mask=mask, **names)


def _check_mask(mask: Tensor, inputs: Tensor, name: str) -> None:
    """Check that a mask says of each token of each data point whether it counts, and counts some.

    Raises:
        DataError: it does not.
    """
    if inputs.ndim != 2 or inputs.is_floating_point():
        raise DataError(
            f"{name} has an attention_mask, and inputs of {named(inputs.dtype)} {tuple(inputs.shape)}: expected "
            "tokens, integers (data points, positions)"
        )
    if mask.shape != inputs.shape or mask.is_floating_point() or bool(((mask != 0) & (mask != 1)).any()):
        raise DataError(
            f"the attention_mask of {name} is of {named(mask.dtype)} {tuple(mask.shape)}: expected 1 or true where a "
            f"token counts, 0 or false at padding, of the shape of the inputs {tuple(inputs.shape)}"
        )
    if empty := (~(mask != 0).any(1)).nonzero().flatten().tolist():
        raise DataError(f"the attention_mask of {name} counts no token of data point {empty[0]}: leave that point out")


def _of_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors, _ = read_tensors(file)
    except InputError as error:
        raise DataError(f"cannot read the data file {file}: {error}; {_EXPECTED}") from error
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        metadata = json.loads(stream.read(length)).get("__metadata__") or {}
    try:
        names = {name: json.loads(metadata[name]) for name in NAMES if name in metadata}
    except ValueError as error:
        raise DataError(f"{file}: a name in its metadata is not JSON: {error}") from error
    return _named(tensors, file), names


def _of_numpy(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and names of a .npz or .npy file; arrays with other names are not read."""
    try:
        with file.open("rb") as stream:
            opened = np.load(stream, allow_pickle=False)
            if isinstance(opened, np.ndarray):
                return {"inputs": _from_numpy(opened, f"{file}: inputs")}, {}
            arrays = {name: opened[name] for name in opened.files if name in _ARRAYS}
            names = {name: opened[name] for name in opened.files if name in NAMES}
            _named(dict.fromkeys(opened.files), file)
    except FileNotFoundError:
        raise DataError(f"there is no data file {file}") from None
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        hint = " (arrays of dtype object are pickled, and pickles are not read)" if "pickle" in str(error) else ""
        raise DataError(f"cannot read the data file {file}: {error}{hint}; {_EXPECTED}") from error
    return {name: _from_numpy(array, f"{file}: {name}") for name, array in arrays.items()}, names


def _named(arrays: Mapping[str, _T], file: Path) -> dict[str, _T]:
    """Select the arrays whose names are used."""
    if "inputs" not in arrays:
        raise DataError(f"{file} holds {sorted(arrays)}: expected an array named 'inputs'")
    return {name: arrays[name] for name in _ARRAYS if name in arrays}


def _from_numpy(array: Any, name: str) -> Tensor:
    """Convert an array to a tensor in the byte order of this machine.

    Raises:
        DataError: a type that torch does not have; the message names it.
    """
    if not isinstance(array, np.ndarray):
        raise DataError(f"{name} is a {type(array).__name__}: expected an array of numbers")
    try:
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["W"]))
    except TypeError as error:
        raise DataError(
            f"{name} has dtype {array.dtype}: the arrays of a data file have to hold numbers, of at most 64 bits each"
        ) from error


def _plain(tensor: Tensor, name: str) -> Tensor:
    """Convert to a type that models accept: integers to int32 or int64, floats to float16 or wider; bool stays.

    Raises:
        DataError: complex numbers, or integers beyond int64.
    """
    kind = tensor.dtype
    if kind.is_complex:
        raise DataError(f"{name} has dtype {named(kind)}: expected real numbers")
    try:
        if kind.is_floating_point:
            return tensor if kind in _FLOATS else converted(tensor, torch.float64).float()
        return tensor if kind in _WHOLE else converted(tensor, torch.int64)
    except InputError as error:
        raise DataError(f"{name} {error}") from error


def modular_addition(modulus: int, train_fraction: float, split_seed: int) -> tuple[Dataset, Dataset]:
    """Build all prompts [x, y, modulus] with target (x + y) mod modulus, split at random.

    >>> train, test = modular_addition(5, 0.4, 0)
    >>> len(train.inputs), len(test.inputs)
    (10, 15)
    """
    x, y = torch.meshgrid(torch.arange(modulus, device="cpu"), torch.arange(modulus, device="cpu"), indexing="ij")
    inputs = torch.stack([x.flatten(), y.flatten(), torch.full((modulus**2,), modulus, device="cpu")], 1)
    targets = (x + y).flatten() % modulus
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(split_seed), device="cpu")
    parts = order.split([int(train_fraction * len(inputs)), len(inputs) - int(train_fraction * len(inputs))])
    numbers = tuple(map(str, range(modulus)))
    names: dict[str, Any] = {"token_strings": (*numbers, "="), "class_names": numbers, "modulus": modulus}
    train, test = (
        Dataset(f"modular_addition ({name})", inputs[part], targets[part], **names)
        for name, part in zip(("train", "test"), parts, strict=True)
    )
    return train, test


def two_digits(n: int = 4000, n_test: int = 1000, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Build pairs of handwritten 8x8 digits side by side (128 pixels, left one first), targets (n, 2).

    Both pictures of a pair are drawn at random from scikit-learn's digits, independently of each other; training
    and test pairs use different pictures. They are named as two pictures, with outputs "left 0" to "right 9".
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.data).double() / 16
    labels = torch.from_numpy(digits.target).long()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator, device="cpu")
    sides, digits_named = ("left", "right"), tuple(map(str, range(10)))
    names: dict[str, Any] = {
        "image_shape": (2, 8, 8),
        "feature_names": [f"{side} {row},{column}" for side in sides for row in range(8) for column in range(8)],
        "output_names": [f"{side} {digit}" for side in sides for digit in digits_named],
        "class_names": digits_named,
    }
    pools = {"train": order[: len(order) * 3 // 4], "test": order[len(order) * 3 // 4 :]}

    def pairs(name: str, size: int) -> Dataset:
        pool = pools[name]
        chosen = pool[torch.randint(len(pool), (size, 2), generator=generator, device="cpu")]
        return Dataset(f"two_digits ({name})", images[chosen].flatten(1), labels[chosen], **names)

    return pairs("train", n), pairs("test", n_test)


DATASETS: dict[str, Callable[..., tuple[Dataset, Dataset]]] = {
    "modular_addition": modular_addition,
    "two_digits": two_digits,
}

"""The functions that build data sets, by the name that a checkpoint's JSON gives."""
