"""Item-kNN: items whose buyers also bought what this user bought (Deshpande and Karypis, TOIS 2004)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from recgym.agents.protocol import ActContext, Agent, AgentConfig, Observations, as_tensor, not_shown, top_slate

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv
    from recgym.worlds.world import World

_CHUNK = 256  # lanes at a time: bounds the dense profiles to 256 x N floats
_BLOCK = 1024  # items at a time: bounds the dense similarities to 1,024 x N floats


class ItemKNNConfig(AgentConfig):
    """Settings of ``ItemKNNAgent``."""

    neighbours: int = Field(100, ge=1, description="neighbours kept per item, the most similar ones")
    shrinkage: float = Field(10.0, ge=0, description="added to the denominator: damps similarities on little evidence")
    include_self: bool = Field(True, description="an item is its own neighbour (similarity 1): repeat purchases count")


class ItemKNNAgent(Agent):
    """Scores item i for user u by sum over j of sim(i, j) w(u, j), over the neighbours j of i.

    w(u, j) = log(1 + trips on which u bought j); sim is the cosine of the columns of w with shrinkage s added to the
    denominator: <w_i, w_j> / (|w_i| |w_j| + s). The user's history is their part of the log (``user_id``; rows that the
    log does not hold have none) joined with the items consumed since (``history``).
    """

    id = "item_knn"
    observes = ("candidates", "candidate_items", "user_id", "history")
    learns = "log"
    Config = ItemKNNConfig

    neighbours: Tensor  # [N, k] int64 item rows (-1 pads)
    similarities: Tensor  # [N, k] float32 (0 pads)
    offsets: Tensor  # [U + 1] int64: user u's log is entries offsets[u] to offsets[u + 1]
    items: Tensor  # [E] int64 item rows
    weights: Tensor  # [E] float32, log(1 + count)

    def fit(self, world: World) -> None:
        """Computes the neighbours by blocks of items, so that no N x N matrix is held."""
        log = world.interactions().sort_values(["user", "item"], kind="stable")
        users = torch.as_tensor(log["user"].to_numpy(dtype=np.int64, copy=True))
        self.items = torch.as_tensor(log["item"].to_numpy(dtype=np.int64, copy=True))
        self.weights = torch.as_tensor(np.log1p(log["count"].to_numpy(dtype=np.float32)))
        counts = torch.bincount(users, minlength=world.num_users)
        self.offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])

        num_users, num_items = world.num_users, world.num_items
        shape = (num_items, num_users)
        index = torch.stack([self.items, users])
        by_item = torch.sparse_coo_tensor(index, self.weights, shape, check_invariants=False).coalesce()
        norms = torch.zeros(num_items).index_add(0, self.items, self.weights**2).sqrt()  # [N]
        k = min(self.config.neighbours, num_items)
        kept, values = [], []
        for block in torch.arange(num_items).split(_BLOCK):
            mine = (self.items >= block[0]) & (self.items <= block[-1])
            columns = torch.zeros(num_users, len(block))
            columns[users[mine], self.items[mine] - block[0]] = self.weights[mine]
            dot = torch.sparse.mm(by_item, columns).T  # [b, N]
            similarity = dot / (norms[block, None] * norms + self.config.shrinkage).clamp(min=1e-12)
            similarity[torch.arange(len(block)), block] = 1.0 if self.config.include_self else 0.0
            top = similarity.topk(k, dim=1)
            kept.append(top.indices.masked_fill(top.values <= 0, -1))
            values.append(top.values.clamp(min=0))
        self.neighbours, self.similarities = torch.cat(kept), torch.cat(values)

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        candidates = as_tensor(observations["candidate_items"]).to(torch.int64)  # [B, M]
        users = as_tensor(observations["user_id"]).reshape(-1).to(torch.int64)  # [B]
        history = as_tensor(observations["history"]).to(torch.int64)  # [B, H], -1 pads
        chunks = zip(candidates.split(_CHUNK), users.split(_CHUNK), history.split(_CHUNK), strict=True)
        scores = torch.cat([self._score(*chunk) for chunk in chunks])
        return top_slate(context.slate_size, not_shown(self.world, observations), scores)

    def _score(self, candidates: Tensor, users: Tensor, history: Tensor) -> Tensor:
        profile = self._profile(users, history)  # [b, N + 1]
        near = self.neighbours[candidates]  # [b, M, k]
        lanes = torch.arange(len(users))[:, None, None]
        return (profile[lanes, near] * self.similarities[candidates]).sum(-1)

    def _profile(self, users: Tensor, history: Tensor) -> Tensor:
        """w(u, .) float32 [b, N + 1]; the last column, where padding (-1) points, is 0."""
        num_users, num_items = len(self.offsets) - 1, len(self.neighbours)
        known = (users >= 0) & (users < num_users)
        rows = users.clamp(0, num_users - 1)
        lengths = torch.where(known, self.offsets[rows + 1] - self.offsets[rows], 0)
        lanes = torch.repeat_interleave(torch.arange(len(users)), lengths)
        first = lengths.cumsum(0) - lengths
        entries = self.offsets[rows][lanes] + torch.arange(len(lanes)) - first[lanes]
        profile = torch.zeros(len(users), num_items + 1)
        # Bought since the log ends, so the log has no count: at least one purchase.
        profile.scatter_(1, history.where(history >= 0, num_items), float(np.log1p(1.0)))
        index = (lanes, self.items[entries])
        profile[index] = torch.maximum(profile[index], self.weights[entries])
        profile[:, num_items] = 0.0
        return profile

    def tensors(self) -> dict[str, Tensor]:
        """Neighbours, similarities and the users' log entries."""
        return {name: getattr(self, name) for name in ("neighbours", "similarities", "offsets", "items", "weights")}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave."""
        for name in ("neighbours", "similarities", "offsets", "items", "weights"):
            setattr(self, name, tensors[name])
