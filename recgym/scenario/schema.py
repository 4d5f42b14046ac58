"""A scenario, section by section: what users and episodes are like, what agents may do, see and aim for."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Literal, Self

from pydantic import Field, model_validator

from recgym.errors import ScenarioError
from recgym.scenario.base import Section
from recgym.scenario.behaviour import Behaviour

ActionMode = Literal["slate", "catalogue", "item", "scores", "weights", "proto"]
ObservationKey = Literal["user", "candidates", "candidate_items", "user_id", "history"]
Term = Literal["purchase", "revenue", "liked"]
OWN = ("name", "description", "question", "metrics", "reference", "tags", "extends")  # never taken over by ``extends``


class Env(Section):
    """Where the scenario may be played."""

    world: str | None = Field(None, description="Name of the only world the scenario is made for; null: any world.")


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
    uniform: int = Field(20, ge=0, description="Drawn uniformly from the catalogue.")


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

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        parts = self.candidates
        total = parts.own + parts.popular + parts.uniform
        if total != self.num_candidates:
            raise ValueError(
                f"candidates add up to {total} ({parts.own} own + {parts.popular} popular + {parts.uniform} uniform), "
                f"num_candidates is {self.num_candidates}"
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


class Objective(Section):
    """The reward: a weighted sum of terms, each summed over a slate."""

    terms: dict[Term, float] = Field(
        min_length=1,
        description="Weights; purchase: distinct items bought; revenue: their price; liked: watches rated 4 or more.",
    )


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
    behaviour: Behaviour = Behaviour()
    actions: Actions = Actions()
    observation: Observation = Observation()
    objective: Objective | None = Field(None, description="null: the world's own reward.")
    evaluation: Evaluation = Evaluation()

    @functools.cached_property
    def hash(self) -> str:
        """The SHA-256 digest (hex) of this scenario as canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def check_world(self, world: str) -> None:
        """Refuses a world that the scenario is not made for.

        Raises:
            ScenarioError: if ``env.world`` names another world.
        """
        if self.env.world not in (None, world):
            raise ScenarioError(f"scenario {self.name!r} is made for world {self.env.world!r}, not for {world!r}")
