"""The client: the same values and objects as the store, against the application in this process and a real service."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from cases_checkpoints import save_inputs, save_mlp
from cases_labels import of_module, of_node
from cases_long import POSTGRESQL_FIRST, SQLITE_FIRST
from cases_store import (
    partition_parts,
    partition_values,
    provenance,
    save_experiment,
    save_graph,
    save_ledger,
    save_llc,
    save_partition,
    save_tracking,
)
from cases_studied import track

from interbasis.analysis import InteractionGraph
from interbasis.service.api import schemas
from interbasis.service.api.app import create_app
from interbasis.service.api.guard import Limits
from interbasis.service.client.client import Client
from interbasis.service.client.in_process import InProcess
from interbasis.service.records.errors import (
    AmbiguousError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    StoreError,
)
from interbasis.service.records.graphs import GRAPH
from interbasis.service.records.jobs import SCOPES, STATES, TASKS
from interbasis.service.records.partitions import PARTITION, MediatorRow
from interbasis.service.store.store import Store
from interbasis.service.tasks import analyze as analyze_task
from interbasis.service.tasks import exchange


@pytest.fixture
def connect(store: Store) -> Iterator[Callable[..., Client]]:
    """Clients of an application on the store, in this process."""
    made: list[Client] = []

    def client(token: str | None = None, **limits: Any) -> Client:
        transport = InProcess(create_app(store, Limits(**limits)))
        made.append(Client("http://127.0.0.1", token, transport=transport))
        return made[-1]

    yield client
    for each in made:
        each.close()


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    return connect()


@pytest.fixture
def analysed(store: Store, tmp_path: Path, divided_once: None) -> Any:
    """Two networks side by side, analysed here."""
    save_inputs(tmp_path / "x.npz", 8)
    path = save_mlp(tmp_path / "a.safetensors", step=1, model="run", blocks=2)
    return analyze_task.analyze(store, path, {"output": "neuron"}, data=tmp_path / "x.npz")


def test_everything_stored_reads_as_in_the_store(store: Store, client: Client) -> None:
    graph = save_graph(store)
    partition = save_partition(store, graph.id)
    llc, ledger, tracking = save_llc(store), save_ledger(store), save_tracking(store, [graph.id, graph.id])
    experiment = save_experiment(store, partition.id)
    schedule = store.add_schedule("track", "digits", cron="0 2 * * *")
    job = store.submit("partition", graph.id, {"k": 2})
    kinds = (("graph", graph), ("llc", llc), ("ledger", ledger), ("experiment", experiment), ("tracking", tracking))
    for kind, row in (*kinds, ("job", job)):
        assert getattr(client, f"get_{kind}")(row.id) == row
        assert getattr(client, f"{kind}s")() == getattr(store, f"{kind}s")()
    assert client.get_partition(partition.id) == partition
    assert client.get_schedule(schedule.id) == schedule
    assert client.experiments(partition=partition.id) == store.experiments()
    assert client.experiment_bytes(experiment.id) == store.experiment_bytes(experiment.id)
    assert client.partitions(graph=graph.id) == store.partitions(graph=graph.id)
    assert client.models() == store.models()
    assert client.get_model("digits") == store.get_model("digits")
    assert client.get_checkpoint("digits@100") == store.get_checkpoint(graph.checkpoint)
    assert client.checkpoints(model="digits") == store.checkpoints()
    assert client.datasets() == store.datasets()
    assert client.get_dataset(graph.dataset) == store.get_dataset(graph.dataset)
    assert client.nodes(partition.id) == store.nodes(partition.id)
    assert client.nodes(partition.id, module=0) == store.nodes(partition.id, module=0)
    assert client.mediators(partition.id) == store.mediators(partition.id)
    assert client.workers() == ()
    for kind, row in (("graph", graph), ("partition", partition), ("llc", llc), ("ledger", ledger)):
        assert getattr(client, f"{kind}_bytes")(row.id) == getattr(store, f"{kind}_bytes")(row.id)
    assert client.bases_bytes(graph.id) == store.bases_bytes(graph.id)
    assert client.tracking_bytes(tracking.id) == store.tracking_bytes(tracking.id)


def test_labels_read_and_are_given_as_in_the_store(store: Store, connect: Callable[..., Client]) -> None:
    client = connect()
    graph = save_graph(store).id
    partition = save_partition(store, graph).id
    nodes = [of_node("<b>\u05d0</b>", "layers.0", 2, confidence=0.5, source="import"), of_node("edge", "layers.1", 3)]
    given = [of_module("left", 0), *nodes]
    made = client.put_labels(PARTITION, partition, given)
    assert made == store.labels(PARTITION, partition) == client.labels(PARTITION, partition)
    assert client.labels(GRAPH, graph) == store.labels(GRAPH, graph) == made[1:]
    assert client.put_labels(PARTITION, partition, given) == made
    gone = [
        client.remove_label(GRAPH, graph, cut="layers.1", node=3, author="b b"),
        client.remove_label(PARTITION, partition, module=0, author="bob"),
    ]
    assert [row.text for row in gone] == [None, None]
    assert client.labels(PARTITION, partition) == made[1:2]
    assert client.labels(GRAPH, graph, history=True) == store.labels(GRAPH, graph, history=True)
    assert len(client.labels(PARTITION, partition, history=True)) == 5
    for kind, ref, label, error in (
        (GRAPH, graph, of_node(node=9), NotFoundError),
        (GRAPH, graph, of_module(), StoreError),
        (PARTITION, partition, of_module("x" * 501), StoreError),
        (PARTITION, "p-00", of_module(), NotFoundError),
    ):
        with pytest.raises(error):
            client.put_labels(kind, ref, [label])
    with pytest.raises(NotFoundError, match="has no label of source command:x"):
        client.remove_label(PARTITION, partition, module=0, author="bob", source="command:x")


def test_many_labels_are_sent_in_several_requests(store: Store, client: Client) -> None:
    graph = save_graph(store).id
    labels = [of_node("\U0001f600" * 500, "layers.0", 1, source=f"command:{i}") for i in range(250)]
    assert client.put_labels(GRAPH, graph, labels) == client.labels(GRAPH, graph)
    assert len(store.labels(GRAPH, graph)) == 250


def test_scopes_of_tokens_for_labels(store: Store, connect: Callable[..., Client]) -> None:
    graph = save_graph(store).id
    reading, writing, admin = (connect(store.new_token("me", scope).token) for scope in SCOPES)
    with pytest.raises(ForbiddenError, match="needs a token of scope submit"):
        reading.put_labels(GRAPH, graph, [of_node()])
    made = writing.put_labels(GRAPH, graph, [of_node()])
    assert reading.labels(GRAPH, graph) == made
    with pytest.raises(ForbiddenError, match="needs a token of scope admin"):
        writing.remove_label(GRAPH, graph, cut="layers.0", node=1, author="bob")
    assert admin.remove_label(GRAPH, graph, cut="layers.0", node=1, author="bob").text is None


@SQLITE_FIRST
def test_exports_have_labels_and_change_with_them(analysed: Any, store: Store, client: Client) -> None:
    graph, partition = analysed.graph, analysed.partition
    cut = graph.cuts[0]
    before = exchange.export_stored(client, partition.id, "graphml")
    store.put_labels(PARTITION, partition.id, [of_module("<left>", 0), of_node("<edge>", cut, 0)])
    for form in ("graphml", "node-link", "circuit-tracer"):
        made = exchange.export_stored(client, partition.id, form)
        assert made == exchange.export_stored(store, partition.id, form) != before
        wanted = (b"&lt;left&gt;", b"&lt;edge&gt;") if form == "graphml" else (b"<left>", b"<edge>")
        assert all(text in made for text in wanted), form
    found = client.networkx(graph.id, partition.id)
    assert found.nodes[f"{cut}/0"]["label"] == "<edge>"
    assert "<left>" in {data.get("module_label") for _, data in found.nodes(data=True)}


def test_documented_names_are_those_of_the_store() -> None:
    assert get_args(schemas.Task) == tuple(TASKS)
    assert get_args(schemas.State) == STATES
    assert get_args(schemas.Scope) == SCOPES


def test_names_may_hold_anything(store: Store, client: Client) -> None:
    for name in ("EleutherAI/pythia-14m", "a b%2B", "ünï", "50% /?#"):
        row = store.register_model(name, "mlp", {})
        assert client.get_model(name) == row
        assert client.checkpoints(model=name).items == ()


def test_pages_follow_each_other(store: Store, client: Client) -> None:
    rows = [save_graph(store, n) for n in range(5)]
    first = client.graphs(limit=2)
    second = client.graphs(limit=2, cursor=first.next_cursor)
    last = client.graphs(limit=2, cursor=second.next_cursor)
    assert [row.id for page in (first, second, last) for row in page.items] == [row.id for row in rows]
    assert last.next_cursor is None
    assert client.graphs(limit=1, newest_first=True).items[0] == rows[-1]


def test_lists_are_narrowed_and_counted(store: Store, client: Client) -> None:
    """By step and moment, through every owner, and by verdict; the store and a client give the same."""
    graph = save_graph(store)
    made = save_partition(store, graph.id)
    other = store.add_checkpoint("digits", sha256="f" * 64, step=200, label="later")
    for source in (store, client):
        assert [row.id for row in source.checkpoints(step=200).items] == [other.id]
        assert source.graphs(step=100).items == (graph,)
        assert (source.graphs(step=200).total, source.checkpoints(limit=1).total) == (0, 2)
        assert source.graphs(since=graph.created).items == (graph,)
        assert source.graphs(since=graph.created + timedelta(seconds=1)).total == 0
        assert source.get_partition(made.id) == made
        (row,) = source.partitions(model="digits", step=100).items
        assert (row.step, row.label, row.cuts, row.output) == (100, "final", graph.cuts, None)
        with pytest.raises(StoreError, match="no verdict '%': expected one of supported, one module"):
            source.partitions(verdict="%")
        with pytest.raises(StoreError, match="datasets have no verdict: the list can be narrowed by since"):
            source.datasets(verdict="x")


def test_nodes_and_mediators_come_in_pages(store: Store, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equal strengths too; the client's own methods give all of them."""
    parts, graph = partition_parts(), save_graph(store)
    strengths = [(0, 1, 2.0), (0, 1, 2.0), (0, 1, 0.1 + 0.2), (0, 1, 0.3), (1, 0, 5.0), (1, 0, 5.0), (0, 0, 1e-300)]
    parts["mediators"] = [
        MediatorRow(earlier=a, later=b, cut=n % 2, coordinate=n // 2, strength=strength, cost=0.1, gamma=None)
        for n, (a, b, strength) in enumerate(strengths)
    ]
    given = {"provenance": provenance(), "values": partition_values(), "blobs": {"partition": b"p"}, **parts}
    partition = store.save_partition(graph.id, **given).id
    nodes, mediators = store.nodes(partition), store.mediators(partition)
    assert (len(nodes), len(mediators)) == (9, 7)

    def listed(path: str, limit: int, **params: Any) -> list[Any]:
        items, cursor = [], None
        while True:
            query = {**params, "limit": limit, **({"cursor": cursor} if cursor else {})}
            page = client._request("GET", f"partitions/{partition}/{path}", params=query).json()
            assert len(page["items"]) <= limit
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items
            assert len(page["items"]) == limit

    for limit in (1, 2, 3, 7, 9, 10):
        assert listed("nodes", limit) == [row.to_json() for row in nodes]
        assert listed("nodes", limit, module=1) == [row.to_json() for row in nodes if row.module == 1]
        assert listed("mediators", limit) == [row.to_json() for row in mediators]
        between = [row.to_json() for row in mediators if (row.earlier, row.later) == (0, 1)]
        assert listed("mediators", limit, earlier=0, later=1) == between
    asked = []
    request = client._request
    monkeypatch.setattr(client, "_request", lambda *a, **o: asked.append(o["params"]) or request(*a, **o))
    monkeypatch.setattr(store, "node_page", lambda *a, **o: Store.node_page(store, *a, **{**o, "limit": 4}))
    assert client.nodes(partition) == nodes
    assert len(asked) == 3
    for path, cursor in (("nodes", "MSAzIDQ"), ("nodes", "LTEgMw"), ("mediators", "OSA5IDkgOQ"), ("mediators", "x")):
        with pytest.raises(StoreError, match="unknown cursor"):
            client._request("GET", f"partitions/{partition}/{path}", params={"cursor": cursor})


@SQLITE_FIRST
def test_objects_are_those_of_the_analysis(store: Store, client: Client, analysed: Any) -> None:
    graph, partition = client.graph(analysed.graph.id), client.partition(analysed.partition.id)
    assert isinstance(graph, InteractionGraph)
    assert graph.to_bytes() == store.graph_bytes(analysed.graph.id)
    assert partition.n_modules == analysed.partition.n_modules
    assert client.bases(analysed.graph.id).to_bytes() == store.bases_bytes(analysed.graph.id)
    drawn = client.networkx(analysed.graph.id, analysed.partition.id, epsilon=0.0)
    assert drawn.number_of_nodes() == graph.n_nodes
    frame = client.frame(client.nodes(analysed.partition.id))
    assert list(frame["cut"][:2]) == [0, 0]
    assert len(client.frame(client.graphs())) == 1


@SQLITE_FIRST
def test_edges_are_those_of_the_graph(client: Client, analysed: Any) -> None:
    blocks = client.graph(analysed.graph.id).blocks
    cut = analysed.graph.cuts[1]
    found = client.edges_of(analysed.graph.id, cut, 2, limit=1000)
    into = {(0, i, 1, 2): w for i, w in enumerate(blocks[0][2]) if w}
    out = {(1, 2, 2, j): w for j, w in enumerate(blocks[1][:, 2]) if w}
    edges = {(e.earlier_cut, e.earlier, e.later_cut, e.later): e.strength for e in found.edges}
    assert edges == into | out
    assert found.n_edges == len(edges)
    assert [e.strength for e in found.edges] == sorted(edges.values(), reverse=True)
    assert client.edges_of(analysed.graph.id, 1, 2, limit=1).edges == found.edges[:1]
    whole = client.subgraph(analysed.graph.id, limit=10_000)
    assert whole.n_edges == sum(np.count_nonzero(block) for block in blocks)
    strong = client.subgraph(analysed.graph.id, cuts=[0, cut], epsilon=float(np.median(blocks[0][blocks[0] > 0]) ** 2))
    assert {(e.earlier_cut, e.later_cut) for e in strong.edges} == {(0, 1)}
    assert strong.n_edges == np.count_nonzero(blocks[0] > np.sqrt(np.median(blocks[0][blocks[0] > 0]) ** 2))


@SQLITE_FIRST
def test_a_drawing_has_the_strongest_of_everything(client: Client, analysed: Any) -> None:
    detail = client.get_partition(analysed.partition.id)
    nodes = sorted(client.nodes(detail.id), key=lambda n: (-n.importance, n.cut, n.coordinate))
    whole = client.drawing(detail.id)
    assert (list(whole.nodes), whole.n_nodes) == (nodes, len(nodes))
    every = client.subgraph(analysed.graph.id, limit=10_000)
    assert (whole.edges, whole.n_edges, whole.cuts) == (every.edges, every.n_edges, every.cuts)
    few = client.drawing(detail.id, nodes=9, limit=4, epsilon=every.edges[20].strength ** 2)
    assert (list(few.nodes), few.n_nodes, few.n_edges) == (nodes[:9], len(nodes), 20)
    places = {(n.cut, n.coordinate) for n in few.nodes}
    among = [e for e in every.edges if {(e.earlier_cut, e.earlier), (e.later_cut, e.later)} <= places]
    assert list(few.edges) == among[:4]
    one = client.drawing(detail.id, module=1)
    assert list(one.nodes) == [n for n in nodes if n.module == 1]
    inner = client.edges_between(detail.id, 1, 1, limit=10_000)
    assert (one.edges, one.n_edges) == (inner.edges, inner.n_edges)
    assert client.drawing(detail.id, module=1, nodes=3).n_edges == inner.n_edges


@SQLITE_FIRST
def test_profile_and_flows_are_those_of_the_files(store: Store, client: Client, analysed: Any) -> None:
    part = client.partition(analysed.partition.id)
    rows = client.profile(analysed.partition.id).rows
    assert [(row.resolution, row.z, row.significant) for row in rows] == [
        (row.resolution, row.z, row.significant) for row in part.profile
    ]
    assert rows, "several resolutions were tried"
    found = track(store, [analysed.partition, analysed.partition])
    sizes = {(1, module.index, module.index): module.size for module in part.modules}
    flows = client.flows(found.id).flows
    assert {(flow.at, flow.earlier, flow.later): flow.n_nodes for flow in flows} == sizes


def test_nodes_without_edges_have_none(store: Store, client: Client) -> None:
    graph = InteractionGraph.from_blocks([[[1.0, 2.0], [0.0, 0.0]], [[0.0, 0.0]]])
    row = save_graph(store, 0, content=graph.to_bytes())
    assert [edge.strength for edge in client.edges_of(row.id, 0, 1).edges] == [2.0]
    assert [edge.strength for edge in client.edges_of(row.id, 1, 0).edges] == [2.0, 1.0]
    for cut, node in ((1, 1), (2, 0)):
        assert client.edges_of(row.id, cut, node).edges == ()


@SQLITE_FIRST
def test_edges_between_modules_and_the_module_of_a_node(client: Client, analysed: Any) -> None:
    partition, detail = client.partition(analysed.partition.id), client.get_partition(analysed.partition.id)
    assert detail.n_modules == 2
    blocks, labels = client.graph(analysed.graph.id).blocks, partition.labels
    for first in (0, 1):
        for second in (0, 1):
            kept = sum(
                np.count_nonzero(block[np.ix_(labels[p + 1] == second, labels[p] == first)])
                for p, block in enumerate(blocks)
            )
            assert client.edges_between(detail.id, first, second).n_edges == kept
    node = client.get_node(detail.id, "layers.0", 3)
    assert (node.module if node.module is not None else -1) == labels[1][3]
    assert client.module_of(detail.id, 1, 3) == node.module
    same = client.compare(detail.id, detail.id)
    assert same.adjusted_mutual_information == pytest.approx(1)
    assert same.variation_of_information == pytest.approx(0, abs=1e-12)
    assert (
        sum(overlap.n_nodes for overlap in same.overlaps)
        == same.n_nodes
        == sum(module.size for module in detail.modules)
    )


def test_comparison_by_hand(store: Store, client: Client) -> None:
    """Two halves against four quarters of 8 nodes: joint entropy log 4, VI = log 2."""
    from interbasis.service.api import edges

    labels = {"a": [0, 0, 0, 0, 1, 1, 1, 1], "b": [0, 0, 1, 1, 2, 2, 3, 3]}

    class Fake:
        def get_partition(self, ref: str) -> Any:
            return type("Row", (), {"id": ref, "graph": "g"})

        def get_graph(self, _: str) -> Any:
            return type("Row", (), {"widths": (8,)})

        def nodes(self, ref: str) -> Any:
            return [type("Node", (), {"module": label}) for label in labels[ref]]

    found = edges.compare(Fake(), "a", "b")  # type: ignore[arg-type]
    assert found.variation_of_information == pytest.approx(np.log(2))
    shared = [(overlap.first, overlap.second, overlap.n_nodes) for overlap in found.overlaps]
    assert shared == [(0, 0, 2), (0, 1, 2), (1, 2, 2), (1, 3, 2)]


def test_errors_are_those_of_the_store(store: Store, client: Client, tmp_path: Path) -> None:
    rows = [save_graph(store, n) for n in range(40)]
    shared = next(a.id[:3] for a in rows for b in rows if a.id != b.id and a.id[:3] == b.id[:3])
    with pytest.raises(NotFoundError, match="no graph 'g-x'"):
        client.get_graph("g-x")
    with pytest.raises(AmbiguousError, match="could be any of"):
        client.get_graph(shared)
    with pytest.raises(ConflictError, match="only a job that failed"):
        client.retry_job(client.submit("partition", rows[0].id).id)
    with pytest.raises(StoreError, match="no choice wings"):
        client.submit("partition", rows[0].id, {"wings": 2})
    with pytest.raises(ForbiddenError, match="none of the folders"):
        client._post(type(rows[0]), "checkpoints", body={"path": str(tmp_path / "a.safetensors")})
    with pytest.raises(StoreError, match="is not the URL of a service"):
        Client("127.0.0.1:8422")
    with pytest.raises(NotFoundError, match="no checkpoint 'run@9/x'"):
        client.get_checkpoint("run@9/x")


def test_checkpoints_are_registered_by_path_or_uploaded(
    store: Store, connect: Callable[..., Client], tmp_path: Path
) -> None:
    path = save_mlp(tmp_path / "a.safetensors", step=1, model="run")
    read = connect(roots=(tmp_path,)).register_checkpoint(path)
    assert (read.path, read.file_sha256, read.step, read.model) == (str(path), None, 1, "run")
    other = save_mlp(tmp_path / "b.safetensors", seed=2, step=2, model="run")
    sent = connect().register_checkpoint(other)
    assert (sent.path, sent.file_sha256, sent.step) == (None, sent.sha256, 2)
    assert store.blobs.get(sent.sha256) == other.read_bytes()
    assert connect().register_checkpoint(other) == sent


def test_path_that_holds_something_else_there_is_uploaded(
    store: Store, connect: Callable[..., Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Client and service may see different files under one name."""
    path = save_mlp(tmp_path / "a.safetensors", step=1, model="run")
    monkeypatch.setattr("interbasis.service.store.registry.checkpoint_sha256", lambda _: "0" * 64)
    row = connect(roots=(tmp_path,)).register_checkpoint(path)
    assert (row.path, row.file_sha256) == (None, row.sha256)


def test_tokens(store: Store, connect: Callable[..., Client]) -> None:
    first = connect()._http.post("tokens", json={"name": "you"})
    made = store.new_token("me", "admin")
    assert first.headers["location"] == f"/api/v1/tokens/{first.json()['id']}"
    with pytest.raises(StoreError, match="a token is needed"):
        connect().models()
    client = connect(made.token)
    assert client.tokens().items == (client.get_token(first.json()["id"]), client.get_token(made.id))
    reader = connect(client.new_token("reader").token)
    assert reader.models().items == ()
    with pytest.raises(ForbiddenError, match="needs a token of scope admin"):
        reader.tokens()
    assert client.revoke_token(made.id).revoked is not None
    with pytest.raises(StoreError, match="unknown or revoked"):
        client.models()


@pytest.mark.parametrize("token", ["ib_t-1_ünï", "ib_t-1_\u2019", "ib_t-1_x\n", "ib_t-1\x00"])
def test_token_that_cannot_be_sent_is_refused(token: str) -> None:
    with pytest.raises(StoreError, match="interbasis token new") as refusal:
        Client(token=token)
    assert token not in str(refusal.value)


def test_events_go_on_after_the_one_that_was_seen_last(
    store: Store, connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the service itself: the newest state, unless it was seen."""
    monkeypatch.setattr("interbasis.service.api.routes.jobs._LOOK", 0.05)
    client = connect(stream=0.3)
    job = store.submit("partition", save_graph(store).id)

    def events(*last: str) -> list[tuple[str, str]]:
        headers = {"last-event-id": last[0]} if last else {}
        response = client._request("GET", f"jobs/{job.id}/events", headers=headers)
        assert response.headers["content-type"].startswith("text/event-stream")
        blocks = [block for block in response.text.split("\n\n") if "data:" in block]
        parts = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
        assert all(part["event"] == "job" for part in parts)
        return [(part["id"], json.loads(part["data"])["state"]) for part in parts]

    first = [(str(job.version), "queued")]
    assert events() == events("0") == events("x") == events("-1") == events("") == first
    assert events(first[0][0]) == events("99") == []
    store.begin_job(job.id, 1, "w")
    seen = events(first[0][0])
    assert [state for _, state in seen] == ["running"]
    assert int(seen[0][0]) > job.version
    store.end_job(job.id, 1, "w", "succeeded")
    (end,) = events(seen[0][0])
    assert end[1] == "succeeded"
    assert events(end[0]) == []
    row = store.get_job(job.id)
    assert list(client.events(job.id)) == [row]
    assert list(client.events(job.id, after=row.version)) == []  # it does not ask for ever


@POSTGRESQL_FIRST
def test_submitted_job_is_waited_for(
    store: Store, connect: Callable[..., Client], start_worker: Any, tmp_path: Path
) -> None:
    """From nothing to a queried partition, with files that only the client has."""
    save_inputs(tmp_path / "x.npz", 8)
    path = save_mlp(tmp_path / "a.safetensors", step=1, model="run", blocks=2)
    client = connect()
    job = client.submit("analyze", path, {"data": tmp_path / "x.npz", "output": "neuron"})
    assert client.submit("analyze", path, {"data": tmp_path / "x.npz", "output": "neuron"}).id == job.id
    start_worker()
    seen: list[Any] = []
    row = job.wait(progress=seen.append)
    assert (row.state, seen[-1]) == ("succeeded", row)
    assert client.get_partition(job.result("partition")).n_modules == 2
    here = analyze_task.analyze(store, path, {"output": "neuron"}, data=tmp_path / "x.npz", force=True)
    assert here.graph.graph_sha256 == store.get_graph(job.result("graph")).graph_sha256
    with pytest.raises(NotFoundError, match="made no ledger"):
        job.result("ledger")
    wrong = client.submit("analyze", path, {"data": tmp_path / "x.npz", "cuts": ["nowhere"]})
    with pytest.raises(StoreError, match=r"failed: .*nowhere"):
        wrong.wait()


@pytest.mark.usefixtures("warm")
@SQLITE_FIRST
def test_exports_are_written_by_the_service(store: Store, client: Client, analysed: Any) -> None:
    partition, graph = analysed.partition.id, analysed.graph.id
    for ref, form in ((partition, "masks"), (graph, "node-link")):
        assert client.export(ref, form) == exchange.export(store, ref, form)
    assert exchange.export_stored(client, partition, "masks") == exchange.export(store, partition, "masks")
    with pytest.raises(StoreError, match="data"):  # its checkpoint names none, and the network is run again
        client.export(partition, "eap")
    with pytest.raises(NotFoundError):
        client.export("g-x", "node-link")
