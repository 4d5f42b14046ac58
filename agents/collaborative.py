"""Agents that rank by who bought what: what the collaborative filters share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from recgym.agents.features.factors import Learned
from recgym.agents.features.measures import auc, ndcg
from recgym.agents.features.pairs import Pairs, purchases_of_slates, purchases_of_world
from recgym.agents.features.slates import collect
from recgym.agents.protocol import ActContext, Agent, AgentConfig, Observations, as_tensor, not_shown, top_slate
from recgym.errors import AgentError
from recgym.threads import one_thread

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv
    from recgym.worlds.world import World

_CHUNK = 256  # lanes scored at a time: bounds dense profiles to 256 x N floats
_MEASURED_USERS = 256  # users whose held-out purchases are ranked
_MEASURED_CHUNK = 16  # of them at a time, against the whole catalogue


class CollaborativeConfig(AgentConfig):
    """Settings that all agents of this kind have."""

    held_out: float = Field(
        0.05, ge=0, lt=1, description="share of the purchases that a first fit is measured on; 0: no such fit"
    )


class CollaborativeAgent(Agent):
    """Ranks by scores learned from pairs of users and items, ties by popularity; what this trip has shown comes last.

    ``fit`` learns from the world's log, ``train`` from what users consumed in a logged rollout. Both fit twice: without
    a random share of the pairs, to measure (see ``report``), then with all of them. A subclass defines ``learn`` and,
    where it learns something else than factors, ``Model``.
    """

    observes = ("candidates", "candidate_items", "user_id", "history")
    learns = "log"
    Config: ClassVar[type[AgentConfig]] = CollaborativeConfig
    Model: ClassVar[type[Learned]]

    model: Learned
    counts: Tensor  # [N] float32, purchases of each item

    def learn(self, pairs: Pairs) -> Learned:
        """What the purchases ``pairs`` teach; deterministic given the agent's seed."""
        raise AgentError(f"{type(self).__name__} does not define learn(pairs)")

    def fit(self, world: World) -> None:
        """See ``Agent.fit``."""
        with one_thread():
            self._learn(purchases_of_world(world))

    def train(
        self,
        env: RecVectorEnv,
        steps: int,
        *,
        directory: Path | None = None,
        progress: Callable[[int], None] | None = None,
        resume: bool = False,
    ) -> None:
        """Learns from a logged rollout instead of the world's log; see ``Agent.train``."""
        with one_thread():
            self._learn(purchases_of_slates(collect(env, steps, self.seed, progress=progress), env.world))

    def _learn(self, pairs: Pairs) -> None:
        self._report: dict[str, Any] = {}
        kept, held = pairs.split(self.config.held_out, torch.Generator().manual_seed(self.seed))
        if len(held) and len(kept):
            self._report = measure(self.learn(kept), kept, held, self.seed)
        self.model = self.learn(pairs)
        self.counts = torch.zeros(pairs.num_items).index_add_(0, pairs.items, pairs.values)

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        candidates = as_tensor(observations["candidate_items"]).to(torch.int64)  # [B, M]
        users = as_tensor(observations["user_id"]).reshape(-1).to(torch.int64)  # [B]
        history = as_tensor(observations["history"]).to(torch.int64)  # [B, H], -1 pads
        chunks = zip(users.split(_CHUNK), candidates.split(_CHUNK), history.split(_CHUNK), strict=True)
        scores = torch.cat([self.model.score(*chunk) for chunk in chunks])
        return top_slate(context.slate_size, not_shown(self.world, observations), scores, self.counts[candidates])

    def report(self) -> dict[str, Any]:
        """How a fit did on purchases held out from it; empty after ``load``. See ``measure``."""
        return dict(getattr(self, "_report", {}))

    def tensors(self) -> dict[str, Tensor]:
        """What was learned, and how often each item was bought."""
        return {**self.model.tensors(), "purchases": self.counts}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave."""
        values = dict(tensors)
        self.counts = values.pop("purchases")
        self.model = self.Model(**values)


def measure(model: Learned, kept: Pairs, held: Pairs, seed: int) -> dict[str, float]:
    """AUC and NDCG@10 of held-out purchases among all items that the user is not known to have bought.

    Up to 256 random users with held-out purchases are ranked; AUC is the mean over users. It asks for items new to the
    user: repeat purchases are not in question.
    """
    users = held.users.unique()
    order = torch.randperm(len(users), generator=torch.Generator().manual_seed(seed))
    catalogue = torch.arange(held.num_items)
    areas, gains = [], []
    for chunk in users[order[:_MEASURED_USERS]].split(_MEASURED_CHUNK):
        nothing = torch.full((len(chunk), 1), -1)
        scores = model.score(chunk, catalogue.expand(len(chunk), -1), nothing)
        good, known = _marked(held, chunk), _marked(kept, chunk)
        gains.append(ndcg(scores.masked_fill(known, -torch.inf), good) * len(chunk))
        areas += [auc(row[~old], new[~old]) for row, new, old in zip(scores, good, known, strict=True)]
    measured = [area for area in areas if area == area]
    count = min(len(users), _MEASURED_USERS)
    return {
        "auc": sum(measured) / max(len(measured), 1),
        "ndcg@10": sum(gains) / count,
        "num_users": count,
    }


def _marked(pairs: Pairs, users: Tensor) -> Tensor:
    """Bool [b, N]: the items that ``users`` [b] have in ``pairs``."""
    marks = torch.zeros(len(users), pairs.num_items, dtype=torch.bool)
    offsets = pairs.offsets()
    for row, user in enumerate(users.tolist()):
        marks[row, pairs.items[offsets[user] : offsets[user + 1]]] = True
    return marks
