"""The scenario's sections on what a run aims for: a weighted sum of named terms, and constraints on terms."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from recgym.scenario.base import Misfit, Section

Term = Literal[
    "purchase",
    "revenue",
    "liked",
    "rating",
    "click",
    "return_visit",
    "diversity",
    "novelty",
    "coverage",
    "unfairness",
    "harm",
]
COSTS: tuple[Term, ...] = ("unfairness", "harm")  # the less the better
_AT_MOST_ONE: tuple[Term, ...] = ("return_visit", "novelty", "coverage", "unfairness")


class Objective(Section):
    """The reward: a weighted sum of terms, each computed from a slate and the response to it."""

    terms: dict[Term, float] = Field(
        min_length=1,
        description="Weights; purchase: distinct items bought; revenue: what was paid for them; liked: watches rated 4 "
        "or more; rating: the sum of ratings; click: items wanted, where purchases may be delayed; return_visit: 1 "
        "where a trip ends and the user comes back within the horizon; diversity: mean distance of the texts of two "
        "items; novelty: mean self-information; coverage: share shown for the first time on the trip; unfairness: "
        "distance of providers' exposure from their share of the catalogue; harm: harmful items shown.",
    )

    @model_validator(mode="after")
    def _signs(self) -> Self:
        for name, weight in self.terms.items():
            if weight > 0 if name in COSTS else weight < 0:
                wanted, why = ("at most", "less") if name in COSTS else ("at least", "more")
                message = f"a weight must be {wanted} 0, for {why} of it is better, got {weight}"
                raise Misfit(("terms", name), message)
        return self


class Constraint(Section):
    """Bounds on a term of every slate; how far it lies outside is a cost in ``info``."""

    term: Term = Field(description="What is bounded.")
    at_least: float | None = Field(None, description="Lower bound; null: none.")
    at_most: float | None = Field(None, description="Upper bound; null: none.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        low, high = self.at_least, self.at_most
        if low is None and high is None:
            raise ValueError(f"a constraint on {self.term} needs at_least or at_most")
        if low is not None and high is not None and low > high:
            raise ValueError(f"contradiction: {self.term} cannot be at least {low} and at most {high}")
        largest = 1.0 if self.term in _AT_MOST_ONE else 2.0 if self.term == "diversity" else None
        if (high is not None and high < 0) or (low is not None and largest is not None and low > largest):
            limits = "0 or more" if largest is None else f"in 0..{largest:g}"
            raise ValueError(f"contradiction: {self.term} is always {limits}, never {_bounds(low, high)}")
        return self


def _bounds(low: float | None, high: float | None) -> str:
    parts = [f"at least {low}"] if low is not None else []
    return " and ".join([*parts, *([f"at most {high}"] if high is not None else [])])


def check_constraints(constraints: tuple[Constraint, ...]) -> None:
    """Refuses bounds of several constraints that no slate can meet together.

    Raises:
        Misfit: a term is bounded twice on one side, or from below above where it is bounded from above.
    """
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for at, constraint in enumerate(constraints):
        name = constraint.term
        for bounds, value in ((low, constraint.at_least), (high, constraint.at_most)):
            if value is not None and bounds.setdefault(name, value) != value:
                raise Misfit(("constraints", at), f"{name} is bounded by both {bounds[name]} and {value}")
        if name in low and name in high and low[name] > high[name]:
            raise Misfit(
                ("constraints", at), f"contradiction: {name} cannot be at least {low[name]} and at most {high[name]}"
            )
