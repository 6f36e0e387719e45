"""What references name: newest, last, of a step, of a run; and what is said where they name nothing of a kind."""

import re

import pytest
from cases_store import (
    graph_values,
    provenance,
    save_experiment,
    save_ledger,
    save_llc,
    save_partition,
    save_tracking,
    sha,
)

from interbasis.service.api.app import create_app
from interbasis.service.client import Client
from interbasis.service.client.in_process import InProcess
from interbasis.service.records import EXPERIMENT, GRAPH, KINDS, PARTITION, NotFoundError, StoreError
from interbasis.service.storage.tables import LETTERS
from interbasis.service.store.store import Store


@pytest.fixture
def ids(store: Store) -> dict[str, str]:
    """Two runs of `digits`: graphs at 100 (with two partitions) and 200 of the first, at 100 of the second."""
    store.register_model("digits", "mlp", {"widths": [3, 4, 2]})
    data, found = store.add_dataset(sha(2), "data").id, {}
    for number, (run, step) in enumerate([(1, 100), (1, 200), (2, 100), (2, 200)]):
        found[f"c{run}@{step}"] = store.add_checkpoint(
            "digits", sha256=sha(10 + number), step=step, label=f"s{step}"
        ).id
    for name in ("c1@100", "c1@200", "c2@100"):
        given = {"provenance": provenance(), "values": graph_values(), "blobs": {"graph": name.encode()}}
        found[f"g{name[1:]}"] = store.save_graph(found[name], data, **given).id
        found[f"p{name[1:]}"] = save_partition(store, found[f"g{name[1:]}"]).id
    found["new"] = save_partition(store, found["g1@100"], 1).id
    found["e1@200"] = save_experiment(store, found["p1@200"]).id
    return found


NAMES = [
    ("run", "digits", 2),
    ("run", "digits#1", 1),
    ("checkpoint", "digits@100", "c2@100"),
    ("checkpoint", "digits@last", "c2@200"),
    ("checkpoint", "digits#1@s200", "c1@200"),
    ("checkpoint", "last", "c2@200"),
    ("checkpoint", "s100", "c2@100"),
    ("graph", "digits@last", "g2@100"),
    ("graph", "digits#1@last", "g1@200"),
    ("graph", "digits@s100", "g2@100"),
    ("graph", "last", "g2@100"),
    ("partition", "digits@100", "p2@100"),
    ("partition", "digits#1@100", "new"),
    ("partition", "last", "new"),
    ("experiment", "digits#1@last", "e1@200"),
    ("experiment", "last", "e1@200"),
]


def test_names(store: Store, ids: dict[str, str]) -> None:
    """In the store, through the service, and in jobs."""
    with Client("http://127.0.0.1", transport=InProcess(create_app(store))) as client:
        for kind, ref, name in NAMES:
            wanted = store.get_run(f"digits#{name}").id if isinstance(name, int) else ids[name]
            assert store.get(KINDS[kind], ref).id == wanted, (kind, ref)
            assert client.get(KINDS[kind], ref).id == wanted, (kind, ref)
        assert client.submit("partition", "digits#1@last").row.target == ids["g1@200"]
        assert client.nodes("digits#1@100") == store.nodes(ids["new"])
        assert client.find_any((PARTITION, GRAPH), "digits@last")[1].id == ids["p2@100"]
    assert store.submit("experiment", "last").target == ids["new"]
    assert store.get_run(store.get_run("digits").id) == store.get_run("digits")
    assert store.get_checkpoint(f"{store.get_run('digits#1').id}@200").id == ids["c1@200"]


def test_the_newest_of_several_kinds(store: Store, ids: dict[str, str]) -> None:
    kind, row = store.find_any((PARTITION, GRAPH, EXPERIMENT), "last")
    assert (kind, row.id) == (EXPERIMENT, ids["e1@200"])
    assert store.find_any((PARTITION, GRAPH), ids["g1@100"][:7])[0] is GRAPH
    with pytest.raises(NotFoundError, match="expected a partition"):
        store.find_any((PARTITION, GRAPH), ids["c1@100"])


def test_own_names_go_before_general_ones(store: Store, ids: dict[str, str]) -> None:
    named = store.add_checkpoint("digits", sha256=sha(31), step=300, label="last")
    store.register_model("newest", "mlp", {})
    assert store.get_checkpoint("digits@last") == store.get_checkpoint("last") == named


def test_names_that_refer_to_a_result_now(store: Store, ids: dict[str, str]) -> None:
    names = {"p2@100": "digits@last", "p1@200": "digits#1@last", "new": "digits#1@100", "p1@100": ids["p1@100"]}
    assert {name: store.called(PARTITION, store.get_partition(ids[name])) for name in names} == names


NOTHING = [
    ("partition", "g1@100", "{} is a graph; expected a partition; its newest partition is {new}"),
    ("graph", "p1@100", "{} is a partition; expected a graph; its graph is {g1@100}"),
    ("experiment", "c1@100", "{} is a checkpoint; expected an experiment; it has no experiment yet"),
    ("checkpoint", "digits", "{} is a model; expected a checkpoint; its newest checkpoint is {c2@200}"),
    ("model", "e1@200", "{} is an experiment; expected a model; its model is m-"),
    ("dataset", "g1@100", "{} is a graph; expected a dataset; its dataset is d-"),
    ("checkpoint", "digits@7", "digits#2 has no checkpoint '7': list them with `interbasis ls checkpoints`"),
    ("checkpoint", "digits#1@last200", "digits#1 has no checkpoint 'last200'"),
    ("partition", "digits@200", "{c2@200}, step 200 of digits#2, has no partition yet"),
    ("experiment", "digits@last", "no checkpoint of digits#2 has an experiment yet"),
    ("experiment", "digits@9", "digits#2 has no checkpoint '9'"),
    ("ledger", "last", "no ledger is stored yet"),
    ("llc", "x", "no llc 'x' in the store: list them with `interbasis ls llc`"),
    ("graph", "letters@last", "no graph 'letters@last' in the store"),
    ("tracking", "digits@last", "no checkpoint of digits#2 has a tracking yet"),
    ("run", "digits#7", "no model or run 'digits#7' in the store"),
]


def test_what_is_said_where_a_reference_names_nothing(store: Store, ids: dict[str, str]) -> None:
    for kind, ref, said in NOTHING:
        expected = re.escape(said.replace("{}", ids.get(ref, ref))).replace(r"\{", "{").replace(r"\}", "}")
        for name, identifier in ids.items():
            expected = expected.replace(f"{{{re.escape(name)}}}", identifier).replace(f"{{{name}}}", identifier)
        with pytest.raises(NotFoundError, match=expected):
            store.get(KINDS[kind], ids.get(ref, ref))


def test_an_earlier_run_is_named_where_the_newest_lacks_a_step(store: Store, ids: dict[str, str]) -> None:
    store.add_checkpoint("digits", sha256=sha(40), step=300, run="third")
    with pytest.raises(NotFoundError, match="digits#3 has no checkpoint '200'; an earlier run has: digits#2@200"):
        store.get_checkpoint("digits@200")


def test_ledgers_and_coefficients_have_letters_of_their_own(store: Store) -> None:
    assert (save_ledger(store).id[:2], save_llc(store).id[:2]) == ("l-", "n-")
    assert store.get_ledger("digits@last") == store.get_ledger("last")
    assert store.get_llc("digits@100") == store.get_llc("last")
    assert {kind for kind, letter in LETTERS.items() if letter == "l"} == {"ledger"}


def test_a_tracking_by_its_run(store: Store, ids: dict[str, str]) -> None:
    tracking = save_tracking(store, [ids["g2@100"]])
    assert store.get_tracking("digits@last") == store.get_tracking("last") == tracking
    assert tracking.run == store.get_run("digits#2").id


def test_tokens_are_revoked_by_id_alone(store: Store) -> None:
    store.new_token("me")
    with pytest.raises(StoreError, match="no token 'last'"):
        store.revoke_token("last")
