"""The command line. Starts without torch; exit code 0 success, 2 bad input, 1 failure."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from rich.text import Text

from ..records.errors import ArtifactError, StoreError, UnavailableError
from ..terminal.show import err
from .commands.analyze import app as analyze
from .commands.db import db
from .commands.jobs import app as jobs
from .commands.lists import app as lists
from .commands.measurements import app as measurements
from .commands.service import app as service
from .commands.stored import app as stored
from .commands.upkeep import app as upkeep

__all__ = ["app", "main"]

app = typer.Typer(
    help="Find the modules inside a neural network.", no_args_is_help=True, pretty_exceptions_enable=False
)

app.add_typer(analyze)
app.add_typer(measurements)
app.add_typer(lists)
app.add_typer(stored)
app.add_typer(upkeep)
app.add_typer(jobs)
app.add_typer(service)
app.add_typer(db, name="db")


def main() -> None:
    """Run the command line; print errors of interbasis as one line on standard error."""
    # before torch is loaded: threads that spin while they wait for a core that another program has take ten times as
    # long as those that sleep, which are as fast as one thread where there is little to do
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except SystemExit as stop:
        if stop.code == 130:  # Ctrl-C
            err.print("interrupted: what was finished before is stored, nothing is half-stored")
        raise
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        line = Text.assemble(("error:", "bold red"), " ", " ".join(str(error).split()))
        err.print(line, soft_wrap=True, highlight=False)
        sys.exit(code)


def _exit_code(error: Exception) -> int | None:
    """Return 2 for bad input, 1 for other errors of interbasis, None for a bug; do not import the numerics."""
    if isinstance(error, StoreError):
        return 1 if isinstance(error, ArtifactError | UnavailableError) else 2
    errors: Any = sys.modules.get("interbasis.analysis.errors")
    if errors is None or not isinstance(error, errors.InterbasisError):
        return None
    return 2 if isinstance(error, errors.InputError) else 1
