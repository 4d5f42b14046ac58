"""Networks that the learning agents share: candidate scorers, functions of the state, and what ranks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recgym.agents.blocks import by_block
from recgym.envs.actions import linear_scores


class Standardise(nn.Module):
    """A fixed affine map of features to about zero mean and unit variance, set once from data by ``calibrate``."""

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int, clip: float = 5.0) -> None:
        """The identity on ``num_features`` features until ``calibrate`` is called."""
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    def calibrate(self, rows: Tensor) -> None:
        """Sets the map from ``rows`` [n, num_features]; a feature that does not vary is left at unit scale."""
        deviation = rows.std(dim=0, unbiased=False)
        self.mean.copy_(rows.mean(dim=0))
        self.scale.copy_(torch.where(deviation > 1e-6, 1.0 / deviation.clamp(min=0.05), torch.ones_like(deviation)))

    def forward(self, x: Tensor) -> Tensor:
        """The standardised features, clipped so that a rare value does not dominate."""
        # One pass over what may be millions of numbers, and no copy of them for the clipping.
        return torch.addcmul(-self.mean * self.scale, x, self.scale).clamp_(-self.clip, self.clip)


class SlateScorer(nn.Module):
    """One network that scores each candidate from (user, candidate) features; permuted candidates have permuted scores.

    score = w . relu(V relu(U u + C c)) + d . c: the first layer is split so that the user's part is computed once, and
    the linear term lets a single informative feature be found at once.
    """

    def __init__(self, num_user: int, num_candidate: int, hidden: int = 64, outputs: int | None = None) -> None:
        """For ``num_user`` and ``num_candidate`` features; several ``outputs`` instead of a score where given."""
        super().__init__()
        self.user_norm = Standardise(num_user)
        self.candidate_norm = Standardise(num_candidate)
        self.user = nn.Linear(num_user, hidden)
        self.candidate = nn.Linear(num_candidate, hidden, bias=False)
        self.hidden = nn.Linear(hidden, hidden)
        several = () if outputs is None else (outputs,)
        self.out = nn.Parameter(0.1 * torch.randn(*several, hidden) / math.sqrt(hidden))
        self.direct = nn.Parameter(torch.zeros(*several, num_candidate))

    def forward(self, user: Tensor, candidates: Tensor) -> Tensor:
        """Scores [B, M], or [B, M, outputs], of candidates [B, M, F] for users [B, D]."""
        return self.of_standardised(*self.standardised(user, candidates))

    def standardised(self, user: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """The features as the network sees them."""
        return self.user_norm(user), self.candidate_norm(candidates)

    def of_standardised(self, u: Tensor, c: Tensor) -> Tensor:
        """``forward`` for features that are standardised already."""
        h = torch.relu_(self.user(u)[:, None, :] + self.candidate(c))
        h = torch.relu_(self.hidden(h))
        if self.out.dim() == 2:
            return h @ self.out.T + c @ self.direct.T
        # Multiply and sum: a matrix product with one output column rounds differently with the number of rows.
        return (h * self.out).sum(-1) + (c * self.direct).sum(-1)

    @torch.no_grad()
    def scores_by_block(self, user: Tensor, candidates: Tensor) -> Tensor:
        """``forward``, so that a lane has the same scores in any batch; see ``by_block``."""
        return by_block(self, user, candidates)


class StateNetwork(nn.Module):
    """A function of the state: of the user's features, and the mean and maximum of the candidates'."""

    def __init__(self, num_user: int, num_candidate: int, hidden: int = 64, outputs: int = 1, extra: int = 0) -> None:
        """For ``num_user`` and ``num_candidate`` features, and ``extra`` ones beside the state (an action)."""
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(num_user + 2 * num_candidate + extra, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, outputs),
        )

    def forward(self, user: Tensor, candidates: Tensor, *extra: Tensor) -> Tensor:
        """[B, outputs] of standardised users [B, D], candidates [B, M, F] and further features [B, extra]."""
        return self.net(torch.cat([state_summary(user, candidates), *extra], dim=1))


def state_summary(user: Tensor, candidates: Tensor) -> Tensor:
    """What a ``StateNetwork`` reads of a state, [B, D + 2 F]."""
    return torch.cat([user, candidates.mean(dim=1), candidates.amax(dim=1)], dim=1)


class RankNetwork(nn.Module):
    """What parametrises actions that rank: numbers for each candidate (``scores``) or each feature (``weights``)."""

    def __init__(self, num_user: int, num_candidate: int, hidden: int, actions: str, outputs: int = 1) -> None:
        """For ``num_user`` and ``num_candidate`` features; ``outputs`` numbers for each."""
        super().__init__()
        self.by_weights, self.outputs = actions == "weights", outputs
        if self.by_weights:
            self.user_norm, self.candidate_norm = Standardise(num_user), Standardise(num_candidate)
            self.state = StateNetwork(num_user, num_candidate, hidden, outputs=outputs * num_candidate)
        else:
            self.scorer = SlateScorer(num_user, num_candidate, hidden, outputs)

    def forward(self, user: Tensor, candidates: Tensor) -> tuple[Tensor, ...]:
        """``outputs`` tensors [B, M] (``scores``) or [B, F] (``weights``)."""
        if self.by_weights:
            return self.state(self.user_norm(user), self.candidate_norm(candidates)).chunk(self.outputs, dim=1)
        return self.scorer(user, candidates).unbind(-1)

    def standardised(self, user: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """The features as the network sees them."""
        scaling = self if self.by_weights else self.scorer
        return scaling.user_norm(user), scaling.candidate_norm(candidates)

    @property
    def reach(self) -> Tensor:
        """How far each number of an action may go, float32 [A] or [1], 1 at most.

        The environment's weights are of features as they are, some of which vary twenty times as much as others; each
        weight's reach is in proportion to how little its feature varies, so that all move the ranking alike.
        """
        if not self.by_weights:
            return torch.ones(1)
        scale = self.candidate_norm.scale
        return scale / scale.max()

    def bounded(self, raw: Tensor) -> Tensor:
        """Means [B, A] of actions in [-1, 1], of the network's numbers.

        Of weights only the direction decides: too long a vector is shortened as a whole. Squashed one by one, all of
        them would run to -1 or 1, from where no gradient brings them back, and nothing but their signs would be
        learned. A score is squashed: next to many others, one that is sure to be shown needs no gradient.
        """
        if not self.by_weights:
            return torch.tanh(raw)
        return self.reach * raw / raw.abs().amax(dim=1, keepdim=True).clamp(min=1.0)

    def candidate_scores(self, actions: Tensor, candidates: Tensor) -> Tensor:
        """The scores [B, M] that actions mean, as the environment ranks by them."""
        return linear_scores(actions, candidates) if self.by_weights else actions
