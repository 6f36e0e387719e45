"""The exceptions of interbasis: one tree; every message says what was seen, what was expected, and what to do.

InterbasisError
├── InputError            the caller's input; the command line exits with 2
│   ├── CheckpointError   a checkpoint file is missing, truncated or does not fit its family
│   ├── DataError         data that is empty, not finite or of the wrong shape
│   ├── CutError          a cut that does not exist, leaks, or is out of order
│   ├── LayerError        parameters in layers that cannot be counted
│   └── GraphError        a graph, partition or option that makes no sense
└── NumericalError        a computation that left the domain of its formula
"""

__all__ = [
    "CheckpointError",
    "CutError",
    "DataError",
    "GraphError",
    "InputError",
    "InterbasisError",
    "LayerError",
    "NumericalError",
]


class InterbasisError(Exception):
    """Base of every exception that interbasis raises on purpose."""


class InputError(InterbasisError):
    """The caller's input cannot be used."""


class CheckpointError(InputError):
    """A checkpoint is missing, truncated, or does not fit its family."""


class DataError(InputError):
    """Data is empty, not finite, or of the wrong shape."""


class CutError(InputError):
    """A cut does not exist, leaks, is out of order, or does not reach the output."""


class LayerError(InputError):
    """Parameters sit in layers that are not supported, shared, or called more than once."""


class GraphError(InputError):
    """A graph, a partition or an option of theirs makes no sense."""


class NumericalError(InterbasisError):
    """A computation left the domain of its formula, for example a Gram matrix with negative eigenvalues."""
