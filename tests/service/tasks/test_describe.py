"""Cards of stored partitions: computed once, whole after a kill, listed, printed, drawn and reported."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cases_checkpoints import save_inputs, save_mlp

from interbasis.analysis.meaning.cards import Cards
from interbasis.analysis.recipe import DescribeRecipe
from interbasis.service.api.app import create_app
from interbasis.service.cli import app as cli
from interbasis.service.client.client import Client
from interbasis.service.client.in_process import InProcess
from interbasis.service.jobs.steps import Steps
from interbasis.service.records.errors import NotFoundError
from interbasis.service.records.labels import NewLabel
from interbasis.service.records.partitions import PARTITION, PartitionDetail
from interbasis.service.store.store import Store
from interbasis.service.tasks import experiments
from interbasis.service.tasks.analyze import analyze
from interbasis.service.tasks.figures import report

RECIPE = DescribeRecipe(examples=2, points=8)


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, its data, and a store with its partition, which tests copy."""
    folder = tmp_path_factory.mktemp("analysed")
    data = save_inputs(folder / "x.npz")
    with Store.open(str(folder / "stored" / "store.sqlite"), str(folder / "stored" / "artifacts")) as store:
        analyze(store, save_mlp(folder / "net.safetensors", blocks=1), {"control": False}, data=data)
    return folder


@pytest.fixture
def store(analysed: Path, tmp_path: Path) -> Iterator[Store]:
    folder = shutil.copytree(analysed / "stored", tmp_path / "stored")
    with Store.open(str(folder / "store.sqlite"), str(folder / "artifacts")) as opened:
        yield opened


@pytest.fixture
def data(analysed: Path) -> Path:
    return analysed / "x.npz"


@pytest.fixture
def partition(store: Store) -> PartitionDetail:
    return store.get_partition("last")


def written(monkeypatch: pytest.MonkeyPatch, most: int | None = None) -> list[str]:
    """Count the cards that are written; after `most` of them the process is killed."""
    seen: list[str] = []
    plain = experiments.iterate_cards

    def counted(*args: Any, **options: Any) -> Iterator[Any]:
        for card in plain(*args, **options):
            if len(seen) == most:
                raise KeyboardInterrupt
            seen.append(card.title)
            yield card

    monkeypatch.setattr(experiments, "iterate_cards", counted)
    return seen


def test_cards_are_those_of_the_analysis_and_computed_once(
    store: Store, partition: PartitionDetail, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = experiments.describe(store, partition.id, RECIPE, data=data)
    cards = Cards.from_bytes(store.description_bytes(row.id))
    n_nodes = sum(store.get_graph(partition.graph).widths)
    assert (row.n, row.n_cards, row.n_nodes, row.whole) == (64, n_nodes, n_nodes, True)
    assert [module["summary"] for module in row.modules] == [card.summary for card in cards.modules]
    assert len(cards.nodes) == n_nodes
    seen = written(monkeypatch)
    assert experiments.describe(store, partition.id, RECIPE, data=data) == row
    assert seen == []
    other = experiments.describe(store, partition.id, DescribeRecipe(examples=1, points=8), data=data)
    assert other.id != row.id
    assert store.descriptions(partition=partition.id).items == (row, other)
    assert store.check().ok


def test_killed_description_goes_on(
    store: Store, partition: PartitionDetail, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Cards.from_bytes(
        store.description_bytes(experiments.describe(store, partition.id, RECIPE, data=data, force=True).id)
    )
    monkeypatch.setattr(experiments, "_OFTEN", 0.0)
    recipe = DescribeRecipe(examples=2, points=8, seed=1)
    with monkeypatch.context() as patch:
        seen = written(patch, most=5)
        with pytest.raises(KeyboardInterrupt):
            experiments.describe(store, partition.id, recipe, data=data)
    assert len(seen) == 5
    (half,) = [row for row in store.descriptions().items if not row.whole]
    assert (half.n_cards, half.modules) == (5, ())
    seen = written(monkeypatch)
    done = experiments.describe(store, partition.id, recipe, data=data)
    assert (done.id, done.whole) == (half.id, True)
    assert len(seen) == done.n_nodes - 5 + len(done.modules), "the cards that were stored are not written again"
    cards = Cards.from_bytes(store.description_bytes(done.id))
    assert [card.title for card in cards] == [card.title for card in whole]
    assert store.check().ok


def test_damaged_cards_are_written_again(store: Store, partition: PartitionDetail, data: Path) -> None:
    row = experiments.describe(store, partition.id, RECIPE, data=data)
    path = store.blobs.path(row.description_sha256)
    assert path is not None
    path.write_bytes(b"")
    again = experiments.describe(store, partition.id, RECIPE, data=data)
    assert again.id == row.id
    assert Cards.from_bytes(store.description_bytes(again.id)).nodes


def test_cards_go_with_their_partition(store: Store, partition: PartitionDetail, data: Path) -> None:
    row = experiments.describe(store, partition.id, RECIPE, data=data)
    removed = store.remove(PARTITION, partition.id)
    assert "description" in json.dumps(removed.to_json())
    with pytest.raises(NotFoundError):
        store.get_description(row.id)


def test_jobs_describe_partitions(store: Store, partition: PartitionDetail, data: Path) -> None:
    job = store.submit("describe", partition.id, {"examples": 2, "points": 8, "data": data})
    steps = Steps(store, job.to_json(), lambda _: None)
    with steps.files():
        (made,) = steps.take("describe", {})["results"]
    assert made == {"kind": "description", "id": experiments.describe(store, partition.id, RECIPE, data=data).id}


def test_cards_are_listed_by_the_service_in_pages(store: Store, partition: PartitionDetail, data: Path) -> None:
    with httpx.Client(transport=InProcess(create_app(store)), base_url="http://127.0.0.1/api/v1") as http:
        missing = http.get(f"/partitions/{partition.id}/cards")
        assert missing.status_code == 404
        assert "is not described yet" in missing.json()["detail"]
        row = experiments.describe(store, partition.id, RECIPE, data=data)
        cards = Cards.from_bytes(store.description_bytes(row.id))
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = http.get(f"/partitions/{partition.id}/cards", params={"limit": 4, **cursor}).json()
            found += page["items"]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert [card["content"] for card in found] == [
            {**card.content, "inputs": json.loads(card.to_json())["inputs"]}
            | {"inputs": {str(p): row.tolist() for p, row in card.inputs.items()}}
            for card in cards
        ]
        assert page["total"] == len(found)
        cut = cards.nodes[0].content["cut"]
        one = http.get(f"/partitions/{partition.id}/cards", params={"cut": cut, "node": 1}).json()["items"]
        assert [(card["cut"], card["node"]) for card in one] == [(cut, 1)]
        modules = http.get(f"/partitions/{partition.id}/cards", params={"modules": True}).json()["items"]
        assert [card["module"] for card in modules] == [m["module"] for m in row.modules]
        of_one = http.get(f"/partitions/{partition.id}/cards", params={"module": 0, "limit": 1000}).json()["items"]
        assert {card["module"] for card in of_one} == {0}
        of_graph = http.get(f"/graphs/{partition.graph}/cards", params={"limit": 1000}).json()["items"]
        assert [card["node"] for card in of_graph] == [card.content["node"] for card in cards.nodes]
    with Client("http://127.0.0.1", transport=InProcess(create_app(store))) as client:
        assert client.cards(partition.id) == client.cards(row.id) == cards
        assert client.get_description(row.id) == row


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["interbasis", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    out, err = capsys.readouterr()
    assert (stopped.value.code or 0) == code, err
    return out, err


def test_commands_print_and_report_cards(
    sqlite_place: Any,
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("INTERBASIS_STORE", sqlite_place.url)
    monkeypatch.setenv("INTERBASIS_ARTIFACTS", sqlite_place.artifacts)
    with sqlite_place.open() as store:
        made = analyze(store, save_mlp(tmp_path / "net.safetensors"), {"control": False}, data=data).partition
        label = NewLabel(text="<script>alert(1)</script>", author="ada", module=0)
        store.put_labels(PARTITION, made.id, [label])
        cut = made.cuts[0]
        first = next(iter(store.nodes(made.id)))
    options = ["--data", str(data), "--points", "8", "--examples", "2"]
    out, err = run(capsys, "describe", made.id, *options)
    assert f"nodes of {made.id}, 64 data points" in out
    assert "one card: --module M, --node CUT/I" in err
    assert all(len(line) <= 80 for line in out.splitlines())
    out, _ = run(capsys, "describe", made.id, "--node", f"{cut}/{first.coordinate}", *options)
    assert f"{cut}/{first.coordinate}" in out
    assert "largest values" in out
    out, _ = run(capsys, "describe", made.graph, "--module", "0", *options)
    assert "label: <script>alert(1)</script>" in out
    shown, _ = run(capsys, "describe", made.id, "--module", "0", "--json", *options)
    assert json.loads(shown)["cards"][0]["kind"] == "module"
    _, err = run(capsys, "describe", made.id, "--node", "nothing", *options, code=2)
    assert "expected CUT/I" in err
    _, err = run(capsys, "describe", made.id, "--module", "99", *options, code=2)
    assert "there is no card of module 99" in err
    listed, _ = run(capsys, "ls", "descriptions")
    assert "cards" in listed
    row = json.loads(shown)["id"]
    again, _ = run(capsys, "describe", row, "--module", "0")
    assert again.startswith(f"{row}, ")
    assert "label: <script>alert(1)</script>" in again
    run(capsys, "plot", "description", "last", "-o", str(tmp_path / "cards.png"))
    assert (tmp_path / "cards.png").stat().st_size > 1000
    page = tmp_path / "report.html"
    run(capsys, "report", made.id, "-o", str(page))
    html = page.read_text()
    assert "&lt;script&gt;alert(1)" in html
    assert not re.search(r"<script|(src|href)=\"(?!data:)", html), "nothing is loaded, and nothing runs"
    _, err = run(capsys, "report", made.id, "-o", str(tmp_path / "report.pdf"), code=2)
    assert "expected the name of an .html file" in err


def test_report_without_cards_says_how_to_get_them(store: Store, partition: PartitionDetail, tmp_path: Path) -> None:
    html = report(store, partition.id, tmp_path / "r.html").read_text()
    assert "are not described yet" in html
    assert partition.id in html
