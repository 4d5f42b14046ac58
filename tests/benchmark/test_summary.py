"""Medians and ratios with known answers, and what is shown of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from recgym.benchmark.plan import Contestant, Ratio, Suite
from recgym.benchmark.report import plot, show
from recgym.benchmark.store import Measurement, Store
from recgym.benchmark.summary import Result, summarise, to_json

SUITE = Suite(
    "one",
    "A suite",
    (Contestant("a", "a.py", {}, at_least=100.0), Contestant("b", "b.py", {}), Contestant("c", "c.py", {})),
    (
        Ratio("a / b", "a", "b", at_least=3.0),
        Ratio("b / a", "b", "a", at_most=0.2),
        Ratio("a / c", "a", "c", at_least=1.0),
    ),
    notes={"b": "a note"},
)


def results() -> list[Result]:
    store = Store(None, {})
    for number, (a, b) in enumerate([(100.0, 50.0), (90.0, 30.0), (160.0, 20.0)]):
        for name, rate in (("a", a), ("b", b)):
            result = {"rate": rate, "cpu": 1.0 + number, "peak": 10.0 * (number + 1), "others": 0.1 * number}
            store.add(Measurement("one", name, number, {**result, "facts": {}}))
        store.add(Measurement("one", "c", number, error="it would not start"))
    return summarise([SUITE, Suite("two", "Nothing was measured", ())], store)


def test_ratios_are_taken_by_round() -> None:
    (result,) = results()
    over = result.comparisons[0]
    assert over.by_round == {0: 2.0, 1: 3.0, 2: 8.0}
    assert over.spread is not None  # the ratio of the medians would be 100 / 30
    assert (over.spread.median, over.spread.low, over.spread.high, over.spread.rounds) == (3.0, 2.0, 8.0, 3)
    assert [one.met for one in result.comparisons] == [True, False, None]


def test_a_round_with_one_side_missing_gives_no_ratio() -> None:
    store = Store(None, {})
    store.add(Measurement("one", "a", 0, {"rate": 8.0, "cpu": 1.0, "peak": 1.0, "others": None}))
    store.add(Measurement("one", "a", 1, {"rate": 6.0, "cpu": 1.0, "peak": 1.0, "others": None}))
    store.add(Measurement("one", "b", 1, {"rate": 2.0, "cpu": 1.0, "peak": 1.0, "others": None}))
    (result,) = summarise([SUITE], store)
    assert result.comparisons[0].by_round == {1: 3.0}


def test_medians_ranges_and_costs() -> None:
    (result,) = results()
    a, b, c = result.standings
    assert a.rate is not None and (a.rate.median, a.rate.low, a.rate.high) == (100.0, 90.0, 160.0)
    assert (a.cpu, a.peak, a.others) == (2.0, 30.0, 0.2)
    assert (a.met, b.met) == (True, None)
    assert c.rate is None and c.errors == ("it would not start",)


def test_everything_is_told(tmp_path: Path) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    show(results(), console)
    text = console.export_text()
    for said in ("c was not measured: it would not start", "a note", "at least 3, met", "at most 0.2, missed"):
        assert said in text
    assert "aim: at least 100, met" in text
    assert "up to 0.2 cores busy during measurements of a; b" in text
    assert plot(results(), tmp_path).stat().st_size > 5000
    told = json.loads(json.dumps(to_json(results())))[0]
    assert told["ratios"][0]["by_round"] == {"0": 2.0, "1": 3.0, "2": 8.0}
    assert told["contestants"][2]["errors"] == ["it would not start"]
    assert told["contestants"][2]["rate"] is None


def test_no_digit_is_lost_of_small_values() -> None:
    from recgym.benchmark.report import _digits

    assert [f"{value:,.{_digits(value, 0)}f}" for value in (12345.6, 19.2, 0.04321)] == ["12,346", "19.2", "0.0432"]
    assert _digits(0.0, 2) == 2
