"""Vector rewards: environments whose reward is one number for each term of the objective, as MO-Gymnasium has them.

Felten et al., A toolkit for reliable benchmarking and research in multi-objective reinforcement learning, NeurIPS 2023.
MO-Gymnasium itself is not needed; its wrappers (``mo_gymnasium.wrappers.LinearReward``) and learners take these.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from recgym.envs.single import RecEnv
from recgym.envs.vector import RecVectorEnv
from recgym.registration import ENVS
from recgym.scenario.objective import COSTS
from recgym.simulation.simulator import Simulator

Rewards = NDArray[np.float32]


def _space(simulator: Simulator) -> tuple[tuple[str, ...], Rewards, gymnasium.spaces.Box]:
    """The terms in order, the sign of each, and the space of their vector."""
    terms = tuple(simulator.objective.weights)
    signs = np.array([-1.0 if name in COSTS else 1.0 for name in terms], np.float32)
    low, high = np.where(signs < 0, -np.inf, 0.0), np.where(signs < 0, 0.0, np.inf)
    return terms, signs, gymnasium.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


class MORecEnv(RecEnv):
    """``RecEnv`` whose reward is float32 [D], the objective's terms without weights; more of each is better.

    Terms that are costs (unfairness, harm) come with a minus sign. ``objectives`` names them in order, and
    ``reward_space`` is a box of the shape [D].
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See ``RecEnv``."""
        super().__init__(*args, **kwargs)
        self.objectives, self._signs, self.reward_space = _space(self.simulator)

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]:
        """See ``RecEnv.step``; the reward is a vector."""
        observation, _, terminated, truncated, info = super().step(action)
        terms = np.array([info[f"terms/{name}"] for name in self.objectives], np.float32)
        return observation, terms * self._signs, terminated, truncated, info


class MORecVectorEnv(RecVectorEnv):
    """``RecVectorEnv`` whose rewards are float32 [B, D]; see ``MORecEnv``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See ``RecVectorEnv``."""
        super().__init__(*args, **kwargs)
        self.objectives, self._signs, self.reward_space = _space(self.simulator)

    def step(self, actions: Any) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
        """See ``RecVectorEnv.step``; the rewards are vectors, those of lanes that restart are 0."""
        observations, _, terminated, truncated, info = super().step(actions)
        terms = [info[f"terms/{name}"] for name in self.objectives]
        if self.output == "torch":
            import torch

            signs = torch.from_numpy(self._signs).to(terms[0].device)
            return observations, torch.stack(terms, dim=1) * signs, terminated, truncated, info
        return observations, np.stack(terms, axis=1) * self._signs, terminated, truncated, info


def mo_make(id: str, **kwargs: Any) -> MORecEnv:
    """``recgym.make`` with a vector reward.

    Raises:
        UnknownNameError: for an unknown id; the message gives the nearest valid one.
    """
    return MORecEnv(**{**ENVS.spec(id).shell_kwargs(), **kwargs})


def mo_make_vec(id: str, num_envs: int = 1, **kwargs: Any) -> MORecVectorEnv:
    """``recgym.make_vec`` with vector rewards; raises as ``mo_make``."""
    return MORecVectorEnv(**{**ENVS.spec(id).shell_kwargs(), "num_envs": num_envs, **kwargs})
