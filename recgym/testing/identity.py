"""An identity recommender: users whose wants are in plain sight, so the optimum is known and learners are pinned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from recgym.envs.vector import RecVectorEnv
from recgym.scenario import load_scenario
from recgym.types import Appraisal, Noise, Record, Response, Slate, TensorRecord, Visit
from recgym.worlds.world import World

_SURE = 8.0  # logit of a want: bought 2,999 times in 3,000; minus it: once in 3,000
_SCENARIO = {
    "behaviour": {"lift": 0.0, "patience": 0.0, "examination": {"decay": 1.0}},
    "episode": {"max_slates": 2},
    "objective": {"terms": {"purchase": 1.0}},
}


@dataclass(frozen=True)
class IdentityState(TensorRecord):
    """Nothing is hidden but who the user is."""

    user: Tensor  # [B] int64 user row


class IdentityUsers:
    """Everybody wants the same items and nothing else: the ``share`` of the catalogue whose feature text_0 is largest.

    The feature is among those of every candidate, so the best slate can be read off the observation.
    """

    def __init__(self, world: World, share: float = 0.25) -> None:
        """Users of ``world`` who want a ``share`` of its items."""
        text = world.item_tensors["text_pca"][:, 0].float()
        self.wanted = text >= text.quantile(1.0 - share)  # [N] bool

    def init(self, users: Tensor, record: Record, visit: Visit) -> IdentityState:
        """See ``UserModel``."""
        return IdentityState(user=users)

    def appraise(
        self, state: IdentityState, items: Tensor, own_counts: Tensor, own_days: Tensor, visit: Visit
    ) -> Appraisal:
        """See ``UserModel``."""
        logit = torch.where(self.wanted[items], _SURE, -_SURE)
        return Appraisal(logit=logit, quantity_stop=None, rating_cdf=None)

    def respond(self, state: IdentityState, slate: Slate, visit: Visit, noise: Noise) -> tuple[Response, Tensor]:
        """See ``UserModel``."""
        probability = (torch.where(self.wanted[slate.items], _SURE, -_SURE) + slate.lift).sigmoid()
        consumed = slate.examined & (noise.want < probability)
        quantity = consumed.to(torch.int32)
        return Response(consumed=consumed, quantity=quantity, rating=torch.zeros_like(quantity)), probability

    def transition(self, state: IdentityState, slate: Slate, response: Response, visit: Visit) -> IdentityState:
        """See ``UserModel``."""
        return state

    def intend(self, state: IdentityState, uniforms: Tensor) -> Tensor:
        """See ``UserModel``: a need that is never met, so that every session lasts as long as it may."""
        return torch.full_like(uniforms, 10**6, dtype=torch.int32)

    def away(self, state: IdentityState, record: Record, uniforms: Tensor, hazard: Tensor) -> tuple[Tensor, Tensor]:
        """See ``UserModel``: a week."""
        return torch.full_like(uniforms, 7, dtype=torch.int32), torch.zeros_like(uniforms, dtype=torch.bool)

    def arrive(self, state: IdentityState, record: Record, visit: Visit) -> IdentityState:
        """See ``UserModel``."""
        return state


def identity_env(
    world: World,
    num_envs: int = 64,
    *,
    observation: tuple[str, ...] = ("user", "candidates"),
    action_mode: str = "slate",
    share: float = 0.25,
) -> RecVectorEnv:
    """Identity users of ``world`` in sessions of two slates, every position examined; lanes restart within the step."""
    return RecVectorEnv(
        world=world,
        scenario=load_scenario("default", _SCENARIO),
        num_envs=num_envs,
        observation=observation,
        action_mode=action_mode,
        autoreset_mode=AutoresetMode.SAME_STEP,
        user_model=IdentityUsers(world, share),
    )
