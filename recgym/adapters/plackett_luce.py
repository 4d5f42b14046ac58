"""A Plackett-Luce distribution over slates, and the SB3 policy that draws from it by the scores of one network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from recgym.agents.networks import SlateScorer, StateNetwork
from recgym.errors import AgentError


class PlackettLuce(Distribution):
    """Ordered slates of K out of M candidates, drawn without replacement in proportion to exp(score).

    P(a_1, ..., a_K) = prod_k exp(s[a_k]) / sum over candidates not among a_1..a_{k-1} of exp(s) (Plackett, 1975).
    A slate with a repeated item has probability 0.
    """

    def __init__(self, slate_size: int) -> None:
        """A distribution over slates of ``slate_size``; ``proba_distribution`` sets the scores."""
        super().__init__()
        self.slate_size = slate_size
        self.scores: Tensor  # [B, M] float32

    def proba_distribution_net(self, *args: Any, **kwargs: Any) -> nn.Module:
        """The identity: the scores are the parameters."""
        return nn.Identity()

    def proba_distribution(self, scores: Tensor) -> Self:
        """Sets the scores [B, M]."""
        if scores.shape[1] < self.slate_size:
            raise AgentError(f"a slate of {self.slate_size} cannot be drawn from {scores.shape[1]} candidates")
        self.scores = scores
        return self

    def _chosen(self, slates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of the slate [B, K], log-normalisers [B, K + 1], and the scores with chosen candidates masked [B, M].

        Normaliser k is the log-sum-exp over the candidates open at position k; the last one is over those never chosen.
        They are summed from the last position to the first, so nothing is subtracted and nothing cancels.
        """
        # Not -inf: where all candidates are chosen, the gradient of logsumexp would be NaN.
        floor = torch.finfo(self.scores.dtype).min / 4
        left = self.scores.scatter(1, slates, floor)
        rest = left.logsumexp(1, keepdim=True)
        own = self.scores.gather(1, slates)
        return own, torch.cat([torch.logaddexp(own.flip(1).logcumsumexp(1).flip(1), rest), rest], dim=1), left

    def log_prob(self, actions: Tensor) -> Tensor:
        """Exact log-probability [B] of ordered slates [B, K], in O(M + K) a slate."""
        return self.log_prob_by_position(actions).sum(1)

    def log_prob_by_position(self, actions: Tensor) -> Tensor:
        """The summands [B, K] of ``log_prob``: of each position's choice, given those above it."""
        slates = actions.long()
        own, normalisers, _ = self._chosen(slates)
        ordered = slates.sort(dim=1).values
        repeated = (ordered[:, 1:] == ordered[:, :-1]).any(1, keepdim=True)
        return (own - normalisers[:, :-1]).masked_fill(repeated, -math.inf)

    def entropy_along(self, actions: Tensor) -> Tensor:
        """An unbiased estimate [B] of the entropy from slates [B, K] that were drawn from this distribution.

        By the chain rule the entropy is the mean over slates of the sum over positions of the exact entropy of that
        position's choice given the ones before; this is that sum, so only the prefixes are sampled. (Its gradient
        leaves out how the scores move the prefixes: the usual entropy bonus of a sequential policy.)
        """
        slates = actions.long()
        num_slots = slates.shape[1]
        own, normalisers, left = self._chosen(slates)
        if num_slots < self.scores.shape[1]:
            log_p = left.log_softmax(1)
            entropy = -(log_p.exp() * log_p).sum(1)  # of a choice among the candidates that are never chosen
        else:
            entropy = torch.zeros_like(own[:, 0])
        total = torch.zeros_like(entropy)
        for k in reversed(range(num_slots)):
            # The choice at k is a_k or one of the later ones: H_k = h(p) + (1 - p) H_{k+1}.
            log_p, log_q = own[:, k] - normalisers[:, k], normalisers[:, k + 1] - normalisers[:, k]
            entropy = -log_p.exp() * log_p + log_q.exp() * (entropy - log_q)
            total = total + entropy
        return total

    def entropy(self) -> Tensor:
        """``entropy_along`` one fresh sample."""
        return self.entropy_along(self.sample())

    def sample(self) -> Tensor:
        """Slates [B, K] by Gumbel top-K: perturbed scores, sorted, are a Plackett-Luce draw (Kool et al., 2019)."""
        gumbel = -torch.empty_like(self.scores).exponential_().log()
        return (self.scores + gumbel).topk(self.slate_size, dim=1).indices

    def mode(self) -> Tensor:
        """The most likely slate [B, K]: by falling score, ties to the lower position."""
        return self.scores.argsort(dim=1, descending=True, stable=True)[:, : self.slate_size]

    def actions_from_params(self, scores: Tensor, deterministic: bool = False) -> Tensor:
        """Slates [B, K] for ``scores`` [B, M]."""
        return self.proba_distribution(scores).get_actions(deterministic=deterministic)

    def log_prob_from_params(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Slates [B, K] for ``scores`` [B, M], and their log-probability [B]."""
        slates = self.actions_from_params(scores)
        return slates, self.log_prob(slates)


class PassThrough(BaseFeaturesExtractor):
    """Hands the observation dict on as it is: the networks read its keys themselves."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        """See ``BaseFeaturesExtractor``."""
        super().__init__(observation_space, features_dim=1)

    def forward(self, observations: Any) -> Any:
        """The observations."""
        return observations


class PlackettLucePolicy(ActorCriticPolicy):
    """An SB3 policy for ``Dict(user, candidates)`` observations and ``MultiDiscrete([M] * K)`` slates.

    Use it as ``PPO(PlackettLucePolicy, SB3VecEnv(env), policy_kwargs={"hidden": 64})``.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Callable[[float], float],
        hidden: int = 64,
        by_position: bool = False,
        **kwargs: Any,
    ) -> None:
        """See ``ActorCriticPolicy``.

        Args:
            observation_space: Dict(user, candidates).
            action_space: MultiDiscrete([M] * K).
            lr_schedule: learning rate by remaining progress.
            hidden: width of both networks.
            by_position: gives PPO log-probabilities [B, K], by position, as ``SlateRolloutBuffer`` wants them.
            **kwargs: see ``ActorCriticPolicy``.

        Raises:
            AgentError: the spaces are not those of a slate environment.
        """
        if not isinstance(observation_space, spaces.Dict) or not {"user", "candidates"} <= set(
            observation_space.spaces
        ):
            raise AgentError(f"a slate policy observes Dict(user, candidates), got {observation_space}")
        if not isinstance(action_space, spaces.MultiDiscrete):
            raise AgentError(f"a slate policy acts in MultiDiscrete([M] * K) (action mode 'slate'), got {action_space}")
        self.hidden = hidden
        self.by_position = by_position
        kwargs.setdefault("features_extractor_class", PassThrough)
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self, lr_schedule: Callable[[float], float]) -> None:
        assert isinstance(self.observation_space, spaces.Dict) and self.action_space.shape is not None
        user, candidates = self.observation_space["user"].shape, self.observation_space["candidates"].shape
        assert user is not None and candidates is not None
        self.slate_dist = PlackettLuce(self.action_space.shape[0])
        self.scorer = SlateScorer(user[0], candidates[1], self.hidden)
        self.critic = StateNetwork(user[0], candidates[1], self.hidden)
        optimizer: Any = self.optimizer_class
        self.optimizer = optimizer(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "hidden": self.hidden, "by_position": self.by_position}

    def forward(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Slates [B, K], values [B, 1] and log-probabilities [B] ([B, K] with ``by_position``)."""
        distribution, values = self._both(obs)
        slates = distribution.get_actions(deterministic=deterministic)
        return slates, values, self._log_prob(distribution, slates)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values [B, 1], log-probabilities as in ``forward``, entropy estimates [B] of slates [B, K] drawn earlier."""
        distribution, values = self._both(obs)
        return values, self._log_prob(distribution, actions), distribution.entropy_along(actions)

    def _both(self, obs: Any) -> tuple[PlackettLuce, Tensor]:
        """The distribution and the values [B, 1]; the features are standardised once for both."""
        u, c = self._standardised(obs)
        return self.slate_dist.proba_distribution(self.scorer.of_standardised(u, c)), self.critic(u, c)

    def _standardised(self, obs: Any) -> tuple[Tensor, Tensor]:
        return self.scorer.standardised(obs["user"].float(), obs["candidates"].float())

    def _log_prob(self, distribution: PlackettLuce, slates: Tensor) -> Tensor:
        return distribution.log_prob_by_position(slates) if self.by_position else distribution.log_prob(slates)

    def get_distribution(self, obs: Any) -> PlackettLuce:
        """The distribution over slates."""
        return self.slate_dist.proba_distribution(self.scorer.of_standardised(*self._standardised(obs)))

    def predict_values(self, obs: Any) -> Tensor:
        """Values [B, 1]."""
        return self.critic(*self._standardised(obs))

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return self.get_distribution(observation).get_actions(deterministic=deterministic)
