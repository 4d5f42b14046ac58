"""Trips that the model makes by itself, without any recommendation: gaps, basket sizes and baskets from q."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from recgym.random import Purpose, episode_key, fold, uniform
from recgym.simulation.record import Records, merge, own_history
from recgym.types import Noise, Record, Slate, Visit
from recgym.user_models.preference.trips import Trips
from recgym.user_models.preference.users import PreferenceState, PreferenceUsers
from recgym.worlds.world import World

CHUNK = 64  # users that make their trips together


@dataclass(frozen=True, eq=False)
class Events:
    """E purchases or ratings, in no particular order."""

    user: np.ndarray  # [E] int64 user row
    trip: np.ndarray  # [E] int64 number of the trip among those made here
    day: np.ndarray  # [E] int64
    item: np.ndarray  # [E] int64
    feedback: np.ndarray  # [E] int64: quantity or rating


def continued(history: Trips, made: Events) -> Trips:
    """A log that goes on with the trips ``made`` after each user's history."""
    known = history.trip_user[history.trip]
    trip = np.concatenate((history.number[history.trip], np.diff(history.users)[made.user] + made.trip))
    user, day = np.concatenate((known, made.user)), np.concatenate((history.trip_day[history.trip], made.day))
    order = np.lexsort((trip, user))
    user, trip, day = user[order], trip[order], day[order]
    new = (np.diff(user, prepend=-1) != 0) | (np.diff(trip, prepend=-1) != 0)
    return Trips(
        item=np.concatenate((history.item, made.item))[order],
        feedback=np.concatenate((history.feedback, made.feedback))[order],
        trip=np.cumsum(new) - 1,
        trip_user=user[new],
        trip_day=day[new],
        num_users=history.num_users,
        num_items=history.num_items,
    )


@torch.no_grad()
def unaided_trips(
    world: World, history: Trips, number: int, seed: int, report: Callable[[float], None] | None = None
) -> Trips:
    """Lets every user of ``world`` make ``number`` trips from where its history ends, with nobody recommending.

    Each trip draws its gap, then its size, then its basket: the items of largest logit(q) plus Gumbel noise, which is
    a draw of that many distinct items with odds in proportion to those of q. The basket enters the sequence state in
    groups, as a log's does, with the quantity or rating that the model answers.

    Args:
        world: the world, cut where ``history`` ends.
        history: the trips that its users have made.
        number: trips to make.
        seed: of the luck.
        report: called with the share done.

    Returns:
        ``history``, gone on with the trips made.
    """
    users, records = PreferenceUsers(world), Records(world, torch.device("cpu"))
    made: list[Events] = []
    for start in range(0, world.num_users, CHUNK):
        rows = torch.arange(start, min(start + CHUNK, world.num_users))
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
            state, visit, feedback = _enter(users, state.clone(), record, basket, visit, luck)
            record = merge(record, basket.to(torch.int32), visit.day, visit.gap_days)
            lane, place = (basket >= 0).nonzero(as_tuple=True)
            made.append(
                Events(
                    user=rows[lane].numpy(),
                    trip=np.full(len(lane), trip),
                    day=visit.day[lane].long().numpy(),
                    item=basket[lane, place].numpy(),
                    feedback=feedback[lane, place].long().numpy(),
                )
            )
        if report is not None:
            report((start + len(rows)) / world.num_users)
    return continued(history, _joined(made))


def popularity_trips(history: Trips, number: int, seed: int) -> Trips:
    """``history``, gone on with ``number`` trips a user of a simulator that knows no user: the control to be found out.

    Gaps, basket sizes and quantities (or ratings) are drawn from those of all trips of ``history``, items by their
    popularity in it, without repeats within a trip.
    """
    rng = np.random.default_rng([seed, 23])
    users = history.num_users
    log_chance = np.log(np.bincount(history.item, minlength=history.num_items) + 1e-9)
    day = history.trip_day[history.users[1:] - 1]
    made: list[Events] = []
    for trip in range(number):
        day = day + rng.choice(history.gap[history.number > 0], users)
        size = np.minimum(rng.choice(history.size, users), history.num_items)
        for user in range(users):
            luck = log_chance + rng.gumbel(size=history.num_items)
            item = np.argpartition(-luck, size[user] - 1)[: size[user]]
            count = len(item)
            feedback = rng.choice(history.feedback, count)
            made.append(Events(np.full(count, user), np.full(count, trip), np.full(count, day[user]), item, feedback))
    return continued(history, _joined(made))


def _joined(parts: list[Events]) -> Events:
    return Events(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Events)))


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
) -> tuple[PreferenceState, Visit, Tensor]:
    """Feeds baskets into the sequence states, a group of items a token; lanes whose basket is done stay as they are.

    Returns:
        State, visit, and the quantity or rating of each item, int32 of the basket's shape.
    """
    group = users.config.group
    rated = "rating" in users.world.spec.responses
    feedback = torch.zeros(basket.shape, dtype=torch.int32)
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
        feedback[lanes, start : start + group] = response.rating if rated else response.quantity
        after = replace(now, step=now.step + 1, bought=now.bought + bought.sum(1, dtype=torch.int32))
        state.write(lanes, users.transition(here, slate, response, after))
        visit.write(lanes, after)
    return state, visit, feedback
