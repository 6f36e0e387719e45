"""Edge lists whose lines, ids or layers are not as they seem."""

import numpy as np
import pandas
import pytest

from interbasis.analysis.errors import GraphError
from interbasis.analysis.reading import graph_of_bytes

HEADER = b"source,target,weight\n"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (b"a,b,1.0,2.0\nb,c,2.0,3.0\n", "link 1 has 4 values, and the first line names 3 columns"),
        (b"a,b,1.0,\nb,c,2.0,\n", "link 1 has 4 values"),
        (b"a,b,1.0,2.0,3.0\n", "link 1 has 5 values"),
        (b"a,b,1.0\nb,c,2.0,3.0\n", "line 3"),
    ],
)
def test_values_without_a_column_are_refused(lines: bytes, said: str) -> None:
    with pytest.raises(GraphError, match=said):
        graph_of_bytes(HEADER + lines)
    with pytest.raises(GraphError, match=said):
        graph_of_bytes((HEADER + lines).replace(b",", b"\t"))


@pytest.mark.parametrize(("line", "said"), [(b",b,1", "no source"), (b"a, ,1", "no target"), (b'a,"",1', "no target")])
def test_nodes_need_an_id(line: bytes, said: str) -> None:
    with pytest.raises(GraphError, match=f"link 2 has {said}: expected the id of a node"):
        graph_of_bytes(HEADER + b"x,y,1\n" + line)


def test_nodes_of_parquet_files_need_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pandas.DataFrame({"source": ["a", "b"], "target": ["b", None], "weight": [1.0, 2.0]})
    monkeypatch.setattr(pandas, "read_parquet", lambda _: table)
    with pytest.raises(GraphError, match="link 2 has no target"):
        graph_of_bytes(b"PAR1")


def test_blanks_before_an_id_are_left_out_and_those_behind_it_kept() -> None:
    graph = graph_of_bytes(HEADER + b"a ,b,1\n a,b,2\n")
    assert [table.ids for table in graph.nodes] == [("a ", "a"), ("b",)]


def test_layers_are_the_same_as_numbers_and_as_texts_of_them() -> None:
    header = b"source,target,weight,source_layer,target_layer\n"
    graph = graph_of_bytes(header + b"a,b,1,0,1.0\nb,c,2,1,+2.00\nb,d,3,1.,2.50\n")
    assert graph.cuts == ("0", "1", "2", "2.5")
    np.testing.assert_array_equal(graph.matrices[0], [[1.0]])
    kept = graph_of_bytes(header + b"a,b,1,1_0,1.0.0\n")
    assert kept.cuts == ("1_0", "1.0.0")
