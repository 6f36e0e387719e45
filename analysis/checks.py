"""Checks of what the analyses assume about a model.

1. Layout: the leading axis of the output and of every tensor at a cut is the data point.
2. Independence: the rows of a data point do not depend on the other data points of its batch.
3. Function: the output depends on parameters and batch alone; it is the same with gradients and without.
"""

__all__: list[str] = []
