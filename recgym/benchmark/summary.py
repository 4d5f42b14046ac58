"""Medians, ranges and ratios of the measurements, as data: what the table, the plot and ``speed.json`` show."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from recgym.benchmark.plan import Contestant, Ratio, Suite
from recgym.benchmark.store import Measurement, Store


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some rounds."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """The spread of ``values``; None where there are none."""
        found = list(values)
        if not found:
            return None
        return cls(statistics.median(found), min(found), max(found), len(found))


@dataclass(frozen=True)
class Standing:
    """How a contestant did.

    Attributes:
        contestant: who.
        rate: user-steps per second; None where nothing was measured.
        cpu: CPU seconds per 1,000 user-steps, median.
        peak: largest resident size of the process, MiB, over all rounds.
        others: cores that other processes kept busy, the worst round; None where unknown.
        facts: of the last round.
        errors: why there are no results, each once.
    """

    contestant: Contestant
    rate: Spread | None
    cpu: float | None
    peak: float | None
    others: float | None
    facts: dict[str, Any]
    errors: tuple[str, ...]

    @property
    def met(self) -> bool | None:
        """Whether the median rate reaches what is aimed at; None without an aim or a result."""
        aim = self.contestant.at_least
        return None if aim is None or self.rate is None else self.rate.median >= aim


@dataclass(frozen=True)
class Comparison:
    """A ratio over the rounds in which both sides were measured."""

    ratio: Ratio
    spread: Spread | None
    by_round: dict[int, float]

    @property
    def met(self) -> bool | None:
        """Whether the median ratio is what is aimed at; None without an aim or a result."""
        least, most = self.ratio.at_least, self.ratio.at_most
        if self.spread is None or (least is None and most is None):
            return None
        return (least is None or self.spread.median >= least) and (most is None or self.spread.median <= most)


@dataclass(frozen=True)
class Result:
    """What came of a suite."""

    suite: Suite
    standings: tuple[Standing, ...]
    comparisons: tuple[Comparison, ...]


def summarise(plan: Sequence[Suite], store: Store) -> list[Result]:
    """The results of the suites of ``plan`` of which anything was measured."""
    out = []
    for suite in plan:
        found = [one for one in store.measurements.values() if one.suite == suite.id]
        if not found:
            continue
        standings = tuple(_standing(one, [m for m in found if m.name == one.name]) for one in suite.contestants)
        comparisons = tuple(_compare(ratio, found) for ratio in suite.ratios)
        out.append(Result(suite, standings, comparisons))
    return out


def _standing(contestant: Contestant, measurements: list[Measurement]) -> Standing:
    results = [one.result for one in sorted(measurements, key=lambda one: one.round) if one.result is not None]
    cpu = Spread.of(result["cpu"] for result in results)
    others = [result["others"] for result in results if result.get("others") is not None]
    return Standing(
        contestant=contestant,
        rate=Spread.of(result["rate"] for result in results),
        cpu=cpu.median if cpu else None,
        peak=max((result["peak"] for result in results), default=None),
        others=max(others, default=None),
        facts=results[-1].get("facts", {}) if results else {},
        errors=tuple(dict.fromkeys(one.error for one in measurements if one.error is not None)),
    )


def _compare(ratio: Ratio, measurements: list[Measurement]) -> Comparison:
    rates = {(one.name, one.round): one.result["rate"] for one in measurements if one.result is not None}
    by_round = {
        number: rates[ratio.over, number] / rates[ratio.under, number]
        for number in sorted({one.round for one in measurements})
        if (ratio.over, number) in rates and (ratio.under, number) in rates
    }
    return Comparison(ratio, Spread.of(by_round.values()), by_round)


def to_json(results: list[Result]) -> list[dict[str, Any]]:
    """The results as JSON values."""
    return [
        {
            "suite": result.suite.id,
            "title": result.suite.title,
            "notes": result.suite.notes,
            "contestants": [
                {
                    "name": one.contestant.name,
                    "settings": one.contestant.settings,
                    "rate": _values(one.rate),
                    "cpu_seconds_per_1000": one.cpu,
                    "peak_mib": one.peak,
                    "other_cores": one.others,
                    "facts": one.facts,
                    "errors": list(one.errors),
                    "aim": {"at_least": one.contestant.at_least},
                    "met": one.met,
                }
                for one in result.standings
            ],
            "ratios": [
                {
                    "name": one.ratio.name,
                    "spread": _values(one.spread),
                    "by_round": {str(number): value for number, value in one.by_round.items()},
                    "aim": {"at_least": one.ratio.at_least, "at_most": one.ratio.at_most},
                    "met": one.met,
                }
                for one in result.comparisons
            ],
        }
        for result in results
    ]


def _values(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else dict(vars(spread))
