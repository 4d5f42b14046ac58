"""Training with Stable-Baselines3: segments that can be resumed, item-wise values, replay, and the zip that is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import load_file, save_file
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from stable_baselines3.common.utils import LinearSchedule
from torch import Tensor, nn

from recgym.adapters.sb3 import LogWriter, SB3VecEnv, View
from recgym.agents.learning import NetworkAgent, calibrate, private_rng, seed_globals, segment_seed
from recgym.agents.protocol import AgentConfig
from recgym.agents.replay import Replay
from recgym.agents.search import Search
from recgym.errors import AgentError
from recgym.threads import one_thread

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv

CHECKPOINT = "checkpoint.zip"
MODEL = "model.zip"
EPISODES_AVERAGED = 1000  # a point of the learning curve; rewards of single episodes vary widely
_NOT_SAVED = ["_last_obs", "_last_original_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer"]


class OffPolicyConfig(AgentConfig):
    """Settings of agents that SB3 trains from replayed transitions."""

    num_envs: int = Field(256, ge=1, description="lanes trained on at once")
    num_steps: int = Field(4, ge=1, description="slates per lane between updates")
    num_updates: int = Field(4, ge=1, description="gradient steps after each rollout")
    total_steps: int = Field(500_000, ge=1, description="slates shown in all, the default budget")
    batch_size: int = Field(256, ge=2, description="slates per gradient step")
    replay_size: int = Field(20_480, ge=2, description="slates remembered")
    learning_rate: Annotated[float, Search(1e-3, 3e-2, log=True)] = Field(
        1e-2, gt=0, description="Adam's, falling linearly to a tenth"
    )
    gamma: Annotated[float, Search(0.0, 0.9)] = Field(0.2, ge=0, le=1, description="discount per slate")
    hidden: int = Field(32, ge=1, description="width of the networks")
    calibration_steps: int = Field(8, ge=1, description="random slates per lane that the feature scaling is set from")
    checkpoint_rollouts: int = Field(32, ge=1, description="rollouts between checkpoints; lanes start afresh at each")


def on_policy_settings(config: Any, venv: SB3VecEnv, gamma: float) -> dict[str, Any]:
    """Keyword arguments that SB3's PPO and MaskablePPO take alike from an agent's config, and the discount."""
    return {
        "learning_rate": LinearSchedule(config.learning_rate, config.learning_rate / 10, 1.0),
        "n_steps": config.num_steps,
        "batch_size": min(config.batch_size, config.num_steps * venv.num_envs),
        "n_epochs": config.num_epochs,
        "gamma": gamma,
        "gae_lambda": config.gae_lambda,
        "clip_range": config.clip_range,
        "target_kl": config.target_kl,
        "ent_coef": config.entropy_coef,
        "vf_coef": config.value_coef,
        "max_grad_norm": config.max_grad_norm,
        "stats_window_size": EPISODES_AVERAGED,
    }


class SB3Agent(NetworkAgent):
    """A ``NetworkAgent`` that SB3 trains.

    ``save`` writes what acting needs as safetensors and JSON, and after training ``model.zip`` beside it, SB3's own
    format, for further training with SB3. That zip and the checkpoint hold pickles, the only ones RecGym writes: load
    them from sources you trust. ``load`` reads neither.
    """

    algorithm: type[BaseAlgorithm]

    model: BaseAlgorithm | None = None

    def wrap(self, env: RecVectorEnv) -> SB3VecEnv:
        """``env`` as SB3 takes it."""
        return SB3VecEnv(env, self.view(env))

    def view(self, env: RecVectorEnv) -> View:
        """What this agent's network reads, for SB3."""

        def of(observations: Any) -> dict[str, NDArray[Any]]:
            return dict(zip(("user", "candidates"), (part.numpy() for part in self.inputs(observations)), strict=True))

        size: Any = env.single_observation_space
        shapes = size["user"].shape, (size["candidates"].shape[0], self.num_candidate)
        boxes = (spaces.Box(-np.inf, np.inf, shape, np.float32) for shape in shapes)
        return View(spaces.Dict(dict(zip(("user", "candidates"), boxes, strict=True))), of)

    def make(self, venv: SB3VecEnv) -> BaseAlgorithm:
        """SB3's algorithm on ``venv`` with this agent's settings."""
        raise AgentError(f"{type(self).__name__} does not define make(venv)")

    def prepare(self, model: BaseAlgorithm, venv: SB3VecEnv) -> None:
        """What a model needs that was just made or loaded."""

    def reward_scale(self, rewards: Tensor, gamma: float) -> float:
        """What rewards are multiplied by for learning, told what random slates earned, [slates, lanes]."""
        return 1.0

    def trained_part(self, policy: Any) -> nn.Module:
        """The part of SB3's policy that is this agent's network."""
        return policy.scorer

    def start(self, policy: Any) -> None:
        """Gives a policy that was just made the calibrated network of this agent."""
        self.trained_part(policy).load_state_dict(self.network.state_dict())

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
            venv = self.wrap(env)
            if resume and checkpoint and checkpoint.is_file():
                # Replays lie in the memory of the CPU, and so do the networks that learn from them.
                device = "cpu" if issubclass(self.algorithm, OffPolicyAlgorithm) else str(self.device)
                model = self.algorithm.load(checkpoint, env=venv, device=device)
                if (replay := _replay(model)) is not None:
                    replay.restore(load_file(_beside(checkpoint, model)))
            else:
                rewards = calibrate(self, env)
                model = self.make(venv)
                self.start(model.policy)
                model.reward_scale = self.reward_scale(rewards, model.gamma)  # type: ignore[attr-defined]  # saved with it
            self.prepare(model, venv)
            venv.reward_scale = model.reward_scale  # type: ignore[attr-defined]
            self.model = model
            model.set_logger(Logger(None, [LogWriter(self.log)]))

            def report(done: int) -> None:
                self._take(model)
                if progress:
                    progress(done)

            segments = _Segments(
                self.seed, config.num_steps * env.num_envs, config.checkpoint_rollouts, checkpoint, report
            )
            interval = EPISODES_AVERAGED if isinstance(model, OffPolicyAlgorithm) else 1  # episodes, or rollouts
            try:
                if steps > model.num_timesteps:
                    model.learn(
                        steps - model.num_timesteps, callback=segments, log_interval=interval, reset_num_timesteps=False
                    )
            finally:
                model.logger.close()
        self._take(model)

    def _take(self, model: BaseAlgorithm) -> None:
        self.network.load_state_dict(self.trained_part(model.policy).state_dict())

    def save(self, directory: str | Path) -> Path:
        """See ``Agent.save``; also writes SB3's ``model.zip`` where this agent was trained in this process."""
        path = super().save(directory)
        if self.model is not None:
            self.model.save(path / MODEL, exclude=_NOT_SAVED)
        return path


def _replay(model: BaseAlgorithm) -> Replay | None:
    buffer = model.replay_buffer if isinstance(model, OffPolicyAlgorithm) else None
    return buffer.replay if isinstance(buffer, SharedReplayBuffer) else None


def _beside(checkpoint: Path, model: BaseAlgorithm) -> Path:
    """Where the replay of a checkpoint lies: named by the slates shown, so that it never meets another's model."""
    return checkpoint.with_name(f"{checkpoint.stem}-replay-{model.num_timesteps}.safetensors")


class _Segments(BaseCallback):
    """Cuts training into segments that begin with a checkpoint, fresh lanes and fresh luck.

    Nothing but the checkpoint crosses from one segment into the next, so a resumed training repeats exactly what was
    lost.
    """

    def __init__(
        self,
        seed: int,
        rollout: int,
        rollouts: int,
        checkpoint: Path | None,
        progress: Callable[[int], None],
    ) -> None:
        super().__init__()
        self.seed = seed
        self.rollout = rollout
        self.rollouts = rollouts
        self.checkpoint = checkpoint
        self.progress = progress

    def _on_rollout_start(self) -> None:
        model = self.model
        number = model.num_timesteps // self.rollout
        if number % self.rollouts:
            return
        if self.checkpoint:
            self._save(self.checkpoint)
        if (replay := _replay(model)) is not None:
            replay.cut()
        seed = segment_seed(self.seed, number)
        seed_globals(seed)
        self.training_env.seed(seed)
        model._last_obs = self.training_env.reset()  # type: ignore[assignment]
        model._last_episode_starts = np.ones(model.n_envs, dtype=bool)

    def _save(self, checkpoint: Path) -> None:
        """An interruption leaves the old checkpoint or the new one, whole."""
        replay = _replay(self.model)
        if replay is not None:
            save_file(replay.tensors(), _beside(checkpoint, self.model))
        partial = checkpoint.with_name(f"partial-{checkpoint.name}")
        self.model.save(partial, exclude=_NOT_SAVED)
        partial.replace(checkpoint)
        for old in checkpoint.parent.glob(f"{checkpoint.stem}-replay-*.safetensors"):
            if old != _beside(checkpoint, self.model):
                old.unlink()

    def _on_rollout_end(self) -> None:
        self.progress(self.num_timesteps)

    def _on_step(self) -> bool:
        return True


class SharedReplayBuffer(ReplayBuffer):
    """A ``Replay`` as SB3 takes it."""

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
    ) -> None:
        """See ``ReplayBuffer``, whose arrays are not made; memory is saved in any case."""
        self.replay = Replay(buffer_size)
        self.whole = isinstance(action_space, spaces.Discrete)

    def add(
        self,
        obs: Any,
        next_obs: Any,
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """See ``ReplayBuffer``; ``next_obs`` is what the next call calls ``obs``, or it is not needed."""
        cut = torch.tensor([bool(info.get("TimeLimit.truncated", False)) for info in infos])
        more = {"action": torch.as_tensor(action).reshape(len(reward), -1), "reward": torch.as_tensor(reward)[:, None]}
        user, candidates = torch.as_tensor(obs["user"]), torch.as_tensor(obs["candidates"])
        self.replay.add(user, candidates, torch.as_tensor(done) & ~cut, cut, more)

    def sample(self, batch_size: int, env: Any = None) -> DictReplayBufferSamples:  # type: ignore[override]
        """See ``ReplayBuffer``; drawn by torch's global generator, as all that SB3 does."""
        batch = self.replay.sample(batch_size)
        return DictReplayBufferSamples(
            observations={"user": batch.user, "candidates": batch.candidates},
            actions=batch.more["action"],
            next_observations={"user": batch.next_user, "candidates": batch.next_candidates},
            dones=batch.terminated[:, None],
            rewards=batch.more["reward"],
        )


class OnceReplayed:
    """For SB3's algorithms with a ``SharedReplayBuffer``: no gradient steps while there is nothing to draw.

    That is so until a lane has ended an episode, or shown a second slate: a slate's observation follows with the next.
    """

    replay_buffer: Any

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """See ``OffPolicyAlgorithm``."""
        if len(self.replay_buffer.replay):
            super().train(gradient_steps, batch_size)  # type: ignore[misc]


class LaneByLane(OnceReplayed):
    """Epsilon-greedy lane by lane, for SB3's DQN and QR-DQN, which draw one coin for all lanes together.

    A lane that does not explore shows its best item. Generators are torch's global one, seeded at each segment: SB3
    would draw from the action space's, which nobody seeds.
    """

    exploration_rate: float
    policy: Any
    _last_obs: Any

    def _sample_action(self, learning_starts: int, action_noise: Any = None, n_envs: int = 1) -> tuple[Any, Any]:
        best, _ = self.policy.predict(self._last_obs, deterministic=True)
        anything = torch.randint(self._last_obs["candidates"].shape[1], (n_envs,)).numpy()
        actions = np.where(torch.rand(n_envs).numpy() < self.exploration_rate, anything, best)
        return actions, actions


class ItemValues(nn.Module):
    """Item-wise values as SB3's DQN and QR-DQN take them: of every candidate by one scorer."""

    def __init__(self, scorer: nn.Module) -> None:
        """Of ``scorer``, which gives values [B, M] or quantiles [B, M, n]."""
        super().__init__()
        self.scorer = scorer

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Values [B, M], or quantiles [B, n, M]."""
        values = self.scorer(observations["user"].float(), observations["candidates"].float())
        return values.transpose(1, 2) if values.dim() == 3 else values

    def _predict(self, observations: dict[str, Tensor], deterministic: bool = True) -> Tensor:
        values = self(observations)
        return (values.mean(dim=1) if values.dim() == 3 else values).argmax(dim=1)

    def set_training_mode(self, mode: bool) -> None:
        """SB3's name for ``train``."""
        self.train(mode)
