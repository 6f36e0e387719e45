"""Graphs from files: kept with their files, or nothing is; command, jobs, service; what needs a network is refused."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import httpx
import pytest
from cases_attribution import ERROR, FEATURE, SMALL, attribution, node

from interbasis.analysis import InteractionGraph, Partition
from interbasis.analysis.attribution import strongest_nodes
from interbasis.analysis.errors import GraphError, InputError
from interbasis.analysis.reading import graph_of_bytes
from interbasis.service.api import files
from interbasis.service.api.app import create_app
from interbasis.service.api.guard import Limits
from interbasis.service.cli import app as cli
from interbasis.service.client.client import Client
from interbasis.service.client.in_process import InProcess
from interbasis.service.jobs.steps import Steps
from interbasis.service.records.checkpoints import CHECKPOINT, MODEL
from interbasis.service.records.errors import NotFoundError, StoreError
from interbasis.service.records.jobs import JobRow
from interbasis.service.records.labels import NewLabel
from interbasis.service.records.partitions import PARTITION
from interbasis.service.store.store import Store
from interbasis.service.tasks.exchange import export, import_graph
from interbasis.service.tasks.figures import report
from interbasis.service.tasks.partitions import modules
from interbasis.service.tasks.run import Task
from interbasis.service.tasks.tracking import track

DESCRIPTION = "no data: graphs made elsewhere"
FOUND = {"resolution": 1.0, "control": False}  # without null graphs


SHUFFLED = (0, 2, 4, 1, 3, 5)


def groups(
    order: Sequence[int] = range(6),
    names: Callable[[int, int], str] = "{}_{}".format,
    cuts: Sequence[str] = ("0", "1", "2"),
) -> str:
    """Edges between three layers of six nodes: strong within even and within odd nodes, weak else."""
    rows = ["source,target,weight,source_layer,target_layer"]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        for i in order:
            for j in order:
                weight = 1.0 + 0.1 * (i + j) if i % 2 == j % 2 else 0.02
                rows.append(f"{names(a, i)},{names(b, j)},{weight},{cuts[a]},{cuts[b]}")
    return "\n".join(rows)


@pytest.fixture
def bee(tmp_path: Path) -> Path:
    file = tmp_path / "bee.json"
    file.write_bytes(SMALL)
    return file


@pytest.fixture
def two(tmp_path: Path) -> Path:
    file = tmp_path / "two.csv"
    file.write_text(groups())
    return file


def run_job(store: Store, job: JobRow) -> list[dict[str, str]]:
    """Take the steps of a job, as a worker does."""
    steps = Steps(store, job.to_json(), lambda _: None)
    with steps.files():
        results: list[dict[str, str]] = steps.take("import", {})["results"]
    return results


def test_a_graph_is_stored_with_its_file(store: Store, bee: Path) -> None:
    row = import_graph(store, bee, {})
    assert InteractionGraph.from_bytes(store.graph_bytes(row.id)) == graph_of_bytes(SMALL)
    assert (row.n_nodes, row.n_edges, row.strengths, row.bases_sha256) == (6, 4, "given", None)
    checkpoint = store.get_checkpoint("bee@bee")
    assert (checkpoint.model, checkpoint.family, checkpoint.path) == ("bee", "graph", str(bee))
    assert store.blobs.get(str(checkpoint.file_sha256)) == SMALL
    assert [data.description for data in store.datasets().items] == [DESCRIPTION]
    assert store.get_graph("bee@last") == import_graph(store, bee, {}) == row
    assert store.check().ok


def test_other_choices_make_other_graphs_of_the_same_file(store: Store, bee: Path) -> None:
    whole, without = import_graph(store, bee, {}), import_graph(store, bee, {"without": ["error"], "unit": "share"})
    assert (whole.checkpoint, whole.dataset) == (without.checkpoint, without.dataset)
    graph = InteractionGraph.from_bytes(store.graph_bytes(without.id))
    assert graph.unit == "share"
    assert {kind for table in graph.nodes for kind in table.types}.isdisjoint({ERROR})
    assert without.recipe["without"] == ["error"]
    named = import_graph(store, bee, {"model": "gemma", "label": "a bee"})
    assert (named.model, named.label) == ("gemma", "a bee")


def test_another_file_of_the_same_name_is_another_run(store: Store, two: Path) -> None:
    first = import_graph(store, two, {})
    two.write_text(groups(SHUFFLED))
    later = import_graph(store, two, {})
    assert [(run.model, run.number) for run in store.runs().items] == [("two", 1), ("two", 2)]
    assert store.get_graph("two@two") == later != first


def document(nodes: list[Any], links: list[Any]) -> bytes:
    return json.dumps({"directed": True, "graph": {}, "nodes": nodes, "links": links}).encode()


NODES = [{"id": "a", "layer": 0}, {"id": "b", "layer": 1}]
LINK = {"source": "a", "target": "b", "weight": 1.0}
HOSTILE = {
    "brackets": (b'{"nodes":' + b"[" * 10**6, "nested too deeply"),
    "missing node": (document(NODES, [{**LINK, "target": "c"}]), "names the target 'c', which is none of the nodes"),
    "NaN": (document(NODES, [{**LINK, "weight": float("nan")}]), "it holds NaN"),
    "infinite": (b"source,target,weight\na,b,inf\n", "has the weight inf"),
    "duplicate ids": (document([*NODES, NODES[0]], [LINK]), "two nodes have the id 'a'"),
    "no nodes": (document([], []), "no nodes"),
    "no content": (b"", "table"),
    "one layer": (document([NODES[0], {"id": "b", "layer": 0}], [LINK]), "1 of 1 links to no later layer"),
    "cycle": (b"source,target,weight\na,b,1\nb,a,1\n", "cycle"),
    "bytes": (bytes(range(256)), "cannot be read"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_refused_files_leave_no_trace(sqlite_place: Any, tmp_path: Path, case: str) -> None:
    content, said = HOSTILE[case]
    file = tmp_path / "file"
    file.write_bytes(content)
    with sqlite_place.open() as store:
        with pytest.raises(GraphError, match=said) as caught:
            import_graph(store, file, {})
        assert str(caught.value).startswith(f"{file}: ")
        for kind in ("models", "runs", "checkpoints", "datasets", "graphs"):
            assert getattr(store, kind)().items == ()
        with pytest.raises(NotFoundError):
            store.get_file(hashlib.sha256(content).hexdigest())


def test_names_that_cannot_be_are_refused_before_the_file_is_read(sqlite_place: Any, tmp_path: Path) -> None:
    with sqlite_place.open() as store:
        for name in ("p-12ab.csv", "a@b.csv"):
            (tmp_path / name).write_bytes(b"not a graph")
            for way in (import_graph, lambda s, f, c: s.submit("import", f, c)):
                with pytest.raises(StoreError, match="a model cannot be called"):
                    way(store, tmp_path / name, {})
        for label in ("a\nb", "x" * 201):
            with pytest.raises(StoreError, match="expected up to 200 printable characters"):
                store.submit("import", tmp_path / "a.csv", {"model": "m", "label": label})
        assert store.jobs().items == ()


def test_jobs_keep_the_file_and_store_the_graph(store: Store, bee: Path) -> None:
    job = store.submit("import", bee, {"without": ["error"]})
    assert job.target == f"sha256:{hashlib.sha256(SMALL).hexdigest()}"
    assert (job.target_name, job.choices["label"]) == ("bee@bee", "bee")
    assert store.submit("import", job.target, {"model": "bee", "label": "bee", "without": ["error"]}).id == job.id
    assert store.graphs().items == (), "nothing before it ran"
    (made,) = run_job(store, job)
    assert made == {"kind": "graph", "id": import_graph(store, bee, {"without": ["error"]}).id}
    assert store.get_checkpoint("bee@bee").path is None


def test_jobs_that_fail_store_nothing_but_the_upload(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "cycle.csv"
    file.write_bytes(HOSTILE["cycle"][0])
    job = store.submit("import", file, {})
    with pytest.raises(GraphError, match=r"^cycle: links form a cycle"):
        run_job(store, job)
    assert (store.models().items, store.graphs().items) == ((), ())
    assert store.get_file(job.target).uri == job.target


def test_requests_that_make_no_sense_are_refused(sqlite_place: Any, bee: Path) -> None:
    with sqlite_place.open() as store:
        uri = store.add_file(bee).uri
        with pytest.raises(StoreError, match="an upload has no name"):
            store.submit("import", uri)
        with pytest.raises(NotFoundError, match="upload it first"):
            store.submit("import", f"sha256:{'0' * 64}", {"model": "m"})
        with pytest.raises(StoreError, match="it has no schedule"):
            store.add_schedule("import", "bee", cron="0 2 * * *")
        assert (store.jobs().items, store.schedules().items) == ((), ())


def test_what_needs_the_network_is_refused_by_name(sqlite_place: Any, two: Path, tmp_path: Path) -> None:
    with sqlite_place.open() as store:
        graph = import_graph(store, two, {})
        partition = modules(store, graph.id, FOUND).id
        for task, target in (("analyze", "two@two"), ("llc", "two@two"), ("ledger", "two@two")):
            choices = {"temperature": 1.0} if task == "llc" else {}
            with pytest.raises(StoreError, match=f"comes from the file of a graph, and {task} needs the network"):
                store.submit(task, target, choices)
        for task in ("experiment", "describe"):
            with pytest.raises(StoreError, match=f"and {task} needs the network itself: analyze a checkpoint of it"):
                store.submit(task, partition)
            with pytest.raises(StoreError, match="and what was asked for needs the network itself"):
                Task(store, task, partition, {}).all()
        for form, needed in (("masks", "a basis"), ("eap", "what was asked for")):
            with pytest.raises(StoreError, match=f"and {needed} needs the network itself"):
                export(store, partition, form)
        assert store.jobs().items == ()


def test_graphs_and_files_go_with_their_model(store: Store, two: Path, bee: Path) -> None:
    graph = import_graph(store, two, {})
    modules(store, graph.id, FOUND)
    import_graph(store, bee, {"model": "other"})
    assert store.removal(MODEL, "two").along == {"runs": 1, "checkpoints": 1, "graphs": 1, "partitions": 1}
    store.remove(CHECKPOINT, "two@two")
    store.collect(grace=0.0)
    with pytest.raises(NotFoundError):
        store.get_file(hashlib.sha256(two.read_bytes()).hexdigest())
    assert [row.model for row in store.graphs().items] == ["other"]
    assert store.check().ok


def test_modules_are_tracked_by_the_names_of_nodes(store: Store, tmp_path: Path) -> None:
    """The same nodes in another order, and one that is new."""
    (tmp_path / "early.csv").write_text(groups())
    (tmp_path / "late.csv").write_text(groups(SHUFFLED) + "\nnew,1_0,1.0,0,1")
    for name in ("early", "late"):
        import_graph(store, tmp_path / f"{name}.csv", {"model": "m"})
    found = track(store, "m", {"resolution": 1.0})
    assert [sorted(step.tracks) for step in found.steps] == [[0, 1], [0, 1]]
    assert (found.churn, found.events) == (0.0, ())
    unaligned = track(store, "m", {"resolution": 1.0}, align=False)
    assert unaligned.churn, "by their places"


def test_names_that_are_html_are_text_in_reports(sqlite_place: Any, tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    file = tmp_path / "<b>two.csv"
    file.write_text(groups(names=lambda a, i: f"{bad}{a}.{i}", cuts=(bad, "&<b>", "z")))
    with sqlite_place.open() as store:
        graph = import_graph(store, file, {})
        part = modules(store, graph.id, FOUND)
        report(store, part.id, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<b>two" not in page
    assert "&lt;b&gt;two" in page


BAD = "<script>alert(1)</script>"


def signed_file(place: Path) -> Path:
    """Two modules with labels, types and positions; weights from even to even nodes are negative."""
    rows = {f"{a}_{i}": {"layer": a, "ctx_idx": i % 2} for a in range(3) for i in range(6)}
    nodes = [
        node(name, FEATURE, str(r["layer"]), ctx_idx=r["ctx_idx"], clerp=f"{BAD} {name}") for name, r in rows.items()
    ]
    links = []
    for a, b in ((0, 1), (1, 2), (0, 2)):
        for i in range(6):
            for j in range(6):
                size = 1.0 + 0.1 * (i + j) if i % 2 == j % 2 else 0.02
                links.append((f"{a}_{i}", f"{b}_{j}", -size if i % 2 == j % 2 == 0 else size))
    place.write_bytes(attribution(nodes, links))
    return place


@pytest.mark.parametrize("unit", ["weight", "share"])
def test_reports_name_nodes_and_say_what_strengths_are(sqlite_place: Any, tmp_path: Path, unit: str) -> None:
    with sqlite_place.open() as store:
        graph = import_graph(store, signed_file(tmp_path / "g.json"), {"unit": unit})
        part = modules(store, graph.id, FOUND)
        page = report(store, part.id, tmp_path / "report.html").read_text()
        plain = InteractionGraph.from_bytes(store.graph_bytes(graph.id))
        expected = strongest_nodes(plain, Partition.from_bytes(store.partition_bytes(part.id)).labels)
    terms = page.partition("<h2>Terms</h2>")[2]
    assert "interaction basis" not in terms
    assert "units of the loss" not in terms
    assert ("as a share of all weights into its target" in terms) is (unit == "share")
    assert f"Cutoff {part.epsilon**0.5:.3g} of strengths" in page
    assert "Loss scale" not in page
    assert BAD not in page
    assert f"<td>{escape(BAD)} 1_4</td><td>1_4</td><td>{FEATURE}</td><td>0</td>" in page
    assert "are not described yet" not in page
    edges = [edge for each in expected for edge in (*each.inputs, *each.outputs)]
    assert min(edge.weight for edge in edges) < 0 < max(edge.weight for edge in edges)
    for each in expected:
        edge = (each.inputs or each.outputs)[0]
        assert f"{edge.weight:+.3g} {edge.node} {escape(BAD)}" in page


def test_nodes_are_listed_with_what_the_file_says(opened: Store, tmp_path: Path) -> None:
    part = modules(opened, import_graph(opened, signed_file(tmp_path / "g.json"), {}).id, FOUND)
    one = opened.get_node(part.id, "1", 4)
    assert (one.id, one.type, one.position, one.label) == ("1_4", FEATURE, 0, f"{BAD} 1_4")
    listed = opened.nodes(part.id)
    assert [each.id for each in listed] == [f"{a}_{i}" for a in range(3) for i in range(6)]
    assert opened.nodes(part.id, module=one.module) == tuple(each for each in listed if each.module == one.module)
    with Client("http://127.0.0.1", transport=InProcess(create_app(opened))) as client:
        assert client.nodes(part.id) == listed
        assert client.get_node(part.id, "1", 4) == one
        edges = client.edges_of(part.graph, "1", 4).edges
        assert {(e.earlier, e.weight) for e in edges if e.later_cut == 1} == {
            (i, -(1.0 + 0.1 * (i + 4)) if i % 2 == 0 else 0.02) for i in range(6)
        }
        assert all(abs(e.weight or 0.0) == e.strength for e in client.subgraph(part.graph).edges)
    two = tmp_path / "two.csv"
    two.write_text(groups())
    bare = modules(opened, import_graph(opened, two, {}).id, FOUND)
    assert opened.get_node(bare.id, 0, 3).type is opened.get_node(bare.id, 0, 3).label is None


def test_show_names_nodes_with_signed_edges(
    sqlite_place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--store", sqlite_place.url, "--artifacts", sqlite_place.artifacts]
    file = tmp_path / "g.json"
    file.write_bytes(signed_file(file).read_bytes().replace(b"alert(1)", b"\\u001b[31m"))
    with sqlite_place.open() as store:
        graph = import_graph(store, file, {})
        part = modules(store, graph.id, FOUND)
        store.put_labels(PARTITION, part.id, [NewLabel(text="stored one", author="ada", cut="1", node=4)])
    out, _ = run(capsys, "show", part.id, *place)
    said = " ".join(out.split())
    assert "strengths are weights of the file; costs are their sums, without signs" in said
    assert "\x1b" not in out
    assert FEATURE.split()[0] in said
    assert "stored one" in said
    assert "-1.8 2/4" in said
    assert "+2 2/5" in said
    document = json.loads(run(capsys, "show", part.id, "--json", *place)[0])
    assert len(document["strongest_nodes"]) == 3 * part.n_modules
    assert {each["type"] for each in document["nodes"]} == {FEATURE}


# The service


@pytest.fixture
def opened(sqlite_place: Any) -> Iterator[Store]:
    with sqlite_place.open() as store:
        yield store


def test_clients_upload_and_import(opened: Store, bee: Path) -> None:
    token = opened.new_token("ada", "submit").token
    with Client("http://127.0.0.1", token, transport=InProcess(create_app(opened))) as client:
        job = client.import_graph(bee, {"without": ("error",), "keep": 0.9, "unit": "share"}, priority=3)
        assert (job.row.target_name, job.row.priority, job.row.state) == ("bee@bee", 3, "queued")
        assert job.row.choices["without"] == ["error"]
        assert client.submit("import", bee, {"without": ["error"], "keep": 0.9, "unit": "share"}).id == job.id
        (made,) = run_job(opened, opened.get_job(job.id))
        assert client.graph(made["id"]).unit == "share"
        checkpoint = client.get_checkpoint("bee@bee")
        assert checkpoint.file_sha256 == hashlib.sha256(SMALL).hexdigest()
        with pytest.raises(StoreError, match="import: keep is 2, expected a number between 0 and 1"):
            client.import_graph(bee, {"keep": 2})
        with pytest.raises(StoreError, match="cannot read"):
            client.import_graph(bee.with_name("gone.json"))
    with (
        Client("http://127.0.0.1", transport=InProcess(create_app(opened))) as stranger,
        pytest.raises(StoreError, match="a token is needed"),
    ):
        stranger.import_graph(bee)


def test_uploads_of_graphs_are_bounded_and_checked_before_they_are_kept(opened: Store) -> None:
    app = create_app(opened, Limits(upload=2000, body=100))
    with httpx.Client(transport=InProcess(app), base_url="http://127.0.0.1/api/v1") as http:
        for query, content, status, said in (
            ("model=m", b"x" * 2001, 413, "expected at most 2000"),
            ("", b"x", 422, "model is missing"),
            ("model=p-12ab", b"x", 422, "could be the ID of a partition"),
            ("model=m&label=%0a", b"x", 422, "label is"),
            ("model=m&keep=1", b"x", 422, "keep is '1', expected less than 1"),
            ("model=m&format=pdf", b"x", 422, "format is 'pdf', expected"),
            ("model=m&without=", b"x", 422, "without is"),
        ):
            answer = http.post(f"/imports?{query}", content=content)
            assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
        assert (opened.jobs().items, opened.models().items) == ((), ())
        with pytest.raises(NotFoundError):
            opened.get_file(hashlib.sha256(b"x").hexdigest())
        answer = http.post("/imports?model=m", content=b"x" * 1500)
        assert (answer.status_code, answer.headers["location"]) == (202, f"/api/v1/jobs/{answer.json()['id']}")


def test_modules_go_back_into_the_original_file(
    opened: Store, bee: Path, tmp_path: Path, export_here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the file, by the hash of its copy in the store, and by the service; without the errors, which stay there."""
    monkeypatch.setattr(files, "export", export_here)
    graph = import_graph(opened, bee, {"without": ["error"]})
    labels = {f"{cut}/0": i % 2 for i, cut in enumerate(opened.get_graph(graph.id).cuts)}
    partition = modules(opened, graph.id, {"labels": labels}).id
    written = export(opened, partition, "circuit-tracer", into=bee)
    before, after = json.loads(SMALL), json.loads(written)
    assert len(after["qParams"].pop("supernodes")) == 2
    assert after["qParams"].pop("pinnedIds")
    for name in ("supernodes", "pinnedIds"):
        before["qParams"].pop(name)
    assert after == before
    uri = str(opened.get_job(opened.submit("import", bee, {}).id).target)
    assert export(opened, partition, "circuit-tracer", into=uri) == written
    with Client("http://127.0.0.1", transport=InProcess(create_app(opened))) as client:
        assert client.export(partition, "circuit-tracer", into=uri) == written
        with pytest.raises(StoreError, match="into is"):
            client.export(partition, "circuit-tracer", into="/etc/passwd")
    with pytest.raises(InputError, match="into: supernodes are modules"):
        export(opened, graph.id, "circuit-tracer", into=bee)
    with pytest.raises(InputError, match="into: only for the format circuit-tracer"):
        export(opened, partition, "graphml", into=bee)
    other = tmp_path / "other.json"
    other.write_bytes(attribution([node("x", ERROR, "0"), node("y", "logit", "1")], [("x", "y", 1.0)]))
    with pytest.raises(GraphError, match="the original file has no node"):
        export(opened, partition, "circuit-tracer", into=other)


# The command


def run(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["interbasis", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    out, err = capsys.readouterr()
    assert (stopped.value.code or 0) == code, err
    return out, err


def test_command(sqlite_place: Any, bee: Path, two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--store", sqlite_place.url, "--artifacts", sqlite_place.artifacts]
    out, err = run(capsys, "import", bee, two, *place)
    assert [line.split()[1:] for line in out.splitlines()[1:3]] == [
        ["bee@bee", "6", "4", "5"],
        ["two@two", "18", "108", "3"],
    ]
    assert "3 cross layer transcoders, 1 embedding, 1 mlp reconstruction error, 1 logit" in " ".join(out.split())
    assert "18 without a type" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "interbasis modules g-" in err
    out, _ = run(capsys, "import", bee, "--without", "error", "--keep", "0.99", "--model", "m", "--json", *place)
    (row,) = json.loads(out)["items"]
    assert (row["model"], row["recipe"]["keep"], row["types"].get(ERROR)) == ("m", 0.99, None)
    run(capsys, "modules", "two@last", "--resolution", "1", *place)
    out, _ = run(capsys, "show", "partition", "two@last", *place)
    assert "     0      9  3 3 3" in out
    run(capsys, "plot", "two@last", "-o", tmp_path / "two.png", *place)
    run(capsys, "modules", "bee@last", "--resolution", "1", *place)
    to = tmp_path / "back.json"
    run(capsys, "export", "bee@last", "--format", "circuit-tracer", "--into", bee, "-o", to, *place)
    assert json.loads(to.read_text())["links"] == json.loads(SMALL)["links"]
    bad = tmp_path / "bad.csv"
    bad.write_bytes(HOSTILE["cycle"][0])
    _, err = run(capsys, "import", bad, *place, code=2)
    assert "bad.csv: links form a cycle" in " ".join(err.split())
    _, err = run(capsys, "import", tmp_path / "gone.json", *place, code=2)
    assert "there is no file" in err
    _, err = run(capsys, "import", bee, "--unit", "loss", *place, code=2)
    assert "import: unit is 'loss', expected one of weight, share" in " ".join(err.split())
    out, _ = run(capsys, "submit", "import", bee, "--set", "model=queued", "--json", *place)
    assert json.loads(out)["items"][0]["target_name"] == "queued@bee"


def test_the_command_says_which_of_several_graphs_a_name_means(
    sqlite_place: Any, two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--store", sqlite_place.url, "--artifacts", sqlite_place.artifacts, "--json"]
    other = tmp_path / "other" / two.name
    other.parent.mkdir()
    other.write_text(groups(SHUFFLED) + "\n")
    found, said = [], []
    for words in ([two], [other], [two], [other, "--unit", "share"]):
        out, err = run(capsys, "import", *words, *place)
        found.append(json.loads(out)["items"][0]["id"])
        said.append(err)
    first, second, again, last = found
    assert (first == again, len(set(found))) == (True, 3)
    assert "note" not in said[0]
    assert [f"two@two means {second} now; by their IDs alone: {first}" in err for err in said[1:3]] == [True, True]
    assert f"two@two means {last} now; by their IDs alone: {first}, {second}" in said[3]
    with sqlite_place.open() as store:
        assert store.get_graph("two@two").id == last
