"""Popularity: the candidates that most users of the log bought, the same for everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recgym.agents.protocol import ActContext, Agent, Observations, as_tensor, not_shown, top_slate

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv
    from recgym.worlds.world import World


class PopularityAgent(Agent):
    """Ranks by the number of trips in the log with the item; what this trip has shown already comes last."""

    id = "popularity"
    observes = ("candidates", "candidate_items")
    learns = "log"

    counts: Tensor  # [N] int64, purchases of each item in the log

    def fit(self, world: World) -> None:
        """Counts purchases per item."""
        log = world.interactions()
        counts = np.bincount(log["item"], weights=log["count"], minlength=world.num_items)
        self.counts = torch.as_tensor(counts).to(torch.int64)

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        fresh = not_shown(self.world, observations)
        return top_slate(context.slate_size, fresh, self.counts[as_tensor(observations["candidate_items"])])

    def tensors(self) -> dict[str, Tensor]:
        """The counts."""
        return {"counts": self.counts}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back the counts."""
        self.counts = tensors["counts"]
