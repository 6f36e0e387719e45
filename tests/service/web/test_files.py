"""The files of the page: small, made from their sources, served without a token, with nothing from elsewhere."""

import gzip
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from test_rooms import ROOT

from interbasis.service.api.app import create_app
from interbasis.service.client.in_process import InProcess
from interbasis.service.store.store import Store
from interbasis.service.web.files import FILES, POLICY, static_file

WEIGHT = 400_000  # bytes of the page, compressed


def test_every_file_of_the_folder_is_served_and_no_other() -> None:
    folder = ROOT / "service" / "web" / "static"
    assert sorted(FILES.values()) == sorted(path.name for path in folder.iterdir())


def test_bundle_and_types_are_those_of_the_sources() -> None:
    done = subprocess.run([sys.executable, "docs/web.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_is_light() -> None:
    assert sum(len(static_file(path).packed) for path in ("/", "/web/app.css", "/web/app.js", "/web/icon.svg")) < WEIGHT


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_documents_hold_no_script_and_load_from_here_only(name: str) -> None:
    text = (ROOT / "service" / "web" / "static" / name).read_text()
    assert not re.search(r"<style|\son\w+=|\sstyle=|javascript:|//", text)
    assert all(not script.strip() for script in re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL))
    linked = re.findall(r'(?:src|href)="([^#"]+)"', text)
    assert {urljoin("/", path) for path in linked} <= set(FILES)


def test_sources_never_make_html_of_text() -> None:
    for path in (ROOT / "service" / "web" / "source").glob("*.ts"):
        if path.name != "api.d.ts":
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", path.read_text()
            ), path


def test_licences_name_every_package_of_the_bundle() -> None:
    text = static_file("/web/licences.txt").body.decode()
    for name in ("sigma", "graphology", "uplot", "swagger-ui-dist"):
        assert re.search(rf"^{name} [\d.]+ \(", text, re.MULTILINE), name


def test_files_are_answered_compressed_and_once(sqlite_store: Store) -> None:
    sqlite_store.new_token("t")  # and are shown nevertheless
    with httpx.Client(transport=InProcess(create_app(sqlite_store)), base_url="http://127.0.0.1") as client:
        for path, name in FILES.items():
            plain = client.get(path, headers={"accept-encoding": "identity"})
            assert plain.content == Path(ROOT / "service" / "web" / "static" / name).read_bytes()
            assert plain.headers["content-security-policy"] == POLICY
            packed = client.get(path, headers={"accept-encoding": "gzip"})
            assert (packed.content, packed.headers["vary"]) == (plain.content, "accept-encoding")
            assert int(packed.headers["content-length"]) == len(static_file(path).packed) != len(plain.content)
            assert gzip.decompress(static_file(path).packed) == plain.content
            known = client.get(path, headers={"if-none-match": plain.headers["etag"]})
            assert (known.status_code, known.content) == (304, b"")
        assert client.get("/api/v1/models").status_code == 401
