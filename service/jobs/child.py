"""The process that computes the steps of jobs, as the worker sees it: commands go in, progress and results come out.

Numerics hold Python's lock for seconds, so they run in a separate process, which can be killed with all it started. It
runs one job after another, since starting it, with torch, takes seconds. Its threads do not spin while they wait, or
two such processes on the same cores would be twenty times as slow.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import IO, Any

__all__ = ["Child", "DiedError", "FailedError", "StoppedError"]

_TAIL = 4000  # characters kept of a dead process's output

_LAST = 300  # characters shown of its last line

_LOOK = 0.2  # seconds between calls of `go_on`


class DiedError(Exception):
    """The process ended without an answer; the message says how, with its last output.

    Attributes:
        trace: the end of its output, for the log.
    """

    def __init__(self, message: str, trace: str) -> None:
        """Keep the short message and the full trace."""
        super().__init__(message)
        self.trace = trace


class FailedError(Exception):
    """The step raised an error.

    Attributes:
        final: whether another try is useless, because the input is not valid.
        trace: the traceback of an unexpected error, for the log.
    """

    def __init__(self, message: str, *, final: bool, trace: str | None = None) -> None:
        """Keep the error that the computing process reported."""
        super().__init__(message)
        self.final, self.trace = final, trace


class StoppedError(Exception):
    """The caller asked to stop; the process is killed."""


class Child:
    """A computing process, started when its first step is requested; it does one job at a time.

    Attributes:
        jobs: number of jobs it was given.
        begun, rested: when it got its last job, and when it became idle, on the monotonic clock.
    """

    def __init__(self, store: str, artifacts: str | None, device: str | None = None, memory: str | None = None) -> None:
        """Keep the store to open, given as for `Store.open`, the device and the limit of memory; start nothing."""
        self._about = {"store": store, "artifacts": artifacts, "device": device, "memory": memory}
        self._job: Mapping[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._killing = threading.Lock()
        self._files = ExitStack()
        self._said: IO[bytes] | None = None
        self._folder = ""  # for temporary files: the process is killed, and cleans up nothing
        self._rest = b""
        self.jobs = 0
        self.begun = self.rested = 0.0

    def begin(self, job: Mapping[str, Any]) -> None:
        """Start a job, given as JSON: the steps that follow belong to it."""
        self._job = job
        self.jobs += 1
        self.begun = time.monotonic()
        if self._process is not None:
            with contextlib.suppress(DiedError):  # it is started again with the first step
                self._send(self._process, {"job": job})

    def run(
        self,
        step: str,
        before: Mapping[str, Any],
        *,
        go_on: Callable[[Mapping[str, Any] | None], bool],
    ) -> dict[str, Any]:
        """Run a step and return its result.

        Args:
            step: its name.
            before: results of the steps before it.
            go_on: called five times a second with the newest progress or None; returns whether to continue.

        Raises:
            FailedError: the step raised an error.
            DiedError: the process is gone.
            StoppedError: `go_on` returned False.
        """
        process = self._started()
        self._send(process, {"step": step, "before": before})
        news: Mapping[str, Any] | None = None
        asked = time.monotonic()
        while True:
            for answer in self._answers(process):
                if "done" in answer:
                    return dict(answer["done"])
                if "error" in answer:
                    raise FailedError(answer["error"], final=answer["final"], trace=answer.get("trace"))
                news = answer["progress"]
            if time.monotonic() - asked >= _LOOK:
                asked = time.monotonic()
                if not go_on(news):
                    self.kill()
                    raise StoppedError
                news = None

    def close(self) -> None:
        """End the process and remove its temporary files."""
        self.kill()
        self._files.close()
        self._said = None

    def kill(self) -> None:
        """Kill the process and everything it started; several threads may call this at once."""
        with self._killing:
            process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._rest = b""

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            if self._said is None:
                self._folder = self._files.enter_context(tempfile.TemporaryDirectory(prefix="interbasis-"))
                self._said = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            self._said.seek(0)
            self._said.truncate()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "interbasis.service.jobs.compute"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                start_new_session=True,
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "TMPDIR": self._folder},
            )
            self._send(self._process, self._about)
            self._send(self._process, {"job": self._job})
        return self._process

    def _send(self, process: subprocess.Popen[bytes], message: Mapping[str, Any]) -> None:
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        except OSError:
            raise self._death(process) from None

    def _answers(self, process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
        """Return the messages that have come in, after a short wait."""
        pipe = process.stdout.fileno()  # type: ignore[union-attr]
        ready, _, _ = select.select([pipe], [], [], _LOOK)
        if not ready:
            return []
        read = os.read(pipe, 1 << 16)
        if not read:
            raise self._death(process)
        *lines, self._rest = (self._rest + read).split(b"\n")
        return [json.loads(line) for line in lines]

    def _death(self, process: subprocess.Popen[bytes]) -> DiedError:
        code = process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        said = ""
        if self._said is not None:
            self._said.seek(0)
            said = self._said.read().decode(errors="replace")[-_TAIL:].strip()
        self.kill()
        last = said.splitlines()[-1][-_LAST:] if said else ""
        return DiedError(f"the computing process ended with {how}" + (f"; it said last: {last}" if last else ""), said)
