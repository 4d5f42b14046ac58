"""Losses of pre-training and fine-tuning; a batch that holds nothing of what one is about costs nothing there."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recgym.user_models.preference.network import GAP_BINS, SIZE_BINS, PreferenceNetwork
from recgym.user_models.preference.samples import Pairs
from recgym.user_models.preference.scoring import PairOutput

WHOLE_BASKET = 20.0  # items; see ``ranking_loss``


def next_item_loss(logits: Tensor, items: Tensor) -> Tensor:
    """Full softmax over the catalogue, averaged over each token's items: logits [P, N], items [P, G] (-1 pads)."""
    mask = (items >= 0).float()
    chosen = logits.gather(1, items.clamp(min=0))
    mean_chosen = (chosen * mask).sum(1) / mask.sum(1).clamp(min=1)
    return _mean(logits.logsumexp(1) - mean_chosen)


def view_loss(one: Tensor, other: Tensor, users: Tensor, temperature: float) -> Tensor:
    """InfoNCE over a batch, both ways (NT-Xent, Chen et al., 2020), averaged over views.

    Args:
        one: first views, [S, d].
        other: second views, [S, d].
        users: int64 [S]; further histories of the same user are no negatives.
        temperature: of the cosines.
    """
    views = F.normalize(torch.cat((one, other)).float(), dim=1)
    users = users.repeat(2)
    count = len(one)
    pair = torch.arange(2 * count).roll(count)
    same = users[:, None] == users[None, :]
    same[torch.arange(2 * count), pair] = False
    logits = (views @ views.T / temperature).masked_fill(same, -torch.inf)
    return F.cross_entropy(logits, pair)


def purchase_loss(logit: Tensor, pairs: Pairs, moments: int) -> Tensor:
    """Weighted log loss over the catalogue, summed over items and averaged over moments."""
    surprise = F.binary_cross_entropy_with_logits(logit, pairs.label, reduction="none")
    return (surprise * pairs.weight * pairs.whole).sum() / max(moments, 1)


def ranking_loss(logit: Tensor, pairs: Pairs, moments: int) -> Tensor:
    """Softmax over the catalogue, averaged over each moment's purchases and then over moments.

    The log loss sums over items, so that large baskets and the many unlikely items decide it; here every trip counts
    alike and the top of the ranking does. The weights make the partition function an unbiased estimate, as in a sampled
    softmax. Baskets above ``WHOLE_BASKET`` items count somewhat more: they tell more.
    """
    rows = pairs.moment
    highest = torch.full((moments,), -torch.inf).scatter_reduce(0, rows, logit.detach(), "amax")[rows]
    total = torch.zeros(moments).index_add(0, rows, pairs.weight * (logit - highest).exp())
    bought = torch.zeros(moments).index_add(0, rows, pairs.label)
    share = pairs.label / bought.clamp(min=1, max=WHOLE_BASKET)[rows]
    surprise = highest + total.clamp(min=1e-30).log()[rows] - logit
    return (share * surprise).sum() / max(moments, 1)


def quantity_loss(output: PairOutput, pairs: Pairs) -> Tensor:
    """Negative log likelihood of the quantities bought under the geometric model, averaged over purchases."""
    bought = pairs.label > 0
    return geometric_loss(output.stop[bought], pairs.feedback[bought])


def geometric_loss(stop: Tensor, quantity: Tensor) -> Tensor:
    """Negative log likelihood of quantities [Q] from 1 up, geometric with logits ``stop`` [Q] of ending, averaged."""
    return -_mean(F.logsigmoid(stop) + (quantity - 1) * F.logsigmoid(-stop))


def rating_cdf(thresholds: Tensor, location: Tensor) -> Tensor:
    """P(rating <= 1..4), [..., 4], of the ordinal model (proportional odds, McCullagh 1980), given its cut points."""
    return torch.sigmoid(thresholds - location[..., None])


def rating_loss(network: PreferenceNetwork, output: PairOutput, pairs: Pairs) -> Tensor:
    """Negative log likelihood of the ratings given, averaged over ratings."""
    rated = pairs.label > 0
    return ordinal_loss(rating_cdf(network.rating_thresholds(), output.rating[rated]), pairs.feedback[rated])


def ordinal_loss(cdf: Tensor, rating: Tensor) -> Tensor:
    """Negative log likelihood of ratings [Q] under P(rating <= 1..4) [Q, 4], averaged."""
    edges = torch.cat((torch.zeros_like(cdf[:, :1]), cdf, torch.ones_like(cdf[:, :1])), dim=1)
    rating = rating.long().clamp(1, 5)[:, None]
    chance = edges.gather(1, rating) - edges.gather(1, rating - 1)
    return -_mean(chance.clamp(min=1e-6).log())


def bin_numbers(values: np.ndarray, edges: tuple[int, ...], last: int) -> Tensor:
    """Bin of each value, int64; bin b is [edges[b], edges[b + 1]), the last takes all that is above."""
    return torch.from_numpy(np.clip(np.searchsorted(edges, values, side="right") - 1, 0, last))


def size_loss(network: PreferenceNetwork, fused: Tensor, sizes: np.ndarray) -> Tensor:
    """Cross entropy of basket sizes [P] in bins, at trip starts ``fused`` [P, d]."""
    return _bin_loss(network.size_head(fused), bin_numbers(sizes, SIZE_BINS, len(SIZE_BINS) - 2))


def gap_loss(network: PreferenceNetwork, fused: Tensor, gaps: np.ndarray) -> Tensor:
    """Cross entropy of the days until the next trip [P] in bins, at trip ends ``fused`` [P, d]."""
    return _bin_loss(network.gap_head(fused), bin_numbers(gaps, GAP_BINS, len(GAP_BINS) - 1))


def _bin_loss(logits: Tensor, bins: Tensor) -> Tensor:
    """Cross entropy of bins [P], averaged; zero where there are none."""
    return F.cross_entropy(logits, bins) if len(bins) else logits.sum()


def _mean(values: Tensor) -> Tensor:
    """The mean of values [P]; of none a zero with a gradient, and not NaN: a batch may hold no answer of a kind."""
    return values.mean() if len(values) else values.sum()
