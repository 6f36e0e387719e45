"""Fuzzing of the REST API by schemathesis: every route, every check, against a service with real content.

    python benchmarks/fuzz.py --seed 0 --examples 150
    python benchmarks/fuzz.py --seed 0 --examples 150 --named --phases examples,coverage,fuzzing

The service runs without workers on a store that holds two analysed networks: graphs, partitions, ledgers, learning
coefficients, experiments, a tracking, jobs, schedules and tokens. Requests carry an admin token, which the check
`ignored_auth` leaves out or breaks. With --named references name what is stored; exports, which take seconds each, are
then left out (--exports has only them). `fuzz.md` holds the results.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import torch
import uvicorn
from safetensors.torch import save_file

from interbasis.analysis.circuits.experiments import ExperimentRecipe
from interbasis.analysis.recipe import LedgerRecipe, LlcRecipe
from interbasis.service.api import guard
from interbasis.service.api.app import create_app
from interbasis.service.api.guard import Limits
from interbasis.service.store.store import Store
from interbasis.service.tasks import analyze as analyze_task
from interbasis.service.tasks import estimates, experiments
from interbasis.service.tasks import tracking as tracking_task

_CONFIG = """
[checks.positive_data_acceptance]
# a reference, a time or a choice may be well formed and name nothing; what was made before may stand in the way
expected-statuses = ["2xx", "304", "401", "403", "404", "409", "422"]
"""


_KINDS = (
    "model",
    "checkpoint",
    "dataset",
    "graph",
    "partition",
    "ledger",
    "llc",
    "experiment",
    "tracking",
    "job",
    "schedule",
)


def named(store: Store) -> str:
    """Configuration that has requests name the first of each kind that is stored."""
    lines = []
    for kind in _KINDS:
        first = getattr(store, f"{kind}s")().items[0].id
        path = "llc" if kind == "llc" else f"{kind}s"
        lines += ["[[operations]]", f'include-path-regex = "^/api/v1/{path}/"', "[operations.parameters]"]
        lines += [f'"path.ref" = "{first}"']
        lines += [f'"path.other" = "{first}"', '"path.cut" = "layers.0"'] if kind == "partition" else []
        lines += ['"path.cut" = "layers.0"', '"path.node" = 1'] if kind == "graph" else []
    return "\n".join(lines)


def checkpoint(folder: Path, step: int) -> Path:
    """A small network with random weights."""
    widths, generator = (4, 6, 5, 3), torch.Generator().manual_seed(step)
    tensors = {}
    for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        tensors[f"layers.{i}.weight"] = torch.randn(b, a, generator=generator, dtype=torch.float64)
        tensors[f"layers.{i}.bias"] = torch.randn(b, generator=generator, dtype=torch.float64)
    path = folder / f"step{step}.safetensors"
    save_file(tensors, path)
    about = {"family": "mlp", "config": {"widths": widths}, "step": step, "model": "run"}
    path.with_suffix(".json").write_text(json.dumps(about))
    return path


def fill(store: Store, folder: Path) -> None:
    """Something of every kind."""
    data = folder / "x.npz"
    np.savez(data, inputs=np.random.default_rng(0).standard_normal((64, 4)))
    for step in (1, 2):
        path = checkpoint(folder, step)
        outcome = analyze_task.analyze(store, path, {}, data=data)
        graph, partition = outcome.graph, outcome.partition
        estimates.ledger(store, path, LedgerRecipe(), data=data)
        estimates.llc(store, path, LlcRecipe(temperature=1000.0, draws=20, warmup=9), data=data)
        for kind in ("isolate", "modules"):
            experiments.experiment(store, partition.id, ExperimentRecipe(kind=kind, draws=1), data=data)
        store.submit("ledger", path, {"data": data, "seed": step})
        store.submit("experiment", partition.id, {"kind": "bisect", "data": data})
        store.cancel_job(store.submit("partition", graph.id, {"k": 2}).id)
    tracking_task.track(store, "run", {}, data=data)
    store.add_schedule("track", "run", cron="0 2 * * *")
    store.add_schedule("llc", "run", {"epsilon": 0.1})
    store.add_schedule("experiment", "run", {"draws": 1}, cron="0 3 * * *")


def main() -> None:
    """Fuzz, and print what schemathesis found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=150, help="per route and phase")
    parser.add_argument("--phases", default="examples,coverage,fuzzing,stateful")
    parser.add_argument("--named", action="store_true", help="name what is stored instead of anything")
    parser.add_argument("--exports", action="store_true", help="exports only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Store.open(str(folder / "store.sqlite")) as store:
            fill(store, folder)
            token = store.new_token("fuzz", "admin").token
            guard._FAILURES = 10**9  # tokens are broken on purpose
            app = create_app(store, Limits(roots=(folder,), stream=0.2, upload=1 << 20))
            listener = socket.create_server(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
            threading.Thread(target=server.run, args=([listener],), daemon=True).start()
            config = folder / "schemathesis.toml"
            config.write_text(_CONFIG + (named(store) if options.named else ""))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1/openapi.json"
            command = ["schemathesis", "--config-file", str(config), "run", url, "--checks", "all", "--no-color"]
            command += ["-H", f"Authorization: Bearer {token}", "--seed", str(options.seed), "--continue-on-failure"]
            if options.exports:
                command += ["--include-path-regex", "export$"]
            elif options.named:  # what replaces a reference hides that it was to be invalid
                command += ["--exclude-path-regex", "export$", "--exclude-checks", "negative_data_rejection"]
            command += ["--max-examples", str(options.examples), "--phases", options.phases]
            command += ["--request-timeout", "120"]  # an export may take as long
            done = subprocess.run(
                [str(Path(sys.executable).with_name(command[0])), *command[1:]], cwd=folder, check=False
            )
            server.should_exit = True
            assert store.check().ok
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
