"""The Python client: a remote store, with the same methods and values as a local `Store`.

>>> from interbasis.service.client import Client
>>> client = Client("http://127.0.0.1:8422", token=None)
>>> client.url
'http://127.0.0.1:8422'
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import httpx

from ..records.base import Kind, Page, Record
from ..records.checkpoints import (
    CheckpointRow,
    FileRow,
    ModelRow,
    checkpoint_sha256,
    describe,
    import_names,
    of_checkpoint,
    place_of,
    training_key,
    weights_of,
)
from ..records.choices import as_json, check_choices
from ..records.errors import ForbiddenError, NotFoundError, StoreError, UnavailableError
from ..records.graphs import GRAPH, Subgraph
from ..records.jobs import ENDED, ON_CHECKPOINTS, JobRow, NewToken, ScheduleRow, TokenRow, WorkerRow
from ..records.kinds import Paging, Source, check_paging, kinds_of
from ..records.labels import LabelRow, NewLabel, Place, check_label, preferred
from ..records.maintenance import CheckReport, Collected, Removal
from ..records.partitions import PARTITION, Comparison, Drawing, Flows, MediatorRow, NodeRow, Profile
from .events import read_events
from .http import (
    AGAIN,
    LONGEST,
    PAUSES,
    RecordT,
    asked_pause,
    checked,
    document,
    is_service_url,
    typed_as,
    unreachable,
    url_path,
)
from .uploads import as_safetensors, parts

if TYPE_CHECKING:
    import networkx
    import pandas

    from ... import analysis
    from ...analysis import Bases, Experiment, InteractionGraph, Ledger, Partition, Tracking
    from ...analysis.meaning.cards import Cards
    from ...analysis.refined.coefficients import Estimate

__all__ = ["Client", "JobHandle"]

RowT = TypeVar("RowT", bound=Record)
DetailT = TypeVar("DetailT", bound=Record)

_EXPORT = 150.0  # seconds that a service may take to write a file

_COLLECTION = 600.0  # seconds that it may take to read or remove all files


_LABELS = 200  # labels in a request, whose body is below the limit of a service


class Client(Source):
    """A client of the service at a URL; use it as a context manager, or `close` it.

    Methods named as those of `Store` do the same. When the service cannot be reached, only safe requests are sent
    again: reading, uploading, submitting (the same work is one job; not with `force`) and cancelling.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8422",
        token: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Make a client of the service at a URL.

        Args:
            url: URL of the service, without /api/v1.
            token: the token, as `interbasis token new` printed it.
            transport: transport in place of the network, for example `in_process.InProcess`.
            timeout: seconds to wait for an answer.

        Raises:
            StoreError: the URL or the token is not valid.
        """
        self.url = url.rstrip("/").removesuffix("/api/v1")
        if not is_service_url(self.url):
            raise StoreError(f"{url!r} is not the URL of a service: expected one like http://127.0.0.1:8422")
        if token and not (token.isascii() and token.isprintable()):
            raise StoreError(
                "the token contains characters that no token has: expected ib_... as `interbasis token new` printed it"
            )
        headers = {"authorization": f"Bearer {token}"} if token else {}
        base = f"{self.url}/api/v1/"
        self._http = httpx.Client(base_url=base, headers=headers, timeout=timeout, transport=transport)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    # Requests

    def _request(self, method: str, path: str, *, safe: bool = True, **options: Any) -> httpx.Response:
        """Send a request and return its answer, or raise its error; a `safe` request is sent again if need be.

        It waits as long as Retry-After says, unless that is too long; then it raises the error at once. A body that is
        sent in parts is given as a function that starts it again.
        """
        pauses, left = list(PAUSES) if safe else [], LONGEST
        while True:
            asked = 0.0
            sent = {"content": options["content"]()} if callable(options.get("content")) else {}
            try:
                response = self._http.request(method, path, **{**options, **sent})
            except httpx.TransportError as error:
                if not pauses:
                    raise UnavailableError(unreachable(self.url, error)) from None
            except httpx.DecodingError as error:
                raise StoreError(f"{self.url} answered with {error}: is this an interbasis service?") from error
            else:
                asked = asked_pause(response)
                if response.status_code not in AGAIN or not pauses or asked > left:
                    return checked(response)
            left -= asked
            time.sleep(max(pauses.pop(0), asked))

    def read(self, path: str, **params: Any) -> Any:
        """Return the JSON of a route below /api/v1/ as it is, by its path and query.

        Names in the path are quoted here; a slash in a name is given as %2F.
        """
        given = {name: value for name, value in params.items() if value is not None}
        return document(self._request("GET", url_path(*path.split("/")), params=given))

    def _get(self, kind: type[RecordT], *path: Any, **params: Any) -> RecordT:
        given = {name: value for name, value in params.items() if value is not None}
        return typed_as(kind, document(self._request("GET", url_path(*path), params=given)))

    def _post(self, kind: type[RecordT], *path: Any, body: Any = None, safe: bool = False) -> RecordT:
        return typed_as(kind, document(self._request("POST", url_path(*path), json=body, safe=safe)))

    def _page(self, kind: type[RecordT], *path: Any, **params: Any) -> Page[RecordT]:
        params["newest"] = params.pop("newest_first", None) or None
        if isinstance(since := params.get("since"), datetime):
            params["since"] = since.isoformat()
        given = {name: value for name, value in params.items() if value is not None}
        found = document(self._request("GET", url_path(*path), params=given))
        if not isinstance(found, dict) or not isinstance(found.get("items"), list):
            raise StoreError(f"{self.url} did not return a list of {path[-1]}: is this an interbasis service?")
        items = tuple(typed_as(kind, item) for item in found["items"])
        return Page(items=items, next_cursor=found.get("next_cursor"), total=found.get("total"))

    def _all(self, kind: type[RecordT], *path: Any, **params: Any) -> tuple[RecordT, ...]:
        """Read all pages of a list."""
        items: tuple[RecordT, ...] = ()
        cursor: str | None = None
        while True:
            page = self._page(kind, *path, **params, cursor=cursor, limit=1000)
            items += page.items
            cursor = page.next_cursor
            if cursor is None:
                return items

    # What is stored

    def get(self, kind: Kind[Any, DetailT], ref: str) -> DetailT:
        """Return the thing of this kind that a reference names, with all details."""
        return self._get(kind.detail, kind.plural, ref)

    def page(self, kind: Kind[RowT, Any], of: dict[str, str | None], paging: Paging) -> Page[RowT]:
        """Return a page of the things of this kind that belong to the things named in `of`, by kind."""
        check_paging(kind, paging)
        return self._page(kind.row, kind.plural, **of, **paging)

    def file(self, kind: Kind[Any, Any], ref: str, name: str | None = None) -> bytes:
        """Download a file of a result, by default the first of its kind."""
        first = name is None or name == next(iter(kind.files))
        return self._request("GET", url_path(kind.plural, ref, "file" if first else name)).content

    def nodes(self, partition: str, *, module: int | None = None) -> tuple[NodeRow, ...]:
        """List the nodes of a partition by cut and coordinate, all or those of one module."""
        return self._all(NodeRow, "partitions", partition, "nodes", module=module)

    def get_node(self, partition: str, cut: int | str, coordinate: int) -> NodeRow:
        """Return a node with the module it is in, see `Source.get_node`."""
        return self._get(NodeRow, "partitions", partition, "nodes", cut, coordinate)

    def mediators(
        self, partition: str, *, earlier: int | None = None, later: int | None = None
    ) -> tuple[MediatorRow, ...]:
        """List the mediators of a partition, all or between given modules; strongest first."""
        path = "partitions", partition, "mediators"
        return self._all(MediatorRow, *path, earlier=earlier, later=later)

    def labels(self, kind: Kind[Any, Any], ref: str, *, history: bool = False) -> tuple[LabelRow, ...]:
        """List the labels of a graph or a partition, see `Source.labels`."""
        return self._all(LabelRow, kind.plural, ref, "labels", history=history or None)

    def put_labels(self, kind: Kind[Any, Any], ref: str, labels: Sequence[NewLabel]) -> tuple[LabelRow, ...]:
        """Store labels, see `Source.put_labels`; those of each request, 200 at most, are stored all or none."""
        stored: list[LabelRow] = []
        for label in labels:
            check_label(label)
        for start in range(0, len(labels), _LABELS):
            body = {"labels": [label.to_json() for label in labels[start : start + _LABELS]]}
            response = self._request("PUT", url_path(kind.plural, ref, "labels"), json=body)
            stored += [typed_as(LabelRow, item) for item in document(response)["items"]]
        return tuple(stored)

    def remove_label(
        self, kind: Kind[Any, Any], ref: str, *, author: str, source: str = "human", **place: Unpack[Place]
    ) -> LabelRow:
        """Remove the label of a node or a module, see `Source.remove_label`."""
        path = url_path(
            kind.plural, ref, "labels", *(place[name] for name in ("cut", "node", "module") if name in place)
        )
        params = {"source": source, "author": author}
        return typed_as(LabelRow, document(self._request("DELETE", path, params=params, safe=False)))

    def edges_of(self, graph: str, cut: int | str, node: int, *, limit: int = 100) -> Subgraph:
        """Return a node's strongest edges."""
        return self._get(Subgraph, "graphs", graph, "nodes", cut, node, "edges", limit=limit)

    def edges_between(self, partition: str, earlier: int, later: int, *, limit: int = 100) -> Subgraph:
        """Return the strongest edges from one module to another."""
        params = {"earlier": earlier, "later": later, "limit": limit}
        return self._get(Subgraph, "partitions", partition, "edges", **params)

    def drawing(
        self,
        partition: str,
        *,
        module: int | None = None,
        epsilon: float | None = None,
        nodes: int = 2000,
        limit: int = 10_000,
    ) -> Drawing:
        """Return what a picture shows: the most important nodes, all or of a module, and the strongest edges there."""
        params = {"module": module, "epsilon": epsilon, "nodes": nodes, "limit": limit}
        return self._get(Drawing, "partitions", partition, "drawing", **params)

    def profile(self, partition: str) -> Profile:
        """Return every resolution that was tried for a partition, beside null graphs."""
        return self._get(Profile, "partitions", partition, "profile")

    def flows(self, tracking: str) -> Flows:
        """Return the flows of nodes between the modules of successive checkpoints."""
        return self._get(Flows, "trackings", tracking, "flows")

    def subgraph(
        self, graph: str, *, cuts: Sequence[int | str] = (), epsilon: float | None = None, limit: int = 1000
    ) -> Subgraph:
        """Return the strongest edges among some cuts, by default all."""
        params: dict[str, Any] = {"cut": list(cuts) or None, "epsilon": epsilon, "limit": limit}
        return self._get(Subgraph, "graphs", graph, "subgraph", **params)

    def compare(self, partition: str, other: str) -> Comparison:
        """Compare two partitions of the same nodes."""
        return self._get(Comparison, "partitions", partition, "compare", other)

    def export(
        self,
        ref: str,
        form: str,
        *,
        epsilon: float | None = None,
        module: int | None = None,
        neurons: int | None = None,
        into: str | None = None,
    ) -> bytes:
        """Export a graph, a partition or a learning coefficient for another tool; the service writes the file.

        Args:
            ref: reference; of a name, the partition.
            form: graphml, gexf, node-link, circuit-tracer, safetensors, masks, eap, autocircuit or components; netcdf
                for a learning coefficient.
            epsilon: keep only edges stronger than its square root.
            module: for eap, autocircuit and components: export only this module.
            neurons: for components: list so many hidden units of the MLPs for each module and pair of cuts.
            into: of a partition as circuit-tracer: the "sha256:..." of the attribution graph that its graph was
                imported from, which is written again with the modules as its supernodes.
        """
        kind, given = "llc", {}
        if form != "netcdf":
            given = {"format": form, "epsilon": epsilon, "module": module, "neurons": neurons, "into": into}
            found, row = self.find_any((PARTITION, GRAPH), ref)
            kind, ref = found.plural, row.id
        params = {name: value for name, value in given.items() if value is not None}
        return self._request("GET", url_path(kind, ref, "export"), params=params, timeout=_EXPORT).content

    # As objects of interbasis.analysis, NetworkX and pandas

    def graph(self, ref: str) -> InteractionGraph:
        """Load the graph with this ID."""
        from ...analysis import InteractionGraph

        return InteractionGraph.from_bytes(self.graph_bytes(ref))

    def bases(self, ref: str) -> Bases:
        """Load the bases of the graph with this ID."""
        from ...analysis import Bases

        return Bases.from_bytes(self.bases_bytes(ref))

    def partition(self, ref: str) -> Partition:
        """Load the partition with this ID."""
        from ...analysis import Partition

        return Partition.from_bytes(self.partition_bytes(ref))

    def tracking(self, ref: str) -> Tracking:
        """Load the tracking with this ID."""
        from ...analysis import Tracking

        return Tracking.from_bytes(self.tracking_bytes(ref))

    def experiment(self, ref: str) -> Experiment:
        """Load the circuit experiment with this ID."""
        from ...analysis import Experiment

        return Experiment.from_bytes(self.experiment_bytes(ref))

    def cards(self, ref: str) -> Cards:
        """Load the cards of a description by its ID, or those of the newest description of a partition.

        Raises:
            NotFoundError: the partition is not described.
        """
        from ...analysis.meaning.cards import Cards

        if "description" not in kinds_of(ref):
            found = self.descriptions(partition=ref, newest_first=True, limit=1).items
            if not found:
                raise NotFoundError(f"{ref} is not described yet: submit a job `describe`")
            ref = found[0].id
        return Cards.from_bytes(self.description_bytes(ref))

    def comparison(self, ref: str) -> analysis.Comparison:
        """Load the comparison with this ID."""
        from ...analysis.comparison.comparison import Comparison as Divisions

        return Divisions.from_bytes(self.comparison_bytes(ref))

    def ledger(self, ref: str) -> Ledger:
        """Load the ledger with this ID."""
        from ...analysis import Ledger

        return Ledger.from_bytes(self.ledger_bytes(ref))

    def llc(self, ref: str) -> Estimate:
        """Load the learning coefficient, the curve, or the coefficients of parts, with this ID."""
        from ...analysis.refined.coefficients import estimate_from_bytes

        return estimate_from_bytes(self.get_llc(ref).mode, self.llc_bytes(ref))

    def networkx(self, graph: str, partition: str | None = None, *, epsilon: float | None = None) -> networkx.DiGraph:
        """Load a graph as a NetworkX graph, with labels, and with the modules of a partition where one is named."""
        from ...analysis.exchange.attribution_graph import Names
        from ...analysis.exchange.graph_files import to_networkx

        found = None if partition is None else self.partition(partition)
        kind, ref = (GRAPH, graph) if partition is None else (PARTITION, partition)
        return to_networkx(self.graph(graph), found, epsilon, called=Names(*preferred(self.labels(kind, ref))))

    def frame(self, rows: Page[Any] | Sequence[Record]) -> pandas.DataFrame:
        """Convert any list of this client to a pandas data frame."""
        import pandas

        items: Sequence[Record] = rows.items if isinstance(rows, Page) else rows
        return pandas.DataFrame([row.to_json() for row in items])

    # Checkpoints and data

    def upload(self, file: str | Path) -> FileRow:
        """Upload a file to the service; data in .npz or .npy files are sent as safetensors."""
        path = Path(file)
        with as_safetensors(path) as sent:
            return typed_as(FileRow, document(self._sent(sent, "files", {})))

    def _sent(self, file: Path, route: str, params: Mapping[str, Any]) -> httpx.Response:
        """Send the content of a file as the body of a request."""
        try:
            with file.open("rb") as stream:
                headers = {"content-length": str(os.fstat(stream.fileno()).st_size)}
                options: dict[str, Any] = {"content": functools.partial(parts, stream), "headers": headers}
                return self._request("POST", route, params=params, timeout=600.0, **options)
        except OSError as error:
            raise StoreError(f"cannot read {file}: {error.strerror or error}") from error

    def import_graph(
        self,
        file: str | Path,
        choices: Mapping[str, Any] | None = None,
        *,
        queue: str = "default",
        priority: int = 0,
        timeout: float | None = None,
    ) -> JobHandle:
        """Upload the file of a graph, and submit the job that reads it; its result is a graph.

        Args:
            file: see `analysis.read_graph` for the formats.
            choices: `format`, `without`, `longest_path`, `keep`, `unit`, and `model` and `label`, which are by default
                the name of the file without its ending; with `force` a stored graph is read again.
            queue: only workers of this queue take the job.
            priority: jobs with smaller numbers go first.
            timeout: seconds until a run is stopped.
        """
        path, given = Path(file), as_json(choices or {})
        check_choices("import", given)
        given |= import_names(path, given) | {"queue": queue, "priority": priority}
        given |= {} if timeout is None else {"timeout": timeout}
        return JobHandle(self, typed_as(JobRow, document(self._sent(path, "imports", given))))

    def register_checkpoint(self, file: str | Path, *, about: Mapping[str, Any] | None = None) -> CheckpointRow:
        """Register a checkpoint: by its path where the service may read it, else by uploading it.

        A folder of `save_pretrained` is a checkpoint. A file that was uploaded before is named "sha256:..."; pass its
        JSON as `about`.
        """
        if isinstance(file, str) and file.startswith("sha256:"):
            return self._registered({"uri": file, "about": describe(about, file[:15])})
        path, given = of_checkpoint(Path(file), about)
        described = describe(given, path.stem)
        try:
            sha256 = checkpoint_sha256(path)
            return self._registered({"path": place_of(path), "sha256": sha256, "about": described})
        except ForbiddenError:
            return self._registered({"uri": self._uploaded(path), "about": described})

    def _uploaded(self, file: Path) -> str:
        """Upload the file that stands for a checkpoint, and return its name there.

        Raises:
            StoreError: its weights are in several files.
        """
        if file.suffix != ".safetensors":
            raise StoreError(
                f"the service cannot read {file.parent}, and its weights are in several files, which are not "
                "uploaded: write them as one, save_pretrained(folder, max_shard_size='100GB')"
            )
        return self.upload(file).uri

    def _registered(self, body: dict[str, Any]) -> CheckpointRow:
        about = body["about"]
        if after := self._left.get(training_key(about["model"], about["family"], about["config"])):
            body = {**body, "after_run": after}  # which a service of before does not know
        return self._post(CheckpointRow, "checkpoints", body=body, safe=True)

    def relocate_checkpoint(self, ref: str, file: str | Path) -> CheckpointRow:
        """Say where the file of a checkpoint is now: by its path where the service may read it, else by uploading it.

        A folder of `save_pretrained` is a checkpoint. A file that was uploaded before is named "sha256:...".
        """
        path = "checkpoints", ref, "relocate"
        if isinstance(file, str) and file.startswith("sha256:"):
            return self._post(CheckpointRow, *path, body={"uri": file}, safe=True)
        weights = weights_of(Path(file))
        try:
            return self._post(CheckpointRow, *path, body={"path": place_of(weights)}, safe=True)
        except ForbiddenError:
            return self._post(CheckpointRow, *path, body={"uri": self._uploaded(weights)}, safe=True)

    def rename_model(self, ref: str, name: str) -> ModelRow:
        """Give a model another name; see `Store.rename_model`."""
        return self._post(ModelRow, "models", ref, "rename", body={"name": name})

    def removal(self, kind: Kind[Any, Any], ref: str) -> Removal:
        """Return what `remove` would remove: the thing itself, and how many of each kind go along."""
        return self._get(Removal, kind.plural, ref, "removal")

    def remove(self, kind: Kind[Any, Any], ref: str) -> Removal:
        """Remove a thing with all that belongs to it; see `Store.remove`."""
        return typed_as(Removal, document(self._request("DELETE", url_path(kind.plural, ref), safe=False)))

    # Jobs

    def submit(
        self,
        task: str,
        target: str | Path,
        choices: Mapping[str, Any] | None = None,
        *,
        queue: str = "default",
        priority: int = 0,
        timeout: float | None = None,
    ) -> JobHandle:
        """Submit a job, see `Store.submit`; files that the service cannot read are uploaded.

        A target that ends in .safetensors, or is a folder, is a local checkpoint; of an import it is a file. With
        `force`, which is new work each time, the request is not sent again if the service does not answer.
        """
        given = as_json(choices or {})
        check_choices(task, given)
        if task == "import" and not str(target).startswith("sha256:"):
            return self.import_graph(target, given, queue=queue, priority=priority, timeout=timeout)
        if task in ON_CHECKPOINTS and (str(target).endswith(".safetensors") or Path(target).is_dir()):
            target = self.register_checkpoint(target).id
        if given.get("data") is not None and not str(given["data"]).startswith("sha256:"):
            given["data"] = self.upload(given["data"]).uri
        body: dict[str, Any] = {"task": task, "target": str(target), "choices": given}
        body |= {"queue": queue, "priority": priority, "timeout": timeout}
        return JobHandle(self, self._post(JobRow, "jobs", body=body, safe=not given.get("force")))

    def jobs(self, *, state: str | None = None, task: str | None = None, **options: Any) -> Page[JobRow]:
        """List jobs, all or those in one state or of one task."""
        return self._page(JobRow, "jobs", state=state, task=task, **options)

    def get_job(self, ref: str) -> JobRow:
        """Return a job in its present state."""
        return self._get(JobRow, "jobs", ref)

    def cancel_job(self, ref: str) -> JobRow:
        """Cancel a job."""
        return self._post(JobRow, "jobs", ref, "cancel", safe=True)

    def retry_job(self, ref: str) -> JobRow:
        """Queue a job again that failed or was cancelled."""
        return self._post(JobRow, "jobs", ref, "retry")

    def events(self, ref: str, *, after: int = 0) -> Iterator[JobRow]:
        """Yield the job at each change, until it has ended; reconnect where the connection breaks.

        Args:
            ref: reference of the job.
            after: the last version of the job that the caller has seen.
        """
        failures = 0
        while True:
            silent = True
            try:
                headers = {"last-event-id": str(after), "accept": "text/event-stream"}
                with self._http.stream(
                    "GET", url_path("jobs", ref, "events"), headers=headers, timeout=60.0
                ) as response:
                    if not response.is_success:
                        response.read()
                    if response.status_code in AGAIN:
                        raise UnavailableError(f"{response.status_code} {response.reason_phrase}")
                    for data in read_events(checked(response)):
                        failures, silent = 0, False
                        row = typed_as(JobRow, data)
                        after = row.version
                        yield row
                        if row.ended:
                            return
                if silent and (row := self.get_job(ref)).ended and row.version <= after:
                    return  # its end was seen before
            except (httpx.TransportError, UnavailableError) as error:
                failures += 1
                if failures > len(PAUSES):
                    raise UnavailableError(unreachable(self.url, error)) from None
            except httpx.DecodingError as error:
                raise StoreError(f"{self.url} answered with {error}: is this an interbasis service?") from error
            time.sleep(PAUSES[min(failures, len(PAUSES) - 1)])

    def workers(self) -> tuple[WorkerRow, ...]:
        """List the processes that run jobs."""
        return self._page(WorkerRow, "workers").items

    def check(self) -> CheckReport:
        """Check every stored file and the database of the service for damage."""
        return typed_as(CheckReport, document(self._request("POST", "check", safe=False, timeout=_COLLECTION)))

    def collect(self, grace: float = 86_400.0) -> Collected:
        """Remove stored files that no row refers to and that are older than `grace` seconds."""
        response = self._request("POST", "gc", json={"grace": grace}, safe=False, timeout=_COLLECTION)
        return typed_as(Collected, document(response))

    # Schedules and tokens

    def add_schedule(
        self, task: str, model: str, choices: Mapping[str, Any] | None = None, **options: Any
    ) -> ScheduleRow:
        """Add a schedule; see `Store.add_schedule`."""
        given = as_json(choices or {})
        check_choices(task, given)
        if given.get("data") is not None and not str(given["data"]).startswith("sha256:"):
            given["data"] = self.upload(given["data"]).uri
        named = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
        return self._post(ScheduleRow, "schedules", body={"task": task, "model": model, "choices": given, **named})

    def schedules(self, **options: Any) -> Page[ScheduleRow]:
        """List all schedules."""
        return self._page(ScheduleRow, "schedules", **options)

    def get_schedule(self, ref: str) -> ScheduleRow:
        """Return the schedule with this ID."""
        return self._get(ScheduleRow, "schedules", ref)

    def pause_schedule(self, ref: str) -> ScheduleRow:
        """Pause a schedule."""
        return self._post(ScheduleRow, "schedules", ref, "pause", safe=True)

    def resume_schedule(self, ref: str) -> ScheduleRow:
        """Resume a schedule."""
        return self._post(ScheduleRow, "schedules", ref, "resume", safe=True)

    def run_schedule(self, ref: str) -> ScheduleRow:
        """Submit a schedule's jobs now."""
        return self._post(ScheduleRow, "schedules", ref, "run")

    def remove_schedule(self, ref: str) -> None:
        """Remove a schedule; its jobs stay."""
        self._request("DELETE", url_path("schedules", ref), safe=False)

    def new_token(self, name: str, scope: str = "read") -> NewToken:
        """Make a token."""
        return self._post(NewToken, "tokens", body={"name": name, "scope": scope})

    def tokens(self, **options: Any) -> Page[TokenRow]:
        """List all tokens, without their secrets."""
        return self._page(TokenRow, "tokens", **options)

    def get_token(self, ref: str) -> TokenRow:
        """Return a token, without its secret."""
        return self._get(TokenRow, "tokens", ref)

    def revoke_token(self, ref: str) -> TokenRow:
        """Revoke a token for ever."""
        return typed_as(TokenRow, document(self._request("DELETE", url_path("tokens", ref))))


class JobHandle:
    """A submitted job; `row` is its last known state."""

    def __init__(self, client: Client, row: JobRow) -> None:
        """Keep the client and the job's first state."""
        self._client, self.row = client, row

    @property
    def id(self) -> str:
        """ID of the job."""
        return self.row.id

    def __repr__(self) -> str:
        return f"JobHandle({self.row.id!r}, {self.row.task}, {self.row.state})"

    def wait(self, *, progress: bool | Callable[[JobRow], None] = False) -> JobRow:
        """Wait until the job has ended, and return it.

        Args:
            progress: whether to draw a bar on standard error; or a function to call with the job at each change.

        Raises:
            StoreError: the job failed or was cancelled; the message is its error.
        """
        from ..terminal.progress import JobBars, waiting_hint

        bars: Any = JobBars([self.row]) if progress is True else contextlib.nullcontext(progress or (lambda _: None))
        with bars as show:
            if progress is True and (hint := waiting_hint([self.row], self._client)):
                show.say(hint)
            if self.row.state not in ENDED:
                for row in self._client.events(self.row.id):
                    self.row = row
                    show(row)
        if self.row.state != "succeeded":
            raise StoreError(f"{self.row.id} {self.row.state}: {self.row.error or 'it was stopped'}")
        return self.row

    def cancel(self) -> JobRow:
        """Cancel the job."""
        self.row = self._client.cancel_job(self.row.id)
        return self.row

    def result(self, kind: str) -> str:
        """Return the ID of its result: a "graph", "partition", "ledger", "experiment", "description", ...

        Raises:
            NotFoundError: the job made no such result, or has not ended.
        """
        for made in self.row.results:
            if made["kind"] == kind:
                return str(made["id"])
        raise NotFoundError(f"{self.row.id} ({self.row.state}) has made no {kind}")
