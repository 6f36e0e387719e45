"""The report in a folder: the page over files, whole or not at all, in a real browser without a service."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from cases_checkpoints import save_inputs, save_mlp
from cases_page import HOSTILE, NARROW, Open, Service, sound, static
from playwright.sync_api import expect

from interbasis.service.api.app import create_app
from interbasis.service.cli import app as cli
from interbasis.service.client.client import Client
from interbasis.service.client.in_process import InProcess
from interbasis.service.records.errors import NotFoundError, StoreError
from interbasis.service.records.labels import NewLabel
from interbasis.service.records.partitions import PARTITION
from interbasis.service.store.store import Store
from interbasis.service.tasks import analyze as analyze_task
from interbasis.service.web import report
from interbasis.service.web.report import write_report


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code of a command, and what it said on standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["interbasis", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    return int(stopped.value.code or 0), capsys.readouterr().err


def test_a_report_is_written_whole_and_says_the_same_each_time(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("report", service.partition, "--store", service.store, "-o", str(tmp_path / "new" / "r"))
    code, said = run(capsys, *command)
    assert (code, "http.server" in said) == (0, True)
    first = files(tmp_path / "new" / "r")
    about = json.loads(first["data/index.json"])
    assert about["partition"] == service.partition
    assert {f"data/{name}" for name in about["answers"].values()} == {name for name in first if name[:5] == "data/"} - {
        "data/index.json"
    }
    with Client(service.url) as client:
        write_report(client.read, service.partition, tmp_path / "over-http")
        detail = client.read(f"partitions/{service.partition}")
    assert files(tmp_path / "over-http") == first
    assert json.loads(first[f"data/{about['answers'][f'api/v1/partitions/{service.partition}']}"]) == detail
    told = [content for name, content in first.items() if name[:5] == "data/"]
    assert not any(re.search(rb'"(/|~|[A-Z]:)[^"]', content) for content in told), "no paths of this machine"
    assert not any(b"secret" in content for content in told)
    assert any(b'["a.safetensors","b.safetensors"]' in content for content in told), "names of networks stay"
    assert any(b'"metrics":{"loss":0.5}' in content for content in told)
    assert b"swagger" not in b"".join(name.encode() for name in first)
    (tmp_path / "new" / "r" / "web" / "app.js").unlink()
    mine = {"CNAME": b"example.org", ".git/HEAD": b"ref: refs/heads/main"}
    for name, content in mine.items():
        (tmp_path / "new" / "r" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "new" / "r" / name).write_bytes(content)
    before = files(tmp_path / "new" / "r")
    code, said = run(capsys, *command)
    assert (code, "--force" in said) == (2, True)
    with monkeypatch.context() as patch:
        patch.setattr(
            report.shutil, "copyfile", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        code, said = run(capsys, *command, "--force")
    assert (code, "No space left" in said) == (2, True)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["r"], "nothing half-written is left"
    rename = report.os.rename

    def full(source: Path, target: Path) -> None:
        if (source.parent.name, source.name) == ("new", "data"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(report.os, "rename", full)
        assert run(capsys, *command, "--force")[0] == 2
        assert run(capsys, *command[:-1], str(tmp_path / "new" / "other"))[0] == 2
    assert files(tmp_path / "new" / "r") == before, "the old one is there again"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["r"]
    assert run(capsys, *command, "--force")[0] == 0
    assert files(tmp_path / "new" / "r") == first | mine, "what else is there stays"


def test_what_is_no_report_is_not_replaced(service: Service, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (tmp_path / "site" / "data").mkdir(parents=True)
    (tmp_path / "site" / "data" / "index.json").write_text('{"posts": []}')
    (tmp_path / "empty").mkdir()
    with Store.open(service.store) as store:
        store_app = create_app(store, guarded=False)
        with Client("http://127.0.0.1", transport=InProcess(store_app)) as client:
            for name in ("mine", "site"):
                with pytest.raises(StoreError, match="is no report"):
                    write_report(client.read, service.partition, tmp_path / name, force=True)
            with pytest.raises(NotFoundError):
                write_report(client.read, "p-00000000", tmp_path / "none")
            write_report(client.read, service.partition, tmp_path / "empty")
    assert (tmp_path / "empty" / "index.html").is_file()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["org/name", "a?b=c&d", "50%25#x", ".."])
def test_names_of_models_are_quoted(sqlite_store: Store, tmp_path: Path, name: str) -> None:
    data = save_inputs(tmp_path / "x.npz", 8)
    path = save_mlp(tmp_path / "a.safetensors", step=1, model=name, blocks=2)
    made = analyze_task.analyze(sqlite_store, path, {"output": "neuron"}, data=data).partition
    sqlite_store.put_labels(
        PARTITION, made.id, [NewLabel(text=f"t{i}", author="a", cut=made.cuts[1], node=i) for i in range(3)]
    )
    with Client("http://127.0.0.1", transport=InProcess(create_app(sqlite_store, guarded=False))) as client:

        def read(path: str, **query: Any) -> Any:
            return client.read(path, **(query | {"limit": 2} if path.endswith("labels") else query))

        write_report(read, f"{name}@1", tmp_path / "r")
    places = json.loads((tmp_path / "r" / "data" / "index.json").read_text())["answers"]
    model = json.loads((tmp_path / "r" / "data" / places[f"api/v1/models/{name.replace('/', '%2F')}"]).read_text())
    labels = json.loads(
        (tmp_path / "r" / "data" / places[f"api/v1/partitions/{made.id}/labels?limit=1000"]).read_text()
    )
    assert model["name"] == name
    assert ([row["text"] for row in labels["items"]], labels["next_cursor"]) == (["t0", "t1", "t2"], None)


def test_a_report_opens_from_a_plain_web_server(service: Service, tmp_path: Path, visit: Open) -> None:
    with Client(service.url) as client:
        write_report(client.read, service.partition, tmp_path / "r")
    with static(tmp_path / "r") as url:
        page = visit(url)
        expect(page).to_have_url(f"{url}/#/graph/{service.partition}")
        page.get_by_role("link", name=f"module 0: {HOSTILE}0").click()
        page.locator(".panel .list a").first.click()
        expect(page.get_by_role("heading", name=re.compile("Strongest of"))).to_be_visible()
        page.get_by_role("link", name="Its card and labels").click()
        expect(page.get_by_role("heading", name="Largest values")).to_be_visible()
        page.get_by_role("link", name="All modules").click()
        expect(page.get_by_role("region", name="Cost between modules")).to_be_visible()
        page.get_by_role("rowheader").get_by_role("link", name=re.compile("module 1")).click()
        expect(page.get_by_role("heading", name="Its most important nodes")).to_be_visible()
        expect(page.get_by_role("button", name="Give a label")).to_have_count(0)
        page.get_by_role("link", name="Training", exact=True).click()
        expect(page.get_by_role("img", name=re.compile("^Modules over training"))).to_be_visible()
        sound(page)
        page.get_by_role("link", name="Evidence", exact=True).click()
        expect(page.get_by_role("heading", name=re.compile("^Evidence of"))).to_be_visible()
        expect(page.get_by_role("heading", name="Experiments on the network")).to_be_visible()
        expect(page.get_by_role("heading", name="Downloads")).to_have_count(0)
        sound(page)
        page.get_by_role("link", name="All checkpoints", exact=True).click()
        expect(page.get_by_role("heading", name="Models")).to_be_visible()
        page.set_viewport_size(NARROW)
        sound(page)
        for name in ("Jobs", "API"):
            expect(page.get_by_role("link", name=name, exact=True)).to_have_count(0)
        expect(page.get_by_role("searchbox")).to_have_count(0)
        page.goto(f"{url}/#/graph/p-00000000")
        expect(page.get_by_role("alert")).to_contain_text("not in the report")
