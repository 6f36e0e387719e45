"""What the service keeps out: strangers, paths outside of the folders it may read, bodies and files that mean harm."""

import contextlib
import io
import json
import logging
import os
import re
import resource
import socket
import struct
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from cases_checkpoints import save_inputs, save_mlp
from cases_store import save_graph, save_llc, save_partition
from safetensors.numpy import save

from interbasis.analysis import InteractionGraph
from interbasis.analysis.errors import CheckpointError
from interbasis.analysis.exchange.component_strengths import NETWORK_FORMATS
from interbasis.service import logs
from interbasis.service.api import app as api
from interbasis.service.api import files, guard
from interbasis.service.api import responses as answers
from interbasis.service.api.guard import Limits
from interbasis.service.api.serve import check_exposure
from interbasis.service.client.in_process import InProcess
from interbasis.service.records.errors import NewerSchemaError, ReadOnlyError, StoreError, UnavailableError
from interbasis.service.store import schedules
from interbasis.service.store.store import Store
from interbasis.service.tasks import checkpoints as checkpoint_task
from interbasis.service.tasks import partitions as partition_task
from interbasis.service.web.files import FILES

Ask = Callable[..., httpx.Client]
Talk = Callable[..., Any]

BASE = "http://127.0.0.1"
PROBLEM = "application/problem+json"
HEADERS = {"x-content-type-options", "x-frame-options", "referrer-policy", "content-security-policy", "cache-control"}


@pytest.fixture
def opened(sqlite_store: Store) -> Store:
    return sqlite_store


@pytest.fixture
def connect() -> Iterator[Ask]:
    """Clients of an application on a store, in this process."""
    with contextlib.ExitStack() as stack:

        def client(store: Store, token: str | None = None, address: str = "127.0.0.1", **limits: Any) -> httpx.Client:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            transport = InProcess(api.create_app(store, Limits(**limits)), address)
            base = f"{BASE}/api/v1/"
            return stack.enter_context(httpx.Client(base_url=base, headers=headers, transport=transport))

        yield client


@pytest.fixture
def listen(opened: Store) -> Iterator[Callable[..., Talk]]:
    """Applications behind a real server; `talk` sends bytes and gives status, headers and body of the answer."""
    running: list[tuple[uvicorn.Server, threading.Thread, socket.socket]] = []

    def start(**limits: Any) -> Talk:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        app = api.create_app(opened, Limits(**limits))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", server_header=False))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        running.append((server, thread, listener))

        def talk(head: str, *parts: bytes, host: str = "127.0.0.1", pause: float = 0.0, shut: bool = False) -> Any:
            lines = [head, *([f"Host: {host}"] if host else []), "Connection: close", "", ""]
            with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
                connection.sendall("\r\n".join(lines).encode())
                with contextlib.suppress(ConnectionError):
                    for part in parts:
                        time.sleep(pause)
                        connection.sendall(part)
                if shut:
                    return None
                return received(connection)

        return talk

    yield start
    for server, thread, listener in running:
        server.should_exit = True
        thread.join()
        listener.close()


def received(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}, body


def every_route() -> list[tuple[str, str]]:
    """Method and path of everything that the application answers, references filled in."""
    filled = [
        (method, re.sub(r"\{\w+\}", "x", route.path.replace("{action}", "pause")))  # type: ignore[attr-defined]
        for router in api.ROUTERS
        for route in router.routes
        for method in route.methods  # type: ignore[attr-defined]
    ]
    return [(method, f"/api/v1{path}") for method, path in filled] + [("GET", "/api/v1/openapi.json")]


def refused(response: httpx.Response, status: int) -> str:
    """What a refusal says, whose form is checked."""
    assert response.status_code == status, (response.request.url, response.text[:500])
    assert response.headers["content-type"] == PROBLEM
    assert response.json()["status"] == status
    assert response.json()["request_id"] == response.headers["x-request-id"]
    return str(response.json()["detail"])


def post(client: httpx.Client, path: str, document: Any) -> httpx.Response:
    """Send JSON that may hold what UTF-8 cannot, such as half of a pair of surrogates."""
    return client.post(path, content=json.dumps(document), headers={"content-type": "application/json"})


def bad(response: httpx.Response) -> bool:
    """An error of the request's, in the form of errors."""
    return 400 <= response.status_code < 500 and response.headers["content-type"] == PROBLEM


# Tokens


def test_routes_are_those_that_are_documented(opened: Store, connect: Ask) -> None:
    document = connect(opened).get("openapi.json").json()
    documented = {
        (method.upper(), re.sub(r"\{\w+\}", "x", path.replace("{action}", "pause")))
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert documented | {("GET", "/api/v1/openapi.json")} == set(every_route())
    assert len(documented) > 50
    assert all(operation["security"] for path in document["paths"].values() for operation in path.values())


@pytest.mark.parametrize(
    "path", ["/redoc", "/docs/", "/docs/oauth2-redirect", "/openapi.json", "/api/v1", "/api/v1/", "/metrics", "/x"]
)
def test_nothing_is_answered_beside_the_routes(opened: Store, connect: Ask, path: str) -> None:
    token = opened.new_token("t", "admin").token
    refused(connect(opened, token).get(f"http://127.0.0.1{path}"), 404)
    refused(connect(opened).get(f"http://127.0.0.1{path}"), 401)


def test_files_of_the_page_need_no_token_and_name_nothing_stored(opened: Store, connect: Ask) -> None:
    """Another method or a wrong token is refused as everywhere."""
    opened.register_model("secret-model", "mlp", {})
    token = opened.new_token("t", "admin").token
    client = connect(opened)
    for path in FILES:
        page = client.get(f"{BASE}{path}")
        assert page.status_code == 200
        (policy,) = page.headers.get_list("content-security-policy")
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
        assert set(page.headers) >= HEADERS
        assert "secret-model" not in page.text
        refused(client.post(f"{BASE}{path}"), 401)
        refused(client.get(f"{BASE}{path}", headers={"authorization": f"Bearer {token}x"}), 401)
    for path in ("/web", "/web/", "/web/../app.py", "/web/%2e%2e/app.py", "/web/app.js/", "/web/source/main.ts"):
        refused(connect(opened, token).get(f"{BASE}{path}"), 404)


def test_every_route_needs_a_token(opened: Store, connect: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_FAILURES", 10**9)
    good, revoked = opened.new_token("good", "admin"), opened.new_token("gone", "admin")
    opened.revoke_token(revoked.id)
    secret = good.token.split("_", 2)[2]
    broken = [
        f"{good.token}x",
        good.token[:-1],
        f"ib_{good.id}_",
        f"ib_{revoked.id}_{secret}",
        f"IB_{good.id}_{secret}",
    ]
    broken += [secret, good.id, "ib__", "_", "x" * 5000, "\x00", f"ib_' OR 1=1 --_{secret}", "null"]
    schemes = ["", "Bearer", "Bearer ", f"Basic {good.token}", good.token, f"Token {good.token}"]
    client = connect(opened)
    for method, path in every_route():
        for given in (None, f"Bearer {revoked.token}", f"Bearer {broken[0]}"):
            response = client.request(method, BASE + path, headers={} if given is None else {"authorization": given})
            refused(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"
    for given in [*(f"Bearer {token}" for token in broken), *schemes, "Bearer ünï", "Bearer \xff"]:
        refused(client.get("models", headers={"authorization": given.encode("latin-1")}), 401)
    for hidden in (f"models?token={good.token}", f"models?access_token={good.token}"):
        refused(client.get(hidden, headers={"cookie": f"token={good.token}"}), 401)
    assert client.get("models", headers={"authorization": f"bearer {good.token}"}).status_code == 200


def needed(method: str, path: str) -> str:
    if path.startswith("/api/v1/tokens") or path in ("/api/v1/gc", "/api/v1/check"):
        return "admin"
    if method == "DELETE" and not path.startswith("/api/v1/schedules/"):
        return "admin"
    return "read" if method in ("GET", "HEAD") else "submit"


def test_every_route_needs_its_scope(opened: Store, connect: Ask) -> None:
    scopes = ("read", "submit", "admin")
    clients = {scope: connect(opened, opened.new_token(scope, scope).token) for scope in scopes}
    for method, path in every_route():
        wanted = needed(method, path)
        for scope, client in clients.items():
            response = client.request(method, BASE + path)
            if scopes.index(scope) < scopes.index(wanted):
                refused(client.request(method, BASE + path + "%0A"), 403)  # which a route may take, too
                assert (
                    refused(response, 403) == f"this needs a token of scope {wanted}, the one given has scope {scope}"
                )
            else:
                assert response.status_code in (200, 404, 422), (method, path, scope, response.text)
    assert not opened.schedules().items
    assert len(opened.tokens().items) == 3


def test_odd_spellings_open_nothing(opened: Store, listen: Callable[..., Talk]) -> None:
    """Requests that a careful client would not send, with a token that may only read."""
    token = opened.new_token("reader").token
    job = opened.submit("partition", save_graph(opened).id)
    talk, key = listen(), f"\r\nAuthorization: Bearer {token}"
    for path in ("/api/v1/%74okens", "/api/v1/tokens?x", "/api/v1/tokens/x", "/api/v1/tokens%2fx", "/api/v1/tokens/"):
        assert talk(f"GET {path} HTTP/1.1{key}")[0] in (403, 404), path
    for path in ("//api/v1/tokens", "/api/v1//tokens", "/api/v1/./tokens", "/api/v1/x/../tokens", "/API/v1/tokens"):
        assert talk(f"GET {path} HTTP/1.1{key}")[0] == 404, path
    assert talk(f"GET http://127.0.0.1/api/v1/tokens HTTP/1.1{key}")[0] in (403, 404)
    for method in ("post", "DELETE", "PUT", "PATCH", "BREW"):
        for path in (f"/api/v1/jobs/{job.id}/cancel", f"/api/v1/jobs/{job.id}"):
            assert talk(f"{method} {path} HTTP/1.1{key}")[0] == 403, (method, path)
    override = "\r\nX-HTTP-Method-Override: POST\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Prefix: /api/v1/tokens"
    assert talk(f"GET /api/v1/jobs/{job.id}/cancel HTTP/1.1{key}{override}")[0] == 405
    assert talk(f"HEAD /api/v1/jobs/{job.id}/cancel HTTP/1.1{key}")[0] == 405
    assert opened.get_job(job.id).state == "queued"
    assert talk(f"GET /api/v1/models/%ff%fe HTTP/1.1{key}")[0] == 404
    socketed = "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA=="
    assert talk(f"GET /api/v1/models HTTP/1.1{socketed}")[0] in (400, 401, 403)


def test_other_kinds_of_connection_are_refused(opened: Store) -> None:
    sent: list[Any] = []

    async def answer(message: Any) -> None:
        sent.append(message)

    async def asked() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/api/v1/models", "headers": [], "query_string": b"", "subprotocols": []}
    with (
        contextlib.closing(api.create_app(opened)(scope, asked, answer)) as running,
        contextlib.suppress(StopIteration),
    ):
        running.send(None)
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_revoked_token_is_refused_at_once(opened: Store, connect: Ask, sqlite_place: Any) -> None:
    """Also where another process revokes it."""
    made = opened.new_token("t", "admin")
    client = connect(opened, made.token)
    assert client.get("models").status_code == 200
    with sqlite_place.open() as elsewhere:
        elsewhere.revoke_token(made.id)
    assert "unknown or revoked" in refused(client.get("models"), 401)
    refused(connect(opened).get("models"), 401)  # that all are revoked opens nothing
    other = connect(opened, opened.new_token("u", "admin").token)
    assert f"{made.id} was revoked" in refused(other.get(f"tokens/{made.id}"), 404)
    assert made.id in other.get("tokens").text


def test_first_token_of_another_process_closes_a_running_service(
    opened: Store, connect: Ask, sqlite_place: Any
) -> None:
    client = connect(opened)
    assert client.get("models").status_code == 200
    with sqlite_place.open() as elsewhere:
        elsewhere.new_token("t")
    refused(client.get("models"), 401)


@pytest.mark.parametrize(
    ("kind", "status"), [(UnavailableError, 503), (ReadOnlyError, 503), (NewerSchemaError, 503), (StoreError, 500)]
)
def test_service_that_cannot_know_is_closed(
    opened: Store,
    connect: Ask,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[StoreError],
    status: int,
) -> None:
    """While the database is away nobody knows whether there is a token; what it says is for the log alone."""
    opened.new_token("t")

    def away(_: Store) -> bool:
        raise kind("connection to db.internal:5432 failed for user u")

    monkeypatch.setattr(Store, "needs_token", away)
    client = connect(opened)
    for method, path in every_route():
        said = refused(client.request(method, BASE + path), status)
        assert said.startswith("the database ")
        assert "internal" not in said
        assert "failed" not in said
    assert "db.internal:5432" in caplog.text


def test_exports_that_run_the_network_need_scope_submit(
    opened: Store, connect: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(guard.COMPUTED) == set(NETWORK_FORMATS)

    async def written(_store: Store, _ref: str, form: str, _e: Any, file: Path, **_choices: Any) -> None:
        file.write_text(form)

    monkeypatch.setattr(files, "export", written)
    graph = save_graph(opened).id
    refs = [f"graphs/{graph}", f"partitions/{save_partition(opened, graph).id}"]
    read, submit = (connect(opened, opened.new_token(scope, scope).token) for scope in ("read", "submit"))
    for ref in refs:
        for form in ("eap", "autocircuit"):
            for query in (f"format={form}", f"format=graphml&format={form}", f"%66ormat={form[:-1]}%{ord(form[-1]):x}"):
                said = refused(read.get(f"{ref}/export?{query}"), 403)
                assert said == "this needs a token of scope submit, the one given has scope read"
                answer = submit.get(f"{ref}/export?{query}")
                assert (answer.status_code, answer.text) == (200, form)
        assert read.get(f"{ref}/export?format=graphml").status_code == 200
        assert read.get(f"{ref}/export?format=graphml&epsilon=0").status_code == 200
    assert refused(read.get(f"{refs[0]}/export?format=masks"), 422)


def test_secrets_are_compared_in_constant_time(opened: Store, connect: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    good, compared = opened.new_token("t"), []

    class Watched:
        @staticmethod
        def compare_digest(a: str, b: str) -> bool:
            compared.append((len(a), len(b)))
            return hmac.compare_digest(a, b)

    monkeypatch.setattr("interbasis.service.store.tokens.hmac", Watched)
    for token in (good.token, f"ib_{good.id}_wrong", "ib_t-none_wrong"):  # an unknown ID takes as long as a known one
        connect(opened, token).get("models")
    assert compared == [(64, 64)] * 3


def test_addresses_that_fail_are_locked_out(opened: Store, connect: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_WINDOW", 1.5)
    good = opened.new_token("t")
    app = api.create_app(opened)

    def get(token: str, address: str = "10.0.0.1") -> httpx.Response:
        with httpx.Client(transport=InProcess(app, address)) as client:
            return client.get("http://127.0.0.1/api/v1/models", headers={"authorization": f"Bearer {token}"})

    begun = time.monotonic()
    assert [get("wrong").status_code for _ in range(10)] == [401] * 10
    response = get("wrong")
    assert "too many" in refused(response, 429)
    assert response.headers["retry-after"] == "60"
    refused(get(good.token), 429)  # or guessing could go on unnoticed
    assert get(good.token, "10.0.0.2").status_code == 200
    time.sleep(max(0.0, begun + 1.7 - time.monotonic()))
    assert get(good.token).status_code == 200


def test_paths_forge_no_line_of_the_log(
    opened: Store, listen: Callable[..., Talk], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "get", lambda *_: 1 / 0)
    caplog.set_level(logging.INFO, "interbasis.access")
    talk, forged = listen(), "x%0A2026-01-01%20INFO%20GET%20forged%20200%0D%1B%5B2K%E2%80%A8%C2%85%ff"
    for path in (f"/{forged}", f"/api/v1/models/{forged}", f"/api/v1/tokens/{forged}"):
        status, headers, _ = talk(f"GET {path} HTTP/1.1\r\nX-Request-ID: a%0Ab c")
        assert status in (404, 500), path
        assert re.fullmatch("[0-9a-f]{16}", headers["x-request-id"])
    said = [record.getMessage() for record in caplog.records if record.name == "interbasis.access"]
    assert sum("forged" in line for line in said) == 4  # three requests and a bug
    for line in said:
        assert line.isascii()
        assert line.isprintable()
    for record in caplog.records:
        if record.name == "interbasis.access":
            assert "\n" not in logs._Json().format(record)


@pytest.mark.parametrize("form", ["json", "text"])
def test_secrets_are_nowhere(
    opened: Store, connect: Ask, sqlite_place: Any, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the database, nor in logs, nor in answers, even where they are put where they do not belong."""
    monkeypatch.setattr(guard, "_FAILURES", 10**9)
    written, handler = io.StringIO(), logging.StreamHandler()
    handler.setStream(written)
    handler.addFilter(lambda record: record.name != "httpx")  # the client's own
    handler.setFormatter(logs._Json() if form == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        made = [opened.new_token("t", "admin"), opened.new_token("gone", "admin")]
        opened.revoke_token(made[1].id)
        answers = []
        for token in made:
            client = connect(opened, token.token)
            answers += [client.get("tokens"), client.get(f"tokens/{token.id}"), client.get(f"models?x={token.token}")]
            answers += [client.get(f"tokens/{token.token}"), client.delete(f"tokens/{token.token}")]
            answers += [client.get(f"models/{token.token}/x"), client.post("jobs", json={token.token: 1})]
            answers += [client.post("jobs", json={"task": "llc", "target": token.token})]
        monkeypatch.setattr(Store, "page", lambda *_, **__: 1 / 0)
        client = connect(opened, made[0].token)
        answers.append(client.get("models"))
        assert "ZeroDivisionError" not in refused(answers[-1], 500)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert f"/api/v1/tokens/ib_{made[0].id}_... 404" in written.getvalue()
    assert "a bug, met at" in written.getvalue()
    assert "ZeroDivisionError" in written.getvalue()
    assert made[0].id in written.getvalue() or form == "text"
    stored = b"".join(file.read_bytes() for file in Path(sqlite_place.url).parent.glob("store.sqlite*"))
    assert made[0].id.encode() in stored
    for token in made:
        secret = token.token.split("_", 2)[2]
        assert len(secret) >= 43
        assert secret not in written.getvalue()
        assert secret.encode() not in stored
        for answer in answers:
            assert secret not in answer.text, answer.request.url
    assert len({token.token for token in made}) == 2


def test_files_are_removed_for_admins_alone(opened: Store, connect: Ask) -> None:
    left = opened.blobs.put(b"of no result")
    kept = save_graph(opened)
    for scope in ("read", "submit"):
        client = connect(opened, opened.new_token(scope, scope).token)
        for path in ("gc", "gc?x=tokens", "%67c"):
            refused(client.post(path, json={"grace": 0}), 403)
    admin = connect(opened, opened.new_token("a", "admin").token)
    for grace in (-1, "x", None, True, [], 1e300):
        assert bad(admin.post("gc", json={"grace": grace}))
    refused(admin.post("gc", content=b'{"grace": NaN}', headers={"content-type": "application/json"}), 422)
    refused(admin.get("gc"), 405)
    assert admin.post("gc", json={}).json() == {"files": [], "bytes": 0}  # younger than a day
    assert opened.blobs.exists(left)
    assert admin.post("gc", json={"grace": 0}).json() == {"files": [left], "bytes": 12}
    assert not opened.blobs.exists(left)
    assert opened.graph_bytes(kept.id)


# Without tokens


def test_without_tokens_only_this_machine_is_answered(opened: Store, connect: Ask, listen: Callable[..., Talk]) -> None:
    client, talk = connect(opened), listen()
    for host in ("127.0.0.1", "localhost:8422", "LOCALHOST", "[::1]:80"):
        assert client.get("models", headers={"host": host}).status_code == 200, host
    foreign = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.2", "localhost.", "0.0.0.0"]
    foreign += ["evil.example:80@127.0.0.1", "[::1", "[", ":80", "evil@", "127.0.0.1 evil", "None", "\xfc"]
    for host in foreign:
        response = client.get("models", headers=[(b"host", host.encode("latin-1"))])
        assert "without a token" in refused(response, 403), host
    assert talk("GET /api/v1/models HTTP/1.0", host="")[0] == 403
    assert talk("GET http://127.0.0.1/api/v1/models HTTP/1.1", host="evil.example")[0] == 403


def test_without_tokens_pages_of_others_are_refused(opened: Store, connect: Ask) -> None:
    client = connect(opened)
    graph = save_graph(opened).id
    body = json.dumps({"task": "partition", "target": graph})
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:8000",
        "file://",
        "http://[",
        "http://127.0.0.1@evil",
    ):
        response = client.post("jobs", content=body, headers={"origin": origin, "content-type": "text/plain"})
        assert "pages of" in refused(response, 403), origin
        refused(client.post("jobs", content=body, headers={"origin": origin}), 403)
    refused(client.post("jobs", content=body, headers={"content-type": "text/plain"}), 422)
    form = "application/x-www-form-urlencoded"
    refused(client.post("jobs", content=body, headers={"content-type": form}), 422)
    assert not opened.jobs().items
    for mode, status in (("no-cors", 403), ("cors", 403), ("navigate", 200)):  # an image, a script, a link
        foreign = {"sec-fetch-site": "cross-site", "sec-fetch-mode": mode}
        assert client.get("models", headers=foreign).status_code == status
    headers = {"origin": "http://127.0.0.1", "content-type": "application/json"}
    assert client.post("jobs", content=body, headers=headers).status_code == 202
    for response in (client.get("models", headers={"origin": "http://127.0.0.1"}), client.options("models")):
        assert not any(name.startswith("access-control") for name in response.headers)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "localhost.example.org", "::2"])
def test_other_machines_are_let_in_with_a_token_only(opened: Store, host: str) -> None:
    with pytest.raises(StoreError, match="interbasis token new"):
        check_exposure(opened, host)
    for own in ("127.0.0.1", "localhost", "::1"):
        check_exposure(opened, own)
    opened.new_token("t")
    check_exposure(opened, host)


# Every answer


def test_every_answer_has_its_headers(opened: Store, connect: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "workers", lambda _: 1 / 0)
    client, row = connect(opened, body=1000), opened.register_model("m", "mlp", {})
    etag = client.get(f"models/{row.id}").headers["etag"]
    answers = [client.get("models"), client.get(f"models/{row.id}", headers={"if-none-match": etag})]
    answers += [client.get("nowhere"), client.put("models"), client.post("jobs", content=b"{"), client.get("metrics")]
    answers += [client.post("jobs", content=b"x" * 1001), client.get("workers"), client.get("openapi.json")]
    answers += [client.get("models", headers={"host": "evil.example"}), client.get("graphs/x/file")]
    opened.new_token("t")
    wrong = {"authorization": "Bearer ib_wrong"}
    answers += [client.get("models"), *(client.get("models", headers=wrong) for _ in range(11))]
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 304, 404, 405, 422, 413, 500, 403, 401, 429}
    for answer in answers:
        assert set(answer.headers) >= HEADERS, answer.status_code
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])
        assert "public" not in answer.headers["cache-control"]
        assert answer.status_code in (200, 304) or answer.headers["content-type"] == PROBLEM
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


def test_request_id_is_the_given_one_where_it_is_harmless(opened: Store, connect: Ask) -> None:
    client = connect(opened)
    assert client.get("health", headers={"x-request-id": "run-7.a_b"}).headers["x-request-id"] == "run-7.a_b"
    for given in ("a b", "x" * 65, "a;b", "<script>", "ünï", "a\tb"):
        response = client.get("health", headers=[(b"x-request-id", given.encode("latin-1"))])
        assert re.fullmatch("[0-9a-f]{16}", response.headers["x-request-id"]), given


def test_bugs_are_told_to_the_log_alone(opened: Store, connect: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("hidden/path")

    monkeypatch.setattr(Store, "page", broken)
    response = connect(opened).get("models")
    refused(response, 500)
    assert "hidden/path" not in response.text
    assert "RuntimeError" not in response.text


def test_errors_of_the_database_show_no_statements(store: Store, connect: Ask) -> None:
    client = connect(store)
    body = '{"task": "llc", "model": "m", "choices": {"epsilon": NaN}}'
    answers = [client.post("schedules", content=body, headers={"content-type": "application/json"})]
    answers += [post(client, "schedules", {"task": "llc", "model": "m", "choices": {"loss": "\x00\ud800"}})]
    answers += [client.get("models", params={"cursor": "MDAwMS0wMS0wMVQwMDowMDowMCsxNDowMCAx"})]
    for answer in answers:
        refused(answer, 422)
        assert "INSERT" not in answer.text
        assert "SELECT" not in answer.text
    assert client.get("schedules").status_code == 200


# Exports


def save_real_partition(store: Store) -> tuple[str, str]:
    """IDs of a graph with two modules and of its partition, whose files can be read."""
    first = [[2.0, 0.1, 0.0], [1.0, 0.0, 0.0], [0.0, 3.0, 2.0], [0.0, 1.0, 2.0]]
    graph = InteractionGraph.from_blocks([first, [[2.0, 1.0, 0.0, 0.0], [0.1, 0.0, 1.0, 2.0]]])
    row = save_graph(store, content=graph.to_bytes())
    made = partition_task.modules(store, row.id, {"objective": "kway", "k": 2})
    return row.id, made.id


def test_exports_have_the_type_of_their_format(
    opened: Store, connect: Ask, export_here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, partition = save_real_partition(opened)
    client = connect(opened)
    said = refused(client.get(f"graphs/{graph}/export", params={"format": "eap", "epsilon": 1.0}), 422)
    assert said == "eap holds heads and MLPs, whose edges have no loss scale: leave epsilon out"
    monkeypatch.setattr(files, "export", export_here)
    for ref in (f"graphs/{graph}", f"partitions/{partition}"):
        document = client.get(f"{ref}/export", params={"format": "node-link"})
        assert document.headers["content-type"] == "application/json"
        assert len(document.json()["nodes"]) == 9
    answer = client.get(f"partitions/{partition}/export", params={"format": "graphml"})
    assert answer.headers["content-type"] == "application/xml"
    assert b"<graphml" in answer.content
    answer = client.get(f"graphs/{graph}/export", params={"format": "safetensors"})
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == f'attachment; filename="{graph}.safetensors"'
    assert InteractionGraph.from_bytes(answer.content).widths == (3, 4, 2)


def test_exports_are_known_by_what_they_are_made_of(
    opened: Store, connect: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same export has the same ETag, and is not made again for whoever has it."""
    made = []

    async def written(_store: Store, ref: str, form: str, _e: Any, file: Path, **_choices: Any) -> None:
        made.append((ref, form))
        file.write_text(f"{ref} {form} {len(made)}")

    monkeypatch.setattr(files, "export", written)
    graph = save_graph(opened, 1).id
    partition, other = (save_partition(opened, graph, n).id for n in (1, 2))
    paths = [f"partitions/{partition}/export?format={form}" for form in ("graphml", "gexf", "eap")]
    paths += [f"partitions/{partition}/export?format=graphml&epsilon={value}" for value in (0, 0.5)]
    paths += [f"partitions/{partition}/export?format=eap&module={module}" for module in (0, 1)]
    paths += [f"partitions/{partition}/export?format=components{neurons}" for neurons in ("", "&neurons=3")]
    paths += [f"partitions/{other}/export?format=graphml", f"graphs/{graph}/export?format=graphml"]
    paths += [f"llc/{save_llc(opened).id}/export"]
    tags = {path: connect(opened).get(path).headers["etag"] for path in paths}
    assert len(set(tags.values())) == len(paths) == len(made)
    client = connect(opened)
    for path, tag in tags.items():
        for known in (tag, tag.removeprefix("W/"), f'"x", {tag}'):
            answer = client.get(path, headers={"if-none-match": known})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert len(made) == len(paths)
    assert client.get(paths[0], headers={"if-none-match": tags[paths[1]]}).status_code == 200
    save_graph(opened, 1, force=True, content=b"another")  # its partitions go
    assert client.get(paths[-2], headers={"if-none-match": tags[paths[-2]]}).status_code == 200
    monkeypatch.setattr(answers, "version", lambda _: "99")
    assert client.get(paths[-1], headers={"if-none-match": tags[paths[-1]]}).status_code == 200


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("echo 'a warning' >&2; echo 'error: it has no such form' >&2; exit 2", 422),
        ("echo 'error: hidden/path' >&2; exit 1", 500),
        ('echo "error: cannot write $8: hidden/path" >&2; exit 2', 500),
        ("echo 'Traceback: hidden/path' >&2; exit 2", 500),
        ("kill -9 $$", 500),
    ],
)
def test_exports_that_fail_tell_what_is_the_clients(
    opened: Store,
    connect: Ask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    script: str,
    status: int,
) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    graph = save_graph(opened).id
    said = refused(connect(opened).get(f"graphs/{graph}/export?format=graphml"), status)
    if status == 422:
        assert said == "it has no such form"
    else:
        assert said == "the export failed; the service's log says why, under the request ID"
        assert f"the export of {graph} as graphml ended with" in caplog.text
        assert "hidden/path" in caplog.text or "-9" in caplog.text


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_damaged_file_of_a_result_is_the_services_failure(
    opened: Store, connect: Ask, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """Read here or by the process that exports, it is logged in full, and the client learns no path."""
    graph = save_graph(opened)
    file = opened.blobs.path(graph.graph_sha256)
    assert file is not None
    if damage == "changed":
        file.write_bytes(b"garbage")
    else:
        file.unlink()
    reasons = {"file": "a stored file is missing or damaged", "export?format=graphml": "the export failed"}
    for path, reason in ((f"graphs/{graph.id}/{part}", reason) for part, reason in reasons.items()):
        caplog.clear()
        said = refused(connect(opened).get(path), 500)
        assert said.startswith(reason)
        assert "/" not in said
        assert str(file) in caplog.text
        assert ("is damaged" if damage == "changed" else "is missing") in caplog.text


# Paths


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A folder that may be read, and one beside it that may not, whose name begins alike."""
    inside, outside = tmp_path / "data", tmp_path / "data-evil"
    inside.mkdir()
    outside.mkdir()
    for n, folder in enumerate((inside, outside)):
        save_mlp(folder / "a.safetensors", seed=n, step=n, model=folder.name)
        save_inputs(folder / "x.npz")
    return inside, outside


def named(inside: Path, outside: Path) -> list[str]:
    """Names of what must not be read."""
    links = {
        "link.safetensors": outside / "a.safetensors",
        "up": outside,
        "self": inside / "self",
        "gone": inside / "no",
    }
    for name, target in links.items():
        (inside / name).symlink_to(target)
    os.mkfifo(inside / "pipe.safetensors")
    (inside / "folder.safetensors").mkdir()
    names = [f"{inside}/../{outside.name}/a.safetensors", f"{inside}/link.safetensors", f"{inside}/up/a.safetensors"]
    names += [f"{outside}/a.safetensors", f"{inside}/self", f"{inside}/gone", f"{inside}/self/a.safetensors"]
    names += ["a.safetensors", "./a.safetensors", "../data/a.safetensors", "~/a.safetensors", ".", "", " ", "/"]
    names += [f"{inside}/a.safetensors\x00", f"{inside}/a.safetensors\n", f"{inside}/%2e%2e/x"]
    names += [
        f"{inside}/pipe.safetensors",
        f"{inside}/folder.safetensors",
        str(inside),
        f"file://{inside}/a.safetensors",
    ]
    names += ["/proc/self/environ", "/proc/self/fd/0", "/dev/zero", "/dev/stdin", "/etc/passwd", str(inside.parent)]
    return [
        *names,
        f"{inside}/" + "x" * 300,
        f"{inside}/" + "x/" * 1500,
        "/" * 4000,
        "\\\\host\\share",
        f"{inside}/../..",
    ]


def test_only_files_within_the_folders_are_read(opened: Store, connect: Ask, folders: tuple[Path, Path]) -> None:
    inside, outside = folders
    client = connect(opened, roots=(inside,))
    assert client.post("checkpoints", json={"path": f"{inside}/a.safetensors"}).status_code == 201
    about = {"family": "mlp", "config": {}}
    for name in named(inside, outside):
        for body in ({"path": name}, {"path": name, "about": about}, {"path": name, "sha256": "0" * 64}):
            said = refused(post(client, "checkpoints", body), 403)
            assert "none of the folders" in said or "there is no file" in said, (name, said)
        job = {"task": "ledger", "target": "data@0", "choices": {"data": name}}
        refused(post(client, "jobs", job), 403)
        refused(post(client, "schedules", {"task": "ledger", "model": "data", "choices": {"data": name}}), 403)
    refused(post(client, "checkpoints", {"path": f"{inside}/\ud800"}), 422)
    assert [row.path for row in opened.checkpoints().items] == [f"{inside}/a.safetensors"]
    job = {"task": "ledger", "target": "data@0", "choices": {"data": f"{inside}/x.npz"}}
    assert client.post("jobs", json=job).json()["choices"] == {"data": f"{inside}/x.npz"}
    for choice in ([f"{outside}/x.npz"], {"path": f"{outside}/x.npz"}, 1, True, "sha256:../../x", "sha256:" + "0" * 64):
        response = client.post("jobs", json={**job, "choices": {"data": choice}})
        assert bad(response), (choice, response.text)
    assert len(opened.jobs().items) == 1


def test_only_folders_within_the_folders_are_watched(opened: Store, connect: Ask, folders: tuple[Path, Path]) -> None:
    inside, outside = folders
    client = connect(opened, roots=(inside,))
    (inside / "sub").mkdir()
    names = [name for name in named(inside, outside) if name not in (str(inside), f"{inside}/folder.safetensors")]
    for name in [*names, f"{inside}/up", str(outside), f"{inside}/sub/../..", f"{inside}/a.safetensors"]:
        refused(post(client, "schedules", {"task": "ledger", "model": "m", "folder": name}), 403)
    assert not opened.schedules().items
    body = {"task": "ledger", "model": "m", "folder": f"{inside}/sub/../sub"}
    assert client.post("schedules", json=body).json()["folder"] == f"{inside}/sub"


def test_without_folders_no_path_is_read(opened: Store, connect: Ask, folders: tuple[Path, Path]) -> None:
    client, (inside, _) = connect(opened), folders
    refused(client.post("checkpoints", json={"path": f"{inside}/a.safetensors"}), 403)
    refused(client.post("schedules", json={"task": "ledger", "model": "m", "folder": str(inside)}), 403)


def test_json_beside_a_checkpoint_is_no_way_out(opened: Store, connect: Ask, folders: tuple[Path, Path]) -> None:
    inside, outside = folders
    client, beside = connect(opened, roots=(inside,)), inside / "a.json"
    beside.unlink()
    beside.symlink_to(outside / "a.json")
    assert "none of the folders" in refused(client.post("checkpoints", json={"path": f"{inside}/a.safetensors"}), 403)
    beside.unlink()
    os.mkfifo(beside)
    refused(client.post("checkpoints", json={"path": f"{inside}/a.safetensors"}), 403)
    beside.unlink()
    for content in (
        "[" * 100_000,
        '{"family": ' + "[" * 900 + "]" * 900 + "}",
        '{"family": "mlp", "config": NaN}',
        "\ufeff",
    ):
        beside.write_text(content)
        refused(client.post("checkpoints", json={"path": f"{inside}/a.safetensors"}), 422)
    beside.write_bytes(b"\xff\x00")
    refused(client.post("checkpoints", json={"path": f"{inside}/a.safetensors"}), 422)
    assert not opened.checkpoints().items


def test_watched_folder_is_no_way_out(
    opened: Store, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links in it that lead elsewhere are not followed, and what is no file does not keep the worker waiting."""
    monkeypatch.setattr(schedules, "_QUIET", -1.0)
    inside, outside = folders
    (inside / "link.safetensors").symlink_to(outside / "a.safetensors")
    (inside / "link.json").write_text((inside / "a.json").read_text())
    save_mlp(inside / "b.safetensors", seed=5, step=5, model="data")
    (inside / "b.json").unlink()
    (inside / "b.json").symlink_to(outside / "a.json")
    os.mkfifo(inside / "pipe.safetensors")
    (inside / "pipe.json").write_text("{}")
    save_mlp(inside / "deep.safetensors", seed=6)
    (inside / "deep.json").write_text('{"family": "mlp", "config": ' + '{"a":' * 5000 + "1" + "}" * 5001)
    (inside / "good.safetensors").symlink_to(inside / "a.safetensors")
    (inside / "good.json").symlink_to(inside / "a.json")
    row = opened.add_schedule("ledger", "data", folder=inside)
    opened.look_after_schedules()
    assert [found.model for found in opened.checkpoints().items] == ["data"]
    error = str(opened.get_schedule(row.id).error)
    for name in ("link", "b", "pipe", "deep"):
        assert f"{name}.safetensors" in error or f"{name}.json" in error, error
    moved = inside.with_name("moved")
    inside.rename(moved)
    inside.symlink_to(outside)
    opened.look_after_schedules()
    assert [found.model for found in opened.checkpoints().items] == ["data"]
    assert "leads" in str(opened.get_schedule(row.id).error)


# Bodies


def test_large_bodies_are_refused(opened: Store, listen: Callable[..., Talk]) -> None:
    talk = listen(body=10_000, upload=20_000, patience=2.0)
    kind = "\r\nContent-Type: application/json"
    for path, most in (("jobs", 10_000), ("files", 20_000), ("imports?model=a", 20_000)):
        status, headers, body = talk(f"POST /api/v1/{path} HTTP/1.1{kind}\r\nContent-Length: {10**12}")
        assert (status, headers["content-type"]) == (413, PROBLEM)
        assert f"expected at most {most}" in json.loads(body)["detail"]
        chunk = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
        chunked = f"POST /api/v1/{path} HTTP/1.1{kind}\r\nTransfer-Encoding: chunked"
        status, headers, body = talk(chunked, *[chunk] * (most // 1000 + 1), b"0\r\n\r\n")
        assert (status, headers["content-type"]) == (413, PROBLEM), body
        assert set(headers) >= HEADERS
        assert talk(chunked, *[chunk] * (most // 1000 - 1), b"0\r\n\r\n")[0] == (202 if "imports" in path else 422)
    huge = f"POST /api/v1/jobs HTTP/1.1{kind}\r\nContent-Length: "
    for length in ("9" * 5000, "-1", "1e3", "0x10", "+5", "5, 6", ""):
        assert talk(f"{huge}{length}", b"{}")[0] in (400, 413, 422, 431), length
    both = f"POST /api/v1/jobs HTTP/1.1{kind}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked"
    assert talk(both, b"0\r\n\r\nGET /api/v1/models HTTP/1.1\r\nHost: x\r\n\r\n")[0] in (400, 422)
    assert not list(Path(opened.blobs.url).rglob("*.tmp"))


def test_slow_bodies_are_refused(opened: Store, listen: Callable[..., Talk]) -> None:
    """What comes too slowly, what stops, and what is longer than it said, or shorter."""
    talk = listen(patience=0.5)
    kind = "\r\nContent-Type: application/json"
    for path in ("jobs", "files"):
        status, headers, body = talk(f"POST /api/v1/{path} HTTP/1.1{kind}\r\nContent-Length: 50", b"{")
        assert (status, headers["content-type"]) == (408, PROBLEM), body
        assert set(headers) >= HEADERS
        drip = f"POST /api/v1/{path} HTTP/1.1{kind}\r\nTransfer-Encoding: chunked"
        assert talk(drip, *[b"1\r\nx\r\n"] * 10, pause=0.1)[0] == 408
    assert talk(f"POST /api/v1/jobs HTTP/1.1{kind}\r\nContent-Length: 2", b"{}" + b"x" * 5000)[0] == 422
    assert talk("GET /api/v1/health HTTP/1.1")[0] == 200


def test_clients_that_go_away_are_no_bug(
    opened: Store, listen: Callable[..., Talk], caplog: pytest.LogCaptureFixture
) -> None:
    talk, kind = listen(), "\r\nContent-Type: application/json"
    caplog.set_level(logging.INFO)
    for path in ("jobs", "files"):
        talk(f"POST /api/v1/{path} HTTP/1.1{kind}\r\nContent-Length: 100", b"{", shut=True)
    assert talk("GET /api/v1/health HTTP/1.1")[0] == 200
    deadline = time.monotonic() + 60
    while sum("POST" in record.message for record in caplog.records) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "a bug" not in caplog.text
    assert not list(Path(opened.blobs.url).rglob("*.tmp"))


DOCUMENTS = {
    "empty": b"",
    "cut short": b'{"task": ',
    "no object": b"[]",
    "null": b"null",
    "nested lists": b"[" * 200_000,
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nan": b'{"task": "llc", "target": "x", "timeout": NaN}',
    "infinity": b'{"task": "llc", "target": "x", "timeout": Infinity}',
    "too large": b'{"task": "llc", "target": "x", "timeout": 1e999}',
    "many digits": b'{"task": "llc", "target": "x", "priority": ' + b"9" * 100_000 + b"}",
    "large": b'{"task": "llc", "target": "x", "priority": 99999999999999999999}',
    "surrogates": b'{"task": "llc", "target": "\\ud800"}',
    "nul": b'{"task": "llc", "target": "\\u0000"}',
    "not UTF-8": b'{"task": "llc", "target": "\xff\xfe"}',
    "UTF-16": '{"task": "llc", "target": "x"}'.encode("utf-16"),
    "long": b'{"task": "llc", "target": "' + b"x" * 10_000_000 + b'"}',
    "many keys": json.dumps({f"k{n}": n for n in range(50_000)}).encode(),
    "twice": b'{"task": "llc", "task": "analyze", "target": "none"}',
    "more": b'{"task": "llc", "target": "x", "factory": "os:system"}',
    "prototype": b'{"__proto__": {}, "__class__": {}, "task": "llc", "target": "x"}',
}


def test_hostile_documents_are_refused(opened: Store, connect: Ask) -> None:
    client = connect(opened, body=20_000_000)
    for name, content in DOCUMENTS.items():
        for path in ("jobs", "schedules", "checkpoints", "tokens"):
            response = client.post(path, content=content, headers={"content-type": "application/json"})
            assert bad(response), (name, path, response.status_code, response.text[:300])
            assert len(response.content) < 2_000_000, (name, path)
    assert not opened.needs_token()


def test_values_that_cannot_be_stored_are_refused(store: Store, connect: Ask) -> None:
    """Within choices and the JSON of checkpoints, where anything may stand; and what is taken can be read again."""
    client, graph = connect(store), save_graph(store).id
    uri = f"sha256:{client.post('files', content=save({'w': np.eye(2)})).json()['sha256']}"
    deep = [b'{"a":' * n + b"1" + b"}" * n for n in (10, 90, 200, 900, 2500, 20_000)]
    values = [
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 400,
        b"9" * 4000,
        b"9" * 5000,
        b"1" * 20,
        b'"\\ud800"',
        b'"\\u0000"',
        *deep,
    ]
    values += [b'{"\\u0000": 1}', b'{"\\ud800": 1}', b'""', b"[[[]]]", b"-0.0", b"1e-400"]
    for value in values:
        bodies = {
            "jobs": b'{"task": "partition", "target": "%s", "choices": {"k": %s}}' % (graph.encode(), value),
            "schedules": b'{"task": "llc", "model": "m", "choices": {"epsilon": %s}}' % value,
            "checkpoints": b'{"uri": "%s", "about": {"family": "mlp", "config": {"widths": %s}}}'
            % (uri.encode(), value),
        }
        for key in ("step", "label", "family", "model", "data", "extra"):
            about = b'{"uri": "%s", "about": {"family": "mlp", "%s": %s}}' % (uri.encode(), key.encode(), value)
            bodies[f"checkpoints?{key}"] = about
        for path, body in bodies.items():
            response = client.post(path, content=body, headers={"content-type": "application/json"})
            assert response.status_code in (201, 202) or bad(response), (path, value[:20], response.text[:300])
            assert "[SQL" not in response.text, (path, value[:20])
        for path in ("jobs", "schedules", "checkpoints", "models", "ready", "metrics"):
            response = client.get(path, params={"limit": 1000} if path not in ("ready", "metrics") else {})
            assert response.status_code == 200, (path, value[:20], response.text[:300])
    store.look_after_schedules()


NAMES = [
    "",
    " ",
    "a\x00b",
    "a\nb",
    "a\x1b[2Jb",
    "a\u202eb",
    "a\u200bb",
    "\ud800",
    "\ufeff",
    "a\u2028b",
    "\x7f",
    "x" * 10_000,
    "x" * 100_000,
]
HARMLESS = [
    "a/b",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "'; DROP TABLE token; --",
    "%00",
    "{{7*7}}",
    "$(id)",
    "ünï",
    '"quoted"',
    "שלום",
]


def test_hostile_names_are_refused(store: Store, connect: Ask) -> None:
    client = connect(store)
    uri = f"sha256:{client.post('files', content=save({'w': np.eye(2)})).json()['sha256']}"
    for name in [*NAMES, "@", "a@1"]:
        about = {"family": "mlp", "model": name, "label": "l"}
        if name:  # without a name the label is taken
            refused(post(client, "checkpoints", {"uri": uri, "about": about}), 422)
    for name in NAMES:
        about = {"family": "mlp", "model": "m", "label": name}
        if name:
            refused(post(client, "checkpoints", {"uri": uri, "about": about}), 422)
        refused(post(client, "checkpoints", {"uri": uri, "about": {"family": name, "label": "m"}}), 422)
        refused(post(client, "tokens", {"name": name}), 422)
        refused(post(client, "schedules", {"task": "ledger", "model": name}), 422)
        refused(post(client, "schedules", {"task": "ledger", "model": "m", "cron": name}), 422)
        refused(post(client, "jobs", {"task": "ledger", "target": "m", "queue": name}), 422)
        assert bad(post(client, "jobs", {"task": "ledger", "target": name}))
        with contextlib.suppress(UnicodeEncodeError, httpx.InvalidURL):
            assert bad(client.get("models", params={"model": name, "cursor": name or "x"}))
            assert name == "" or bad(client.get("checkpoints", params={"model": name}))
    assert not store.needs_token()
    assert not store.schedules().items
    assert not store.models().items


def test_odd_names_are_only_names(store: Store, connect: Ask) -> None:
    client = connect(store)
    for n, name in enumerate(HARMLESS):
        uri = f"sha256:{client.post('files', content=save({'w': np.eye(2) * n})).json()['sha256']}"
        body = {"uri": uri, "about": {"family": "mlp", "model": name, "label": f"{name}!"}}
        row = client.post("checkpoints", json=body).json()
        assert (row["model"], row["label"]) == (name, f"{name}!")
        listed = client.get("checkpoints", params={"model": name})
        assert [found["id"] for found in listed.json()["items"]] == [row["id"]]
        assert listed.headers["content-type"] == "application/json"
        assert not bad(client.post("schedules", json={"task": "ledger", "model": name}))
    assert len(store.models().items) == len(HARMLESS)


def test_references_and_queries_are_refused(store: Store, connect: Ask) -> None:
    client = connect(store)
    graph = save_graph(store).id
    for ref in ("%00", "%0a", "%ff", "x" * 501, "%", "_", "%25", "'", "g-%25", "g-_", "..%2f..%2fetc", "%252e%252e"):
        for path in ("models", "graphs", "jobs", "tokens", "schedules"):
            assert bad(client.get(f"{path}/{ref}")), ref
            assert bad(client.delete(f"{path}/{ref}")), ref
    for ref in ("0" * 63, "0" * 64 + "\n", "../x", "sha256:", "A" * 64, "0" * 64):
        assert bad(client.get(f"files/{quote(ref, safe='')}")), ref
    for query in ("limit=0", "limit=1001", "limit=1e9", "limit=" + "9" * 5000, "limit=x", "cursor=x", "cursor=%00"):
        refused(client.get(f"graphs?{query}"), 422)
    for query in ("newest=2", "cursor=" + "x" * 300, "cursor=", "limit=-1", "limit=%00", "limit=NaN"):
        refused(client.get(f"graphs?{query}"), 422)
    for query in ("epsilon=nan", "epsilon=inf", "epsilon=-1", "epsilon=1e999", "limit=10001", "cut=x&" * 101):
        refused(client.get(f"graphs/{graph}/subgraph?{query}"), 422)
    for query in ("module=-1", "nodes=0", "nodes=2001", "limit=10001", "epsilon=nan"):
        refused(client.get(f"partitions/p-0/drawing?{query}"), 422)
    for query in ("format=exe", "", "format=graphml&epsilon=nan", "format=../x"):
        refused(client.get(f"graphs/{graph}/export?{query}"), 422)
    for node in ("-1", "99999999999999999999", "x", "1.5", "NaN", "%00"):
        refused(client.get(f"graphs/{graph}/nodes/0/{node}/edges"), 422)


def test_refusals_name_the_field_as_it_was_sent(opened: Store, connect: Ask) -> None:
    client = connect(opened)
    job = {"task": "llc", "target": "x"}
    for response, said in (
        (client.get("graphs?limit=5000"), "limit is '5000', expected at most 1000"),
        (client.get("graphs?limit=many"), "limit is 'many', expected a whole number"),
        (client.get("jobs?state=lost"), "state is 'lost', expected 'queued', 'running', 'succeeded', 'failed' or"),
        (client.post("jobs", json={"task": "llc"}), "target is missing"),
        (client.post("jobs", json={**job, "taks": 1}), "there is no field 'taks'"),
        (client.post("jobs", json={**job, "priority": "high"}), "priority is 'high', expected a whole number"),
        (client.post("jobs", content=b"{", headers={"content-type": "application/json"}), "the body is not JSON"),
    ):
        assert refused(response, 422).startswith(said)
        assert response.json()["errors"][0]["what"].startswith(said)


def test_requests_name_no_code(opened: Store, connect: Ask, folders: tuple[Path, Path]) -> None:
    """Models are built by installed families; nothing that a request says is imported."""
    inside, _ = folders
    client = connect(opened, roots=(inside,))
    assert client.post("checkpoints", json={"path": f"{inside}/a.safetensors"}).status_code == 201
    for extra in ({"factory": "os:system"}, {"import": "os"}, {"module": "os"}, {"loader": "pickle:loads"}):
        refused(client.post("jobs", json={"task": "ledger", "target": "data@0", **extra}), 422)
        said = refused(client.post("jobs", json={"task": "ledger", "target": "data@0", "choices": extra}), 422)
        assert "has no choice" in said
        refused(client.post("checkpoints", json={"path": f"{inside}/a.safetensors", **extra}), 422)
        refused(client.post("schedules", json={"task": "ledger", "model": "m", "choices": extra}), 422)
    assert not opened.jobs().items


@pytest.mark.parametrize("about", [{"family": "torch", "factory": "os:system"}, {"family": "os:system"}])
def test_family_of_a_checkpoint_is_no_import(
    opened: Store, connect: Ask, tmp_path: Path, about: dict[str, Any]
) -> None:
    """A job on what was registered fails in the computing process, which imports nothing."""
    path = save_mlp(tmp_path / "a.safetensors", **{"config": {"command": f"touch {tmp_path}/run"}, **about})
    row = connect(opened, roots=(tmp_path,)).post("checkpoints", json={"path": str(path)}).json()
    assert row["family"] == about["family"]
    with pytest.raises(CheckpointError, match=r"unknown family|needs the function"):
        checkpoint_task.load(Path(row["path"]), {}, data=save_inputs(tmp_path / "x.npz"))
    assert not (tmp_path / "run").exists()


# Uploads


def headed(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin: int, end: int, shape: tuple[int, ...], kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": (begin, end)}


def bomb() -> bytes:
    """10^8 zeros as a zip archive of an array."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w") as part,
    ):
        for _ in range(100):
            part.write(bytes(1_000_000))
    return file.getvalue()


HARMFUL: dict[str, Callable[[], bytes]] = {
    "empty": bytes,
    "short": lambda: b"\x01",
    "text": lambda: b"hello, world, this is no model",
    "header of 2^64": lambda: headed({}, length=2**64 - 1),
    "header of 2^60": lambda: headed({}, length=2**60),
    "header of 2^40": lambda: headed({}, length=2**40),
    "header past the end": lambda: headed({"w": tensor(0, 4, (1,))}, b"1234", length=500),
    "no JSON": lambda: headed(b"x" * 50),
    "nested": lambda: headed(b'{"a":' * 50_000),
    "list": lambda: headed([]),
    "past the end": lambda: headed({"w": tensor(0, 400, (100,))}, b"1234"),
    "far past the end": lambda: headed({"w": tensor(2**62, 2**62 + 4, (1,))}, b"1234"),
    "too large a shape": lambda: headed({"w": tensor(0, 4, (2**40, 2**40))}, b"1234"),
    "backwards": lambda: headed({"w": tensor(4, 0, (1,))}, b"1234"),
    "overlapping": lambda: headed({"v": tensor(0, 8, (2,)), "w": tensor(4, 12, (2,))}, b"1" * 12),
    "hole": lambda: headed({"v": tensor(0, 4, (1,)), "w": tensor(8, 12, (1,))}, b"1" * 12),
    "more than said": lambda: headed({"w": tensor(0, 4, (1,))}, b"1" * 400),
    "other shape": lambda: headed({"w": tensor(0, 8, (5,))}, b"1" * 8),
    "negative": lambda: headed({"w": tensor(-4, 0, (1,))}, b"1234"),
    "unknown type": lambda: headed({"w": tensor(0, 4, (1,), "OBJECT")}, b"1234"),
    "archive": bomb,
    "pickle": lambda: b"\x80\x04cos\nsystem\n(S'touch /tmp/x'\ntR.",
    "HDF5": lambda: b"\x89HDF\r\n\x1a\n" + bytes(100),
}


def peak() -> float:
    """MB that this process has used at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def kept_nothing(store: Store) -> None:
    """No file, neither known nor left over."""
    found = store.check()
    assert (found.n_artifacts, found.uncollected, list(store.blobs.list())) == (0, (), [])
    assert not [file for file in Path(store.blobs.url).rglob("*") if file.is_file()]


def test_files_that_are_no_safetensors_are_refused(opened: Store, connect: Ask) -> None:
    client = connect(opened)
    for name, made in HARMFUL.items():
        content = made()
        before = peak()
        response = client.post("files", content=content)
        assert bad(response), (name, response.text)
        assert "is not a safetensors file" in refused(response, 422), name
        assert peak() - before < 100, name
        kept_nothing(opened)
    assert client.post("files", content=save({"w": np.eye(2)})).status_code == 201
    with pytest.raises(AssertionError):
        kept_nothing(opened)


def saved(found: Any) -> bytes:
    file = io.BytesIO()
    torch.save(found, file)
    return file.getvalue()


class Runs:
    """Pickles as a call of `os.system`."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.file}",)


def test_pt_files_are_refused_unless_allowed(opened: Store, connect: Ask) -> None:
    content = saved({"w": torch.eye(2)})
    assert "takes no .pt files" in refused(connect(opened).post("files?format=pt", content=content), 403)
    refused(connect(opened).post("files", content=content), 422)
    refused(connect(opened, pt=True).post("files", content=content), 422)
    refused(connect(opened, pt=True).post("files?format=pickle", content=content), 422)


def test_pt_file_is_converted(opened: Store, connect: Ask) -> None:
    content = saved({"state_dict": {"w": torch.eye(3).t(), "v": torch.ones(2)}})
    row = connect(opened, pt=True).post("files?format=pt", content=content).json()
    assert opened.blobs.get(row["sha256"]) == save({"w": np.eye(3, dtype="f"), "v": np.ones(2, "f")})


@pytest.mark.usefixtures("warm")
def test_pt_file_that_runs_code_is_refused(opened: Store, connect: Ask, tmp_path: Path) -> None:
    mark = tmp_path / "run"
    content = saved({"w": Runs(mark)})
    said = refused(connect(opened, pt=True).post("files?format=pt", content=content), 422)
    assert "weights" in said.lower()
    assert not mark.exists()
    torch.load(io.BytesIO(content), weights_only=False)  # it would have
    assert mark.exists()


@pytest.mark.usefixtures("warm")
def test_small_pt_files_that_become_large_are_refused(opened: Store, connect: Ask) -> None:
    client = connect(opened, pt=True, upload=1 << 20)
    for size in (2**40, 2**20):  # more than there is, and more than may be uploaded
        content = saved({f"w{n}": torch.zeros(1).expand(size) for n in range(400)})
        assert 50_000 < len(content) < 200_000
        before = peak()
        said = refused(client.post("files?format=pt", content=content), 422)
        assert "cannot be read" in said
        assert str(Path.home()) not in said
        assert peak() - before < 100
    assert client.get("health").status_code == 200
    kept_nothing(opened)


def deflated(content: bytes) -> bytes:
    """A .pt file whose members are compressed, which torch.load reads too."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for member in given.infolist():
            made.writestr(member.filename, given.read(member))
    return file.getvalue()


@pytest.mark.usefixtures("warm")
def test_compressed_pt_files_are_refused_unread(opened: Store, connect: Ask) -> None:
    content = deflated(saved({"w": torch.zeros(50_000_000, dtype=torch.uint8)}))
    assert len(content) < 100_000
    assert len(torch.load(io.BytesIO(content), weights_only=True)["w"]) == 50_000_000
    client = connect(opened, pt=True)
    assert "are compressed" in refused(client.post("files?format=pt", content=content), 422)
    kept_nothing(opened)
    forged = io.BytesIO()  # a directory of the archive that names one part many times
    with zipfile.ZipFile(forged, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(10_000))
        archive.filelist += archive.filelist * 299
    client = connect(opened, pt=True, upload=1 << 20)
    said = refused(client.post("files?format=pt", content=forged.getvalue()), 422)
    assert "its members have 3000000 bytes, expected at most 1048576" in said
    kept_nothing(opened)


def test_memory_limit_ends_the_conversion(opened: Store, connect: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    client, content = connect(opened, pt=True), saved({"w": torch.zeros(20_000_000)})
    monkeypatch.setattr(files, "_COPIES", 0)
    monkeypatch.setattr(files, "_ROOM", 64 << 20)
    said = refused(client.post("files?format=pt", content=content), 422)
    assert "cannot be read" in said
    assert "memory" in said
    kept_nothing(opened)
    monkeypatch.undo()
    assert client.post("files?format=pt", content=content).status_code == 201


def test_few_conversions_run_at_once(opened: Store, connect: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def convert(_store: Store, file: Path, _most: int) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.2)
        with lock:
            running -= 1
        return keep(opened, file.rename(file.with_suffix(".safetensors")), 0)

    keep = files.keep
    monkeypatch.setattr(files, "keep", convert)
    client = connect(opened, pt=True)
    answers: list[int] = []

    def send() -> None:
        answers.append(client.post("files?format=pt", content=save({"w": np.eye(2)})).status_code)

    threads = [threading.Thread(target=send) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (answers, most) == ([201] * 5, 2)


@pytest.mark.usefixtures("warm")
def test_pt_file_of_something_else_is_refused(opened: Store, connect: Ask) -> None:
    client = connect(opened, pt=True)
    assert "expected tensors by name" in refused(client.post("files?format=pt", content=saved({"w": 1})), 422)
    assert "cannot be read" in refused(client.post("files?format=pt", content=b"junk"), 422)
