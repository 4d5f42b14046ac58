"""Item-kNN: items whose buyers also bought what this user bought (Deshpande and Karypis, TOIS 2004)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from recgym.agents.collaborative import CollaborativeAgent, CollaborativeConfig
from recgym.agents.features.factors import Learned, Profiles
from recgym.agents.features.pairs import Pairs

_BLOCK = 1024  # items at a time: bounds the dense similarities to 1,024 x N floats


class ItemKNNConfig(CollaborativeConfig):
    """Settings of ``ItemKNNAgent``."""

    neighbours: int = Field(100, ge=1, description="neighbours kept per item, the most similar ones")
    shrinkage: float = Field(10.0, ge=0, description="added to the denominator: damps similarities on little evidence")
    include_self: bool = Field(True, description="an item is its own neighbour (similarity 1): repeat purchases count")


@dataclass(frozen=True, eq=False)
class ItemNeighbours(Learned):
    """Every item's neighbours and every user's purchases."""

    neighbours: Tensor  # [N, k] int64 item rows (-1 pads)
    similarities: Tensor  # [N, k] float32 (0 pads)
    offsets: Tensor  # [U + 1] int64: user u's log is entries offsets[u] to offsets[u + 1]
    items: Tensor  # [E] int64 item rows
    weights: Tensor  # [E] float32, log(1 + count)

    def score(self, users: Tensor, items: Tensor, history: Tensor) -> Tensor:
        """See ``Learned``."""
        profiles = Profiles(self.offsets, self.items, self.weights, len(self.neighbours))
        profile = profiles.dense(users, history)  # [b, N + 1]
        lanes = torch.arange(len(users))[:, None, None]
        return (profile[lanes, self.neighbours[items]] * self.similarities[items]).sum(-1)


class ItemKNNAgent(CollaborativeAgent):
    """Scores item i for user u by sum over j of sim(i, j) w(u, j), over the neighbours j of i.

    w(u, j) = log(1 + trips on which u bought j); sim is the cosine of the columns of w with shrinkage s added to the
    denominator: <w_i, w_j> / (|w_i| |w_j| + s). The user's history is their part of the log (``user_id``; rows that the
    log does not hold have none) joined with the items consumed since (``history``).
    """

    id = "item_knn"
    Config = ItemKNNConfig
    Model = ItemNeighbours

    def learn(self, pairs: Pairs) -> ItemNeighbours:
        """Computes the neighbours by blocks of items, so that no N x N matrix is held."""
        log = Profiles.of(pairs)
        num_users, num_items = pairs.num_users, pairs.num_items
        index = torch.stack([pairs.items, pairs.users])
        shape = (num_items, num_users)
        by_item = torch.sparse_coo_tensor(index, log.weights, shape, check_invariants=False).coalesce()
        norms = torch.zeros(num_items).index_add(0, pairs.items, log.weights**2).sqrt()  # [N]
        k = min(self.config.neighbours, num_items)
        kept, values = [], []
        for block in torch.arange(num_items).split(_BLOCK):
            mine = (pairs.items >= block[0]) & (pairs.items <= block[-1])
            columns = torch.zeros(num_users, len(block))
            columns[pairs.users[mine], pairs.items[mine] - block[0]] = log.weights[mine]
            dot = torch.sparse.mm(by_item, columns).T  # [b, N]
            similarity = dot / (norms[block, None] * norms + self.config.shrinkage).clamp(min=1e-12)
            similarity[torch.arange(len(block)), block] = 1.0 if self.config.include_self else 0.0
            top = similarity.topk(k, dim=1)
            kept.append(top.indices.masked_fill(top.values <= 0, -1))
            values.append(top.values.clamp(min=0))
        return ItemNeighbours(torch.cat(kept), torch.cat(values), log.offsets, log.items, log.weights)
