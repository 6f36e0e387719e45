"""CSV files of labels: what is written is read back as it was; what cannot be read is said with its line."""

import csv
import io

import pytest
from cases_labels import label_texts, row
from hypothesis import example, given
from hypothesis import strategies as st

from interbasis.service.labels.files import COLUMNS, from_csv, to_csv
from interbasis.service.records.errors import StoreError
from interbasis.service.records.labels import NewLabel

HEAD = "kind,cut,node,module,text\n"


@given(text=label_texts, cut=label_texts, confidence=st.none() | st.floats(0, 1))
@example(text=' "a",;', cut="a/b", confidence=0.1)
@example(text="\ufeff=SUM(A1)<script>", cut="\u202bx", confidence=1e-300)
def test_what_is_written_is_read_back(text: str, cut: str, confidence: float | None) -> None:
    rows = [row(text=text, cut=cut, confidence=confidence), row(text=text, cut=None, node=None, module=7)]
    found = from_csv(to_csv(rows).encode(), author="nobody")
    for label, given_ in zip(found, rows, strict=True):
        for name in ("text", "cut", "node", "module", "author", "source", "confidence"):
            assert getattr(label, name) == getattr(given_, name)


def test_columns() -> None:
    (cells,) = csv.DictReader(io.StringIO(to_csv([row(text="a,b", confidence=0.25)])))
    assert tuple(cells) == COLUMNS
    assert [cells[name] for name in ("kind", "cut", "node", "module", "text", "author", "source", "confidence")] == [
        *("node", "layers.0", "3", "", "a,b", "ada", "human", "0.25")
    ]
    assert cells["created"] == "2026-11-05T07:03:00+00:00"


def test_only_text_and_place_are_needed() -> None:
    found = from_csv("\ufefftext,module\nleft,0\nright,1\n".encode(), author="ada")
    assert found == [NewLabel(text=t, module=m, author="ada", source="import") for m, t in enumerate(("left", "right"))]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "the columns are : expected text"),
        (b"text\n", "has no labels"),
        (b"cut,node\na,1\n", "the columns are cut, node: expected text"),
        (b"text,modul\na,1\n", "the columns are text, modul: expected"),
        (b"text,text,module\na,b,1\n", "expected"),
        (HEAD.encode() + b"node,a,1,,x\nnode,a,one,,x\n", "line 3: node is 'one': expected a number"),
        (HEAD.encode() + b"node,a,1,,\n", "line 2: the label of a/1 is empty"),
        (HEAD.encode() + b"node,a,1,,x,y\n", "line 2: it has another number of cells"),
        (HEAD.encode() + b"node,a,1\n", "line 2: it has another number of cells"),
        (HEAD.encode() + b"module,a,1,,x\n", "line 2: its kind is 'module': expected node"),
        (HEAD.encode() + b'node,a,1,,"x\ny"\n', r"line 3: the label of a/1 has the character '\\n'"),
        (HEAD.encode() + b'node,a,1,,"x"y\n', "line 2: ',' expected after"),
        (HEAD.encode() + b"node,a,1,,\xff\n", "no text in UTF-8"),
        (b"text,module,confidence\nx,0,2\n", "line 2: the label of module 0 has the confidence 2.0"),
    ],
)
def test_what_cannot_be_read(content: bytes, match: str) -> None:
    with pytest.raises(StoreError, match=match):
        from_csv(content, author="ada")
