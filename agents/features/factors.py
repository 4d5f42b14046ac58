"""What a collaborative filter has learned, as tensors: factors of users and items, or neighbourhoods."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from recgym.agents.features.pairs import Pairs
from recgym.errors import AgentError


@dataclass(frozen=True, eq=False)
class Learned:
    """Tensors that score pairs; a subclass defines ``score``."""

    def score(self, users: Tensor, items: Tensor, history: Tensor) -> Tensor:
        """Scores float32 [b, M].

        Args:
            users: int64 [b] user rows; any other number is an unknown user.
            items: int64 [b, M] item rows.
            history: int64 [b, H] item rows consumed last, -1 pads.
        """
        raise AgentError(f"{type(self).__name__} does not define score(users, items, history)")

    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, eq=False)
class Factors(Learned):
    """``<p_u, q_i> + b_i``; a user whom the log does not know is folded in from the history.

    The vector of an unknown user solves the ridge regression of 1 on the vectors of the items in the history:
    ``p = (R + c sum_j q_j q_j^T)^-1 c sum_j q_j``, as in alternating least squares (Hu et al., ICDM 2008, with R the
    Gram matrix of all items plus the regularisation). Without any history it is 0.
    """

    users: Tensor  # [U, d] float32
    items: Tensor  # [N, d] float32
    bias: Tensor  # [N] float32
    ridge: Tensor  # [d, d] float32, R
    confidence: Tensor  # [] float32, c

    @classmethod
    def blank(cls, num_users: int, num_items: int) -> Factors:
        """What a log without purchases teaches: nothing."""
        one = torch.ones(())
        return cls(torch.zeros(num_users, 1), torch.zeros(num_items, 1), torch.zeros(num_items), torch.eye(1), one)

    def score(self, users: Tensor, items: Tensor, history: Tensor) -> Tensor:
        """See ``Learned``."""
        known = (users >= 0) & (users < len(self.users))
        vectors = self.items.new_zeros(len(users), self.items.shape[1])
        vectors[known] = self.users[users[known]]
        if not bool(known.all()):
            vectors[~known] = self.folded(history[~known])
        return (vectors[:, None] * self.items[items]).sum(-1) + self.bias[items]

    def folded(self, history: Tensor) -> Tensor:
        """The vectors [b, d] of users of whom only the ``history`` [b, H] is known."""
        there = (history >= 0)[..., None]
        vectors = self.items[history.clamp(min=0)] * there  # [b, H, d]
        gram = self.ridge + self.confidence * (vectors.transpose(1, 2) @ vectors)
        return torch.linalg.solve(gram, self.confidence * vectors.sum(1))


@dataclass(frozen=True, eq=False)
class Profiles:
    """Every user's purchases, log(1 + trips with the item), in one row after another."""

    offsets: Tensor  # [U + 1] int64: user u's entries are offsets[u] to offsets[u + 1]
    items: Tensor  # [E] int64 item rows
    weights: Tensor  # [E] float32
    num_items: int

    @classmethod
    def of(cls, pairs: Pairs) -> Profiles:
        """The profiles of a log."""
        return cls(pairs.offsets(), pairs.items, torch.from_numpy(np.log1p(pairs.values.numpy())), pairs.num_items)

    def dense(self, users: Tensor, history: Tensor) -> Tensor:
        """w(u, .) float32 [b, N + 1]: the log (nothing for unknown users) joined with the items consumed since.

        The last column, where padding (-1) points, is 0.
        """
        num_users = len(self.offsets) - 1
        known = (users >= 0) & (users < num_users)
        rows = users.clamp(0, max(num_users - 1, 0))
        lengths = torch.where(known, self.offsets[rows + 1] - self.offsets[rows], 0)
        lanes = torch.repeat_interleave(torch.arange(len(users)), lengths)
        first = lengths.cumsum(0) - lengths
        entries = self.offsets[rows][lanes] + torch.arange(len(lanes)) - first[lanes]
        profile = torch.zeros(len(users), self.num_items + 1)
        # Bought since the log ends, so the log has no count: at least one purchase.
        profile.scatter_(1, history.where(history >= 0, self.num_items), float(np.log1p(1.0)))
        index = (lanes, self.items[entries])
        profile[index] = torch.maximum(profile[index], self.weights[entries])
        profile[:, self.num_items] = 0.0
        return profile
