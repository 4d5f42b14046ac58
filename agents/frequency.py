"""Personal frequency: what this user bought most often, the baseline that is hard to beat on repeat purchases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recgym.agents.protocol import ActContext, Agent, AgentConfig, Observations, as_tensor, not_shown, top_slate

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv
    from recgym.worlds.world import World


class FrequencyAgent(Agent):
    """Ranks by the user's own purchase count, ties by how recent, then by popularity, which is all a new user has.

    What this trip has shown already comes last.

    It reads the three from the candidate features, so purchases made in the simulation count as well. See Hu et al.,
    "Modeling Personalized Item Frequency Information for Next-basket Recommendation" (SIGIR 2020), for its strength.
    """

    id = "frequency"
    observes = ("candidates",)

    def __init__(self, world: World, config: AgentConfig | None = None, seed: int = 0) -> None:
        """See ``Agent``."""
        from recgym.envs.features import CANDIDATE_FEATURES

        super().__init__(world, config, seed)
        names = list(CANDIDATE_FEATURES(world))
        self._columns = [names.index(name) for name in ("own_count", "own_recency", "popularity")]

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        features = as_tensor(observations["candidates"])  # [B, M, F]
        fresh = not_shown(self.world, observations)
        return top_slate(context.slate_size, fresh, *(features[:, :, column] for column in self._columns))
