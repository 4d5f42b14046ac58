"""The preference network: event-group tokens, a banded sequence Transformer, gated fusion and the response heads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recgym.user_models.preference.config import NetworkConfig

# Bins of the fitted behaviour: basket size in items, days until the next trip. Each bin is [low, next low).
SIZE_BINS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 21, 26, 32, 41, 56, 101)
GAP_BINS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 21, 28, 42, 60, 91)
GAP_EDGES = (*GAP_BINS, GAP_BINS[-1] + 30)  # the last bin: for good
GAP_LEVELS = (0, 1, 2, 3, 4, 6, 8, 11, 15, 22, 31, 61)  # coarse levels of the gap that a token carries
_GAP_LEVEL_OF_DAYS = torch.bucketize(torch.arange(GAP_LEVELS[-1] + 1), torch.tensor(GAP_LEVELS), right=True)
MAX_FEEDBACK = 20  # quantity 1 to 20, or rating 1 to 5
NUM_TIME_FEATURES = 9
TREND_DAYS = (1, 7, 28)  # windows of the trends
NUM_PAIR_FEATURES, NUM_PACE_FEATURES, NUM_ITEM_FEATURES = 6, 4, 3 + len(TREND_DAYS)  # of the repeat term


class GatedFusion(nn.Module):
    """Fuses sources of any widths into one: ``sum_s gate_s * P_s(source_s)``, gates from all sources together."""

    project: Mapping[str, nn.Linear]
    gate: Mapping[str, nn.Linear]

    def __init__(self, widths: dict[str, int], dim: int) -> None:
        super().__init__()
        self.names = tuple(widths)
        gates = dim * len(widths)
        self.project = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in widths.items()})  # type: ignore[assignment]
        self.gate = nn.ModuleDict({name: nn.Linear(width, gates) for name, width in widths.items()})  # type: ignore[assignment]

    def forward(self, sources: dict[str, Tensor]) -> Tensor:
        """Sources [..., width_s] -> [..., dim]."""
        gates = sum(self.gate[name](sources[name]) for name in self.names).sigmoid().chunk(len(self.names), dim=-1)
        return sum(gate * self.project[name](sources[name]) for name, gate in zip(self.names, gates, strict=True))


class Block(nn.Module):
    """A pre-norm Transformer block whose attention sees a causal band of ``window`` tokens.

    Positions are relative: a learned bias per head and distance (Raffel et al., 2020, without buckets).
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads, self.window = config.heads, config.window
        self.norm_attention, self.norm_feedforward = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.expand, self.contract = nn.Linear(dim, config.feedforward), nn.Linear(config.feedforward, dim)
        self.distance = nn.Parameter(torch.zeros(config.heads, config.window))  # bias by distance 0 .. window - 1
        self.dropout = nn.Dropout(config.dropout)

    def band_bias(self, length: int) -> Tensor:
        """Attention bias [heads, T, T]: the distance bias inside the causal band, -inf outside."""
        index = torch.arange(length, device=self.distance.device)
        distance = index[:, None] - index[None, :]
        inside = (distance >= 0) & (distance < self.window)
        bias = self.distance[:, distance.clamp(0, self.window - 1)]
        return bias.masked_fill(~inside, -torch.inf)

    def forward(self, x: Tensor) -> Tensor:
        """Full recomputation: tokens [B, T, dim] -> [B, T, dim]. Padding may only stand at the end."""
        batch, length, dim = x.shape
        q, k, v = self.qkv(self.norm_attention(x)).chunk(3, dim=-1)
        q, k, v = (t.view(batch, length, self.heads, -1).transpose(1, 2) for t in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=self.band_bias(length))
        x = x + self.dropout(self.out(attended.transpose(1, 2).reshape(batch, length, dim)))
        return x + self.dropout(self.contract(F.gelu(self.expand(self.norm_feedforward(x)))))


class PreferenceNetwork(nn.Module):
    """User side and heads of the preference model; item vectors y come in as a table [N, dim].

    ``logit = W^T silu(U x + V y + b) + <M x, y> + bias(y) + r``, where r, a term of two hidden layers, is
    for items bought before. The bilinear term <M x, y>, pre-trained on next items, is added to the one-hidden-layer
    head because it carries most of the ranking at a tenth of the width.
    """

    blocks: Sequence[Block]

    def __init__(self, config: NetworkConfig, num_attributes: int) -> None:
        super().__init__()
        self.config = config
        dim, hidden, repeat = config.dim, config.hidden, config.repeat_hidden
        # Tokens.
        self.item_token = nn.Linear(dim, dim, bias=False)
        self.item_ignored = nn.Linear(dim, dim, bias=False)
        self.feedback = nn.Embedding(MAX_FEEDBACK + 1, dim)
        self.gap_level = nn.Embedding(len(GAP_LEVELS) + 1, dim)  # level 0: same trip
        self.size_token = nn.Linear(2, dim)
        self.norm_token, self.norm_out = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))  # type: ignore[assignment]
        self.dropout = nn.Dropout(config.dropout)
        # Fused user state.
        self.fusion = GatedFusion(
            {"sequence": dim, "graph": dim, "attributes": num_attributes, "time": NUM_TIME_FEATURES}, dim
        )
        self.start = nn.Parameter(torch.zeros(dim))  # sequence state of a user without history
        # Heads.
        self.match, self.item_bias = nn.Linear(dim, dim), nn.Linear(dim, 1)
        self.head_user, self.head_item = nn.Linear(dim, hidden), nn.Linear(dim, hidden, bias=False)
        self.head_purchase, self.head_quantity, self.head_rating = (nn.Parameter(torch.zeros(hidden)) for _ in range(3))
        self.quantity_bias = nn.Parameter(torch.tensor(1.5))
        self.rating_cuts = nn.Parameter(torch.tensor([-3.0, 0.5, 0.8, 0.8]))  # first cut, then softplus steps
        self.repeat_pair = nn.Linear(NUM_PAIR_FEATURES, repeat)
        self.repeat_pace = nn.Linear(NUM_PACE_FEATURES, repeat, bias=False)
        self.repeat_known = nn.Linear(NUM_ITEM_FEATURES, repeat, bias=False)
        self.repeat_user, self.repeat_item = nn.Linear(dim, repeat, bias=False), nn.Linear(dim, repeat, bias=False)
        self.repeat_inner = nn.Linear(repeat, repeat)
        self.repeat_out = nn.Parameter(torch.zeros(repeat))
        self.size_head = nn.Sequential(nn.Linear(dim, 32), nn.SiLU(), nn.Linear(32, len(SIZE_BINS) - 1))
        self.gap_head = nn.Sequential(nn.Linear(dim, 32), nn.SiLU(), nn.Linear(32, len(GAP_BINS)))
        # The purchase head and the repeat term start at zero: pre-training leaves them alone, fine-tuning adds them.
        for parameter in (self.head_quantity, self.head_rating):
            nn.init.normal_(parameter, std=0.1)
        nn.init.normal_(self.match.weight, std=1.0 / math.sqrt(dim))
        nn.init.normal_(self.feedback.weight, std=0.1)
        nn.init.normal_(self.gap_level.weight, std=0.1)

    # ------------------------------------------------------------------ tokens

    def token(self, pooled: Tensor, ignored: Tensor, count: Tensor, shown: Tensor, gap_level: Tensor) -> Tensor:
        """Token inputs [..., dim] from pooled items and the gap.

        Args:
            pooled: sum over consumed items of item_token(y) + feedback embedding, [..., dim].
            ignored: sum over shown-but-ignored items of item_ignored(y), [..., dim]; zero without exposures.
            count: number of consumed items, [...].
            shown: number of shown-but-ignored items, [...].
            gap_level: level of the gap before the token, int64 [...]; 0 within a trip.
        """
        pooled = pooled / count.clamp(min=1).sqrt()[..., None] + ignored / shown.clamp(min=1).sqrt()[..., None]
        sizes = torch.stack((torch.log1p(count), torch.log1p(shown)), dim=-1)
        return self.norm_token(pooled + self.size_token(sizes) + self.gap_level(gap_level))

    def pool(self, vectors: Tensor, items: Tensor, feedback: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled item vectors [..., dim] and counts [...] of groups items [..., G] (-1 pads) with feedback [..., G]."""
        mask = items >= 0
        rows = items.clamp(min=0)
        table = self.item_token(vectors)
        flat = F.embedding_bag(
            rows.flatten(0, -2), table, mode="sum", per_sample_weights=mask.flatten(0, -2).to(table.dtype)
        )
        told = self.feedback(feedback) * mask[..., None]
        return flat.view(*items.shape[:-1], -1) + told.sum(-2), mask.sum(-1).float()

    def encode(self, tokens: Tensor) -> Tensor:
        """Sequence states [B, T, dim] after each token, by full recomputation under the banded mask."""
        x = self.dropout(tokens)
        for block in self.blocks:
            x = block(x)
        return self.norm_out(x)

    # ------------------------------------------------------------------ heads

    def rating_thresholds(self) -> Tensor:
        """The four ordered cut points of the ordinal rating model."""
        return thresholds(self.rating_cuts)

    def repeat_term(self, features: Tensor, user: Tensor, item: Tensor) -> Tensor:
        """R of the head: ``pair_features`` [..., 6], user part and item part [..., repeat_hidden] -> [...].

        Zero for items never bought before: callers mask by own count.
        """
        return (F.silu(self.repeat_inner(F.silu(self.repeat_pair(features) + user + item))) * self.repeat_out).sum(-1)


def thresholds(cuts: Tensor) -> Tensor:
    """Ordered cut points [n] of parameters [n]: the first, then steps that softplus keeps above zero."""
    return torch.cat((cuts[:1], cuts[:1] + F.softplus(cuts[1:]).cumsum(0)))


def pair_features(own_counts: Tensor, own_days: Tensor, interval: Tensor, pace: Tensor) -> Tensor:
    """What a user's own history says of an item, [..., 6].

    Args:
        own_counts: trips in which the user bought the item, [...].
        own_days: days since the last one, [...].
        interval: of the item, median over all users of the days between purchases, [...].
        pace: of the user, [..., 3]; see ``pace_features``.
    """
    trips, mean_log_gap = pace[..., 0], pace[..., 2]
    trips_since = own_days * torch.exp(-mean_log_gap)  # about how many trips the user made since
    frequency = own_counts / trips.clamp(min=1)
    columns = (
        torch.log1p(own_counts),
        frequency.clamp(max=1).sqrt(),
        torch.log1p(own_days) * 0.5,
        torch.log1p(own_days / interval),
        torch.log1p(trips_since),
        torch.log1p(trips_since * frequency),
    )
    return torch.stack(torch.broadcast_tensors(*columns), dim=-1)


def pace_features(pace: Tensor, gap: Tensor) -> Tensor:
    """How often and how much a user buys, [..., 4]: how soon an item is due depends on it more than on anything else.

    Args:
        pace: trips so far, mean log basket size, mean log(1 + days between trips), [..., 3].
        gap: days since the user's previous trip, [...].
    """
    trips, mean_log_size, mean_log_gap = pace.unbind(-1)
    return torch.stack((torch.log1p(trips) * 0.2, mean_log_size * 0.5, mean_log_gap * 0.5, torch.log1p(gap) * 0.5), -1)


def item_features(statistics: Tensor, trends: Tensor) -> Tensor:
    """What everybody's purchases say of an item, [..., 3 + windows].

    Args:
        statistics: median repurchase interval over all users (days), log(1 + popularity), share of its purchases that
            were repeats, [..., 3].
        trends: recent purchases against usual ones, [..., windows]; see ``Trends``.
    """
    interval, popularity, repeated = statistics.unbind(-1)
    lasting = torch.stack((torch.log1p(interval) * 0.5, popularity * 0.2, repeated * 2), dim=-1)
    return torch.cat((lasting, trends), dim=-1)


def time_features(
    gap_days: Tensor,
    inside: Tensor,
    bought: Tensor,
    num_trips: Tensor,
    mean_log_size: Tensor,
    mean_log_gap: Tensor,
    day: Tensor,
) -> Tensor:
    """Features of where the user stands in time, [..., 9]; all inputs of one shape.

    ``inside`` is 1 after the first slate of a trip and 0 at its start; ``day`` counts from the log's first day.
    """
    week = day % 7 * (2 * math.pi / 7)  # the remainder first: large days would cost the angle its precision
    return torch.stack(
        (
            torch.log1p(gap_days) * 0.5,
            inside,
            torch.log1p(bought) * 0.5,
            torch.log1p(num_trips) * 0.2,
            mean_log_size * 0.5,
            mean_log_gap * 0.5,
            torch.log1p(gap_days) - mean_log_gap,
            week.sin(),
            week.cos(),
        ),
        dim=-1,
    )


def gap_levels(days: Tensor) -> Tensor:
    """Token gap levels int64 (1 and up) of gaps in whole days; 0 is kept for tokens within a trip."""
    return _GAP_LEVEL_OF_DAYS.to(days.device)[days.clamp(max=GAP_LEVELS[-1]).long()]
