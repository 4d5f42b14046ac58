"""The rating head: who rates high, what is rated high, whose taste meets which film, and the mood of the moment."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recgym.user_models.preference.config import NetworkConfig, RatingConfig
from recgym.user_models.preference.network import NUM_TIME_FEATURES, PreferenceNetwork
from recgym.user_models.preference.ratings import NUM_TIME_LEVELS, Neighbours, Ratings

NUM_RATING_FEATURES = 3  # of a user or an item: offset, log(1 + ratings), spread of its residuals


@dataclass(frozen=True, eq=False)
class Offsets:
    """Shrunk means of the ratings seen: ``rating = mean + user + item + residual``."""

    mean: Tensor  # [] float32
    user: Tensor  # [U]
    item: Tensor  # [N]
    residual: Tensor  # [E] of the ratings seen
    user_features: Tensor  # [U, 3]
    item_features: Tensor  # [N, 3]


@dataclass(frozen=True, eq=False)
class RatingTables:
    """What the ratings seen say of every user and item, whatever the moment."""

    offsets: Offsets
    user: Tensor  # [U, d] user embeddings
    item: Tensor  # [N, d] item embeddings
    user_bias: Tensor  # [U]
    item_bias: Tensor  # [N]

    def base(self, user: Tensor, item: Tensor) -> Tensor:
        """``mean + b_u + b_i + <p_u, q_i>`` of pairs [Q], in rating points."""
        match = (F.embedding(user, self.user) * F.embedding(item, self.item)).sum(-1) / math.sqrt(self.user.shape[1])
        return self.offsets.mean + self.user_bias[user] + self.item_bias[item] + match


class RatingGraph(nn.Module):
    """Graph convolution over rated edges: neighbours speak once through the residual of the rating, once without it.

    As in GC-MC (van den Berg et al., 2018) a message depends on the rating of its edge; here it is linear in the
    residual, plus the implicit part of SVD++ (Koren, 2008). Users own no parameters, so that new users fold in.
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.told_user, self.told_item = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.there_user, self.there_item = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.own_user, self.own_item = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, users: Tensor, items: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """The next layer of user embeddings [U, d] and item embeddings [N, d]."""
        to_user = edges.to_users(self.told_user(items), self.there_user(items)) + self.own_user(users)
        to_item = edges.to_items(self.told_item(users), self.there_item(users)) + self.own_item(items)
        return users + self.dropout(to_user.tanh()), items + self.dropout(to_item.tanh())


class Edges:
    """The edges seen, in user and in item order, with the weights of their messages."""

    def __init__(self, seen: Ratings, residual: Tensor) -> None:
        self.by_item = seen.item.argsort(stable=True)
        self.items, self.users = seen.item, seen.user[self.by_item]
        self.user_starts = torch.searchsorted(seen.user, torch.arange(seen.num_users))
        self.item_starts = torch.searchsorted(seen.item[self.by_item], torch.arange(seen.num_items))
        residual = residual.detach()
        user_count = torch.bincount(seen.user, minlength=seen.num_users)[seen.user]
        item_count = torch.bincount(seen.item, minlength=seen.num_items)[seen.item]
        self.user_told, self.user_there = residual * (user_count + 3.0).rsqrt(), 0.3 * (user_count + 1.0).rsqrt()
        self.item_told = (residual * (item_count + 3.0).rsqrt())[self.by_item]
        self.item_there = (0.3 * (item_count + 1.0).rsqrt())[self.by_item]

    def to_users(self, told: Tensor, there: Tensor) -> Tensor:
        """Messages of items, [N, d] each, summed into users [U, d]."""
        return _bags(told, self.items, self.user_starts, self.user_told) + _bags(
            there, self.items, self.user_starts, self.user_there
        )

    def to_items(self, told: Tensor, there: Tensor) -> Tensor:
        """Messages of users, [U, d] each, summed into items [N, d]."""
        return _bags(told, self.users, self.item_starts, self.item_told) + _bags(
            there, self.users, self.item_starts, self.item_there
        )


def _bags(table: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights)


class RatingHead(nn.Module):
    """Ordinal ratings: ``P(r <= k) = sigmoid(c_k - slope * (location - 3))`` (McCullagh, 1980).

    ``location = mean + b_u + b_i + <p_u, q_i> + context(u, i, time) + W^T silu(U x + V q + context)`` in rating points.
    b_u and b_i are shrunk means of the ratings seen plus what the embeddings add; p and q come from the graph;
    the context is the user's residuals nearest in time, weighted by distance and by likeness to the item.
    """

    def __init__(self, config: RatingConfig, network: NetworkConfig, num_attributes: int) -> None:
        super().__init__()
        dim = network.dim
        self.config = config
        self.shrink = nn.Parameter(torch.tensor([5.0, 5.0]).expm1().log())  # pseudo-ratings at mean, user and item
        self.attributes = nn.Linear(num_attributes, dim)
        self.layers = nn.ModuleList(RatingGraph(dim, network.dropout) for _ in range(config.layers))
        self.norm_user, self.norm_item = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.scale = nn.Parameter(torch.tensor(0.3))
        self.user_bias, self.item_bias = nn.Linear(dim, 1), nn.Linear(dim, 1)
        self.likeness = nn.Linear(dim, 2 * config.likeness)
        level = torch.arange(NUM_TIME_LEVELS) % (NUM_TIME_LEVELS // 2)  # heads that look ever nearer in time
        self.time_weight = nn.Parameter(-level[:, None] * torch.linspace(0.0, 0.6, config.heads))
        self.likeness_weight = nn.Parameter(torch.linspace(0.0, 1.0, config.heads))
        self.null = nn.Parameter(torch.full((config.heads,), 1.0))
        self.context_gain = nn.Parameter(torch.full((config.heads,), 0.6 / config.heads))
        self.features_user = nn.Linear(NUM_RATING_FEATURES, network.hidden, bias=False)
        self.features_item = nn.Linear(NUM_RATING_FEATURES, network.hidden, bias=False)
        self.features_context = nn.Linear(config.heads + 2, network.hidden, bias=False)
        self.dropout = nn.Dropout(network.dropout)
        self.slope = nn.Parameter(torch.tensor(2.0))
        for bias in (self.user_bias, self.item_bias):
            nn.init.normal_(bias.weight, std=0.1 / math.sqrt(dim))
            nn.init.zeros_(bias.bias)

    def quick(self) -> list[nn.Parameter]:
        """Parameters on the scale of the answer rather than of a layer's weights: they learn at a faster pace."""
        return [self.shrink, self.time_weight, self.likeness_weight, self.null, self.context_gain, self.slope]

    def offsets(self, seen: Ratings) -> Offsets:
        """User and item offsets, shrunk by learned numbers of pseudo-ratings, by two rounds of alternation."""
        for_user, for_item = F.softplus(self.shrink)
        mean = seen.value.mean() if len(seen) else seen.value.new_tensor(3.0)
        above = seen.value - mean
        user_count = torch.bincount(seen.user, minlength=seen.num_users).float()
        item_count = torch.bincount(seen.item, minlength=seen.num_items).float()

        def by_item(values: Tensor) -> Tensor:
            return torch.zeros(seen.num_items).index_add(0, seen.item, values)

        def by_user(values: Tensor) -> Tensor:
            return torch.zeros(seen.num_users).index_add(0, seen.user, values)

        item = by_item(above) / (item_count + for_item)
        user = by_user(above - item[seen.item]) / (user_count + for_user)
        item = by_item(above - user[seen.user]) / (item_count + for_item)
        residual = above - user[seen.user] - item[seen.item]
        square = residual.detach() ** 2
        user_spread = (by_user(square) + 5 * 0.8) / (user_count + 5)
        item_spread = (by_item(square) + 5 * 0.8) / (item_count + 5)
        return Offsets(
            mean=mean,
            user=user,
            item=item,
            residual=residual,
            user_features=torch.stack((user, user_count.log1p() * 0.3, user_spread), dim=1),
            item_features=torch.stack((item, item_count.log1p() * 0.3, item_spread), dim=1),
        )

    def tables(self, vectors: Tensor, attributes: Tensor, seen: Ratings) -> RatingTables:
        """Embeddings and biases from item vectors y [N, d], user attributes [U, A] and the ratings seen."""
        offsets = self.offsets(seen)
        edges = Edges(seen, offsets.residual)
        users, items = self.attributes(attributes), vectors
        for layer in self.layers:
            users, items = layer(users, items, edges)
        users, items = self.norm_user(users), self.norm_item(items)
        return RatingTables(
            offsets=offsets,
            user=users * self.scale,
            item=items,
            user_bias=offsets.user + self.user_bias(users)[:, 0],
            item_bias=offsets.item + self.item_bias(items)[:, 0],
        )

    def context(self, tables: RatingTables, seen: Ratings, item: Tensor, near: Neighbours) -> Tensor:
        """Weighted means of the residuals near each moment, by head, then how many and how near, [Q, heads + 2]."""
        query, key = self.likeness(self.dropout(tables.item)).chunk(2, dim=1)
        alike = 4 * torch.tanh(query @ key.T / (4 * math.sqrt(key.shape[1])))  # [N, N], bounded
        pairs = item[:, None] * seen.num_items + seen.item[near.event]
        alike = alike.flatten().index_select(0, pairs.flatten()).view(*pairs.shape, 1)
        weight = (F.embedding(near.level, self.time_weight) + alike * self.likeness_weight).exp() * near.inside[
            ..., None
        ]
        residual = tables.offsets.residual.detach()[near.event][..., None]
        means = (weight * residual).sum(1) / (weight.sum(1) + F.softplus(self.null))
        count = near.inside.float().mean(1, keepdim=True)
        close = (near.inside & (near.level % (NUM_TIME_LEVELS // 2) < 4)).float().mean(1, keepdim=True)
        return torch.cat((means, count, close), dim=1)

    def location(
        self,
        network: PreferenceNetwork,
        tables: RatingTables,
        attributes: Tensor,
        seen: Ratings,
        user: Tensor,
        item: Tensor,
        near: Neighbours,
    ) -> Tensor:
        """Locations of pairs [Q] in rating points; ``near`` are the ratings seen near each pair's moment."""
        context = self.context(tables, seen, item, near)
        fused = network.fusion(
            {
                "sequence": network.start.expand(seen.num_users, -1),
                "graph": tables.user,
                "attributes": attributes,
                "time": tables.user.new_zeros(seen.num_users, NUM_TIME_FEATURES),
            }
        )
        by_user = network.head_user(fused) + self.features_user(tables.offsets.user_features)
        by_item = network.head_item(tables.item) + self.features_item(tables.offsets.item_features)
        hidden = F.embedding(user, by_user) + F.embedding(item, by_item) + self.features_context(context)
        told = self.dropout(F.silu(hidden)) @ network.head_rating
        return tables.base(user, item) + context[:, : self.config.heads] @ self.context_gain + told

    def chances(self, network: PreferenceNetwork, location: Tensor) -> Tensor:
        """P(rating <= 1..4), [Q, 4]."""
        return torch.sigmoid(network.rating_thresholds() - self.slope * (location - 3.0)[..., None])


def expected_rating(cdf: Tensor) -> Tensor:
    """``E[r] = 5 - sum_k P(r <= k)`` from P(rating <= 1..4) [..., 4]."""
    return 5.0 - cdf.sum(-1)
