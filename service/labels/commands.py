"""Labels from the user's own command: one JSON document on standard input, one line of text back.

The command runs on the machine of the user, as the user; nothing leaves that machine unless the command sends it. The
service never runs one.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..records.errors import StoreError

__all__ = ["answer", "source_of", "words_of"]


def words_of(command: str) -> list[str]:
    """Split a command into words, as a shell does; no shell runs it.

    >>> words_of("python label.py --style 'few words'")
    ['python', 'label.py', '--style', 'few words']

    Raises:
        StoreError: it is empty, or a quotation mark is not closed.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise StoreError(f"the command {command!r} cannot be read: {error}") from None
    if not words:
        raise StoreError("the command is empty: expected a program and its arguments, as in --with 'python label.py'")
    return words


def source_of(words: Sequence[str]) -> str:
    """Return the source of labels that a command gives: the name of its program.

    >>> source_of(["/opt/bin/describe", "--short"])
    'command:describe'
    """
    return f"command:{Path(words[0]).name[:100]}"


def answer(words: Sequence[str], document: Mapping[str, Any], place: str, *, timeout: float) -> str:
    """Ask a command with one document; return the line that it prints, without the newline at its end.

    Args:
        words: the program and its arguments.
        document: JSON object for its standard input.
        place: the node or module that it is about, for messages.
        timeout: seconds until it is stopped, with all that it has started.

    Raises:
        StoreError: it cannot be run, takes too long, fails, or prints no text, several lines, or none in UTF-8.
    """
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise StoreError(f"{place}: cannot run {words[0]!r}: {getattr(error, 'strerror', None) or error}") from None
    with process:
        try:
            out, said = process.communicate(json.dumps(document).encode() + b"\n", timeout=timeout)
        except subprocess.TimeoutExpired:
            raise StoreError(f"{place}: the command took more than {timeout:g} s (--timeout)") from None
        finally:  # also where this program is interrupted
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        why = said.decode(errors="replace").strip().splitlines()[-1:]
        raise StoreError(f"{place}: the command ended with {process.returncode}{': ' + why[0][:300] if why else ''}")
    return _line(out, place)


def _line(out: bytes, place: str) -> str:
    """Return the one line of an answer."""
    try:
        text = out.decode()
    except UnicodeDecodeError as error:
        raise StoreError(f"{place}: the command printed no text in UTF-8 ({error})") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise StoreError(f"{place}: the command printed nothing: expected one line of text")
    if "\n" in text:
        raise StoreError(f"{place}: the command printed {text.count(chr(10)) + 1} lines: expected one")
    return text
