"""Your own log: any table by a mapping, streamed or not, and what is wrong with it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recgym.data import own, stream
from recgym.data.own import LogFiles, file_knowledge, load_files, parse_mapping
from recgym.errors import DataError

MAPPING = {"user": "customer_id", "item": "sku", "time": "ts", "quantity": "qty", "price": "price"}


def table(rows: int = 3000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "customer_id": rng.integers(0, 90, rows),
            "sku": [f"{n:04d}" for n in rng.integers(0, 200, rows)],
            "ts": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, rows), unit="D"),
            "qty": rng.integers(1, 4, rows),
            "price": rng.integers(100, 9999, rows) / 100,
            "shop": "north",
        }
    )


WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "parquet": lambda frame, path: frame.to_parquet(path),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, date_format="iso"),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_log(suffix: str, tmp_path: Path) -> None:
    WRITERS["parquet"](table(), tmp_path / "whole.parquet")
    WRITERS[suffix](table(), tmp_path / f"events.{suffix}")
    expected = load_files(LogFiles(path=str(tmp_path / "whole.parquet"), mapping=MAPPING), "shop")
    log = load_files(LogFiles(path=str(tmp_path / f"events.{suffix}"), mapping=MAPPING), "shop")
    assert log.hash == expected.hash
    assert log["item"][0].startswith("0")  # 0007 is not 7
    assert [(note.reason, note.detail) for note in log.filters][0] == ("columns not mapped", "shop")


def test_a_stream_gives_exactly_what_reading_in_memory_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.concat([table(), table().iloc[:40]])  # with duplicate events
    frame.to_parquet(tmp_path / "events.parquet", row_group_size=500)
    files = LogFiles(path=str(tmp_path / "events.parquet"), mapping=MAPPING | {"basket": "shop"})
    whole = load_files(files, "shop")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(stream.tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(own, "STREAM_FROM", 0)
    monkeypatch.setattr(stream.stream, "__kwdefaults__", {**stream.stream.__kwdefaults__, "part": 250})
    parts = load_files(files, "shop")
    assert parts.hash == whole.hash
    assert parts.filters == whole.filters
    assert "duplicate events" in {note.reason for note in whole.filters}
    assert not list(scratch.iterdir())


def test_gaps_add_up_in_a_stream_as_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(user, f"i{user % 3}", visit, visit * 2.0 if visit else None) for visit in range(5) for user in range(20)]
    pd.DataFrame(rows, columns=["user", "item", "order", "gap_days"]).to_csv(tmp_path / "log.csv", index=False)
    files = LogFiles(
        path=str(tmp_path / "log.csv"), mapping={key: key for key in ("user", "item", "order", "gap_days")}
    )
    whole = load_files(files, "log")
    assert whole.days[whole["user"] == "3"].tolist() == [0, 2, 6, 12, 20]
    monkeypatch.setattr(own, "STREAM_FROM", 0)
    monkeypatch.setattr(stream.stream, "__kwdefaults__", {**stream.stream.__kwdefaults__, "part": 7})
    assert load_files(files, "log").hash == whole.hash
    assert whole.time_origin == "cumulated gap_days"


def test_some_of_the_users_are_the_same_ones_whatever_the_log_holds(tmp_path: Path) -> None:
    table().to_parquet(tmp_path / "a.parquet")
    table().iloc[::-1].to_parquet(tmp_path / "b.parquet")
    chosen = [
        load_files(LogFiles(path=str(tmp_path / name), mapping=MAPPING, max_users=9), "shop")
        for name in ("a.parquet", "b.parquet")
    ]
    assert chosen[0].num_users == 9
    assert list(chosen[0].users.index) == list(chosen[1].users.index)
    whole = load_files(LogFiles(path=str(tmp_path / "a.parquet"), mapping=MAPPING), "shop")
    left_out = {note.reason: note.count for note in chosen[0].filters}["other users than the 9 chosen"]
    assert len(chosen[0]) + left_out == len(whole)


def test_an_atomic_log_is_read_in_part_and_has_its_licence(tmp_path: Path) -> None:
    rows = "".join(f"u{n % 5}\ti{n % 4}\t{1600000000 + n}\n" for n in range(40))
    (tmp_path / "a.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + rows)
    (tmp_path / "a.user").write_text("user_id:token\n" + "".join(f"u{n}\n" for n in range(99)))  # most without events
    log = load_files(LogFiles(path=str(tmp_path / "a.inter"), max_users=2, licence="CC0", citation="Me"), "a")
    assert (log.summary()["users"], len(log)) == (2, 16)
    assert {note.reason: note.count for note in log.filters}["other users than the 2 chosen"] == 24
    assert (log.source.licence, log.source.citation) == ("CC0", "Me")


def test_items_get_their_text_from_the_named_columns(tmp_path: Path) -> None:
    table().to_parquet(tmp_path / "events.parquet")
    ids = sorted(set(table()["sku"]))
    pd.DataFrame({"sku": ids, "title": [f"T{i}" for i in ids], "description": ["long", None] * (len(ids) // 2)}).to_csv(
        tmp_path / "items.csv", index=False
    )
    files = LogFiles(
        path=str(tmp_path / "events.parquet"),
        mapping=MAPPING,
        items=str(tmp_path / "items.csv"),
        text=("title", "description"),
    )
    log = load_files(files, "shop")
    assert log.items["text"].tolist()[:2] == [f"T{ids[0]}. long", f"T{ids[1]}"]
    with pytest.raises(DataError, match=r"items.csv: no column 'titel'. Did you mean 'title'\?"):
        load_files(files.model_copy(update={"text": ("titel",)}), "shop")
    both = pd.read_csv(tmp_path / "items.csv", dtype=str)
    pd.concat([both, both.iloc[:1]]).to_csv(tmp_path / "items.csv", index=False)
    with pytest.raises(DataError, match=r"column 'sku': an id must appear once, got '0000'"):
        load_files(files, "shop")


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    table().to_parquet(tmp_path / "events.parquet")
    files = LogFiles(path=str(tmp_path / "events.parquet"), mapping=MAPPING).hashed()
    load_files(files, "shop")
    table(2999).to_parquet(tmp_path / "events.parquet")
    with pytest.raises(DataError, match="has changed since the log was read"):
        load_files(files, "shop")
    (tmp_path / "events.parquet").unlink()
    with pytest.raises(DataError, match="there is no file"):
        load_files(files, "shop")


def test_facts_lie_beside_a_log_of_atomic_files(tmp_path: Path) -> None:
    (tmp_path / "films.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\nu\ti1\t881250949\n")
    files = LogFiles(path=str(tmp_path / "films.inter")).hashed()
    with pytest.raises(DataError, match="films.kg and films.link beside the .inter file"):
        file_knowledge(files)
    (tmp_path / "films.kg").write_text("head_id:token\trelation_id:token\ttail_id:token\na\tgenre\tx\n")
    (tmp_path / "films.link").write_text("item_id:token\tentity_id:token\ni1\ta\n")
    assert file_knowledge(files).iloc[0].tolist() == ["i1", "genre", "x", None]
    assert {Path(path).name for path in files.hashed().sha256} == {"films.inter", "films.kg", "films.link"}


GOOD = "customer_id,sku,ts,qty,price\n1,a,2024-01-01,1,2.5\n2,b,2024-01-02,1,2.5\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", r"events.csv: the file is empty \(0 bytes\)"),
        (GOOD.split("\n")[0].encode() + b"\n", "events.csv: no data rows"),
        (GOOD.replace("qty", "quantity").encode(), r"no column 'qty' \(mapped to 'quantity'\)"),
        (GOOD.replace("customer_id", "customer").encode(), r"no column 'customer_id' .* Did you mean 'customer'\?"),
        (GOOD.replace("2,b", ",b").encode(), "row 2, column 'customer_id': an id must not be empty"),
        (GOOD.replace("02,1,2.5", "02,1,-2.5").encode(), "row 2, column 'price': price must be at least 0, got -2.5"),
        (GOOD.replace("01-02", "13-45").encode(), "row 2, column 'ts': not a time, got '2024-13-45'"),
        (GOOD.replace("2024-01-02", "2224-01-02").encode(), "row 2, column 'ts': a time must not lie in the future"),
        (GOOD.replace("02,1,", "02,many,").encode(), "row 2, column 'qty': quantity must be a number, got 'many'"),
        (GOOD.replace("2,b", "2,b,extra").encode(), "events.csv: cannot be read: CSV parse error: .*Expected 5 col"),
        (GOOD.encode() + "3,é,2024-01-01,1,1\n".encode("latin-1"), "events.csv, row 3: not UTF-8 text"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(text: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_bytes(text)
    with pytest.raises(DataError, match=expected):
        load_files(LogFiles(path=str(tmp_path / "events.csv"), mapping=MAPPING), "shop")


def test_ids_of_two_types_and_time_zones(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"user": 1, "item": "x", "time": 1}\n{"user": "b", "item": "x", "time": 1}\n')
    plain = {key: key for key in ("user", "item", "time")}
    with pytest.raises(DataError, match=r"a.jsonl: cannot be read: .*changed from number to string in row 1"):
        load_files(LogFiles(path=str(tmp_path / "a.jsonl"), mapping=plain), "a")
    (tmp_path / "b.csv").write_text("user,item,time\n1,x,2024-01-01T01:00:00+02:00\n1,y,2024-01-01T01:00:00+00:00\n")
    log = load_files(LogFiles(path=str(tmp_path / "b.csv"), mapping=plain), "b")
    assert [str(time)[:16] for time in log["time"]] == ["2023-12-31T23:00", "2024-01-01T01:00"]
    assert log.units["time"] == "UTC, from times with a zone"
    (tmp_path / "c.csv").write_text("user,item,time\n1,x,2024-01-01T01:00:00\n1,y,2024-01-01T01:00:00+02:00\n")
    with pytest.raises(DataError, match=r"c.csv, row 2, column 'time': times must all name their time zone, or none"):
        load_files(LogFiles(path=str(tmp_path / "c.csv"), mapping=plain), "c")


@pytest.mark.parametrize(("scale", "unit"), [(1, "s"), (1000, "ms"), (10**6, "us"), (10**9, "ns")])
def test_the_unit_of_numeric_times_is_found_by_their_size(scale: int, unit: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"user,item,time\n1,x,{1588687728 * scale}\n")
    log = load_files(LogFiles(path=str(tmp_path / "a.csv"), mapping={k: k for k in ("user", "item", "time")}), "a")
    assert str(log["time"][0])[:19] == "2020-05-05T14:08:48", unit


def test_zip_files_that_climb_out_or_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("events.csv", GOOD)
    files = LogFiles(path=str(path), mapping=MAPPING)
    assert len(load_files(files, "shop")) == 2
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a readable zip file, perhaps a download that was cut off"):
        load_files(files, "shop")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil.csv", GOOD)
    with pytest.raises(DataError, match=r"log.zip: the name '../evil.csv' in it leads out of its directory"):
        load_files(files, "shop")
    assert not (tmp_path.parent / "evil.csv").exists()


def test_a_parquet_file_cut_off_is_named(tmp_path: Path) -> None:
    table().to_parquet(tmp_path / "events.parquet")
    whole = (tmp_path / "events.parquet").read_bytes()
    (tmp_path / "events.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"events.parquet: cannot be read \(cut off\?\)"):
        load_files(LogFiles(path=str(tmp_path / "events.parquet"), mapping=MAPPING), "shop")


def test_a_mapping_names_its_fault() -> None:
    assert parse_mapping("user=a, item=b") == {"user": "a", "item": "b"}
    for text, expected in (
        ("user", "'user' must read KEY=COLUMN"),
        ("usr=a", "unknown key 'usr'. Did you mean 'user'?"),
        ("user=a,user=b", "key 'user' is given twice: 'a' and 'b'"),
    ):
        with pytest.raises(DataError, match=expected.replace("?", r"\?")):
            parse_mapping(text)
