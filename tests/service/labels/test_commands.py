"""Labels from a command: one line comes back, or an error that names the node."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from interbasis.service.labels.commands import answer, words_of
from interbasis.service.records.errors import StoreError


def test_the_document_is_sent_and_the_line_comes_back_as_it_is(tmp_path: Path) -> None:
    code = "import json, sys; d = json.loads(sys.stdin.buffer.read()); sys.stdout.buffer.write(d['text'].encode())"
    for text in (" \u05e9\u05dc\u05d5\u05dd ", "<script>", "$(touch x); `id` | cat"):
        assert answer([sys.executable, "-c", code], {"text": text}, "a/1", timeout=60) == text
    assert answer(["cat"], {"b": ["\u00e9", 1, None]}, "a/1", timeout=60) == json.dumps({"b": ["\u00e9", 1, None]})
    assert answer(["printf", "a\\r\\n"], {}, "a/1", timeout=60) == "a"


def test_no_shell_is_in_between(tmp_path: Path) -> None:
    words = words_of(f"echo $HOME ; touch {tmp_path / 'x'} '*'")
    assert answer(words, {}, "a/1", timeout=60) == f"$HOME ; touch {tmp_path / 'x'} *"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "match"),
    [
        ("true", "layers.0/1: the command printed nothing"),
        ("printf '\\n'", "layers.0/1: the command printed nothing"),
        ("printf 'a\\nb\\n'", "layers.0/1: the command printed 2 lines: expected one"),
        ("printf '\\377'", "layers.0/1: the command printed no text in UTF-8"),
        ("sh -c 'echo a; echo first >&2; echo no model >&2; exit 3'", "layers.0/1: the command ended with 3: no model"),
        ("sh -c 'kill -9 $$'", "layers.0/1: the command ended with -9"),
        ("no-such-program-here", "layers.0/1: cannot run 'no-such-program-here': No such file"),
        ("sleep 60", r"layers.0/1: the command took more than 0.1 s \(--timeout\)"),
    ],
)
def test_what_a_command_may_not_do(command: str, match: str) -> None:
    with pytest.raises(StoreError, match=match):
        answer(words_of(command), {}, "layers.0/1", timeout=0.1 if "sleep" in command else 60)


def test_a_command_that_reads_nothing(tmp_path: Path) -> None:
    assert answer(["echo", "same"], {"long": "x" * 1_000_000}, "a/1", timeout=60) == "same"


def test_all_that_a_command_has_started_is_stopped_with_it(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    with pytest.raises(StoreError, match="took more than"):
        answer(["sh", "-c", f"sleep 60 & echo $! > {noted}; wait"], {}, "a/1", timeout=1)
    pid = int(noted.read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            return
        time.sleep(0.05)
    os.kill(pid, 9)
    raise AssertionError("it still runs")


@pytest.mark.parametrize(("command", "match"), [("", "is empty"), ("  ", "is empty"), ("echo 'a", "cannot be read")])
def test_what_is_no_command(command: str, match: str) -> None:
    with pytest.raises(StoreError, match=match):
        words_of(command)
