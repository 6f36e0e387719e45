"""The process that computes the steps of jobs, seen from the worker: commands go in, progress and results come out.

Numerics hold Python's lock for seconds, so they have a process of their own, which can be killed with all it started.
It serves one job after another, since starting it, with torch, takes seconds. Its threads do not spin while they wait,
or two such processes on the same cores would be twenty times as slow.
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

_TAIL = 4000  # characters of what a dead process said last

_LAST = 300  # and of its last line, which those see who asked for the job

_LOOK = 0.2  # seconds between looks at whether to go on


class DiedError(Exception):
    """The process ended without an answer; the message says how, and its last words.

    Attributes:
        trace: all that it said last, for the log.
    """

    def __init__(self, message: str, trace: str) -> None:
        """In short, and in full."""
        super().__init__(message)
        self.trace = trace


class FailedError(Exception):
    """The step raised an error.

    Attributes:
        final: whether trying again makes no sense, because the input is wrong.
        trace: the traceback of an error that was not expected, for the log.
    """

    def __init__(self, message: str, *, final: bool, trace: str | None = None) -> None:
        """As the computing process said it."""
        super().__init__(message)
        self.final, self.trace = final, trace


class StoppedError(Exception):
    """The caller did not want to go on; the process is killed."""


class Child:
    """A computing process, started when the first step is asked for; it does one job at a time.

    Attributes:
        jobs: how many it was given.
        begun, rested: when it was given the last one, and when it was left idle, on the monotonic clock.
    """

    def __init__(self, store: str, artifacts: str | None) -> None:
        """For a store, as `Store.open` takes it."""
        self._about = {"store": store, "artifacts": artifacts}
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
        """The steps that follow are those of a job, as JSON."""
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
        """What a step returns.

        Args:
            step: its name.
            before: what the steps before it returned.
            go_on: asked five times a second, with the newest progress or None, whether to go on.

        Raises:
            FailedError: the step raised an error.
            DiedError: the process is gone.
            StoppedError: `go_on` said no.
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
        """End the process and all that it started; several threads may want that at once."""
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
        """What has come in, after a short wait."""
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
