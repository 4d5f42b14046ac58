"""PPO re-ranker: proximal policy optimisation (Schulman et al., 2017) of a Plackett-Luce slate policy, by SB3.

Departures from the paper: the action is an ordered slate, whose positions are credited and clipped one by one (see
``SlateRolloutBuffer``); features are standardised once, from a few random steps before learning begins.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import LinearSchedule
from torch import Tensor

from recgym.adapters.credit import SlateRolloutBuffer
from recgym.adapters.plackett_luce import PlackettLucePolicy, SlateScorer
from recgym.adapters.sb3 import LogWriter, SB3VecEnv
from recgym.agents.protocol import (
    ActContext,
    Agent,
    AgentConfig,
    Observations,
    as_tensor,
    observation_layout,
    top_slate,
)
from recgym.agents.search import Search
from recgym.errors import AgentError
from recgym.random import Purpose, fold
from recgym.threads import one_thread

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv
    from recgym.worlds.world import World

CHECKPOINT = "checkpoint.zip"
MODEL = "model.zip"
EPISODES_AVERAGED = 1000  # a point of the learning curve; rewards of single episodes vary widely
_NOT_SAVED = ["_last_obs", "_last_original_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer"]


class PPOConfig(AgentConfig):
    """Settings of ``PPOAgent``; the defaults are those of the demo, about three minutes on one core."""

    num_envs: int = Field(256, ge=1, description="lanes trained on at once")
    num_steps: int = Field(8, ge=1, description="slates per lane and rollout")
    total_steps: int = Field(500_000, ge=1, description="slates shown in all, the default budget")
    credit: Literal["position", "slate"] = Field(
        "position", description="what an item is judged by: the reward it earned itself, or that of its whole slate"
    )
    batch_size: int = Field(1024, ge=2, description="slates per gradient step")
    num_epochs: int = Field(3, ge=1, description="passes over each rollout")
    learning_rate: Annotated[float, Search(1e-3, 3e-2, log=True)] = Field(
        1e-2, gt=0, description="Adam's, falling linearly to a tenth"
    )
    gamma: Annotated[float, Search(0.0, 0.9)] = Field(
        0.0, ge=0, le=1, description="per slate; above 0, noisier, where slates shape later ones"
    )
    gae_lambda: float = Field(0.9, ge=0, le=1, description="of generalised advantage estimation")
    clip_range: float = Field(
        0.2, gt=0, description="of the probability ratio of an item (or of a slate, a product of K)"
    )
    target_kl: float | None = Field(
        0.1, gt=0, description="stops a rollout's updates beyond 1.5 times this, in nats an item (or a slate)"
    )
    entropy_coef: Annotated[float, Search(1e-5, 1e-2, log=True)] = Field(
        1e-3, ge=0, description="per nat; a uniform slate of 10 from 100 has about 46"
    )
    value_coef: float = Field(0.5, ge=0)
    max_grad_norm: float = Field(0.5, gt=0)
    hidden: int = Field(32, ge=1, description="width of the scorer and the critic")
    calibration_steps: int = Field(8, ge=1, description="random slates per lane that the feature scaling is set from")
    checkpoint_rollouts: int = Field(8, ge=1, description="rollouts between checkpoints; lanes start afresh at each")


class PPOAgent(Agent):
    """Orders the candidates by the scores of the learned policy: the mode of its slate distribution.

    ``save`` writes what acting needs as safetensors and JSON, and after training ``model.zip`` beside it, SB3's own
    format, for further training with SB3. That zip and the checkpoint hold pickles, the only ones RecGym writes: load
    them from sources you trust. ``load`` reads neither.
    """

    id = "ppo"
    observes = ("user", "candidates")
    learns = "environment"
    Config = PPOConfig

    def __init__(self, world: World, config: AgentConfig | None = None, seed: int = 0) -> None:
        """See ``Agent``; untrained until ``train`` or ``load``."""
        super().__init__(world, config, seed)
        layout = observation_layout(world, self.observes)
        with private_rng(seed):
            self.scorer = SlateScorer(len(layout["user"]), len(layout["candidates"]), self.config.hidden)
        self.model: PPO | None = None

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        user, candidates = as_tensor(observations["user"]).float(), as_tensor(observations["candidates"]).float()
        return top_slate(context.slate_size, self.scorer.scores_by_block(user, candidates))

    def train(
        self,
        env: RecVectorEnv,
        steps: int,
        *,
        directory: Path | None = None,
        progress: Callable[[int], None] | None = None,
        resume: bool = False,
    ) -> None:
        """See ``Agent.train``. Interrupted and resumed, it ends with the same weights as in one go."""
        config = self.config
        checkpoint = directory / CHECKPOINT if directory else None
        with private_rng(self.seed), one_thread():
            venv = SB3VecEnv(env)
            if resume and checkpoint and checkpoint.is_file():
                self.model = PPO.load(checkpoint, env=venv, device=str(self.device))
            else:
                self.model = PPO(
                    PlackettLucePolicy,
                    venv,
                    learning_rate=LinearSchedule(config.learning_rate, config.learning_rate / 10, 1.0),
                    n_steps=config.num_steps,
                    batch_size=min(config.batch_size, config.num_steps * env.num_envs),
                    n_epochs=config.num_epochs,
                    gamma=config.gamma,
                    gae_lambda=config.gae_lambda,
                    clip_range=config.clip_range,
                    target_kl=config.target_kl,
                    ent_coef=config.entropy_coef,
                    vf_coef=config.value_coef,
                    max_grad_norm=config.max_grad_norm,
                    stats_window_size=EPISODES_AVERAGED,
                    policy_kwargs={"hidden": config.hidden, "by_position": config.credit == "position"},
                    rollout_buffer_class=SlateRolloutBuffer if config.credit == "position" else None,
                    device=str(self.device),
                )
                self._policy.scorer.load_state_dict(self.scorer.state_dict())
                venv.seed(_segment_seed(self.seed, -1))
                calibrate(self._policy.scorer, venv, config.calibration_steps)
            if isinstance(self.model.rollout_buffer, SlateRolloutBuffer):
                self.model.rollout_buffer.watch(venv.credits)
            self.model.set_logger(Logger(None, [LogWriter(self.log)]))
            remaining = steps - self.model.num_timesteps

            def report(done: int) -> None:
                self.scorer.load_state_dict(self._policy.scorer.state_dict())
                if progress:
                    progress(done)

            callback = _Segments(self.seed, config.checkpoint_rollouts, checkpoint, report)
            try:
                if remaining > 0:
                    self.model.learn(remaining, callback=callback, reset_num_timesteps=False)
            finally:
                self.model.logger.close()
        self.scorer.load_state_dict(self._policy.scorer.state_dict())

    @property
    def _policy(self) -> PlackettLucePolicy:
        if self.model is None or not isinstance(self.model.policy, PlackettLucePolicy):
            raise AgentError("agent 'ppo' has no slate policy to train")
        return self.model.policy

    def tensors(self) -> dict[str, Tensor]:
        """The scorer's parameters and feature scaling."""
        return self.scorer.state_dict()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave."""
        self.scorer.load_state_dict(tensors)

    def save(self, directory: str | Path) -> Path:
        """See ``Agent.save``; also writes SB3's ``model.zip`` where this agent was trained in this process."""
        path = super().save(directory)
        if self.model is not None:
            self.model.save(path / MODEL, exclude=_NOT_SAVED)
        return path


class _Segments(BaseCallback):
    """Cuts training into segments that begin with a checkpoint, fresh lanes and fresh luck.

    Nothing but the checkpoint crosses from one segment into the next, so a resumed training repeats exactly what was
    lost.
    """

    def __init__(self, seed: int, rollouts: int, checkpoint: Path | None, progress: Callable[[int], None]) -> None:
        super().__init__()
        self.seed = seed
        self.rollouts = rollouts
        self.checkpoint = checkpoint
        self.progress = progress

    def _on_rollout_start(self) -> None:
        model = self.model
        assert isinstance(model, PPO)
        rollout = model.num_timesteps // (model.n_steps * model.n_envs)
        if rollout % self.rollouts:
            return
        if self.checkpoint:
            partial = self.checkpoint.with_name(f"partial-{self.checkpoint.name}")
            model.save(partial, exclude=_NOT_SAVED)
            partial.replace(self.checkpoint)  # an interruption leaves the old checkpoint or the new one, whole
        seed = _segment_seed(self.seed, rollout)
        _seed_globals(seed)
        self.training_env.seed(seed)
        model._last_obs = self.training_env.reset()  # type: ignore[assignment]
        model._last_episode_starts = np.ones(model.n_envs, dtype=bool)

    def _on_rollout_end(self) -> None:
        self.progress(self.num_timesteps)

    def _on_step(self) -> bool:
        return True


def _segment_seed(seed: int, rollout: int) -> int:
    """A seed below 2**31 for the segment that begins with ``rollout`` (-1: calibration)."""
    return int(fold(torch.tensor(seed), int(Purpose.AGENT), rollout) & 0x7FFFFFFF)


@torch.no_grad()
def calibrate(scorer: SlateScorer, venv: SB3VecEnv, num_steps: int) -> None:
    """Sets the feature scaling of ``scorer`` from ``num_steps`` random slates in each lane of ``venv``."""
    observations: Any = venv.reset()
    users, candidates = [], []
    generator = np.random.default_rng(0)
    num_candidates = observations["candidates"].shape[1]
    slate_size = venv.action_space.shape[0]  # type: ignore[index]
    for _ in range(num_steps):
        users.append(torch.as_tensor(observations["user"]).clone())
        candidates.append(torch.as_tensor(observations["candidates"]).flatten(0, 1).clone())
        slates = generator.random((venv.num_envs, num_candidates)).argsort(axis=1)[:, :slate_size]
        observations = venv.step(slates)[0]
    scorer.user_norm.calibrate(torch.cat(users).float())
    scorer.candidate_norm.calibrate(torch.cat(candidates).float())


def _seed_globals(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (SB3 shuffles minibatches with the global generator)
    torch.manual_seed(seed)


@contextmanager
def private_rng(seed: int) -> Iterator[None]:
    """Seeds the global generators that SB3 draws from, and gives them back as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        _seed_globals(seed & 0x7FFFFFFF)
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])
