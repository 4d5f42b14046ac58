"""Candidate draws of one step, lane by lane: as ``recgym.simulation.candidates`` describes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.compiled.arithmetic import bits_of_float, fold, integer, kernel, log, mix, uniform
from recgym.compiled.choice import step_key

_BUCKETS = 128  # of the sort by hash; a power of two


@kernel
def _add(table: Any, item: np.int64) -> int:
    """Puts ``item`` into a table of bits; 1 if it was new, else 0."""
    word, bit = item >> 6, np.uint64(1) << np.uint64(item & 63)
    known = table[word] & bit
    table[word] |= bit
    return 1 if known == np.uint64(0) else 0


@kernel
def _smallest(values: Any, count: int, spare: Any) -> None:
    """Moves the ``count`` smallest of distinct ``values`` to the front (quickselect); ``spare`` is as long.

    Every value is written to both sides and stays on one: there is no branch to guess.
    """
    first, stop = 0, values.shape[0]  # what lies before is in, what lies behind is out
    while count > first and count < stop:
        pivot = values[(first + stop) >> 1]
        low, high = first, 0
        for i in range(first, stop):
            value = values[i]
            below = value < pivot
            spare[high] = value
            values[low] = value
            low += 1 if below else 0
            high += 0 if below else 1
        values[low:stop] = spare[:high]
        if low == first:  # the pivot is the smallest of all
            place = first
            while values[place] != pivot:
                place += 1
            values[place], values[first] = values[first], pivot
            first += 1
        elif low > count:
            stop = low
        else:
            first = low


@kernel
def _shuffle(items: Any, salt: np.uint64, keys: Any, sorted_keys: Any, starts: Any, ends: Any, out: Any) -> None:
    """Writes ``items`` to ``out`` in the order of their hashes, as signed numbers: buckets, then insertion."""
    count = items.shape[0]
    flip = np.uint64(1 << 63)
    starts[:] = 0
    for i in range(count):
        keys[i] = mix(np.uint64(np.int64(items[i])) ^ salt) ^ flip
    for i in range(count):
        starts[(keys[i] >> np.uint64(57)) + np.uint64(1)] += 1
    for bucket in range(_BUCKETS):
        starts[bucket + 1] += starts[bucket]
    ends[:] = starts
    for i in range(count):
        key = keys[i]
        bucket = key >> np.uint64(57)
        place = ends[bucket]
        ends[bucket] += 1
        while place > starts[bucket] and sorted_keys[place - 1] > key:  # one or two are in a bucket
            sorted_keys[place] = sorted_keys[place - 1]
            out[place] = out[place - 1]
            place -= 1
        sorted_keys[place] = key
        out[place] = items[i]


@kernel
def draw(
    lanes: Any,
    keys: Any,
    order_purpose: np.uint64,
    first_counter: np.uint64,
    new_purpose: np.uint64,
    pool_items: Any,
    pool_cost: Any,
    day: Any,
    start_day: Any,
    num_own: int,
    num_new: int,
    arrival_day: int,
    num_uniform: int,
    num_popular: int,
    old_rows: Any,
    new_rows: Any,
    accept: Any,
    alias: Any,
    most_popular: Any,
    out: Any,
) -> None:
    """``CandidateGenerator.draw``: the first M distinct items of a lane's sequence, shuffled, int32 [B, M].

    Drawn for ``lanes`` (int64 [n]), which have one key each.
    ``num_popular`` limits the draws by popularity; the most popular items in order complete what is missing after.
    """
    wanted = out.shape[1]
    size = pool_items.shape[1]
    num_items = np.uint64(accept.shape[0])
    num_old_rows, num_new_rows = np.uint64(old_rows.shape[0]), np.uint64(new_rows.shape[0])
    low_bits = np.int32(1)
    while low_bits <= size:
        low_bits <<= 1
    table = np.zeros((accept.shape[0] >> 6) + 1, np.uint64)
    race = np.empty(size, np.int32)
    spare = np.empty(size, np.int32)
    chosen = np.empty(wanted + 1, np.int32)
    hashes = np.empty(wanted, np.uint64)
    sorted_hashes = np.empty(wanted, np.uint64)
    starts = np.empty(_BUCKETS + 1, np.int64)
    ends = np.empty(_BUCKETS + 1, np.int64)
    own = min(num_own, size)
    for n in range(lanes.shape[0]):
        lane, key = lanes[n], np.uint64(keys[n])
        count = 0
        if own > 0:
            for i in range(size):
                time = -log(uniform(fold(key, first_counter + np.uint64(i)))) * pool_cost[lane, i]
                race[i] = (bits_of_float(time) & -low_bits) | np.int32(i)
            _smallest(race, own, spare)
            for i in range(own):
                item = pool_items[lane, race[i] & (low_bits - 1)]
                chosen[count] = item
                if item >= 0:
                    count += _add(table, item)
        if num_new > 0 and day[lane] - start_day[lane] >= arrival_day:
            new_key = fold(key, new_purpose)
            for i in range(num_new):
                item = np.int64(new_rows[integer(fold(new_key, first_counter + np.uint64(i)), num_new_rows)])
                chosen[count] = item
                count += _add(table, item)
        counter = first_counter + np.uint64(size)
        drawn = 0
        while count < wanted and drawn < num_uniform:
            item = np.int64(old_rows[integer(fold(key, counter + np.uint64(drawn)), num_old_rows)])
            drawn += 1
            chosen[count] = item
            count += _add(table, item)
        counter += np.uint64(num_uniform)
        drawn = 0
        while count < wanted and drawn < num_popular:
            hashed = fold(key, counter + np.uint64(drawn))
            drawn += 1
            cell = integer(hashed, num_items)
            below = np.int32(hashed & np.uint64(0x7FFFFFFF)) < accept[cell]
            item = cell if below else np.int64(alias[cell])
            chosen[count] = item
            count += _add(table, item)
        rank = 0
        while count < wanted:
            item = np.int64(most_popular[rank])
            rank += 1
            chosen[count] = item
            count += _add(table, item)
        for i in range(wanted):
            table[chosen[i] >> 6] = 0
        _shuffle(chosen[:wanted], fold(key, order_purpose), hashes, sorted_hashes, starts, ends, out[lane])


@kernel
def prepare(lanes: Any, luck: Any, trip: Any, step: Any, purpose: np.uint64, *source: Any) -> None:
    """``draw`` for the step that the visit of ``lanes`` (int64 [n]) stands at, with the rest of its arguments."""
    keys = np.empty(lanes.shape[0], np.uint64)
    step_key(luck[lanes], trip[lanes], step[lanes], purpose, keys)
    draw(lanes, keys, *source)
