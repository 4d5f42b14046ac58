"""How episodes and trips begin, in place, for the lanes that are named: as ``Simulator`` describes it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recgym.compiled.arithmetic import kernel
from recgym.compiled.choice import identity, trip_uniform

_F = np.float32
Array = NDArray[Any]


class Shelf(NamedTuple):
    """Every user's record at the end of the log; U users, T entries in all tables together."""

    offsets: Array  # [U + 1] int64, where each user's table begins
    items: Array  # [T]; see ``Record`` for these three
    counts: Array
    last_days: Array
    num_trips: Array  # [U] int32
    mean_log_size: Array  # [U] float32
    mean_log_gap: Array
    recent: Array  # [U, 50] int32
    pool_items: Array  # [U, P] int32
    pool_cost: Array  # [U, P] float32
    num_items: Array  # [U] int32
    last_day: Array  # [U] int32, of the last trip; the same holds for the next two
    last_gap: Array
    last_size: Array


class Memory(NamedTuple):
    """The parts of some lanes' ``State`` that a beginning writes, under the same names."""

    seed: Array
    episode: Array
    luck: Array
    user: Array
    record_items: Array
    counts: Array
    last_days: Array
    num_trips: Array
    mean_log_size: Array
    mean_log_gap: Array
    recent: Array
    pool_items: Array
    pool_cost: Array
    num_items: Array
    day: Array
    gap_days: Array
    trip: Array
    step: Array
    bought: Array
    intended: Array
    shown: Array  # ``State.memory.items``
    refusals: Array
    refused: Array
    floor: Array
    bought_before: Array  # ``State.memory.bought``
    satisfaction: Array
    steps: Array
    start_day: Array
    shown_text: Array
    shown_count: Array
    consumed_text: Array
    last_hits: Array


@kernel
def fill(
    shelf_items: Any,
    shelf_counts: Any,
    shelf_days: Any,
    first: int,
    stop: int,
    items: Any,
    counts: Any,
    last_days: Any,
    used: int,
    pad: int,
) -> None:
    """One record [R] from entries ``first`` to ``stop`` of ragged columns; pads what else of ``used`` there is."""
    length = stop - first
    for i in range(length):
        items[i] = shelf_items[first + i]
        counts[i] = shelf_counts[first + i]
        last_days[i] = shelf_days[first + i]
    for i in range(length, used):
        items[i] = pad
        counts[i] = 0
        last_days[i] = 0


@kernel
def records(
    users: Any,
    offsets: Any,
    items: Any,
    counts: Any,
    last_days: Any,
    out_items: Any,
    out_counts: Any,
    out_days: Any,
    pad: int,
) -> None:
    """The records [B, R] of ``users``."""
    size = out_items.shape[1]
    for lane in range(users.shape[0]):
        first, stop = offsets[users[lane]], offsets[users[lane] + 1]
        fill(items, counts, last_days, first, stop, out_items[lane], out_counts[lane], out_days[lane], size, pad)


@kernel
def _clear(memory: Any, lane: int, slots: int) -> None:
    """Forgets the trip of a lane. Of what was shown only the entries of steps taken are not blank already."""
    used = min(memory.step[lane] * slots, memory.shown.shape[1])
    for entry in range(used):
        memory.shown[lane, entry] = -1
        memory.refusals[lane, entry] = 0
        memory.refused[lane, entry] = _F(0.0)
        memory.floor[lane, entry] = _F(0.0)
        memory.bought_before[lane, entry] = False
    memory.step[lane] = 0
    memory.bought[lane] = 0
    memory.shown_text[lane] = _F(0.0)
    memory.shown_count[lane] = 0
    memory.consumed_text[lane] = _F(0.0)
    memory.last_hits[lane] = _F(0.0)


@kernel
def begin(
    shelf: Any,
    purposes: Any,
    reference: np.float32,
    pad: int,
    slots: int,
    memory: Any,
    lanes: Any,
    seeds: Any,
    episodes: Any,
    users: Any,
    luck: Any,
) -> None:
    """Takes ``lanes`` to the end of the log, whence users go away until the first trip of an episode.

    Args:
        shelf: how the log left the users.
        purposes: uint64 numbers of user, gap.
        reference: satisfaction to begin with.
        pad: what records are padded with.
        slots: K.
        memory: of all lanes, written in place.
        lanes: int64 [n].
        seeds: int64 [n].
        episodes: int64 [n].
        users: int64 [n], user rows; -1: drawn.
        luck: float32 [n], overwritten by the draw that decides how long each user stays away.
    """
    for i in range(lanes.shape[0]):
        lane = lanes[i]
        _clear(memory, lane, slots)
        key, drawn = identity(seeds[i], episodes[i], purposes[0], np.uint64(shelf.last_day.shape[0]))
        user = users[i] if users[i] >= 0 else drawn
        memory.seed[lane] = seeds[i]
        memory.episode[lane] = episodes[i]
        memory.luck[lane] = key
        memory.user[lane] = user
        first, stop = shelf.offsets[user], shelf.offsets[user + 1]
        mine = memory.record_items[lane], memory.counts[lane], memory.last_days[lane]
        used = memory.num_items[lane]
        fill(shelf.items, shelf.counts, shelf.last_days, first, stop, mine[0], mine[1], mine[2], used, pad)
        memory.num_trips[lane] = shelf.num_trips[user]
        memory.mean_log_size[lane] = shelf.mean_log_size[user]
        memory.mean_log_gap[lane] = shelf.mean_log_gap[user]
        memory.recent[lane] = shelf.recent[user]
        memory.pool_items[lane] = shelf.pool_items[user]
        memory.pool_cost[lane] = shelf.pool_cost[user]
        memory.num_items[lane] = shelf.num_items[user]
        memory.day[lane] = shelf.last_day[user]
        memory.gap_days[lane] = shelf.last_gap[user]
        memory.trip[lane] = -1
        memory.step[lane] = 1
        memory.bought[lane] = shelf.last_size[user]
        memory.intended[lane] = shelf.last_size[user]
        memory.satisfaction[lane] = reference
        memory.steps[lane] = 0
        luck[i] = trip_uniform(np.uint64(memory.luck[lane]), np.int64(-1), purposes[1])


@kernel
def come_back(purpose: np.uint64, slots: int, memory: Any, lanes: Any, gap: Any, luck: Any) -> None:
    """Takes ``lanes`` to their next trip, ``gap`` days (int32 [n]) after the last.

    ``luck`` float32 [n] is overwritten by the draw for ``purpose``, of the intended basket size.
    """
    for i in range(lanes.shape[0]):
        lane = lanes[i]
        _clear(memory, lane, slots)
        memory.trip[lane] += 1
        memory.day[lane] += gap[i]
        memory.gap_days[lane] = gap[i]
        luck[i] = trip_uniform(np.uint64(memory.luck[lane]), np.int64(memory.trip[lane]), purpose)
