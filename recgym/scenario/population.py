"""The scenario's sections on who takes part: users the platform hardly knows, groups, new items and providers."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from recgym.scenario.base import Misfit, Section

HistoryLevel = Literal["0", "1-5", "6-20", "all"]
LEVELS: dict[HistoryLevel, tuple[int, int] | None] = {"0": (0, 0), "1-5": (1, 5), "6-20": (6, 20), "all": None}


class Users(Section):
    """Who the users are to the platform; to themselves they are who they are in the world."""

    history: dict[HistoryLevel, float] = Field(
        {"all": 1.0},
        description="Share of users of whom the platform knows so many purchases from before the run: logs, records, "
        "features and candidates are cut to the latest ones; the users themselves remember everything.",
    )
    group_by: tuple[str, ...] = Field(
        (), description="User attributes of the world whose levels are compared; missing values form 'unknown'."
    )
    min_group: int = Field(50, ge=1, description="Users below which a level is refused as too small to compare.")

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if min(self.history.values(), default=0.0) < 0 or abs(sum(self.history.values()) - 1.0) > 1e-6:
            raise Misfit(("history",), f"shares lie in 0..1 and add up to 1, got {self.history}")
        if len(set(self.group_by)) != len(self.group_by):
            raise Misfit(("group_by",), f"{list(self.group_by)} names one attribute twice")
        return self


class Arrivals(Section):
    """Items that no log has seen."""

    share: float = Field(
        0.0, ge=0, lt=1, description="Share of the catalogue that is new: cut from logs, records and popularity."
    )
    day: int = Field(0, ge=0, description="Days into an episode at which new items can be shown; 0: from the start.")


class Harmful(Section):
    """Items whose exposure counts as harm."""

    attribute: str = Field(description="Column of the world's items.")
    values: tuple[str, ...] = Field(min_length=1, description="Its values that are harmful.")


class Items(Section):
    """What is special about some items."""

    arrivals: Arrivals = Arrivals()
    provider: str | None = Field(
        None, description="Item attribute that says who provides an item, such as brand; exposure is compared by it."
    )
    harmful: Harmful | None = None
