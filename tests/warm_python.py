"""A Python whose programs start at once, each as a process of its own.

A server imports torch and the whole of interbasis, which takes seconds, and forks for each program. What tests start in
place of `python` is a small program that hands its arguments, environment and standard streams to the server, passes
signals on, and ends as the fork ended. When it is killed, so is the fork.

    python warm_python.py FOLDER                        the server
    python -IS warm_python.py FOLDER -m MODULE ...      a program; also -c CODE ..., or FILE ...
"""

import os
import sys

if __name__ == "__main__" and len(sys.argv) > 2:  # before the other imports, which take longer than all the rest
    import _signal
    import _socket
    import array
    import marshal

    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    connection.connect(f"{sys.argv[1]}/socket")
    message = marshal.dumps((sys.argv[2:], dict(os.environ), os.getcwd(), os.getsid(0) == os.getpid()))
    connection.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", (0, 1, 2)))])
    pid = int(connection.recv(100))
    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
        _signal.signal(number, lambda number, _: os.kill(pid, number))
    os.closerange(0, 3)
    status = int(connection.recv(100) or 9)  # a server that is gone was killed
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) != _signal.SIGKILL:
            _signal.signal(os.WTERMSIG(status), _signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))

import atexit
import contextlib
import gc
import importlib
import marshal
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

_IMPORTED = (
    "interbasis.analysis",
    "interbasis.service.api.serve",
    "interbasis.service.cli.app",
    "interbasis.service.jobs.steps",
    "interbasis.service.jobs.worker",
    "interbasis.service.tasks.exchange",
    "interbasis.service.tasks.figures",
    "matplotlib.figure",
    "psycopg",
    "sklearn.datasets",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "torch._dynamo",
)


@contextlib.contextmanager
def started() -> Iterator[str]:
    """Path of the Python; where processes cannot be forked and watched so, of the usual one."""
    if not hasattr(os, "pidfd_open"):
        yield sys.executable
        return
    with tempfile.TemporaryDirectory(prefix="ib-warm-") as folder:
        program = Path(folder, "python")
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {__file__} {folder} "$@"\n')
        program.chmod(0o700)
        command = [sys.executable, __file__, folder]
        alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # so that imports start no threads
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=alone) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield str(program)
            server.communicate()


def real(pid: int) -> int:
    """The process that does the work of a process started with this Python; any other itself."""
    folders = [word for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0") if "ib-warm-" in word]
    return int(Path(folders[0], str(pid)).read_text()) if folders else pid


class Server:
    """Forks and watches."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(f"{folder}/socket")
        self.listener.listen(64)
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(0, selectors.EVENT_READ)
        self.running: dict[int, tuple[int, socket.socket, bool]] = {}  # by the descriptor of the process

    def serve(self) -> list[str]:
        """Return in a fork alone: the arguments of its program, for which everything else is set up."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj == 0:  # the test run is over
                    for watched in list(self.running):
                        self._kill(watched)
                    os._exit(0)
                if key.fileobj is self.listener:
                    arguments = self._start()
                    if arguments is not None:
                        return arguments
                elif key.fd in self.running:
                    self._ended(key.fd)
                elif key.data in self.running:
                    self._kill(key.data)
                    self.selector.unregister(key.fileobj)

    def _start(self) -> list[str] | None:
        connection, _ = self.listener.accept()
        message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not message:  # it was killed before it could ask
            connection.close()
            return None
        asking, *_ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        arguments, environment, folder, leads = marshal.loads(message)
        pid = os.fork()
        if pid:
            for stream in streams:
                os.close(stream)
            (self.folder / str(asking)).write_text(str(pid))
            watched = os.pidfd_open(pid)
            self.running[watched] = (pid, connection, leads)
            self.selector.register(watched, selectors.EVENT_READ)
            self.selector.register(connection, selectors.EVENT_READ, data=watched)
            with contextlib.suppress(OSError):
                connection.send(str(pid).encode())
            return None
        if leads:
            os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        connection.close()
        self.listener.close()
        for watched, (_, other, _) in self.running.items():
            os.close(watched)
            other.close()
        self.selector.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        os.getppid = lambda: _parent(asking)
        return list(arguments)

    def _ended(self, watched: int) -> None:
        pid, connection, _ = self.running.pop(watched)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            connection.send(str(status).encode())
        self.selector.unregister(watched)
        with contextlib.suppress(KeyError):
            self.selector.unregister(connection)
        os.close(watched)
        connection.close()

    def _kill(self, watched: int) -> None:
        pid, _, leads = self.running[watched]
        if leads:
            with contextlib.suppress(ProcessLookupError):  # it may not lead its group yet
                os.killpg(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)


def _parent(pid: int) -> int:
    """The parent of a process; 1 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 1


def _run(arguments: list[str]) -> int:
    """Do what `python ARGUMENTS` does, and return its exit code."""
    error: BaseException | None = None
    code = 0
    try:
        _program(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException as raised:
        sys.excepthook(type(raised), raised, raised.__traceback__)
        error, code = raised, 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return code


def _program(arguments: list[str]) -> None:
    first, *rest = arguments
    sys.argv = rest if first in ("-m", "-c") else arguments
    sys.path[0] = os.getcwd() if first == "-m" else "" if first == "-c" else os.path.dirname(os.path.abspath(first))
    if first == "-m":
        sys.modules.pop(rest[0], None)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        code, sys.argv[0] = rest[0], "-c"
        sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), sys.modules["__main__"].__dict__)
    else:
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serving = Server(sys.argv[1])
    for name in _IMPORTED:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a process of several threads is not to be forked"
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    sys.executable = f"{sys.argv[1]}/python"
    os._exit(_run(serving.serve()))  # which takes no memory apart that the server holds too
