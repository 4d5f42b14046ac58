"""RecBole atomic files: typed headers, and errors that name file, row, column and value."""

from __future__ import annotations

from pathlib import Path

import pytest

from recgym.data.sources.recbole import load, read_atomic, read_knowledge
from recgym.errors import DataError

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu2\ti1\t3\t881250949\nu1\ti2\t4.5\t891717742\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\tyear:token\tvector:float_seq\n"
    "i1\tToy Story\t1995\t0.5 1\ni2\tGoldenEye\t\t\n"
)
USER = "user_id:token\tage:float\nu1\t24\nu2\t\n"


def write(directory: Path, **files: str) -> Path:
    for suffix, text in files.items():
        (directory / f"films.{suffix}").write_text(text, encoding="utf-8", newline="")
    return directory


def test_a_log_with_item_and_user_files(tmp_path: Path) -> None:
    log = load(write(tmp_path, inter=INTER, item=ITEM, user=USER))
    assert log.name == "films"
    assert log["user"].tolist() == ["u1", "u2"]
    assert log["rating"].tolist() == [4.5, 3.0]
    assert str(log["time"][1]) == "1997-12-04T15:55:49.000000000"
    assert log.items.loc["i1", "title"] == "Toy Story"
    assert log.items.loc["i1", "text"] == "Toy Story"
    assert log.items.loc["i1", "vector"] == (0.5, 1.0)
    assert log.users["age"].isna().tolist() == [False, True]
    assert set(log.source.files) == {"films.inter", "films.item", "films.user"}
    assert load(tmp_path / "films.inter").hash == load(tmp_path / "films").hash == log.hash


def test_line_ends_and_byte_order_mark_make_no_difference(tmp_path: Path) -> None:
    log = load(write(tmp_path, inter=INTER, item=ITEM, user=USER))
    again = load(write(tmp_path, inter="\ufeff" + INTER.replace("\n", "\r\n"), item=ITEM.rstrip("\n"), user=USER))
    assert again.hash == log.hash


def test_other_fields_need_a_mapping_and_extra_ones_are_recorded(tmp_path: Path) -> None:
    text = "who:token\twhat:token\twhen:float\tshop:token\na\t1\t1\ts\nb\t2\t2\ts\n"
    write(tmp_path, inter=text)
    with pytest.raises(DataError, match="no column for 'user'"):
        load(tmp_path)
    log = load(tmp_path, {"user": "who", "item": "what", "time": "when"}, time_unit="D")
    assert [(f.reason, f.count, f.detail) for f in log.filters] == [
        ("no .item file", 0, "items have no attributes"),
        ("no .user file", 0, "users have no attributes"),
        ("columns not mapped", 1, "shop"),
    ]


@pytest.mark.parametrize(
    ("suffix", "text", "expected"),
    [
        ("inter", INTER.replace("4.5", "good"), "films.inter, row 2, column 'rating': must be a number, got 'good'"),
        ("inter", INTER.replace("881250949", ""), "films.inter, row 1, column 'timestamp': a time must not be missing"),
        ("inter", INTER.replace("881250949", "1e30"), "films.inter, row 1, column 'timestamp': not a time before"),
        ("inter", INTER.replace("u1\t", "\t"), "films.inter, row 2, column 'user_id': an id must not be missing"),
        ("inter", INTER.replace("\t4.5", ""), "films.inter, row 2, column 'timestamp': expected 4 fields, got 3"),
        ("inter", INTER.replace("4.5", "4.5\t5"), "films.inter, row 2, column 'timestamp': expected 4 fields, got 5"),
        ("inter", INTER.replace("\nu1", "\n\nu1"), "films.inter, row 2, column 'item_id': expected 4 fields, got 1"),
        ("inter", INTER.replace("rating:float", "rating"), "films.inter, header: field 'rating' has no type"),
        ("inter", INTER.replace("rating:float", "rating:flot"), "unknown type 'flot'. Did you mean 'float'?"),
        ("inter", INTER.replace("rating:float", "item_id:float"), "films.inter, header: field 'item_id' appears twice"),
        ("inter", INTER.split("\n")[0] + "\n", "films.inter: no data rows"),
        ("item", ITEM.replace("i2", "i1"), "films.item, row 2, column 'item_id': an id must appear once, got 'i1'"),
        ("item", ITEM.replace("0.5 1", "0.5 x"), "films.item, row 1, column 'vector': float_seq must hold numbers"),
        ("item", ITEM.replace("item_id:", "itemid:"), "no field 'item_id' for the item id. Did you mean 'itemid'?"),
        ("user", USER.replace("24", "old"), "films.user, row 1, column 'age': must be a number, got 'old'"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, suffix: str, text: str, expected: str) -> None:
    write(tmp_path, **({"inter": INTER, "item": ITEM, "user": USER} | {suffix: text}))
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert expected in str(caught.value)


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "films.inter").write_bytes(INTER.encode() + "é\ti1\t3\t5\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"films.inter, row 3: not UTF-8, got byte b'\\xe9'"):
        read_atomic(tmp_path / "films.inter")


def test_knowledge_is_read_from_the_side_of_the_items(tmp_path: Path) -> None:
    facts = ["a\tgenre\tx", "x\tfilms\ta", "y\twrote\tb", "a\tsequel\tb", "x\tpart_of\ty", "a\tgenre\tx"]
    kg = "head_id:token\trelation_id:token\ttail_id:token\n" + "\n".join(facts) + "\n"
    write(tmp_path, kg=kg, link="item_id:token\tentity_id:token\ni1\ta\ni2\tb\n")
    found = read_knowledge(tmp_path / "films.kg", tmp_path / "films.link")
    # Each fact once, the counterpart of one not again, and nothing that ties no item.
    assert {tuple(row) for row in found.itertuples(index=False)} == {
        ("i1", "genre", "x", None),
        ("i1", "sequel", "b", "i2"),
        ("i2", "inverse wrote", "y", None),
        ("i2", "inverse sequel", "a", "i1"),
    }
    with pytest.raises(DataError, match="no field 'entity_id'"):
        read_knowledge(tmp_path / "films.kg", write(tmp_path, bad=INTER) / "films.bad")


def test_the_inter_file_must_be_there_and_single(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exactly one .inter file, found: none"):
        load(tmp_path)
    with pytest.raises(DataError, match="there is no file"):
        load(tmp_path / "films")
    write(tmp_path, inter=INTER)
    (tmp_path / "other.inter").write_text(INTER)
    with pytest.raises(DataError, match="found: films.inter, other.inter"):
        load(tmp_path)
