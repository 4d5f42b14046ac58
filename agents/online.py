"""Learning online: what an agent is told after every step, and the loop that tells it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import save_file

from recgym.agents.protocol import ActContext, Agent, AgentConfig, Observations, read_tensors
from recgym.random import Purpose, derive_seeds, fold
from recgym.threads import one_thread

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv

CHECKPOINT = "checkpoint.safetensors"
CURVE = "rollout/ep_rew_mean"  # as Stable-Baselines3 calls it: the mean reward of the latest training episodes
EPISODES_AVERAGED = 1000
_DONE = "slates_shown"


class OnlineConfig(AgentConfig):
    """Settings of every agent that learns online."""

    num_envs: int = Field(64, ge=1, description="lanes trained on at once")
    total_steps: int = Field(30_000, ge=1, description="slates shown in all, the default budget")
    segment_steps: int = Field(64, ge=1, description="slates per lane between checkpoints; lanes start afresh at each")
    adapt: bool = Field(False, description="goes on learning in an evaluation, from a copy for every block of users")


@dataclass(frozen=True)
class Transitions:
    """What came of the slates of one step: n lanes, the lane dimension first."""

    observations: Observations  # [n, ...] by key: what the agent saw when it chose
    slates: NDArray[np.int64]  # [n, K] positions among the candidates
    consumed: NDArray[np.bool_]  # [n, K]
    rewards: NDArray[np.float32]  # [n] of the slates
    ended: NDArray[np.bool_]  # [n] whether the episode ended with this slate
    examined: NDArray[np.bool_] | None = None  # [n, K]; None where the platform does not tell
    propensities: NDArray[np.float64] | None = None  # [n, K] as ``Agent.propensities`` has them; None: not known

    @classmethod
    def of_step(
        cls,
        observations: Observations,
        slates: NDArray[np.int64],
        step: tuple[Any, Any, Any, Mapping[str, Any]],
        *,
        lanes: NDArray[np.bool_] | None = None,
        examined: bool = False,
        propensities: NDArray[np.float64] | None = None,
    ) -> Transitions:
        """The transitions of a step of a vector environment.

        Args:
            observations: [B, ...] before the step.
            slates: int64 [B, K].
            step: rewards, terminated, truncated and info, as the environment gave them.
            lanes: bool [B], which lanes to tell of; None: all.
            examined: whether to tell what was examined.
            propensities: float64 [B, K], where known.
        """
        rewards, terminated, truncated, info = step
        rows = np.flatnonzero(np.ones(len(slates), bool) if lanes is None else lanes)
        return cls(
            observations={key: values[rows] for key, values in observations.items()},
            slates=slates[rows],
            consumed=np.asarray(info["consumed"], bool)[rows],
            rewards=np.asarray(rewards, np.float32)[rows],
            ended=(np.asarray(terminated, bool) | np.asarray(truncated, bool))[rows],
            examined=np.asarray(info["examined"], bool)[rows] if examined else None,
            propensities=None if propensities is None else propensities[rows],
        )

    def credits(self) -> NDArray[np.float32]:
        """Rewards by position [n, K]; see ``split_reward``."""
        from recgym.adapters.credit import split_reward

        return split_reward(self.rewards, self.consumed)


def learn_online(
    agent: Agent,
    env: RecVectorEnv,
    steps: int,
    *,
    directory: Path | None = None,
    progress: Callable[[int], None] | None = None,
    resume: bool = False,
) -> None:
    """Lets ``agent`` act in all lanes and tells it what came of it after every step; see ``Agent.train``.

    Segments begin with a checkpoint, fresh lanes and fresh luck, so that a training that was interrupted and resumed
    ends with the same agent as one in one go.
    """
    checkpoint = directory / CHECKPOINT if directory else None
    done = _restore(agent, checkpoint) if resume and checkpoint and checkpoint.is_file() else 0
    episodes = _Returns(env.num_envs)
    examined = env.scenario.observation.examined
    with one_thread():
        while done < steps:
            if checkpoint:
                _save(agent, checkpoint, done)
            seeds = derive_seeds(_segment_seed(agent.seed, done), torch.arange(env.num_envs)).numpy()
            observations, _ = env.reset(seed=[int(seed) for seed in seeds])
            episodes.begin()
            for step in range(agent.config.segment_steps):
                context = ActContext(seeds, np.full(env.num_envs, step), env.slate_size, learning=True)
                slates = agent.act(observations, context)
                chances = agent.propensities(observations, context, slates)
                following, *outcome = env.step(slates)
                told = (outcome[0], outcome[1], outcome[2], outcome[3])
                transitions = Transitions.of_step(observations, slates, told, examined=examined, propensities=chances)
                agent.update(transitions)
                episodes.record(transitions)
                observations = following
                done += env.num_envs
                if progress:
                    progress(done)
                if done >= steps:
                    break
            if episodes.latest:
                agent.log({CURVE: float(np.mean(episodes.latest))}, done)


class _Returns:
    """Rewards of the latest episodes that ended."""

    def __init__(self, lanes: int) -> None:
        self.latest: deque[float] = deque(maxlen=EPISODES_AVERAGED)
        self._sums = np.zeros(lanes)

    def begin(self) -> None:
        """Every lane starts an episode."""
        self._sums[:] = 0.0

    def record(self, transitions: Transitions) -> None:
        """Adds a step of all lanes."""
        self._sums += transitions.rewards
        self.latest.extend(self._sums[transitions.ended].tolist())
        self._sums[transitions.ended] = 0.0


def _segment_seed(seed: int, done: int) -> int:
    return int(fold(torch.tensor(seed), int(Purpose.AGENT), done))


def _save(agent: Agent, path: Path, done: int) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in agent.tensors().items()}
    partial = path.with_name(f"partial-{path.name}")
    save_file({**tensors, _DONE: torch.tensor(done)}, partial)
    partial.replace(path)  # an interruption leaves the old checkpoint or the new one, whole


def _restore(agent: Agent, path: Path) -> int:
    tensors = read_tensors(path)
    done = int(tensors.pop(_DONE))
    agent.restore(tensors)
    return done
