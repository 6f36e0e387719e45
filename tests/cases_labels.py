"""Labels made by hand, and any text that one may have."""

from typing import Any

from cases_rows import THEN
from hypothesis import strategies as st

from interbasis.service.records.labels import LONGEST_LABEL, LabelRow, NewLabel

_CHARACTERS = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufffe\uffff")

label_texts = st.text(_CHARACTERS, min_size=1, max_size=LONGEST_LABEL).filter(lambda text: bool(text.strip()))


def of_node(text: str = "edge", cut: str = "layers.0", node: int = 1, **more: Any) -> NewLabel:
    return NewLabel(**{"text": text, "author": "ada", "cut": cut, "node": node, **more})


def of_module(text: str = "left", module: int = 0, **more: Any) -> NewLabel:
    return NewLabel(**{"text": text, "author": "ada", "module": module, **more})


def row(**changes: Any) -> LabelRow:
    values = {"graph": "g-01234567", "partition": None, "cut": "layers.0", "node": 3, "module": None, "text": "edge"}
    return LabelRow(**{**values, "author": "ada", "source": "human", "confidence": None, "created": THEN, **changes})
