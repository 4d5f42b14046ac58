"""Greedy: the slate with the best expected immediate reward under the truth; an upper bound, not a competitor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recgym.agents.protocol import ActContext, Agent, Observations, as_tensor, top_slate
from recgym.errors import AgentError

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv


class GreedyAgent(Agent):
    """Ranks the candidates by the scenario's expected immediate reward, given the hidden state.

    Items answer independently and earlier positions are examined more, so sorting maximises what the slate is expected
    to earn.
    """

    id = "greedy"
    observes = ("candidate_items",)
    privileged = True

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``.

        Raises:
            AgentError: without the running environment.
        """
        if env is None:
            raise AgentError("agent 'greedy' is privileged: act needs the running environment, env=...")
        candidates = as_tensor(observations["candidate_items"]).to(env.simulator.device)
        return top_slate(context.slate_size, env.simulator.expected_reward(env.state, candidates))
