"""What a scoring network reads: users, items and the context of both, for B users with M items each."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from recgym.agents.blocks import by_block
from recgym.agents.features.columns import Fusion, FusionMode, Ids, Numeric

CONTEXT = ("own_count", "own_recency", "shown")  # candidate features about the pair, not the item alone


@dataclass(frozen=True, eq=False)
class Batch:
    """B users with M items each."""

    user_id: Tensor  # [B] int64 user rows, -1 for an unknown user
    user: Tensor  # [B, Du] float32
    history: Tensor  # [B, H] int64 item rows consumed before, newest first, -1 pads
    item_id: Tensor  # [B, M] int64 item rows
    item: Tensor  # [B, M, Dy] float32
    context: Tensor  # [B, M, Dc] float32

    def __len__(self) -> int:
        return len(self.user_id)

    def select(self, rows: Tensor) -> Self:
        """The users at ``rows`` (int64 or bool)."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def without_ids(self, share: float, generator: torch.Generator) -> Self:
        """A random ``share`` of the users and items made unknown, so that the vectors for unknown ones are learned."""
        users = torch.rand(self.user_id.shape, generator=generator) < share
        items = torch.rand(self.item_id.shape, generator=generator) < share
        return replace(self, user_id=self.user_id.masked_fill(users, -1), item_id=self.item_id.masked_fill(items, -1))


@dataclass(frozen=True, eq=False)
class Sizes:
    """What a network is built for."""

    num_users: int  # ids above are unknown
    num_items: int
    user: int  # Du
    item: int  # Dy
    context: int  # Dc
    texts: Tensor  # [N, T] float32, observable vectors of the items in histories; T = 0: ids alone


class ScoringModel(nn.Module):
    """A network behind the normalisation of its inputs: scores [B, M] = offset + network(normalised batch)."""

    offset: Tensor

    def __init__(self, network: nn.Module, sizes: Sizes) -> None:
        """Normalisation of inputs of ``sizes``, not calibrated yet."""
        super().__init__()
        self.user, self.item, self.context = Numeric(sizes.user), Numeric(sizes.item), Numeric(sizes.context)
        self.network = network
        self.register_buffer("offset", torch.zeros(()))

    def calibrate(self, batch: Batch, offset: float) -> None:
        """Sets the normalisation from ``batch``, and what is added to all scores."""
        self.user.calibrate(batch.user)
        self.item.calibrate(batch.item.flatten(0, 1))
        self.context.calibrate(batch.context.flatten(0, 1))
        self.offset.fill_(offset)

    def forward(self, batch: Batch) -> Tensor:
        """Scores [B, M]."""
        scaled = replace(
            batch, user=self.user(batch.user), item=self.item(batch.item), context=self.context(batch.context)
        )
        scores: Tensor = self.offset + self.network(scaled)
        return scores

    @torch.no_grad()
    def scores_by_block(self, batch: Batch) -> Tensor:
        """``forward``, so that a user has the same scores in any batch; see ``by_block``."""
        columns = [getattr(batch, field.name) for field in fields(batch)]
        return by_block(lambda *block: self(Batch(*block)), *columns)


class ItemTokens(nn.Module):
    """Vectors of the items in histories: their ids' vectors plus a linear map of their texts; 0 for padding."""

    texts: Tensor

    def __init__(self, sizes: Sizes, dim: int) -> None:
        """Vectors of width ``dim``."""
        super().__init__()
        self.ids = Ids(sizes.num_items, dim)
        self.map = nn.Linear(sizes.texts.shape[1], dim, bias=False) if sizes.texts.shape[1] else None
        self.register_buffer("texts", sizes.texts, persistent=False)  # the world's, not learned

    def forward(self, items: Tensor) -> Tensor:
        """[..., dim] of item rows [...], -1 pads."""
        there = (items >= 0)[..., None]
        vectors = self.ids(items)
        if self.map is not None:
            vectors = vectors + self.map(self.texts[items.clamp(min=0)])
        return vectors * there

    def mean(self, history: Tensor) -> Tensor:
        """The mean vector [B, dim] of histories [B, H]; 0 for empty ones."""
        return self(history).sum(1) / (history >= 0).sum(1, keepdim=True).clamp(min=1)


class Representations(nn.Module):
    """Users, items and contexts as vectors of one width: each fused from its sources.

    A user is an id, features and the mean of what was consumed before; an item an id and features; a context goes
    through a hidden layer, since what counts and days say is not linear.
    """

    def __init__(self, sizes: Sizes, dim: int, fusion: FusionMode) -> None:
        """Vectors of width ``dim``."""
        super().__init__()
        self.user_ids, self.item_ids = Ids(sizes.num_users, dim), Ids(sizes.num_items, dim)
        self.tokens = ItemTokens(sizes, dim)
        self.fuse_user = Fusion((dim, sizes.user, dim), dim, fusion)
        self.fuse_item = Fusion((dim, sizes.item), dim, fusion)
        self.fuse_context = (
            nn.Sequential(nn.Linear(sizes.context, dim), nn.ReLU(), nn.Linear(dim, dim)) if sizes.context else None
        )

    def users(self, batch: Batch) -> Tensor:
        """[B, dim]."""
        return self.fuse_user((self.user_ids(batch.user_id), batch.user, self.tokens.mean(batch.history)))

    def items(self, batch: Batch) -> Tensor:
        """[B, M, dim]."""
        return self.fuse_item((self.item_ids(batch.item_id), batch.item))

    def contexts(self, batch: Batch) -> Tensor:
        """[B, M, dim]."""
        if self.fuse_context is None:
            return torch.zeros(*batch.item_id.shape, self.tokens.ids.table.embedding_dim)
        context: Tensor = self.fuse_context(batch.context)
        return context


class Weights(nn.Module):
    """A learned direction: ``(x * w).sum(-1)``; a matrix product with one output column would round with the rows."""

    def __init__(self, width: int) -> None:
        """Over the last dimension, of ``width``."""
        super().__init__()
        self.line = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[...] of [..., width]."""
        return (x * self.line.weight[0]).sum(-1) + self.line.bias[0]


def mlp(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear maps of the given ``widths`` with a ReLU after each, and a learned direction at the end."""
    layers: list[Any] = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, Weights(widths[-1]))
