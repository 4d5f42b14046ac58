"""What agents that learn from logged rollouts share: where logs come from, minibatches, and the descent on a loss.

How many slates are logged decides more than any setting of the agents. In the grocery world an item shown is bought in
one case of twenty-five: 10,000 slates of personal frequency, half of them explored, hold 4,000 purchases, and what
learns from them ranks worse than personal frequency itself; from 40,000 it ranks as well.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from recgym.adapters.credit import split_reward
from recgym.adapters.minari import read_rollouts
from recgym.agents.exploration import Behaviour
from recgym.agents.networks import SlateScorer
from recgym.agents.protocol import Agent, AgentConfig, make_agent, observation_layout, vocabulary_hash
from recgym.agents.search import Search
from recgym.data.rollouts import Rollouts, collect
from recgym.errors import AgentError
from recgym.threads import one_thread
from recgym.user_models.preference.checkpoint import load_checkpoint, save_checkpoint
from recgym.user_models.preference.loop import descend

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv
    from recgym.worlds.world import World

_CHECKPOINT = "checkpoint"
_CALIBRATED = 2048  # rows that the feature scaling is set from


class OfflineConfig(AgentConfig):
    """Settings of every agent that learns from logged rollouts."""

    logs: str | None = Field(
        None, description="directory of logged rollouts, or a Minari data set; null: collects its own"
    )
    behaviour: str = Field("frequency", description="agent whose slates are logged, where it collects its own")
    exploration: float = Field(0.5, ge=0, le=1, description="chance that a logged slot shows any candidate instead")
    num_envs: int = Field(64, ge=1, description="lanes logged at once")
    total_steps: int = Field(40_000, ge=1, description="slates logged, the default budget; see the module's docstring")
    updates: int = Field(2_000, ge=1, description="gradient steps")
    batch_size: int = Field(128, ge=1, description="slates a gradient step")
    learning_rate: Annotated[float, Search(3e-4, 3e-2, log=True)] = Field(
        5e-3, gt=0, description="Adam's, falling linearly to a tenth"
    )
    gamma: Annotated[float, Search(0.0, 0.9)] = Field(
        0.0, ge=0, lt=1, description="discount a slate; above 0, noisier, where slates shape later ones"
    )
    target_period: int = Field(100, ge=1, description="gradient steps between copies of Q to the target network")
    hidden: int = Field(32, ge=1, description="width of the networks")
    max_grad_norm: float = Field(1.0, gt=0)
    checkpoint_updates: int = Field(200, ge=1, description="gradient steps between checkpoints")


class OfflineAgent(Agent):
    """Learns from logged slates alone; a subclass defines ``loss`` and how it ranks by its scorers."""

    observes = ("user", "candidates")
    learns = "environment"
    Config = OfflineConfig
    names: ClassVar[tuple[str, ...]] = ("q",)  # of its scorers; Q has a target network beside it

    def __init__(self, world: World, config: AgentConfig | None = None, seed: int = 0) -> None:
        """See ``Agent``; untrained until ``train`` or ``load``."""
        super().__init__(world, config, seed)
        layout = observation_layout(world, self.observes)
        sizes = len(layout["user"]), len(layout["candidates"]), self.config.hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed & 0x7FFFFFFF)
            self.scorers = {name: SlateScorer(*sizes) for name in self.names}
        self.q = self.scorers["q"]
        self.target = copy.deepcopy(self.q).requires_grad_(False)
        self.network = nn.ModuleDict({**self.scorers, "target": self.target})

    def loss(self, batch: Batch) -> Tensor:
        """What is descended on."""
        raise AgentError(f"{type(self).__name__} does not define loss(batch)")

    def train(
        self,
        env: RecVectorEnv,
        steps: int,
        *,
        directory: Path | None = None,
        progress: Callable[[int], None] | None = None,
        resume: bool = False,
    ) -> None:
        """See ``Agent.train``: collects (or reads) logs, then learns from them alone."""
        rollouts = logged(self, env, steps)
        learn_offline(
            self, self.network, rollouts, self.loss, steps, directory=directory, progress=progress, resume=resume
        )

    def tensors(self) -> dict[str, Tensor]:
        """The networks."""
        return self.network.state_dict()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave."""
        self.network.load_state_dict(tensors)


@dataclass(frozen=True)
class Batch:
    """Slates of a minibatch, and the states before and after them."""

    user: Tensor  # [b, Du]
    candidates: Tensor  # [b, M, F]
    slate: Tensor  # [b, K] positions among the candidates
    credit: Tensor  # [b, K] reward by position
    next_user: Tensor  # [b, Du]
    next_candidates: Tensor  # [b, M, F]
    next_fresh: Tensor  # [b, M] bool: candidates that this trip has not shown
    goes_on: Tensor  # [b] 0 where the user left, else 1: what was merely cut off has a future


def logged(agent: Agent, env: RecVectorEnv, steps: int) -> Rollouts:
    """The rollouts that ``agent`` learns from: those its config names, or ``steps`` slates collected now.

    Raises:
        AgentError: the logs are of other items, or observe something else than the agent does.
    """
    config, world = agent.config, env.world
    if config.logs is None:
        policy = Behaviour(make_agent(config.behaviour, world, agent.seed), config.exploration)
        return collect(policy, env, steps, keys=agent.observes, seed=agent.seed)
    rollouts = read_rollouts(config.logs)
    if rollouts.about["item_vocabulary"] != vocabulary_hash(world):
        raise AgentError(
            f"{config.logs} logs items of world {rollouts.about['world']['name']!r}, not of {world.name!r}"
        )
    for key, names in observation_layout(world, agent.observes).items():
        if key not in rollouts.observations or rollouts.about["observation_layout"].get(key) != names:
            raise AgentError(
                f"{config.logs} logs observations {sorted(rollouts.observations)}; agent {agent.id!r} needs {key!r} "
                "with the features of this world"
            )
    return rollouts


def learn_offline(
    agent: Agent,
    network: nn.ModuleDict,
    rollouts: Rollouts,
    loss: Callable[[Batch], Tensor],
    steps: int,
    *,
    directory: Path | None = None,
    progress: Callable[[int], None] | None = None,
    resume: bool = False,
) -> None:
    """Gradient steps on ``loss`` of minibatches; ``network`` holds ``q`` and its copy ``target``, which follows it.

    Minibatches are drawn anew from (seed, step), so a training interrupted and resumed ends with the same weights.
    """
    config, device = agent.config, agent.device
    data = _Minibatches(agent, rollouts)
    network.to(device)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=config.learning_rate)
    checkpoint = directory / _CHECKPOINT if directory else None
    found = load_checkpoint(checkpoint, network, optimizer) if resume and checkpoint else None
    if found is None:
        for scorer in network.values():
            data.calibrate(scorer)
        network["target"].load_state_dict(network["q"].state_dict())
    with one_thread():
        for update in range(found["epoch"] if found else 0, config.updates):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * (1.0 - 0.9 * update / config.updates)
            if checkpoint and update % config.checkpoint_updates == 0:
                save_checkpoint(checkpoint, network, optimizer, {"epoch": update}, improved=False)
            if update % config.target_period == 0:
                network["target"].load_state_dict(network["q"].state_dict())
            value = loss(data.draw(agent.seed, update, config.batch_size, device))
            descend(
                value, network, optimizer, config.max_grad_norm, functools.partial("gradient step {}".format, update)
            )
            done = update + 1
            if done % 50 == 0 or done == config.updates:
                agent.log({"train/loss": float(value.detach())}, steps * done // config.updates)
                if progress:
                    progress(steps * done // config.updates)
    network.to("cpu")


def slot_value(choose: Tensor, value: Tensor, allowed: Tensor, slate_size: int) -> Tensor:
    """The worth [b] of a slot of the next slate: the mean ``value`` of the K best by ``choose`` among those allowed.

    With slates of one it is the usual max (or, where ``choose`` is another network than ``value``, double Q-learning's
    estimate of it). 0 where nothing is allowed.

    Args:
        choose: [b, M].
        value: [b, M].
        allowed: bool [b, M].
        slate_size: K.
    """
    best = choose.masked_fill(~allowed, -torch.inf).topk(slate_size, dim=1).indices
    counts = allowed.gather(1, best)
    return (value.gather(1, best) * counts).sum(1) / counts.sum(1).clamp(min=1)


class _Minibatches:
    """Logged slates as tensors."""

    def __init__(self, agent: Agent, rollouts: Rollouts) -> None:
        self._rows = rollouts.slates()
        self._user = torch.from_numpy(rollouts.observations["user"])
        self._candidates = torch.from_numpy(rollouts.observations["candidates"])
        self._slate = torch.from_numpy(rollouts.slate)
        self._credit = torch.from_numpy(split_reward(rollouts.reward, rollouts.consumed))
        self._goes_on = 1.0 - torch.from_numpy(rollouts.terminated).float()
        self._shown = observation_layout(agent.world, ("candidates",))["candidates"].index("shown")

    def draw(self, seed: int, number: int, size: int, device: torch.device) -> Batch:
        """Minibatch ``number`` of a training with ``seed``."""
        rng = np.random.default_rng([seed & 0x7FFFFFFF, number])
        rows = torch.from_numpy(self._rows[rng.integers(len(self._rows), size=size)])
        following = self._candidates[rows + 1]
        values: dict[str, Any] = {
            "user": self._user[rows],
            "candidates": self._candidates[rows],
            "slate": self._slate[rows],
            "credit": self._credit[rows],
            "next_user": self._user[rows + 1],
            "next_candidates": following,
            "next_fresh": following[:, :, self._shown] == 0,
            "goes_on": self._goes_on[rows],
        }
        return Batch(**{name: value.to(device) for name, value in values.items()})

    def calibrate(self, scorer: Any) -> None:
        """Sets a scorer's feature scaling from evenly spaced rows."""
        rows = torch.from_numpy(self._rows[:: max(len(self._rows) // _CALIBRATED, 1)])
        scorer.user_norm.calibrate(self._user[rows].to(scorer.user_norm.mean.device))
        candidates = self._candidates[rows].flatten(0, 1)
        scorer.candidate_norm.calibrate(candidates.to(scorer.candidate_norm.mean.device))
