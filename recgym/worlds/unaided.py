"""Trips that the model makes by itself, without any recommendation: gaps, basket sizes and baskets from q."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from recgym.random import Purpose, episode_key, fold, uniform
from recgym.simulation.record import Records, merge, own_history
from recgym.types import Noise, Record, Slate, Visit
from recgym.user_models.preference.users import PreferenceState, PreferenceUsers
from recgym.worlds.world import World


def ks_distance(left: np.ndarray, right: np.ndarray) -> float:
    """The Kolmogorov-Smirnov distance: the largest gap between two empirical distribution functions."""
    points = np.unique(np.concatenate((left, right)))
    below = [np.searchsorted(np.sort(values), points, side="right") / len(values) for values in (left, right)]
    return float(np.abs(below[0] - below[1]).max())


@torch.no_grad()
def unaided_trips(world: World, number: int, seed: int, chunk: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Lets every user of ``world`` make ``number`` trips from where its history ends, with nobody recommending.

    Each trip draws its gap, then its size, then its basket: the items of largest logit(q) plus Gumbel noise, which is
    a draw of that many distinct items with odds in proportion to those of q. The basket enters the sequence state in
    groups, as a log's does.

    Returns:
        Basket sizes and gaps in days, [U * number] each.
    """
    users, records = PreferenceUsers(world), Records(world, torch.device("cpu"))
    sizes, gaps = [], []
    for start in range(0, world.num_users, chunk):
        rows = torch.arange(start, min(start + chunk, world.num_users))
        record, _ = records.start(rows)
        visit = records.last_visit(rows)
        state = users.init(rows, record, visit)
        key = episode_key(torch.full_like(rows, seed), rows)
        for trip in range(number):
            luck = fold(key, trip)
            hazard = torch.ones(len(rows))
            gap, _ = users.away(state, record, uniform(fold(luck, Purpose.GAP)), hazard)
            zero = torch.zeros_like(gap)
            visit = Visit(day=visit.day + gap, gap_days=gap, trip=zero + trip, step=zero, bought=zero, intended=zero)
            state = users.arrive(state, record, visit)
            size = users.intend(state, uniform(fold(luck, Purpose.INTENDED_SIZE)))
            basket = _basket(users, state, record, visit, size, luck)
            visit = visit.clone()  # its counters are written lane by lane
            state, visit = _enter(users, state.clone(), record, basket, visit, luck)
            record = merge(record, basket.to(torch.int32), visit.day, visit.gap_days)
            sizes.append(size.numpy())
            gaps.append(gap.numpy())
    return np.concatenate(sizes), np.concatenate(gaps)


def _basket(
    users: PreferenceUsers, state: PreferenceState, record: Record, visit: Visit, size: Tensor, luck: Tensor
) -> Tensor:
    """Item rows [B, max size] of one trip's baskets, -1 padded."""
    items = torch.arange(users.world.num_items).repeat(len(size), 1)
    counts, days = own_history(record, visit.day, items)
    logit = users.appraise(state, items, counts, days, visit).logit
    draw = uniform(fold(fold(luck, Purpose.BASKET)[:, None], items))
    width = min(int(size.max()), users.world.num_items)
    basket = (logit - torch.log(-torch.log(draw))).topk(width, dim=1).indices
    return basket.masked_fill(torch.arange(width) >= size[:, None], -1)


def _enter(
    users: PreferenceUsers, state: PreferenceState, record: Record, basket: Tensor, visit: Visit, luck: Tensor
) -> tuple[PreferenceState, Visit]:
    """Feeds baskets into the sequence states, a group of items a token; lanes whose basket is done stay as they are."""
    group = users.config.group
    for start in range(0, basket.shape[1], group):
        lanes = (basket[:, start] >= 0).nonzero().squeeze(1)
        part = basket[lanes, start : start + group]
        items, bought = part.clamp(min=0), part >= 0
        here, now, file = state.select(lanes), visit.select(lanes), record.select(lanes)
        counts, days = own_history(file, now.day, items)
        everyone = torch.ones(len(items), dtype=torch.bool)
        slate = Slate(items, bought, torch.zeros(items.shape), counts, days, active=everyone)
        key = fold(luck[lanes], Purpose.QUANTITY)[:, None]
        draw = uniform(fold(key, items))
        response, _ = users.respond(here, slate, now, Noise(want=torch.zeros_like(draw), quantity=draw, rating=draw))
        after = replace(now, step=now.step + 1, bought=now.bought + bought.sum(1, dtype=torch.int32))
        state.write(lanes, users.transition(here, slate, response, after))
        visit.write(lanes, after)
    return state, visit
