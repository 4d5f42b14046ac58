"""Files that are damaged, encrypted or not UTF-8 are named, with the row; none is read as something else."""

from __future__ import annotations

import bz2
import gzip
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recgym.data.fetch import extract
from recgym.data.files import read_table, unpacked
from recgym.data.own import LogFiles, load_files
from recgym.errors import DataError

LATIN = b"item,title\ni0,Tea\ni1,Caf\xe9\n"


def zipped(path: Path) -> bytearray:
    """The bytes of a zip file of one table."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.csv", "a,b\n" + "1,2\n" * 5000)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize(
    ("fault", "message"), [("damaged", "decompressing"), ("encrypted", "is encrypted"), ("method", "not supported")]
)
def test_a_zip_file_that_cannot_be_unpacked_is_named(fault: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "log.zip"
    content = zipped(path)
    directory = content.find(b"PK\x01\x02")
    if fault == "damaged":
        content[40:60] = b"\xff" * 20
    elif fault == "encrypted":
        content[6] |= 1
        content[directory + 8] |= 1
    else:
        content[8] = content[directory + 10] = 99
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=f"log.zip: not a readable zip file.*{message}"), unpacked(path):
        pass
    with pytest.raises(DataError, match=f"log.zip: not a readable zip file.*{message}"):
        extract(path, {"x.csv": "x.csv"}, tmp_path / "out", checksums={"x.csv": "0" * 64})
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".zst"])
def test_the_row_that_is_not_utf8_is_named_in_compressed_files_too(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"items.csv{suffix}"
    if suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(LATIN)
    else:
        path.write_bytes({"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[suffix](LATIN))
    with pytest.raises(DataError, match=rf"items.csv{suffix}, row 2: not UTF-8 text"):
        read_table(path)


def test_a_header_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_bytes(b"item,pr\xe9nom\ni0,Tea\n")
    with pytest.raises(DataError, match=r"items.csv, the header: not UTF-8 text"):
        read_table(tmp_path / "items.csv")


def test_no_text_model_reads_bytes(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\nu,i0,2024-01-01\n")
    (tmp_path / "items.csv").write_bytes(LATIN)
    mapping = {key: key for key in ("user", "item", "time")}
    files = LogFiles(path=str(tmp_path / "log.csv"), mapping=mapping, items=str(tmp_path / "items.csv"))
    for text in ((), ("title",)):
        with pytest.raises(DataError, match=r"items.csv, row 2: not UTF-8 text"):
            load_files(files.model_copy(update={"text": text}), "shop")
    table = pa.table({"item": ["i0"], "title": pa.array([b"Tea"], pa.large_binary()), "picture": [b"\xff\xd8"]})
    pq.write_table(table, tmp_path / "items.parquet")
    files = files.model_copy(update={"items": str(tmp_path / "items.parquet")})
    with pytest.raises(DataError, match=r"items.parquet, column 'title': holds bytes, not text"):
        load_files(files, "shop")
    pq.write_table(table.set_column(1, "title", pa.array(["Tea"])), tmp_path / "items.parquet")
    assert load_files(files, "shop").items["title"].tolist() == ["Tea"]  # what no world reads may be anything
