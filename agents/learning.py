"""Learning in the environment: the agent with a network, the training loop of agents in plain torch, checkpoints."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recgym.agents.blocks import by_block
from recgym.agents.features.knowledge import OF_ITEMS, OF_PAIRS, Knowledge
from recgym.agents.networks import Standardise
from recgym.agents.protocol import (
    ActContext,
    Agent,
    AgentConfig,
    Observations,
    as_tensor,
    observation_layout,
    top_slate,
)
from recgym.agents.replay import Replay
from recgym.agents.search import Search
from recgym.envs.features import USER_FEATURES
from recgym.errors import AgentError
from recgym.random import Purpose, fold
from recgym.threads import one_thread

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv
    from recgym.worlds.world import World

CHECKPOINT = "checkpoint.safetensors"
_AVERAGED = 1000  # episodes of a point of the learning curve
_IN_FEATURES = ("weights", "proto")  # action modes whose actions are stated in the candidates' features
_OF_TRIPS = ("step", "bought", "last_hits", "shown_text_", "consumed_text_")  # user features that grow with slates


class LearnerConfig(AgentConfig):
    """Settings of agents that learn from replayed transitions in plain torch."""

    num_envs: int = Field(256, ge=1, description="lanes trained on at once")
    num_steps: int = Field(4, ge=1, description="slates per lane between updates")
    num_updates: int = Field(4, ge=1, description="gradient steps after each rollout")
    total_steps: int = Field(300_000, ge=1, description="slates shown in all, the default budget")
    batch_size: int = Field(256, ge=2, description="slates per gradient step")
    replay_size: int = Field(20_480, ge=2, description="slates remembered")
    learning_rate: Annotated[float, Search(1e-3, 3e-2, log=True)] = Field(
        1e-2, gt=0, description="Adam's, falling linearly to a tenth"
    )
    gamma: Annotated[float, Search(0.0, 0.9)] = Field(0.2, ge=0, le=1, description="discount per slate")
    max_grad_norm: float = Field(1.0, gt=0)
    hidden: int = Field(32, ge=1, description="width of the networks")
    calibration_steps: int = Field(8, ge=1, description="random slates per lane that the feature scaling is set from")
    checkpoint_rollouts: int = Field(32, ge=1, description="rollouts between checkpoints; lanes start afresh at each")


class NetworkAgent(Agent):
    """Shows the candidates that its network scores highest; a subclass says in ``build`` which network, and trains it.

    What this trip has shown comes last (see ``not_shown``), unless the subclass leaves that to be learned. The network
    reads the observed features and, where actions are not stated in those features themselves, what the world's log
    says of each candidate (see ``Knowledge``). Every learned tensor is in ``network``, and that is what is saved.
    """

    observes: ClassVar[tuple[str, ...]] = ("user", "candidates", "candidate_items", "user_id", "history")
    learns = "environment"
    repeats: ClassVar[bool] = False  # whether what the trip has shown competes with the rest

    def __init__(self, world: World, config: AgentConfig | None = None, seed: int = 0) -> None:
        """See ``Agent``; untrained until ``train`` or ``load``."""
        super().__init__(world, config, seed)
        self.action_mode = getattr(self.config, "actions", self.action_mode)  # type: ignore[misc]
        self._knowledge = None if self.action_mode in _IN_FEATURES else Knowledge(world)
        if self._knowledge is None:
            self.observes = ("user", "candidates")  # type: ignore[misc]
        layout = observation_layout(world, self.observes)
        more = 0 if self._knowledge is None else len(OF_ITEMS) + len(OF_PAIRS)
        self.num_candidate = len(layout["candidates"]) + more  # features of a candidate that the network reads
        with private_rng(seed):
            self.network: Any = self.build(len(layout["user"]), self.num_candidate)
        self._shown = layout["candidates"].index("shown")

    def build(self, num_user: int, num_candidate: int) -> nn.Module:
        """The untrained network for so many features; torch's global generator is seeded."""
        raise AgentError(f"{type(self).__name__} does not define build(num_user, num_candidate)")

    def inputs(self, observations: Observations) -> tuple[Tensor, Tensor]:
        """What the network reads, float32: users [B, Du], and candidates [B, M, F] with what the log says of them."""
        user, candidates = (as_tensor(observations[key]).float() for key in ("user", "candidates"))
        if self._knowledge is None:
            return user, candidates
        items, users, history = (as_tensor(observations[key]).long() for key in self.observes[2:])
        known = self._knowledge.of_candidates(users.reshape(-1), items, history)
        return user, torch.cat([candidates, known], dim=-1)

    def scores(self, user: Tensor, candidates: Tensor) -> Tensor:
        """Scores [B, M] of candidates [B, M, F] for users [B, Du]."""
        return self.network(user, candidates)

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        user, candidates = self.inputs(observations)
        with torch.no_grad():
            return top_slate(context.slate_size, self.shown_last(by_block(self.scores, user, candidates), candidates))

    def shown_last(self, scores: Tensor, candidates: Tensor, margin: float = 1.0) -> Tensor:
        """``scores`` [B, M], those of candidates that this trip has shown moved below all others by ``margin``."""
        if self.repeats:
            return scores
        span = (scores.amax(1, keepdim=True) - scores.amin(1, keepdim=True)).detach() + margin
        return torch.where(candidates[:, :, self._shown] > 0, scores - span, scores)

    def tensors(self) -> dict[str, Tensor]:
        """The network's parameters and feature scaling."""
        return self.network.state_dict()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave."""
        self.network.load_state_dict(tensors)


class ReplayAgent(NetworkAgent):
    """A ``NetworkAgent`` trained by ``train_in_segments``; a subclass says in ``trainer`` how."""

    def trainer(self, slate_size: int) -> Trainer:
        """What trains this agent's network on slates of ``slate_size``."""
        raise AgentError(f"{type(self).__name__} does not define trainer(slate_size)")

    def train(
        self,
        env: RecVectorEnv,
        steps: int,
        *,
        directory: Path | None = None,
        progress: Callable[[int], None] | None = None,
        resume: bool = False,
    ) -> None:
        """See ``Agent.train``."""
        train_in_segments(self, env, steps, directory=directory, progress=progress, resume=resume)


class Trainer(Protocol):
    """How an agent learns: what it has meanwhile besides its network, and its two steps."""

    modules: Mapping[str, nn.Module]  # the network, critics and targets
    optimizers: Mapping[str, torch.optim.Optimizer]
    replay: Replay

    def explore(self, user: Tensor, candidates: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions [B, ...] of the environment's mode, and what else the replay keeps of the decision, by name."""
        ...

    def update(self, generator: torch.Generator) -> dict[str, float]:
        """A gradient step; returns what is worth logging. Called only where the replay has something to draw."""
        ...


def train_in_segments(
    agent: ReplayAgent,
    env: RecVectorEnv,
    steps: int,
    *,
    directory: Path | None,
    progress: Callable[[int], None] | None,
    resume: bool,
) -> None:
    """Trains ``agent``, see ``Agent.train``; interrupted and resumed, it ends with the same weights as in one go.

    The replay keeps of each slate ``reward`` [B], its split over the positions ``own`` [B, K] (see ``split_reward``)
    and ``consumed`` [B, K], besides what ``Trainer.explore`` gives. Training is cut into segments that begin with a
    checkpoint, fresh lanes and fresh luck, so that nothing but the checkpoint crosses from one into the next.

    Args:
        agent: its network is calibrated where training begins, and trained in place; torch's global generator is
            seeded while it makes its trainer.
        env: the environment, in the agent's action mode, lanes restarting within the step.
        steps: slates in all.
        directory: for the checkpoint.
        progress: told after every rollout how many slates were shown.
        resume: whether to go on from the checkpoint.
    """
    config, lanes = agent.config, env.num_envs
    checkpoint = directory / CHECKPOINT if directory else None
    generator = torch.Generator()
    observations: Mapping[str, Any]
    done = 0
    with one_thread():
        again = resume and checkpoint is not None and checkpoint.is_file()
        if not again:
            calibrate(agent, env)
        with private_rng(segment_seed(agent.seed, -2)):
            trainer = agent.trainer(env.slate_size)
        if again and checkpoint:
            done = _restore(trainer, checkpoint)
        returns = np.zeros(lanes)
        finished: list[float] = []
        while done < steps:
            rollout = done // (config.num_steps * lanes)
            if rollout % config.checkpoint_rollouts == 0:
                if checkpoint:
                    _save(trainer, done, checkpoint)
                seed = segment_seed(agent.seed, rollout)
                generator.manual_seed(seed)
                observations, _ = env.reset(seed=seed)
                trainer.replay.cut()
                returns[:] = 0.0
            for optimizer in trainer.optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate * (1.0 - 0.9 * done / steps)
            for _ in range(config.num_steps):
                observations = _play(agent, env, trainer, observations, generator, returns, finished)
            done += config.num_steps * lanes
            told = [trainer.update(generator) for _ in range(config.num_updates if len(trainer.replay) else 0)]
            figures = {
                f"train/{name}": float(np.mean([one[name] for one in told])) for name in (told[0] if told else ())
            }
            if finished:
                figures["rollout/ep_rew_mean"] = float(np.mean(finished[-_AVERAGED:]))
                del finished[:-_AVERAGED]
            agent.log(figures, done)
            if progress:
                progress(done)


def _play(
    agent: NetworkAgent,
    env: RecVectorEnv,
    trainer: Trainer,
    observations: Mapping[str, Any],
    generator: torch.Generator,
    returns: NDArray[np.float64],
    finished: list[float],
) -> Mapping[str, Any]:
    """Shows a slate to every lane, remembers what came of it, and returns the next observations."""
    from recgym.adapters.credit import split_reward

    user, candidates = agent.inputs(observations)
    with torch.no_grad():
        actions, more = trainer.explore(user, candidates, generator)
    following, reward, terminated, truncated, info = env.step(actions)
    consumed = np.asarray(info["consumed"])
    outcome = {
        "reward": torch.as_tensor(reward).float(),
        "own": torch.from_numpy(split_reward(reward, consumed)),
        "consumed": torch.from_numpy(consumed.copy()),
    }
    ended = torch.as_tensor(terminated), torch.as_tensor(truncated)
    trainer.replay.add(user, candidates, *ended, {**outcome, **more})
    returns += reward
    done = np.asarray(terminated | truncated)
    finished.extend(returns[done].tolist())
    returns[done] = 0.0
    return following


def _save(trainer: Trainer, done: int, path: Path) -> None:
    """Writes all that training needs to go on; an interruption leaves the old checkpoint or the new one, whole."""
    tensors = {f"replay.{name}": tensor for name, tensor in trainer.replay.tensors().items()}
    for name, module in trainer.modules.items():
        tensors |= {f"module.{name}.{key}": tensor for key, tensor in module.state_dict().items()}
    for name, optimizer in trainer.optimizers.items():
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{name}.{number}.{key}": tensor for key, tensor in state.items()}
    tensors["done"] = torch.tensor(done)
    partial = path.with_name(f"partial-{path.name}")
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, partial)
    partial.replace(path)


def _restore(trainer: Trainer, path: Path) -> int:
    """Takes back what ``_save`` wrote, and returns how many slates had been shown."""
    tensors = load_file(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    trainer.replay.restore(part("replay."))
    for name, module in trainer.modules.items():
        module.load_state_dict(part(f"module.{name}."))
    for name, optimizer in trainer.optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in part(f"optimizer.{name}.").items():
            number, _, field = key.partition(".")
            state.setdefault(int(number), {})[field] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(tensors["done"])


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, max_grad_norm: float) -> None:
    """A gradient step with the norm of the gradient clipped."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], max_grad_norm)
    optimizer.step()


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Moves the parameters of ``target`` towards those of ``source`` by the share ``rate``."""
    for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
        slow.lerp_(fast, rate)


def segment_seed(seed: int, rollout: int) -> int:
    """A seed below 2**31 for the segment that begins with ``rollout`` (-1: calibration, -2: networks)."""
    return int(fold(torch.tensor(seed), int(Purpose.AGENT), rollout) & 0x7FFFFFFF)


@torch.no_grad()
def calibrate(agent: NetworkAgent, env: RecVectorEnv) -> Tensor:
    """Sets the feature scaling in the agent's network from a few random slates in each lane of ``env``.

    Returns what they earned, float64 [slates, lanes].

    A network that learns from other slates than it will fill (of one item, or the neighbours of a noisy proposal) is
    deaf to what a trip has come to so far: ten items bought on one slate are a state that it never met. The share of
    the horizon that has elapsed, of which a few slates see the beginning only, keeps its whole range within the clip.
    """
    observations, _ = env.reset(seed=segment_seed(agent.seed, -1))
    users, candidates, earned = [], [], []
    generator = np.random.default_rng(0)
    for _ in range(agent.config.calibration_steps):
        user, features = agent.inputs(observations)
        users.append(user.clone())
        candidates.append(features.flatten(0, 1).clone())
        observations, rewards, *_ = env.step(_random_actions(env, generator))
        earned.append(torch.as_tensor(rewards).double().clone())
    rows = {"user_norm": torch.cat(users), "candidate_norm": torch.cat(candidates)}
    names = USER_FEATURES(agent.world)
    of_trips, elapsed = [i for i, name in enumerate(names) if name.startswith(_OF_TRIPS)], names.index("elapsed")
    for name, module in agent.network.named_modules():
        kind = name.rpartition(".")[2]
        if isinstance(module, Standardise):
            module.calibrate(rows[kind])
            if kind != "user_norm":
                continue
            module.scale[elapsed].clamp_(max=module.clip)
            if agent.action_mode in ("item", "proto"):
                module.scale[of_trips] = 0.0
    return torch.stack(earned)


def _random_actions(env: RecVectorEnv, generator: np.random.Generator) -> NDArray[Any]:
    """Uniform actions of the environment's mode; slates without repeats."""
    space: Any = env.single_action_space
    if isinstance(space, gymnasium.spaces.Box):
        return generator.uniform(-1.0, 1.0, (env.num_envs, *space.shape)).astype(np.float32)
    order = generator.random((env.num_envs, env.num_candidates)).argsort(axis=1)
    return order[:, 0] if isinstance(space, gymnasium.spaces.Discrete) else order[:, : env.slate_size]


def seed_globals(seed: int) -> None:
    """Seeds the generators that SB3 and torch's initialisation draw from."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (SB3 shuffles minibatches with the global generator)
    torch.manual_seed(seed)


@contextmanager
def private_rng(seed: int) -> Iterator[None]:
    """Seeds the global generators, and gives them back as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        seed_globals(seed & 0x7FFFFFFF)
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])
