"""The command line. Starts without torch; exit code 0 success, 2 bad input, 1 failure."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from functools import cache
from textwrap import fill
from typing import Annotated, Any, TypeGuard

import typer
from rich.text import Text

from ..records.errors import ArtifactError, StoreError, UnavailableError
from ..terminal.show import err
from .commands.analyze import app as analyze
from .commands.comparing import app as comparing
from .commands.describe import app as describe
from .commands.incoming import app as incoming
from .commands.jobs import app as jobs
from .commands.label import app as label
from .commands.lists import app as lists
from .commands.measurements import app as measurements
from .commands.service import app as service
from .commands.stored import app as stored
from .commands.upkeep import app as upkeep
from .commands.upkeep import db
from .options import with_place
from .usage import is_usage_error, plain_help, usage_error, version_option

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)

for _part in (analyze, measurements, describe, comparing, lists, stored, label, upkeep, incoming, jobs, service):
    app.add_typer(_part)
app.add_typer(db, name="db", rich_help_panel="Service and store")


@app.callback()
def interbasis(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=version_option, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find the modules inside a neural network.

    Example: interbasis demo
    """


def main() -> None:
    """Run the command line; print errors of interbasis as one line on standard error, wrapped on a terminal."""
    # before torch is loaded: threads that spin while they wait for a core that another program has take ten times as
    # long as those that sleep, which are as fast as one thread where there is little to do
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code: int | None = 0
    try:
        code = _run()
        if sys.stdout is not None:
            sys.stdout.flush()
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        said = usage_error(error) if is_usage_error(error) else _said(error)
        if said is not None:
            line = " ".join(with_place(f"error: {said}").split())
            if err.is_terminal:  # paths and other long words stay whole
                line = fill(line, err.width, break_long_words=False, break_on_hyphens=False)
            err.print(
                Text.assemble(("error:", "bold red"), line.removeprefix("error:")), soft_wrap=True, highlight=False
            )
    if code == 130:  # Ctrl-C
        err.print("interrupted: what was finished before is stored, nothing is half-stored")
    sys.exit(code)


def _run() -> int:
    """Run the command that the program was started with; return its exit code."""
    return int(_command()(prog_name="interbasis", standalone_mode=False) or 0)


@cache
def _command() -> Any:
    """Read the commands from their functions, which takes longer than most of them run."""
    command = typer.main.get_command(app)
    plain_help(command)
    return command


def _said(error: Exception) -> str | None:
    """Return what to say of an error: nothing where the reader of standard output has gone."""
    if not _of_output(error):
        return str(error)
    where = ""
    try:
        sys.stdout.flush()
    except OSError:
        where = " to standard output"
        with suppress(OSError):  # what is still to be written is left out, also when the program ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return None if isinstance(error, BrokenPipeError) else f"cannot write{where}: {error.strerror}"


def _of_output(error: Exception) -> TypeGuard[OSError]:
    """Return whether an error is that of an open file or stream which takes no more."""
    stopped = (errno.ENOSPC, errno.EPIPE, errno.EDQUOT)
    return isinstance(error, OSError) and error.errno in stopped and error.filename is None


def _exit_code(error: Exception) -> int | None:
    """Return 2 for bad input, 1 for other errors of interbasis, None for a bug; do not import the numerics."""
    if isinstance(error, StoreError):
        return 1 if isinstance(error, ArtifactError | UnavailableError) else 2
    if is_usage_error(error):
        return 2
    if _of_output(error):
        return 1
    errors: Any = sys.modules.get("interbasis.analysis.errors")
    if errors is None or not isinstance(error, errors.InterbasisError):
        return None
    return 2 if isinstance(error, errors.InputError) else 1
