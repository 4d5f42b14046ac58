"""A scenario, section by section: what users and episodes are like, what agents may do, see and aim for."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Literal, Self

from pydantic import Field, model_validator

from recgym.errors import ScenarioError
from recgym.scenario.base import Misfit, Section
from recgym.scenario.behaviour import Behaviour
from recgym.scenario.objective import Constraint, Objective, check_constraints
from recgym.scenario.population import Items, Users
from recgym.scenario.source import Source

ActionMode = Literal["slate", "catalogue", "item", "scores", "weights", "proto"]
ObservationKey = Literal["user", "candidates", "candidate_items", "user_id", "history"]
OWN = ("name", "description", "question", "metrics", "reference", "tags", "extends")  # never taken over by ``extends``


class Env(Section):
    """Where the scenario may be played."""

    world: str | None = Field(None, description="Name of the only world the scenario is made for; null: any world.")
    train_world: str | None = Field(
        None, description="World in which agents learn before they are scored in ``world``; null: the same."
    )


class Episode(Section):
    """When an episode ends."""

    kind: Literal["session", "horizon"] = Field(
        "session", description="session: one trip; horizon: as many trips as fit in horizon_days."
    )
    max_slates: int = Field(
        20, ge=1, description="Slates a trip: then a session episode is truncated, or the trip ends."
    )
    horizon_days: int = Field(90, ge=1, description="Days after which a horizon episode is truncated.")
    max_steps: int = Field(400, ge=1, description="Slates after which any episode is truncated.")


class Candidates(Section):
    """Where the candidates of a step come from; popularity fills up for users with too few items of their own."""

    own: int = Field(40, ge=0, description="The user's own purchases, by recency and frequency.")
    popular: int = Field(40, ge=0, description="Drawn by popularity.")
    uniform: int = Field(20, ge=0, description="Drawn uniformly from the catalogue, new items left out.")
    new: int = Field(0, ge=0, description="Drawn uniformly from the new items of items.arrivals.")


class Promotions(Section):
    """A discount budget: what stands at the top of a slate is cheaper, for as long as the budget lasts."""

    slots: int = Field(0, ge=0, description="Top positions of a slate that are discounted; 0: none.")
    discount: float = Field(0.2, gt=0, lt=1, description="Share of the price that is taken off.")
    budget: float = Field(
        10.0, gt=0, description="Currency units a user and episode: promotions end with the slate that uses it up."
    )


class Actions(Section):
    """What an agent decides."""

    mode: ActionMode = Field(
        "slate",
        description="slate: K of the M candidates; catalogue: K of all items; item: one candidate; scores: M scores; "
        "weights: one a candidate feature; proto: the features of an ideal item, the nearest candidates are shown.",
    )
    slate_size: int = Field(10, ge=1, description="K, items on a slate.")
    num_candidates: int = Field(100, ge=1, description="M, candidates a step.")
    candidates: Candidates = Candidates()
    promotions: Promotions = Promotions()

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        parts = self.candidates
        total = parts.own + parts.popular + parts.uniform + parts.new
        if total != self.num_candidates:
            raise ValueError(
                f"candidates add up to {total} ({parts.own} own + {parts.popular} popular + {parts.uniform} uniform"
                f"{f' + {parts.new} new' if parts.new else ''}), num_candidates is {self.num_candidates}"
            )
        if self.slate_size > self.num_candidates:
            raise ValueError(f"slate_size {self.slate_size} exceeds num_candidates {self.num_candidates}")
        return self


class Observation(Section):
    """What an agent sees."""

    keys: tuple[ObservationKey, ...] = Field(("user", "candidates"), min_length=1, description="Observation keys.")
    examined: bool = Field(
        False, description="Whether agents that learn online are told what was looked at, as platforms may log it."
    )

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        if len(set(self.keys)) != len(self.keys):
            raise ValueError(f"keys {list(self.keys)} name one key twice")
        return self


class Evaluation(Section):
    """How much `recgym evaluate` runs by default."""

    users: int = Field(500, ge=1, description="Users, the same for every agent.")
    seeds: int = Field(5, ge=1, description="Seeds a user.")


class Scenario(Section):
    """A scenario: everything about a run that is neither the world nor the agent."""

    name: str = Field(min_length=1, description="Short name, used in tables and rows.")
    description: str = Field("", description="One line for `recgym list scenarios`.")
    question: str = Field("", description="What an evaluation in this scenario is to answer.")
    metrics: tuple[str, ...] = Field((), description="The figures that answer it.")
    reference: str = Field("", description="Where the question, or the way to ask it, comes from.")
    tags: tuple[str, ...] = ()
    extends: str | None = Field(
        None,
        description="A scenario, by name or by path relative to this file, whose settings hold where none are "
        "given here; null once they have been taken over.",
    )
    env: Env = Env()
    episode: Episode = Episode()
    users: Users = Users()
    items: Items = Items()
    behaviour: Behaviour = Behaviour()
    actions: Actions = Actions()
    observation: Observation = Observation()
    objective: Objective | None = Field(None, description="null: the world's own reward.")
    constraints: tuple[Constraint, ...] = Field((), description="Bounds on terms; what exceeds them is told in info.")
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        new, slots, size = self.actions.candidates.new, self.actions.promotions.slots, self.actions.slate_size
        if new and not self.items.arrivals.share:
            message = f"is {new}, but items.arrivals.share is 0: there are no new items"
            raise Misfit(("actions", "candidates", "new"), message)
        if self.env.train_world is not None and self.env.world is None:
            message = f"is {self.env.train_world!r}: env.world must say where agents are scored"
            raise Misfit(("env", "train_world"), message)
        if self.behaviour.delay.share and self.episode.kind == "session":
            message = "needs episodes of several trips: episode.kind is 'session'"
            raise Misfit(("behaviour", "delay", "share"), message)
        if slots > size:
            raise Misfit(("actions", "promotions", "slots"), f"{slots} exceeds slate_size {size}")
        check_constraints(self.constraints)
        return self

    @functools.cached_property
    def hash(self) -> str:
        """The SHA-256 digest (hex) of this scenario as canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @functools.cached_property
    def source(self) -> Source:
        """Where the values come from; ``load_scenario`` knows files and lines."""
        return Source(f"scenario {self.name!r}")

    def at(self, key: str) -> str:
        """``file:line: key``, to begin a message about the value of a dotted ``key`` with."""
        return f"{self.source.at(tuple(key.split('.')))}: {key}"

    def check_world(self, world: str) -> None:
        """Refuses a world that the scenario is not made for.

        Raises:
            ScenarioError: if ``env.world`` names another world.
        """
        if self.env.world not in (None, world):
            made_for = f"made for world {self.env.world!r}, not for {world!r}"
            raise ScenarioError(f"{self.at('env.world')}: scenario {self.name!r} is {made_for}")
