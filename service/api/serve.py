"""`interbasis serve`: the API in this process, and workers beside it that are restarted when they die."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from ..records.errors import ReadOnlyError, StoreError
from ..store.store import Store
from .app import create_app
from .guard import Limits

__all__ = ["check_exposure", "is_loopback", "serve"]

_log = logging.getLogger(__name__)

_GRACE = 15.0  # seconds that workers get to give their jobs back

_PAUSES = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)  # before a worker that died is started again


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(store: Store, host: str) -> None:
    """Refuse to listen to other machines before there is a token.

    Raises:
        StoreError: there is no token.
    """
    if not is_loopback(host) and not store.needs_token():
        raise StoreError(
            f"{host} can be reached by other machines, and there is no token: make one with "
            "`interbasis token new NAME --scope admin` first, or leave --host at 127.0.0.1"
        )


def serve(
    store: Store,
    *,
    host: str,
    port: int,
    workers: int,
    limits: Limits,
    device: str | None = None,
    memory: str | None = None,
    log_form: str = "text",
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Answer requests until SIGTERM or Ctrl-C; then return unfinished jobs to the queue.

    Args:
        store: an open store.
        host: address to listen on.
        port: port to listen on; 0 for any free one.
        workers: number of processes that run jobs; at most one on SQLite.
        limits: limits that the operator sets.
        device: where the workers compute; default: the CPU.
        memory: limit of memory of each of their jobs, such as "8GiB"; default: half of what is free.
        log_form: "json" or "text"; workers get the same.
        ready: called with the URL once requests are answered.

    Raises:
        StoreError: the address cannot be used, or needs a token; the SQLite store is served already, or cannot have so
            many workers.
    """
    check_exposure(store, host)
    if store.location.file is not None and workers > 1:
        raise StoreError(f"{workers} workers: SQLite takes one; use PostgreSQL for more")
    app = create_app(store, limits)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=16_384,
        limit_concurrency=500,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    places = (("--device", device), ("--memory", memory))
    options = ["--log", log_form, *(word for name, value in places if value is not None for word in (name, value))]
    with _alone(store) as serving, _listening(host, port) as listener, _workers(store, workers, options):
        address = f"[{host}]" if ":" in host else host
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises again what stopped it
            signal.signal(number, lambda *_: None)
        url = f"http://{address}:{listener.getsockname()[1]}"
        serving(url)
        ready(url)
        server.run(sockets=[listener])


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[Callable[[str], None]]:
    """Hold the lock of the one service that a SQLite store takes; yield a function that notes the service's URL there.

    The system releases the lock when the process ends, however it ends.
    """
    file = store.location.file
    if file is None:
        yield lambda _: None
        return
    try:
        opened = file.with_name(f"{file.name}-serve").open("a+")
    except OSError as error:
        raise ReadOnlyError(f"cannot write {file}-serve: {error.strerror}; make the folder writable") from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StoreError(
                f"{store.location} is served already{lock.read(300)}: SQLite takes one service; use that one, "
                "stop it, name another --store, or use PostgreSQL"
            ) from None
        lock.truncate(0)

        def note(url: str) -> None:
            lock.write(f" at {url} by process {os.getpid()}")
            lock.flush()

        yield note
        lock.truncate(0)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # named TCP, or asyncio does not turn Nagle's algorithm off and each answer waits 40 ms for an acknowledgement
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise StoreError(f"cannot listen at {host}:{port}: {error.strerror}") from error
        listener.listen(128)
        yield listener


@contextlib.contextmanager
def _workers(store: Store, count: int, options: Sequence[str]) -> Iterator[None]:
    """Run worker processes, restart each one that dies, and stop them at the end."""
    stopping = threading.Event()
    threads = [threading.Thread(target=_keep, args=(store, n, options, stopping)) for n in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def _keep(store: Store, number: int, options: Sequence[str], stopping: threading.Event) -> None:
    location = store.location
    url = str(location.file) if location.file else location.url.render_as_string(hide_password=False)
    name = f"{socket.gethostname()}-serve-{number}"
    command = [sys.executable, "-m", "interbasis.service.cli", "worker", "--name", name, *options]
    env = {**os.environ, "INTERBASIS_STORE": url, "INTERBASIS_ARTIFACTS": str(location.artifacts)}
    died = 0
    while not stopping.is_set():
        begun = time.monotonic()
        # in a session of its own: Ctrl-C in the terminal reaches this process, which then stops the worker once
        process = subprocess.Popen([*command, "--parent", str(os.getpid())], env=env, start_new_session=True)
        while process.poll() is None and not stopping.wait(0.2):
            pass
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            return
        if stopping.is_set():
            return
        died = 0 if time.monotonic() - begun > 60 else died + 1
        _log.warning("worker %s ended with %s and is started again", name, process.returncode)
        stopping.wait(_PAUSES[min(died, len(_PAUSES) - 1)])
