"""The preference network applied to histories in bulk: fused states, pair logits and whole-catalogue logits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recgym.user_models.preference.network import (
    TREND_DAYS,
    PreferenceNetwork,
    gap_levels,
    item_features,
    pace_features,
    pair_features,
    time_features,
)
from recgym.user_models.preference.trends import Trends
from recgym.user_models.preference.trips import Purchases, Tokens, Trips


@dataclass(frozen=True, eq=False)
class Moments:
    """P moments at which a user is about to act: tensors of what is known then."""

    user: Tensor  # [P] int64
    sequence: Tensor  # [P, d] sequence state
    pace: Tensor  # [P, 3]
    gap: Tensor  # [P] float32 days since the previous trip
    inside: Tensor  # [P] float32: 1 within a trip
    bought: Tensor  # [P] float32 items bought so far on the trip
    day: Tensor  # [P] float32


def fuse(network: PreferenceNetwork, moments: Moments, graph: Tensor, attributes: Tensor) -> Tensor:
    """The fused user state x [P, d]; ``graph`` [U, d] and ``attributes`` [U, A] are tables by user row."""
    return fuse_rows(network, moments, graph[moments.user], attributes[moments.user])


def fuse_rows(network: PreferenceNetwork, moments: Moments, graph: Tensor, attributes: Tensor) -> Tensor:
    """As ``fuse``, with the rows of ``graph`` [P, d] and ``attributes`` [P, A] that belong to the moments."""
    pace = moments.pace
    time = time_features(moments.gap, moments.inside, moments.bought, pace[:, 0], pace[:, 1], pace[:, 2], moments.day)
    sources = {"sequence": moments.sequence, "graph": graph, "attributes": attributes, "time": time}
    fused: Tensor = network.fusion(sources)
    return fused


@dataclass(frozen=True, eq=False)
class OwnHistory:
    """Q (moment, item) pairs, and what the user's own history before the moment says of the item."""

    moment: Tensor  # [Q] int64 row of the moment
    item: Tensor  # [Q] int64
    own_counts: Tensor  # [Q] float32 trips with the item
    own_days: Tensor  # [Q] float32 days since the last one, 0 where there is none
    trends: Tensor  # [Q, windows] float32 of the item on the day of the moment, 0 where the user never bought it

    def select(self, rows: Tensor) -> OwnHistory:
        """The pairs ``rows``, int64 [n]."""
        columns = (self.moment, self.item, self.own_counts, self.own_days, self.trends)
        return OwnHistory(*(column[rows] for column in columns))


@dataclass(frozen=True, eq=False)
class PairOutput:
    """Head outputs for Q (moment, item) pairs."""

    logit: Tensor  # [Q] uncalibrated logit of q
    stop: Tensor  # [Q] logit of the geometric parameter of the quantity
    rating: Tensor  # [Q] location of the ordinal rating model


def score_pairs(
    network: PreferenceNetwork, fused: Tensor, vectors: Tensor, statistics: Tensor, moments: Moments, pairs: OwnHistory
) -> PairOutput:
    """Scores pairs of a moment and an item.

    Args:
        network: the preference network.
        fused: x of each moment, [P, d].
        vectors: y of each item, [N, d].
        statistics: of each item, [N, 3]; see ``item_features``.
        moments: the P moments.
        pairs: the Q pairs, with what the user's own history says of each.
    """
    moment, item = pairs.moment, pairs.item
    hidden = F.silu(network.head_user(fused)[moment] + network.head_item(vectors)[item])
    logit = hidden @ network.head_purchase
    logit = logit + (network.match(fused)[moment] * vectors[item]).sum(-1)
    logit = logit + network.item_bias(vectors)[item, 0]
    owned = pairs.own_counts.nonzero()[:, 0]
    repeat = _repeats(network, fused, vectors, statistics, moments, pairs.select(owned))
    logit = logit.float().index_add(0, owned, repeat.float())  # in mixed precision the parts may be in half
    return PairOutput(logit, hidden @ network.head_quantity + network.quantity_bias, hidden @ network.head_rating)


def score_answers(
    network: PreferenceNetwork,
    fused: Tensor,
    vectors: Tensor,
    statistics: Tensor,
    moments: Moments,
    trips: Trips,
    targets: np.ndarray,
) -> tuple[PairOutput, np.ndarray]:
    """The heads of quantity and rating for everything bought on trips ``targets`` [P], whose starts are ``moments``.

    Returns:
        The output of R pairs, whose logits of q leave out the repeat term, and the events that they are, int64 [R].
    """
    row = np.repeat(np.arange(len(targets)), trips.size[targets])
    event = np.concatenate([np.arange(trips.events[t], trips.events[t + 1]) for t in targets])
    zero, flat = torch.zeros(len(event)), torch.zeros(len(event), len(TREND_DAYS))
    pairs = OwnHistory(torch.from_numpy(row), torch.from_numpy(trips.item[event]), zero, zero, flat)
    return score_pairs(network, fused, vectors, statistics, moments, pairs), event


@dataclass(frozen=True, eq=False)
class Components:
    """The parts whose sum is the logit of q for every item, at P moments."""

    match: Tensor  # [P, N] bilinear term <M x, y>
    hidden: Tensor  # [P, N] hidden layer W^T silu(U x + V y + b)
    repeat: Tensor  # [P, N] repeat term, 0 where the user never bought the item
    bias: Tensor  # [N] item bias

    def logits(self) -> Tensor:
        """The logits of q, [P, N]."""
        return self.match + self.hidden + self.repeat + self.bias


def score_catalogue(
    network: PreferenceNetwork,
    fused: Tensor,
    vectors: Tensor,
    statistics: Tensor,
    moments: Moments,
    own: OwnHistory,
    chunk: int = 16,
) -> Components:
    """Scores every item; ``own`` holds what each moment's user bought before.

    ``chunk`` moments are scored at a time, to bound memory. See ``score_pairs`` for the other arguments.
    """
    users, items = network.head_user(fused), network.head_item(vectors)
    match = network.match(fused) @ vectors.T
    hidden, repeat = torch.empty_like(match), torch.zeros_like(match)
    for start in range(0, len(fused), chunk):
        hidden[start : start + chunk] = F.silu(users[start : start + chunk, None] + items) @ network.head_purchase
    repeat[own.moment, own.item] = _repeats(network, fused, vectors, statistics, moments, own)
    return Components(match, hidden, repeat, network.item_bias(vectors)[:, 0])


def _repeats(
    network: PreferenceNetwork, fused: Tensor, vectors: Tensor, statistics: Tensor, moments: Moments, pairs: OwnHistory
) -> Tensor:
    """The repeat term of each pair, [Q]."""
    moment, item = pairs.moment, pairs.item
    user = network.repeat_user(fused) + network.repeat_pace(pace_features(moments.pace, moments.gap))
    known = network.repeat_known(item_features(statistics[item], pairs.trends))
    features = pair_features(pairs.own_counts, pairs.own_days, statistics[item, 0], moments.pace[moment])
    return network.repeat_term(features, user[moment], network.repeat_item(vectors)[item] + known)


@dataclass(frozen=True, eq=False)
class Groups:
    """S runs of L tokens as the network reads them; G is the largest group."""

    items: Tensor  # [S, L, G] int64, -1 pads
    feedback: Tensor  # [S, L, G] int64
    level: Tensor  # [S, L] int64 gap level

    @classmethod
    def of(cls, trips: Trips, tokens: Tokens, index: np.ndarray, content: np.ndarray | None = None) -> Groups:
        """The tokens ``index`` [S, L] (-1 pads, at the end), holding what the tokens ``content`` hold (their own)."""
        held = index if content is None else content
        inside, rows, at = held >= 0, np.maximum(held, 0), np.maximum(index, 0)
        gaps = torch.from_numpy(trips.gap[tokens.trip[at]])
        return cls(
            items=torch.from_numpy(np.where(inside[..., None], tokens.items[rows], -1)),
            feedback=torch.from_numpy(np.where(inside[..., None], tokens.feedback[rows], 0)),
            level=torch.where(torch.from_numpy(tokens.first[at]), gap_levels(gaps), 0),
        )


def embed(
    network: PreferenceNetwork, vectors: Tensor, groups: Groups, masked: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Token inputs [S, L, d]; where ``masked`` holds (bool [S, L]), its vector [d] stands for the items."""
    pooled, count = network.pool(vectors, groups.items, groups.feedback)
    if masked is not None:
        pooled = torch.where(masked[0][..., None], masked[1], pooled)
    return network.token(pooled, torch.zeros_like(pooled), count, torch.zeros_like(count), groups.level)


def token_inputs(
    network: PreferenceNetwork, vectors: Tensor, trips: Trips, tokens: Tokens, index: np.ndarray
) -> Tensor:
    """Token inputs [S, L, d] of the tokens ``index`` [S, L] (-1 pads, at the end)."""
    return embed(network, vectors, Groups.of(trips, tokens, index))


def states_before(
    network: PreferenceNetwork, vectors: Tensor, trips: Trips, tokens: Tokens, targets: np.ndarray, chunk: int = 128
) -> Tensor:
    """Sequence states [len(targets), d] at the start of the trips ``targets``, from all tokens before each.

    Histories are cut to the tokens that a simulated user starts with: the receptive field of the banded attention.
    """
    length = receptive_field(network)
    start = np.searchsorted(tokens.trip, targets)  # first token of each target
    out = []
    for low in range(0, len(targets), chunk):
        stop = start[low : low + chunk]
        begin = np.maximum(tokens.users[trips.trip_user[targets[low : low + chunk]]], stop - length)
        count = stop - begin
        width = max(int(count.max(initial=0)), 1)
        index = begin[:, None] + np.arange(width)
        index = np.where(index < stop[:, None], index, -1)
        states = network.encode(token_inputs(network, vectors, trips, tokens, index))
        last = torch.from_numpy(np.maximum(count - 1, 0))
        picked = states[torch.arange(len(count)), last]
        out.append(torch.where(torch.from_numpy(count > 0)[:, None], picked, network.start))
    return torch.cat(out)


def receptive_field(network: PreferenceNetwork) -> int:
    """How many tokens back the last state of the banded Transformer can see."""
    return network.config.layers * (network.config.window - 1) + 1


def trip_start_moments(trips: Trips, targets: np.ndarray, states: Tensor) -> Moments:
    """The moments at the start of trips ``targets``, given their sequence states."""

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).float()

    zeros = torch.zeros(len(targets))
    return Moments(
        user=torch.from_numpy(trips.trip_user[targets]),
        sequence=states,
        pace=tensor(trips.pace[targets]),
        gap=tensor(trips.gap[targets]),
        inside=zeros,
        bought=zeros,
        day=tensor(trips.trip_day[targets]),
    )


def trip_end_moments(trips: Trips, ended: np.ndarray, states: Tensor) -> Moments:
    """The moments at the end of trips ``ended``, given the sequence states after them."""
    start = trip_start_moments(trips, ended, states)
    return replace(start, inside=torch.ones(len(ended)), bought=torch.from_numpy(trips.size[ended]).float())


def owned_before(trips: Trips, trends: Trends, targets: np.ndarray) -> OwnHistory:
    """What the users of trips ``targets`` had bought before them, as flat pairs."""
    purchases = Purchases.of(trips)
    moments, items, counts, days = [], [], [], []
    for row, trip in enumerate(targets):
        user = trips.trip_user[trip]
        events = slice(trips.events[trips.users[user]], trips.events[trip])
        owned = np.unique(trips.item[events])
        count, last = purchases.lookup(np.full(len(owned), user), owned, np.full(len(owned), trip))
        moments.append(np.full(len(owned), row))
        items.append(owned)
        counts.append(count)
        days.append(trips.trip_day[trip] - last)
    lists = (moments, items, counts, days)
    moment, item, bought, since = (torch.from_numpy(np.concatenate(parts)) for parts in lists)
    lately = torch.from_numpy(trends.at(trips.trip_day[targets][moment], item.numpy()))
    return OwnHistory(moment, item, bought.float(), since.float(), lately)
