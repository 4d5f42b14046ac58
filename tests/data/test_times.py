"""How text times are read: one notation for a whole column, never the day first in one row and the month in another."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from recgym.data import own, schema, stream
from recgym.data.interactions import Interactions
from recgym.data.own import LogFiles, load_files
from recgym.errors import DataError

PLAIN = {key: key for key in ("user", "item", "time")}


def read(values: list[object], time_format: str | None = None) -> list[str]:
    """The times to the second."""
    found = schema.times(pd.Series(values), column="t", file="f", time_format=time_format)
    return [str(time)[:19].removesuffix("T00:00:00") for time in found]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["01/02/2020", "13/02/2020", "03/02/2020"], ["2020-02-01", "2020-02-13", "2020-02-03"]),
        (["01/02/2020", "02/13/2020"], ["2020-01-02", "2020-02-13"]),
        (["13/02/2020", "01/02/2020"], ["2020-02-13", "2020-02-01"]),
        (["05.11.2021", "25.11.2021"], ["2021-11-05", "2021-11-25"]),
        (["01/01/2020", "02/02/2020"], ["2020-01-01", "2020-02-02"]),  # the same day both ways
        (["1/2/2020 8:26 PM", "1/13/2020 12:05 am"], ["2020-01-02T20:26:00", "2020-01-13T00:05:00"]),
        (["May 5, 2020", "Jan 6, 2020"], ["2020-05-05", "2020-01-06"]),
        (["May 5, 2020", "January 6, 2020"], ["2020-05-05", "2020-01-06"]),
        (["2020-01-02", "2020/1/3 10:00", "20200104"], ["2020-01-02", "2020-01-03T10:00:00", "2020-01-04"]),
        (["2020-01-02 10:00:00.5 UTC", "2020-01-02 11:00:00 UTC"], ["2020-01-02T10:00:00", "2020-01-02T11:00:00"]),
        (["2020/01/31 10:00 PM"], ["2020-01-31T22:00:00"]),
        (["01/02/2020 10:00+02:00", "13/02/2020 10:00+01:00"], ["2020-02-01T08:00:00", "2020-02-13T09:00:00"]),
    ],
)
def test_a_column_has_one_notation(values: list[object], expected: list[str]) -> None:
    assert read(values) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["02/02/2020", "01/02/2020"],
            r"row 2, column 't': the day and the month could be .* '%m/%d/%Y' or '%d/%m/%Y'",
        ),
        (["01/02/2020", "02/13/2020", "13/02/2020"], "row 3, .*: not a time written as '%m/%d/%Y', .*'13/02/2020'"),
        (["2020-01-02", "13/02/2020"], "row 2, column 't': not a time, got '13/02/2020'"),
        (["2020/13/01 10:00 PM"], "row 1, column 't': not a time, got"),  # no 13th month, nor the 13th of January
        (["12/1/10 8:26"], "row 1, .*: not a time in a notation that is known; .* by time_format"),
        (["12:30"], "row 1, .*: not a time in a notation that is known"),  # was 12:30 of today
        (["13/02/2020", None], "row 2, .*: a time must not be missing"),
    ],
)
def test_what_is_not_of_one_notation_is_refused(values: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(values)


def test_a_notation_can_be_told() -> None:
    assert read(["01/02/2020", "02/03/2020"], "%d/%m/%Y") == ["2020-02-01", "2020-03-02"]
    assert read(["12/1/10 8:26"], "%m/%d/%y %H:%M") == ["2010-12-01T08:26:00"]
    frame = pd.DataFrame({"user": ["a"], "item": ["b"], "time": ["01/02/2020"]})
    assert str(Interactions.from_frame(frame, time_format="%d/%m/%Y")["time"][0])[:10] == "2020-02-01"
    for values, told, message in (
        (["x"], "mixed", "time_format 'mixed': there is no %-code in it"),
        (["x"], "%Q", "time_format '%Q': 'Q' is a bad directive"),
        ([20200101], "%Y%m%d", "row 1, column 't': time_format '%Y%m%d' is for times that are text, got 20200101"),
    ):
        with pytest.raises(DataError, match=message):
            read(values, told)


def test_an_unclear_start_is_told_by_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_CHUNK", 2)
    assert read(["01/02/2020"] * 5 + ["31/01/2020"])[0] == "2020-02-01"
    with pytest.raises(DataError, match=r"row 1, column 't': the day and the month"):
        read(["01/02/2020"] * 5)


def test_no_more_of_a_column_is_read_than_tells_its_notation() -> None:
    parts = iter([pd.Series(["01/02/2020"]), pd.Series(["13/02/2020"]), pd.Series(["02/13/2020"])])
    assert schema.notation(parts, column="t", file="f") == "%d/%m/%Y"
    assert len(list(parts)) == 1


def test_every_part_of_a_stream_has_the_notation_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of users a to c each, a part alone would be: unclear, only day first, and unclear.
    rows = [("a", "01/02/2020"), ("a", "02/02/2020"), ("b", "13/02/2020"), ("c", "05/02/2020"), ("c", "06/02/2020")]
    frame = pd.DataFrame([(user, "i", time) for user, time in rows], columns=list(PLAIN))
    frame.to_csv(tmp_path / "log.csv", index=False)
    files = LogFiles(path=str(tmp_path / "log.csv"), mapping=PLAIN)
    whole = load_files(files, "log")
    assert [str(time)[5:10] for time in whole["time"]] == ["02-01", "02-02", "02-13", "02-05", "02-06"]
    monkeypatch.setattr(own, "STREAM_FROM", 0)
    monkeypatch.setattr(stream.stream, "__kwdefaults__", {**stream.stream.__kwdefaults__, "part": 1})
    assert load_files(files, "log").hash == whole.hash
    frame[frame["user"] != "b"].to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(DataError, match=r"log.csv, row 1, column 'time': the day and the month could be either way"):
        load_files(files, "log")
    told = load_files(files.model_copy(update={"time_format": "%d/%m/%Y"}), "log")
    assert [str(time)[5:10] for time in told["time"]] == ["02-01", "02-02", "02-05", "02-06"]


def test_a_told_notation_is_heard_where_the_column_looks_like_another(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\na,i,2020-01-02\na,i,2020-03-04\n")
    files = LogFiles(path=str(tmp_path / "log.csv"), mapping=PLAIN, time_format="%Y-%d-%m")
    assert [str(time)[:10] for time in load_files(files, "log")["time"]] == ["2020-02-01", "2020-04-03"]
    (tmp_path / "log.inter").write_text("user_id:token\titem_id:token\ttime:token\nu\ti\t01/02/2020\n")
    inter = LogFiles(path=str(tmp_path / "log.inter"), time_format="%d/%m/%Y")
    assert str(load_files(inter, "log")["time"][0])[:10] == "2020-02-01"
