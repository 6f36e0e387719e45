"""Artifacts: files named by the SHA-256 of their content, in a local folder or any place that fsspec reaches."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from ..records.errors import ArtifactError, ReadOnlyError, StoreError

__all__ = ["Blobs"]

_NAME = re.compile(r"[0-9a-f]{64}")

_PARTIAL = re.compile(r"\.[0-9a-f]+-[0-9a-f]+\.tmp")

_REPAIR = "restore the file from a backup, or compute the result again with --force"


class Blobs:
    """Files below one root, each named by the SHA-256 of its content.

    A file gets its name only when complete, and survives a crash once `put` has returned: temporary
    file, fsync, rename, fsync of the folder. On object stores the upload itself is atomic.

    >>> blobs = Blobs("memory://doctest")
    >>> blobs.get(blobs.put(b"abc"))
    b'abc'
    """

    def __init__(self, url: str) -> None:
        """Set the root; nothing is read or written before the first call.

        Args:
            url: path of a folder, or fsspec URL.

        Raises:
            StoreError: unknown kind of storage, or its driver is not installed.
        """
        self.url = url
        try:
            self._fs, self._root = fsspec.core.url_to_fs(os.path.expanduser(url))
        except (ImportError, ValueError) as error:
            raise StoreError(f"artifacts cannot be kept at {url}: {error}") from error
        self._local = "file" in _protocols(self._fs)

    @staticmethod
    def key(sha256: str) -> str:
        """Return the path of an artifact relative to the root.

        Raises:
            ArtifactError: this is not a SHA-256 in hexadecimal.

        >>> Blobs.key("ab" * 32)[:8]
        'ab/ababa'
        """
        if not _NAME.fullmatch(sha256):
            raise ArtifactError(
                f"{sha256!r} is not the SHA-256 of an artifact: expected 64 lower-case hexadecimal digits"
            )
        return f"{sha256[:2]}/{sha256}"

    def put(self, data: bytes) -> str:
        """Store bytes and return their SHA-256; storing the same bytes again repairs a damaged file.

        Raises:
            ReadOnlyError: the root may not be written.
            ArtifactError: the disk is full, or the storage failed.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        with self._translated("write"):
            if self._local:
                _write_whole(Path(self._address(sha256)), data)
            else:
                self._fs.pipe_file(self._address(sha256), data)
        return sha256

    def put_file(self, file: Path) -> str:
        """Store a file, read in pieces, and return its SHA-256; see `put`.

        Raises:
            ArtifactError: as there, or the file changes while it is read.
        """
        with self._translated("write"):
            with file.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            if self._local:
                _write_whole(Path(self._address(sha256)), file, sha256)
            else:
                with tempfile.TemporaryDirectory(prefix="interbasis-") as folder:
                    copy = Path(folder) / "file"
                    with copy.open("wb") as stream:
                        _copy(file, stream, sha256)
                    self._fs.put_file(str(copy), self._address(sha256))
        return sha256

    def get(self, sha256: str) -> bytes:
        """Return the bytes with this SHA-256.

        Raises:
            ArtifactError: the file is missing, cannot be read, or its content has changed.
        """
        address = self._address(sha256)
        with self._translated("read"):
            try:
                data = bytes(self._fs.cat_file(address))
            except FileNotFoundError as error:
                raise ArtifactError(
                    f"the artifact {address} is missing: check that INTERBASIS_ARTIFACTS or --artifacts names the "
                    f"right place, {_REPAIR}"
                ) from error
        _require(sha256, hashlib.sha256(data).hexdigest(), address)
        return data

    def path(self, sha256: str) -> Path | None:
        """Return the path of a file for memory mapping, its hash not verified; None where it is not local."""
        return Path(self._address(sha256)) if self._local else None

    def verified_path(self, sha256: str) -> Path | None:
        """Verify a file's hash and return its path; None where it is not local, or does not exist.

        Raises:
            ArtifactError: its content has changed, or it cannot be read.
        """
        path = self.path(sha256)
        if path is None or not path.is_file():
            return None
        with self._translated("read"), path.open("rb") as stream:
            _require(sha256, hashlib.file_digest(stream, "sha256").hexdigest(), str(path))
        return path

    def exists(self, sha256: str) -> bool:
        """Return whether a file with this SHA-256 exists."""
        with self._translated("look into"):
            return bool(self._fs.isfile(self._address(sha256)))

    def list(self) -> Iterator[str]:
        """Yield the SHA-256 of every artifact, in order."""
        return (name for name in self._files() if _NAME.fullmatch(name))

    def partial(self) -> Iterator[str]:
        """Yield the names of files that a killed process left unfinished; no row refers to them."""
        return (name for name in self._files() if _PARTIAL.fullmatch(name))

    def remove(self, unwanted: Callable[[str, float], bool]) -> Iterator[tuple[str, int]]:
        """Remove files, unfinished ones too, for which `unwanted(name, age in seconds)` is true.

        Yields the name and size of each.
        """
        for name, address in list(self._addresses()):
            if not (_NAME.fullmatch(name) or _PARTIAL.fullmatch(name)):
                continue  # not ours
            with self._translated("remove"):
                written = self._fs.modified(address)
                age = datetime.now(UTC) - (written if written.tzinfo else written.replace(tzinfo=UTC))
                if unwanted(name, age.total_seconds()):
                    size = int(self._fs.size(address) or 0)
                    self._fs.rm_file(address)
                    yield name, size

    def _files(self) -> Iterator[str]:
        return (name for name, _ in self._addresses())

    def _addresses(self) -> Iterator[tuple[str, str]]:
        """Yield name and address of every file, by name."""
        with self._translated("list"):
            self._fs.invalidate_cache()
            found = self._fs.find(self._root) if self._fs.exists(self._root) else []
        yield from sorted((str(file).rpartition("/")[2], str(file)) for file in found)

    def _address(self, sha256: str) -> str:
        return f"{str(self._root).rstrip('/')}/{self.key(sha256)}"

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        """Turn errors of the file system into errors of the store."""
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            why = error.strerror or str(error)
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) or isinstance(error, PermissionError):
                raise ReadOnlyError(f"cannot {verb} artifacts in {self.url} ({why}): check its permissions") from error
            raise ArtifactError(f"cannot {verb} artifacts in {self.url} ({why}): nothing was changed") from error
        except Exception as error:  # drivers of object stores raise what they like
            if self._local:
                raise
            raise ArtifactError(f"cannot {verb} artifacts in {self.url}: {error}") from error


def _require(sha256: str, found: str, address: str) -> None:
    if found != sha256:
        raise ArtifactError(f"the artifact {address} is damaged, its content has SHA-256 {found}: {_REPAIR}")


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _copy(file: Path, target: BinaryIO, sha256: str) -> None:
    """Copy a file; refuse it if its hash is no longer the one given."""
    digest = hashlib.sha256()
    with file.open("rb") as source:
        while part := source.read(1 << 20):
            digest.update(part)
            target.write(part)
    if digest.hexdigest() != sha256:
        raise ArtifactError(f"{file} changed while it was read: store it again")


def _write_whole(target: Path, data: bytes | Path, sha256: str = "") -> None:
    """Write bytes, or copy a file with this hash, so that only a complete file, flushed to disk, gets the name."""
    _make_folder(target.parent)
    temporary = target.with_name(f".{target.name[:8]}-{secrets.token_hex(8)}.tmp")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as stream:
            if isinstance(data, bytes):
                stream.write(data)
            else:
                _copy(data, stream, sha256)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, and flush each to disk before the next."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk; Windows has no such operation."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
