"""SAC re-ranker (Haarnoja et al., "Soft actor-critic", ICML 2018), by SB3, on ``scores`` or ``weights``.

Departures from the paper: one network gives every candidate the mean and deviation of its score; with ``weights``, the
state gives those of the weights of the candidate features. The critics know that only the K best are shown: with s_i
the score, t the K-th best score, d the deviation of the scores and w a width,

    Q(s, a) = V(s) + sum over i of p_i q(s, i),    p_i = K sigmoid((s_i - t) / (w d)) / sum over j of the same

for the actor, so that its gradient raises the scores of items of more value than those shown, whatever the scores'
scale, and lowers the others. The critics themselves learn with p_i = 1 for what was shown and 0 for the rest. While
learning as in evaluations, what the trip has shown already comes last, and some lanes act at random. Features are
standardised once. Means of weights are a direction, and their deviations go by their reach (``RankNetwork.bounded``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor, nn
from torch.nn.functional import softplus

from recgym.adapters.plackett_luce import PassThrough
from recgym.adapters.ranking import RankedVecEnv
from recgym.adapters.sb3 import SB3VecEnv
from recgym.agents.networks import RankNetwork, SlateScorer, Standardise, StateNetwork, state_summary
from recgym.agents.sb3 import EPISODES_AVERAGED, OffPolicyConfig, OnceReplayed, SB3Agent, SharedReplayBuffer
from recgym.agents.search import Search
from recgym.envs.actions import linear_scores

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv

WIDTH = 0.3  # of the threshold, in deviations of the scores
_FAR = 100.0  # deviations between what the trip has shown and the rest
_LOG_DEVIATION = (-4.0, 0.5)  # bounds of the logarithm of the deviation, before tanh


class SACConfig(OffPolicyConfig):
    """Settings of ``SACAgent``."""

    actions: Literal["scores", "weights"] = Field("weights", description="the action mode")
    total_steps: int = Field(300_000, ge=1, description="slates shown in all, the default budget")
    exploration: Annotated[float, Search(0.01, 0.5, log=True)] = Field(
        0.1, ge=0, le=1, description="chance that a lane acts at random"
    )
    target_rate: float = Field(0.05, gt=0, le=1, description="share by which targets follow at each gradient step")
    deviation: Annotated[float, Search(0.02, 0.5, log=True)] = Field(
        0.05, gt=0, lt=1, description="that an action's numbers should keep: the target entropy, of a normal one"
    )


class RankActor(RankNetwork):
    """A squashed normal distribution of actions: of each candidate's score, or of the features' weights."""

    def parameters_of(self, observations: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Means and logarithms of deviations [B, A] before squashing."""
        mean, deviation = self(observations["user"].float(), observations["candidates"].float())
        # Means keep within (-1, 1): a ranking has no scale, and further out tanh would swallow the noise.
        return self.bounded(mean), (deviation - 1.0).clamp(*_LOG_DEVIATION) + self.reach.log()

    def action_log_prob(self, observations: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Actions [B, A] in (-1, 1), and their log-densities [B]."""
        mean, log_deviation = self.parameters_of(observations)
        noise = torch.randn_like(mean)
        raw = mean + log_deviation.exp() * noise
        normal = -0.5 * noise.square() - log_deviation - 0.5 * math.log(2.0 * math.pi)
        squash = 2.0 * (math.log(2.0) - raw - softplus(-2.0 * raw))  # log(1 - tanh(raw) ** 2), without cancelling
        return torch.tanh(raw), (normal - squash).sum(1)

    def set_training_mode(self, mode: bool) -> None:
        """SB3's name for ``train``."""
        self.train(mode)


class RankCritics(nn.Module):
    """Two critics of the slate that an action means; see the module's docstring."""

    def __init__(
        self, num_user: int, num_candidate: int, hidden: int, slate_size: int, actions: str, before: int
    ) -> None:
        """For ``num_user`` and ``num_candidate`` features (``before``: shown already) and slates of ``slate_size``."""
        super().__init__()
        self.slate_size, self.by_weights, self.before = slate_size, actions == "weights", before
        self.items = nn.ModuleList(SlateScorer(num_user, num_candidate, hidden) for _ in range(2))
        self.states = nn.ModuleList(StateNetwork(num_user, num_candidate, hidden) for _ in range(2))

    def forward(self, observations: dict[str, Tensor], actions: Tensor) -> tuple[Tensor, ...]:
        """Values [B, 1] of each critic."""
        user, candidates = observations["user"].float(), observations["candidates"].float()
        first: Any = self.items[0]  # torch types what a ModuleList holds as Module
        u, c = first.standardised(user, candidates)  # scaled alike in both critics
        scores = linear_scores(actions, candidates) if self.by_weights else actions
        z = scores / scores.std(1, keepdim=True).clamp(min=1e-4)
        z = torch.where(candidates[:, :, self.before] > 0, z - _FAR, z)
        # What was shown is known where nothing is differentiated. Where the actor is, the gradient goes through what is
        # shown alone: values of items and states know no actions.
        soft = actions.requires_grad and torch.is_grad_enabled()
        shown = soft_top(z, self.slate_size) if soft else hard_top(z, self.slate_size)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not soft):
            state = state_summary(u, c)
            values = [(one.net(state), item.of_standardised(u, c)) for one, item in self._pairs()]
        return tuple(value + (shown * items).sum(1, keepdim=True) for value, items in values)

    def _pairs(self) -> Iterator[tuple[Any, Any]]:
        return zip(self.states, self.items, strict=True)

    def set_training_mode(self, mode: bool) -> None:
        """SB3's name for ``train``."""
        self.train(mode)


def hard_top(scores: Tensor, slate_size: int) -> Tensor:
    """1 for the K best of scores [B, M], else 0; float32 [B, M]."""
    return torch.zeros_like(scores).scatter_(1, scores.topk(slate_size, dim=1).indices, 1.0)


def soft_top(scores: Tensor, slate_size: int) -> Tensor:
    """How far each candidate is among the K best of scores [B, M], K in all; see the module's docstring."""
    threshold = scores.topk(min(slate_size + 1, scores.shape[1]), dim=1).values[:, -2:].mean(1, keepdim=True)
    near = torch.sigmoid((scores - threshold) / WIDTH)
    return near * (slate_size / near.sum(1, keepdim=True))


class RankSACPolicy(SACPolicy):
    """SB3's policy with ``RankActor`` and ``RankCritics``."""

    def __init__(self, *args: Any, hidden: int, slate_size: int, actions: str, before: int, **kwargs: Any) -> None:
        """See ``SACPolicy`` and ``RankCritics``."""
        self.hidden, self.slate_size, self.actions, self.before = hidden, slate_size, actions, before
        super().__init__(*args, **{"features_extractor_class": PassThrough, **kwargs})

    def _build(self, lr_schedule: Any) -> None:
        space: Any = self.observation_space
        sizes = space["user"].shape[0], space["candidates"].shape[1], self.hidden
        optimizer: Any = self.optimizer_class

        def critics() -> Any:
            return RankCritics(*sizes, self.slate_size, self.actions, self.before)

        actor: Any = RankActor(*sizes, self.actions, outputs=2)
        self.actor, self.critic, self.critic_target = actor, critics(), critics()
        self.critic_target.load_state_dict(self.critic.state_dict())
        for part in (self.actor, self.critic):
            part.optimizer = optimizer(part.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        if deterministic:
            return torch.tanh(self.actor.parameters_of(observation)[0])  # type: ignore[operator]
        return self.actor.action_log_prob(observation)[0]


class LaneSAC(OnceReplayed, SAC):
    """SB3's SAC, some lanes of which act at random: what is never shown is never learned to be good."""

    exploration = 0.0  # chance of a lane

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        _, own = super()._sample_action(learning_starts, action_noise, n_envs)
        explores = torch.rand(n_envs, 1).numpy() < self.exploration
        actions = np.where(explores, 2.0 * torch.rand(own.shape).numpy() - 1.0, own)  # the box is that of tanh
        return actions, actions


class SACAgent(SB3Agent):
    """Shows the candidates of highest mean score, or of largest weighted sum by the mean weights.

    The action mode is the config's ``actions``.
    """

    id = "sac"
    Config = SACConfig
    algorithm = LaneSAC

    def build(self, num_user: int, num_candidate: int) -> nn.Module:
        """See ``NetworkAgent.build``."""
        return RankActor(num_user, num_candidate, self.config.hidden, self.config.actions, outputs=2)

    def scores(self, user: Tensor, candidates: Tensor) -> Tensor:
        """See ``NetworkAgent.scores``."""
        mean, _ = self.network(user, candidates)
        return self.network.candidate_scores(torch.tanh(self.network.bounded(mean)), candidates)

    def trained_part(self, policy: Any) -> nn.Module:
        """See ``SB3Agent.trained_part``."""
        return policy.actor

    def start(self, policy: Any) -> None:
        """See ``SB3Agent.start``: the critics take the actor's scaling of features."""
        super().start(policy)
        scaling = {name: part for name, part in self.network.named_modules() if isinstance(part, Standardise)}
        for critics in (policy.critic, policy.critic_target):
            for name, part in critics.named_modules():
                if isinstance(part, Standardise):
                    source = next(s for n, s in scaling.items() if n.endswith(name.rpartition(".")[2]))
                    part.load_state_dict(source.state_dict())

    def wrap(self, env: RecVectorEnv) -> SB3VecEnv:
        """See ``SB3Agent.wrap``."""
        return RankedVecEnv(env, self.view(env), self._shown, self.config.actions)

    def prepare(self, model: BaseAlgorithm, venv: SB3VecEnv) -> None:
        """See ``SB3Agent.prepare``."""
        assert isinstance(model, LaneSAC)
        model.exploration = self.config.exploration

    def make(self, venv: SB3VecEnv) -> BaseAlgorithm:
        """See ``SB3Agent.make``."""
        config = self.config
        space: Any = venv.action_space
        entropy = 0.5 * math.log(2.0 * math.pi * math.e) + math.log(config.deviation)  # of one number that reaches 1
        reach = self.network.reach.log().expand(space.shape[0]).sum()
        return LaneSAC(
            RankSACPolicy,
            venv,
            learning_rate=LinearSchedule(config.learning_rate, config.learning_rate / 10, 1.0),
            buffer_size=config.replay_size,
            learning_starts=0,
            batch_size=config.batch_size,
            tau=config.target_rate,
            gamma=config.gamma,
            train_freq=config.num_steps,
            gradient_steps=config.num_updates,
            replay_buffer_class=SharedReplayBuffer,
            ent_coef="auto_0.001",
            target_entropy=float(entropy * space.shape[0] + reach),
            stats_window_size=EPISODES_AVERAGED,
            policy_kwargs={
                "hidden": config.hidden,
                "slate_size": venv.env.slate_size,
                "actions": config.actions,
                "before": self._shown,
            },
            device="cpu",
        )
