"""Logged rollouts: what a logging policy showed in the environment, what was known then, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from recgym.agents.protocol import as_tensor
from recgym.errors import AgentError
from recgym.random import Purpose, fold

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv
    from recgym.worlds.world import World

OBSERVED = ("user", "candidates", "candidate_items", "user_id", "history")
_NEEDED = OBSERVED[1:]
_LIKED = 4  # a rating from which on a film counts as liked: the reward of worlds with ratings
_TASTE = 4.0  # largest weight of popularity and own purchases in the logging policy, in nats over a feature's range


@dataclass(frozen=True, eq=False)
class Slates:
    """S logged slates of K items: what was observed before, and the responses."""

    user: Tensor  # [S, Du] float32 user features; Du = 0 where they were not observed
    candidates: Tensor  # [S, K, F] float32 features of the items shown
    items: Tensor  # [S, K] int64 item rows
    user_id: Tensor  # [S] int64 user rows
    history: Tensor  # [S, H] int64 item rows consumed before, newest first, -1 pads
    consumed: Tensor  # [S, K] bool
    ratings: Tensor  # [S, K] float32, 0 where none was given
    lane: Tensor  # [S] int64: slates of one visit come from one lane

    def __len__(self) -> int:
        return len(self.user)

    def select(self, rows: Tensor) -> Self:
        """The slates at ``rows`` (int64 or bool)."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def good(self, world: World) -> Tensor:
        """What a scorer should find, float32 [S, K]: bought, or watched and rated 4 or more."""
        return (self.ratings >= _LIKED if world.spec.kind == "rating" else self.consumed).float()


def collect(env: RecVectorEnv, steps: int, seed: int, *, progress: Callable[[int], None] | None = None) -> Slates:
    """Shows ``steps`` slates or a few more, in all lanes together, and logs them.

    The logging policy draws slates from a Plackett-Luce distribution over the candidates with scores
    a * popularity + b * own_count + c * own_recency; a, b and c are drawn for every slate, 0 half of the time, so
    every candidate has a chance, and the best ones a good one. The order on the slate is then shuffled, so positions,
    which decide what is looked at, tell nothing about the items.

    Args:
        env: observes at least candidates, candidate_items, user_id and history, in slate mode; lanes restart within
            the step that ends them.
        steps: slates.
        seed: decides the users met, their luck and the slates.
        progress: called with the number of slates shown.

    Raises:
        AgentError: ``env`` does not observe what has to be logged.
    """
    from recgym.envs.features import CANDIDATE_FEATURES

    names = CANDIDATE_FEATURES(env.world)
    columns = [names.index(name) for name in ("popularity", "own_count", "own_recency")]
    generator = torch.Generator().manual_seed(_number(seed, 0))
    observations, _ = env.reset(seed=_number(seed, 1))
    if missing := [key for key in _NEEDED if key not in observations]:
        raise AgentError(f"a logged rollout needs an environment that observes {', '.join(missing)} too")
    lanes, pieces = env.num_envs, []
    for done in range(lanes, steps + lanes, lanes):
        seen = {key: as_tensor(observations[key]).cpu() for key in OBSERVED if key in observations}
        shown = _draw(seen["candidates"][:, :, columns].float(), env.slate_size, generator)
        observations, _, _, _, info = env.step(shown.numpy() if env.output == "numpy" else shown)
        features = seen["candidates"].float()
        pieces.append(
            Slates(
                user=seen["user"].float().clone() if "user" in seen else torch.zeros(lanes, 0),
                candidates=features.gather(1, shown[:, :, None].expand(-1, -1, features.shape[2])),
                items=seen["candidate_items"].long().gather(1, shown),
                user_id=seen["user_id"].reshape(-1).long().clone(),
                history=seen["history"].long().clone(),
                consumed=as_tensor(info["consumed"]).cpu().bool().clone(),
                ratings=as_tensor(info["rating"]).cpu().float().clone(),
                lane=torch.arange(lanes),
            )
        )
        if progress:
            progress(min(done, steps))
    columns_of = ([getattr(piece, field.name) for piece in pieces] for field in fields(Slates))
    return Slates(*(torch.cat(parts) for parts in columns_of))


def _draw(tastes: Tensor, slate_size: int, generator: torch.Generator) -> Tensor:
    """Slates int64 [B, K] from features [B, M, 3]; see ``collect``."""
    lanes, size, width = tastes.shape
    weights = torch.rand(lanes, 1, width, generator=generator) * 2 - 1
    scores = (tastes * weights.clamp(min=0.0) * _TASTE).sum(-1)
    gumbel = -torch.empty(lanes, size).exponential_(generator=generator).clamp(min=1e-20).log()
    chosen = (scores + gumbel).topk(slate_size, dim=1).indices
    order = torch.rand(lanes, slate_size, generator=generator).argsort(dim=1)
    return chosen.gather(1, order)


def split_lanes(slates: Slates, share: float, generator: torch.Generator) -> tuple[Slates, Slates, Slates]:
    """Slates to learn from, to validate on and to report on; the latter two have ``share`` of the lanes each.

    Whole lanes, since a visit's slates share the user's luck.

    Raises:
        AgentError: fewer than three lanes.
    """
    lanes = slates.lane.unique()
    if len(lanes) < 3:
        raise AgentError(f"a logged rollout is split by lanes into three parts: 3 lanes needed, got {len(lanes)}")
    count = max(1, round(share * len(lanes)))
    order = lanes[torch.randperm(len(lanes), generator=generator)]
    parts = order[2 * count :], order[:count], order[count : 2 * count]
    learn, validate, report = (slates.select(torch.isin(slates.lane, part)) for part in parts)
    return learn, validate, report


def _number(seed: int, part: int) -> int:
    """A seed below 2**31 for a part of the collection, far from those of evaluations."""
    return int(np.int64(fold(torch.tensor(seed), int(Purpose.AGENT), part)) & 0x7FFFFFFF)
