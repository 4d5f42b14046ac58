"""User-kNN: what the users with the most similar purchases bought (Herlocker et al., SIGIR 1999)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from recgym.agents.collaborative import CollaborativeAgent, CollaborativeConfig
from recgym.agents.features.factors import Learned, Profiles
from recgym.agents.features.pairs import Pairs


class UserKNNConfig(CollaborativeConfig):
    """Settings of ``UserKNNAgent``."""

    neighbours: int = Field(100, ge=1, description="most similar users that are asked")
    include_self: bool = Field(True, description="a user is the own nearest neighbour (similarity 1)")


@dataclass(frozen=True, eq=False)
class UserNeighbours(Learned):
    """Every user's purchases; neighbours are found when somebody is scored, so that unknown users have them too."""

    offsets: Tensor  # [U + 1] int64: user u's purchases are entries offsets[u] to offsets[u + 1]
    items: Tensor  # [E] int64 item rows
    weights: Tensor  # [E] float32, log(1 + trips with the item)
    norms: Tensor  # [U] float32, length of each user's weights
    item_offsets: Tensor  # [N + 1] int64: the same purchases by item
    buyers: Tensor  # [E] int64 user rows
    buyer_weights: Tensor  # [E] float32
    neighbours: Tensor  # [] int64
    include_self: Tensor  # [] bool

    def score(self, users: Tensor, items: Tensor, history: Tensor) -> Tensor:
        """See ``Learned``."""
        num_users, num_items = len(self.norms), len(self.item_offsets) - 1
        profile = Profiles(self.offsets, self.items, self.weights, num_items).dense(users, history)[:, :-1]  # [b, N]
        unit = F.normalize(profile, dim=1)
        similarity = _sums(unit, self.items, self.offsets, self.weights) / self.norms.clamp(min=1e-12)  # [b, U]
        known = ((users >= 0) & (users < num_users)).nonzero().squeeze(1)
        similarity[known, users[known]] = 0.0
        top = similarity.topk(min(int(self.neighbours), num_users), dim=1)
        asked = torch.zeros_like(similarity).scatter_(1, top.indices, top.values.clamp(min=0.0))  # [b, U]
        votes = _sums(asked, self.buyers, self.item_offsets, self.buyer_weights)  # [b, N]
        scores = votes.gather(1, items) / asked.sum(1, keepdim=True).clamp(min=1e-12)
        return scores + profile.gather(1, items) if bool(self.include_self) else scores


def _sums(table: Tensor, columns: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of columns of ``table`` [b, n]: [b, m], sum j over the entries offsets[j] to offsets[j + 1]."""
    return F.embedding_bag(columns, table.T.contiguous(), offsets[:-1], mode="sum", per_sample_weights=weights).T


class UserKNNAgent(CollaborativeAgent):
    """Scores item i for user u by the mean of w(v, i) over the nearest users v, weighted by similarity.

    w(v, i) = log(1 + trips on which v bought i); similarity is the cosine of rows of w. With ``include_self`` what the
    user bought is added, w(u, i). The user's own row is the log joined with what was consumed since.
    """

    id = "user_knn"
    Config = UserKNNConfig
    Model = UserNeighbours

    def learn(self, pairs: Pairs) -> UserNeighbours:
        """See ``CollaborativeAgent``."""
        log = Profiles.of(pairs)
        by_item = pairs.items.argsort(stable=True)
        sizes = torch.bincount(pairs.items, minlength=pairs.num_items)
        return UserNeighbours(
            offsets=log.offsets,
            items=log.items,
            weights=log.weights,
            norms=torch.zeros(pairs.num_users).index_add_(0, pairs.users, log.weights**2).sqrt(),
            item_offsets=torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]),
            buyers=pairs.users[by_item],
            buyer_weights=log.weights[by_item],
            neighbours=torch.tensor(self.config.neighbours),
            include_self=torch.tensor(self.config.include_self),
        )
