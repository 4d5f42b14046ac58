"""Worlds, and a stand-in user model with hand-set wants, small enough to know the answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from recgym.scenario import load_scenario
from recgym.simulation.kernels import sigmoid
from recgym.simulation.simulator import Simulator
from recgym.testing.worlds import tiny_world
from recgym.types import Appraisal, Noise, Record, Response, Slate, TensorRecord, Visit
from recgym.worlds.world import World


@dataclass(frozen=True)
class LatentState(TensorRecord):
    user: Tensor  # [B] int64
    mood: Tensor  # [B] float32, added to every logit; grows by `drift` a slate


class LatentUsers:
    """Users whose logits are a table, or hash-like numbers of user and item where there is none."""

    def __init__(
        self, logits: Tensor | None = None, intended: int = 1000, gap: int = 7, drift: float = 0.0, lost: float = 0.0
    ) -> None:
        self.logits, self.intended, self.gap, self.drift, self.lost = logits, intended, gap, drift, lost
        self.hazards: list[Tensor] = []

    def init(self, users: Tensor, record: Record, visit: Visit) -> LatentState:
        return LatentState(users, torch.zeros(len(users)))

    def appraise(
        self, state: LatentState, items: Tensor, own_counts: Tensor, own_days: Tensor, visit: Visit
    ) -> Appraisal:
        if self.logits is not None:
            logit = self.logits[items]
        else:
            logit = torch.sin(items * 12.9898 + state.user[:, None] * 78.233) * 2 + own_counts.log1p() - own_days * 0.01
        logit = logit + state.mood[:, None]
        stop = torch.full_like(logit, 0.5)
        cdf = torch.tensor([0.1, 0.2, 0.4, 0.7]).expand(*logit.shape, 4)
        return Appraisal(logit, stop, cdf)

    def respond(self, state: LatentState, slate: Slate, visit: Visit, noise: Noise) -> tuple[Response, Tensor]:
        view = self.appraise(state, slate.items, slate.own_counts, slate.own_days, visit)
        probability = sigmoid(view.logit + slate.lift)
        consumed = slate.examined & (noise.want < probability)
        quantity = consumed * (1 + (noise.quantity < 0.5).to(torch.int32))
        assert view.rating_cdf is not None
        rating = consumed * (1 + (noise.rating[..., None] > view.rating_cdf).sum(-1))
        return Response(consumed, quantity.to(torch.int32), rating.to(torch.int32)), probability

    def transition(self, state: LatentState, slate: Slate, response: Response, visit: Visit) -> LatentState:
        return dataclasses.replace(state, mood=state.mood + self.drift)

    def intend(self, state: LatentState, uniforms: Tensor) -> Tensor:
        return torch.full((len(uniforms),), self.intended, dtype=torch.int32)

    def away(self, state: LatentState, record: Record, uniforms: Tensor, hazard: Tensor) -> tuple[Tensor, Tensor]:
        self.hazards.append(hazard.clone())
        return torch.full((len(uniforms),), self.gap, dtype=torch.int32), uniforms < self.lost

    def arrive(self, state: LatentState, record: Record, visit: Visit) -> LatentState:
        return state


@pytest.fixture(scope="session")
def wants() -> type[LatentUsers]:
    """The stand-in user model."""
    return LatentUsers


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny")


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "films", kind="rating", name="films")


@pytest.fixture
def simulate(world: World) -> Callable[..., Simulator]:
    """Builds a simulator of the default scenario with overrides, with stand-in users by default."""

    def build(overrides: dict[str, Any] | None = None, users: Any = None, **kwargs: Any) -> Simulator:
        scenario = load_scenario("default", overrides)
        return Simulator(kwargs.get("world", world), scenario, user_model=users if users is not None else LatentUsers())

    return build
