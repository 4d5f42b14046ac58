"""The rating benchmark on tiny files: its last line, and what it says of bad ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Run = Callable[..., int]


@pytest.fixture
def run(benchmark_script: Callable[[str], ModuleType]) -> Run:
    def main(files: tuple[Path, Path], *more: str) -> int:
        options = ["--train", str(files[0]), "--test", str(files[1]), "--no-baselines", "--no-text", "--epochs", "2"]
        return benchmark_script("rating").main([*options, "--members", "1", *more])

    return main


def test_last_line_is_json(run: Run, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files) == 0
    out = capsys.readouterr().out
    assert "mean absolute calibration error of the expected rating" in out
    result = json.loads(out.splitlines()[-1])
    assert set(result) == {"preference"}
    assert 0.5 < result["preference"]["rmse"] < 3
    assert set(result["preference"]) == {"rmse", "mae"}


def test_unseen_users_and_items_are_predicted_and_counted(
    run: Run, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with files[1].open("a", encoding="utf-8") as file:
        file.write("777\t888\t3\t880000000\n")
    assert run(files) == 0
    out = capsys.readouterr().out
    assert "1 by users and 1 of items that training never saw" in out
    assert "RMSE on the 1 ratings whose user or item has no rating in the training file" in out


def test_test_pairs_are_left_out_of_training(
    run: Run, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    leaked = files[1].read_text(encoding="utf-8").splitlines()[0]
    with files[0].open("a", encoding="utf-8") as file:
        file.write(leaked + "\n")
    assert run(files) == 0
    assert "left out of training: 1 ratings whose user and item are in the test file too" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1\t2\t6\t880000000", "line 2: rating 6 is not 1, 2, 3, 4 or 5"),
        ("1\t2\t3", "line 2: expected user, item, rating and time"),
        ("1\ttwo\t3\t880000000", "line 2: all fields must be whole numbers"),
        ("1\t2\t3.5\t880000000", "line 2: all fields must be whole numbers"),
        ("1\t\xff\t3\t880000000", "line 2: all fields must be whole numbers"),
        ("1\t2\t3\t-5", "line 2: time -5 is not in seconds from 1970 to now"),
        ("1\t2\t3\t9999999999999", "line 2: time 9999999999999 is not in seconds from 1970 to now"),
        (f"1\t2\t3\t{10**22}", "line 2: time 1000"),
        (f"{10**22}\t2\t3\t880000000", "line 2: user and item must fit in 64 bits"),
    ],
)
def test_malformed_lines_are_named(
    run: Run, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    first = files[0].read_text(encoding="utf-8").splitlines()[0]
    files[0].write_bytes(f"{first}\n{line}\n".encode("latin-1"))
    assert run(files) == 1
    assert message in capsys.readouterr().err


def test_missing_and_empty_files(run: Run, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    files[1].write_text("\n", encoding="utf-8")
    assert run(files) == 1
    assert "holds no rating" in capsys.readouterr().err
    files[1].unlink()
    assert run(files) == 1
    assert "there is no file" in capsys.readouterr().err


def test_few_test_ratings(run: Run, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """One user who is asked about twice: no interval, no calibration, and figures all the same."""
    files[1].write_text("1\t61\t3\t880000000\n1\t61\t5\t880000000\n", encoding="utf-8")
    assert run(files) == 0
    out = capsys.readouterr().out
    assert "the test file asks again for pairs that it has already: 1 ratings; each of them counts" in out
    assert "too few users" in out
    assert "no calibration error, 2 test ratings do not fill 10 bins" in out
    assert "nan" not in out.lower()
    assert json.loads(out.splitlines()[-1])["preference"]["rmse"] > 0


@pytest.mark.parametrize(("option", "value"), [("--members", "-1"), ("--epochs", "0"), ("--seed", "-1")])
def test_numbers_out_of_range(
    run: Run, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(files, option, value)
    assert stopped.value.code == 2
    assert f"argument {option}: '{value}' is not a whole number from" in capsys.readouterr().err
