"""Look-ahead: plans on branches of the simulation with fresh luck; an upper bound, not a competitor.

Policy switching, a rollout algorithm (Chang, Givan and Chong, 2004): at every slate it follows each of some policies
for a few slates on branches of the running environment, and shows the slate of the one that earned most on average. The
branches redraw whatever is not settled yet, so it knows how users work and nothing of what they are going to do.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from recgym.agents.protocol import ActContext, Agent, AgentConfig, Observations, as_tensor
from recgym.errors import AgentError
from recgym.simulation.planning import Policy, look_ahead, ranked

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv


class LookAheadConfig(AgentConfig):
    """Settings of ``LookAheadAgent``."""

    depth: int = Field(4, ge=1, description="slates that a branch looks ahead")
    copies: int = Field(8, ge=1, description="branches a policy, averaged")
    limits: tuple[int, ...] = Field(
        (5, 2), description="followed beside greedy: greedy with at most so many items of a category on a slate"
    )


class LookAheadAgent(Agent):
    """The slate of whichever policy, greedy among them, earns most on branches with fresh luck.

    With exact averages it is no worse than greedy in the long run; with few copies it sometimes takes luck for worth.
    """

    id = "lookahead"
    observes = ("candidate_items",)
    privileged = True
    Config = LookAheadConfig

    @cached_property
    def _policies(self) -> list[Policy]:
        names = self.world.items["category"].astype(str).to_numpy()
        group = torch.from_numpy(np.unique(names, return_inverse=True)[1].astype(np.int64))
        return [ranked(self.world.num_items), *(ranked(limit, group) for limit in self.config.limits)]

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``.

        Raises:
            AgentError: without the running environment.
        """
        if env is None:
            raise AgentError("agent 'lookahead' is privileged: act needs the running environment, env=...")
        settings = self.config
        items = look_ahead(
            env.simulator, env.state, self._policies, depth=settings.depth, copies=settings.copies, luck="fresh"
        )
        candidates = as_tensor(observations["candidate_items"]).to(items.device)
        return positions(candidates, items).cpu().numpy()


def positions(candidates: Tensor, items: Tensor) -> Tensor:
    """Where ``items`` (rows, int64 [B, K]) stand among ``candidates`` (rows, int64 [B, M]), int64 [B, K]."""
    return (candidates[:, None, :] == items[:, :, None]).to(torch.uint8).argmax(dim=2)
