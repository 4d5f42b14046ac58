"""One slate before the response: its luck, what the trip has settled about its items, and the user's own history."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.compiled.arithmetic import GOLDEN, fold, integer, kernel, mix, prefetch_row, uniform

_F = np.float32


@kernel
def find(items: Any, wanted: Any, places: Any) -> None:
    """Writes the place of each wanted item in a sorted row ``items``, or -1.

    All bisections go down together: a row has 2 ** n entries (padded with the largest value), so they are equally deep
    and become vector instructions.
    """
    places[:] = 0
    half = np.int32(items.shape[0] >> 1)
    while half > 0:
        for i in range(wanted.shape[0]):
            further = places[i] + half
            places[i] = further if items[further] <= wanted[i] else places[i]
        half >>= 1
    for i in range(wanted.shape[0]):
        places[i] = places[i] if items[places[i]] == wanted[i] else -1


@kernel
def filled(num_items: int) -> int:
    """How much of a record to search that holds ``num_items``: the next power of two."""
    length = 1
    while length < num_items:
        length *= 2
    return length


@kernel
def own_history(
    items: Any, counts: Any, last_days: Any, num_items: Any, day: Any, wanted: Any, own_counts: Any, own_days: Any
) -> None:
    """``recgym.simulation.record.own_history`` of records that hold ``num_items`` int32 [B]; writes float32 [B, C]."""
    places = np.empty(wanted.shape[1], np.int32)
    lanes = wanted.shape[0]
    for lane in range(lanes):
        if lane + 1 < lanes:
            prefetch_row(items[lane + 1, : num_items[lane + 1]])
        find(items[lane, : filled(num_items[lane])], wanted[lane], places)
        for slot in range(wanted.shape[1]):
            count, days = _F(0.0), _F(0.0)
            if places[slot] >= 0:
                count = _F(counts[lane, places[slot]])
                days = _F(max(day[lane] - last_days[lane, places[slot]], 0))
            own_counts[lane, slot] = count
            own_days[lane, slot] = days if count > 0 else _F(0.0)


@kernel
def draw(luck: Any, trip: Any, step: Any, items: Any, purposes: Any, by_item: Any, by_step: Any) -> None:
    """``recgym.simulation.draws.draw``: want, quantity, rating, examine [4, B, K]; scan, leave [2, B].

    ``purposes``: uint64 numbers of want, quantity, rating, examine, scan, leave.
    """
    for lane in range(items.shape[0]):
        trip_key = fold(np.uint64(luck[lane]), np.uint64(trip[lane]))
        now = np.uint64(step[lane])
        for purpose in range(4):
            key = fold(trip_key, purposes[purpose])
            if purpose == 3:
                key = fold(key, now)
            for slot in range(items.shape[1]):
                by_item[purpose, lane, slot] = uniform(fold(key, np.uint64(items[lane, slot])))
        for purpose in range(2):
            by_step[purpose, lane] = uniform(fold(fold(trip_key, purposes[4 + purpose]), now))


@kernel
def identity(seed: np.int64, episode: np.int64, purpose: np.uint64, num_users: np.uint64) -> tuple[np.uint64, np.int64]:
    """``recgym.random.episode_key`` of a lane, and the user drawn for it."""
    luck = fold(mix(np.uint64(seed) + GOLDEN), np.uint64(episode))
    return luck, integer(fold(luck, purpose), num_users)


@kernel
def begin(seeds: Any, episodes: Any, purpose: np.uint64, num_users: np.uint64, luck: Any, user: Any) -> None:
    """``identity`` of lanes, uint64 [B] and int64 [B]."""
    for lane in range(seeds.shape[0]):
        luck[lane], user[lane] = identity(seeds[lane], episodes[lane], purpose, num_users)


@kernel
def trip_uniform(luck: np.uint64, trip: np.int64, purpose: np.uint64) -> np.float32:
    """The uniform draw of a trip for a purpose."""
    return uniform(fold(fold(luck, np.uint64(trip)), purpose))


@kernel
def trip_draw(luck: Any, trip: Any, purpose: np.uint64, out: Any) -> None:
    """``recgym.simulation.draws.trip_draw``, float32 [B]."""
    for lane in range(out.shape[0]):
        out[lane] = trip_uniform(np.uint64(luck[lane]), np.int64(trip[lane]), purpose)


@kernel
def step_key(luck: Any, trip: Any, step: Any, purpose: np.uint64, out: Any) -> None:
    """``recgym.simulation.draws.step_key``, uint64 [B]."""
    for lane in range(out.shape[0]):
        trip_key = fold(np.uint64(luck[lane]), np.uint64(trip[lane]))
        out[lane] = fold(fold(trip_key, purpose), np.uint64(step[lane]))


@kernel
def examine(
    by_item: Any,
    by_step: Any,
    refusals: Any,
    bought: Any,
    duplicate: Any,
    decay: Any,
    fatigue: Any,
    cascade: bool,
    out: Any,
) -> None:
    """``recgym.simulation.choice.Examination``: bool [B, K] from the draws of a slate."""
    most = fatigue.shape[0] - 1  # refused more often where a lane that ended is stepped on
    for lane in range(out.shape[0]):
        for slot in range(out.shape[1]):
            tired = fatigue[min(refusals[lane, slot], most)]
            if cascade:
                looks = by_step[0, lane] < decay[slot] and by_item[3, lane, slot] < tired
            else:
                looks = by_item[3, lane, slot] < decay[slot] * tired
            out[lane, slot] = looks and not (duplicate[lane, slot] or bought[lane, slot])


@kernel
def meet(
    luck: Any,
    trip: Any,
    step: Any,
    day: Any,
    record_items: Any,
    record_counts: Any,
    record_days: Any,
    num_items: Any,
    shown: Any,
    refusals: Any,
    refused: Any,
    floor: Any,
    bought: Any,
    slate: Any,
    purposes: Any,
    decay: Any,
    fatigue: Any,
    cascade: bool,
    by_item: Any,
    by_step: Any,
    seen_refusals: Any,
    known: Any,
    duplicate: Any,
    seen_bought: Any,
    examined: Any,
    own: Any,
) -> None:
    """``recgym.simulation.choice.Examination.meet``.

    Writes by_item [4, B, K] and by_step [2, B] as ``draw`` (wants above the floor), known [2, B, K] (refused, floor),
    bool [B, K] duplicate, seen_bought and examined, and own [2, B, K] (counts, days).
    """
    draw(luck, trip, step, slate, purposes, by_item, by_step)
    used = np.empty(slate.shape[0], np.int64)
    for lane in range(slate.shape[0]):
        used[lane] = min(step[lane] * slate.shape[1], shown.shape[1])
    recall(shown, refusals, refused, floor, bought, used, slate, seen_refusals, known[0], known[1], seen_bought)
    repeats_earlier(slate, duplicate)
    own_history(record_items, record_counts, record_days, num_items, day, slate, own[0], own[1])
    examine(by_item, by_step, seen_refusals, seen_bought, duplicate, decay, fatigue, cascade, examined)
    for lane in range(slate.shape[0]):
        for slot in range(slate.shape[1]):
            low = known[1, lane, slot]
            by_item[0, lane, slot] = low + (_F(1.0) - low) * by_item[0, lane, slot]


@kernel
def stop(examined: Any, consumed: Any, quantity: Any, rating: Any) -> None:
    """``Examination.stop`` for a cascade, in place."""
    for lane in range(examined.shape[0]):
        above = False
        for slot in range(examined.shape[1]):
            if above:
                examined[lane, slot] = False
                consumed[lane, slot] = False
                quantity[lane, slot] = 0
                rating[lane, slot] = 0
            above = above or consumed[lane, slot]


@kernel
def recall(
    shown: Any,
    refusals: Any,
    refused: Any,
    floor: Any,
    bought: Any,
    used: Any,
    items: Any,
    out_refusals: Any,
    out_refused: Any,
    out_floor: Any,
    out_bought: Any,
) -> None:
    """``recgym.simulation.choice.recall``; ``used`` int64 [B]: entries of the memory that are written."""
    for lane in range(items.shape[0]):
        for slot in range(items.shape[1]):
            item = np.int32(items[lane, slot])
            entry = np.int32(-1)  # the last that is of the item: looked for in all of them, so without a branch
            for place in range(np.int32(used[lane])):
                entry = max(entry, np.int32(place) if shown[lane, place] == item else np.int32(-1))
            known = entry >= 0
            out_refusals[lane, slot] = refusals[lane, entry] if known else 0
            out_refused[lane, slot] = refused[lane, entry] if known else _F(0.0)
            out_floor[lane, slot] = floor[lane, entry] if known else _F(0.0)
            out_bought[lane, slot] = bought[lane, entry] if known else False


@kernel
def repeats_earlier(items: Any, out: Any) -> None:
    """``recgym.simulation.kernels.repeats_earlier``."""
    for lane in range(items.shape[0]):
        for slot in range(items.shape[1]):
            double = False
            for before in range(slot):
                double |= items[lane, before] == items[lane, slot]
            out[lane, slot] = double
