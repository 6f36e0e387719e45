"""Labels as CSV files, a line for each."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from ..records.errors import StoreError
from ..records.labels import LabelRow, NewLabel, check_label

__all__ = ["COLUMNS", "from_csv", "to_csv"]

COLUMNS = ("kind", "cut", "node", "module", "text", "author", "source", "confidence", "created")
"""Columns of the file; when a file is read, `created` is not used, and only `text` and the place are needed."""


def to_csv(labels: Iterable[LabelRow]) -> str:
    """Write labels as a CSV file, for `from_csv`."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for label in labels:
        kind, confidence = "node" if label.module is None else "module", label.confidence
        row = [kind, label.cut, label.node, label.module, label.text, label.author, label.source]
        writer.writerow([*row, None if confidence is None else repr(confidence), label.created.isoformat()])
    return stream.getvalue()


def from_csv(content: bytes, *, author: str) -> list[NewLabel]:
    r"""Read labels from a CSV file in UTF-8; they are checked, and kept as they are.

    Args:
        content: content of the file, whose first line names its columns, some of `COLUMNS`.
        author: author of labels that name none; their source is "import" where they name none.

    >>> (label,) = from_csv(b"cut,node,text\nlayers.0,3,\xc3\xa9dge", author="ada")
    >>> (label.cut, label.node, label.text, label.source)
    ('layers.0', 3, 'édge', 'import')

    Raises:
        StoreError: the message names the line.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoreError(f"the labels are no text in UTF-8 ({error})") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = list(reader.fieldnames or ())
        if set(names) - {*COLUMNS} or "text" not in names or len(set(names)) < len(names):
            raise StoreError(
                f"the columns are {', '.join(names)[:200]}: expected text, and some of {', '.join(COLUMNS)}"
            )
        labels = []
        for row in reader:
            try:
                labels.append(_label(row, author))
            except StoreError as error:
                raise StoreError(f"line {reader.line_num}: {error}") from None
    except csv.Error as error:
        raise StoreError(f"line {reader.line_num + 1}: {error}") from None
    if not labels:
        raise StoreError("the file has no labels, only a line of columns")
    return labels


def _label(row: Mapping[Any, Any], author: str) -> NewLabel:
    """Read one line."""
    if None in row or None in row.values():
        raise StoreError(f"it has another number of cells than the {len(row)} columns")
    kind, given = row.get("kind"), {name: value for name, value in row.items() if value != ""}
    label = NewLabel(
        text=row["text"],
        author=given.get("author", author),
        cut=given.get("cut"),
        node=_number(int, "node", given.get("node")),
        module=_number(int, "module", given.get("module")),
        source=given.get("source", "import"),
        confidence=_number(float, "confidence", given.get("confidence")),
    )
    check_label(label)
    if kind and kind != ("node" if label.module is None else "module"):
        raise StoreError(f"its kind is {kind[:40]!r}: expected node, with cut and node, or module, with module")
    return label


def _number(kind: type[Any], name: str, value: str | None) -> Any:
    try:
        return None if value is None else kind(value)
    except ValueError:
        raise StoreError(f"{name} is {str(value)[:40]!r}: expected a number") from None
