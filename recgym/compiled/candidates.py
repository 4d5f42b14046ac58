"""Candidate draws of one step, lane by lane: as ``recgym.simulation.candidates`` describes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.compiled.arithmetic import bits_of_float, fold, integer, kernel, log, mix, uniform
from recgym.compiled.choice import step_key

_BUCKETS = 128  # of the sort by hash; a power of two


@kernel
def _select_smallest(values: Any, count: int) -> None:
    """Moves the ``count`` smallest values to the front (Hoare's quickselect)."""
    low, high, target = 0, values.shape[0] - 1, count - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            return


@kernel
def _add(table: Any, item: np.int32) -> bool:
    """Puts ``item`` into an open-addressed table with -1 in free cells; whether it was new."""
    mask = table.shape[0] - 1
    cell = (item * 40503) & mask
    while table[cell] >= 0:
        if table[cell] == item:
            return False
        cell = (cell + 1) & mask
    table[cell] = item
    return True


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
    pool_items: Any,
    pool_cost: Any,
    num_own: int,
    num_uniform: int,
    num_popular: int,
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
    low_bits = np.int32(1)
    while low_bits <= size:
        low_bits <<= 1
    table_size = 4
    while table_size < 4 * wanted:
        table_size *= 2
    table = np.empty(table_size, np.int32)
    race = np.empty(size, np.int32)
    chosen = np.empty(wanted, np.int32)
    hashes = np.empty(wanted, np.uint64)
    sorted_hashes = np.empty(wanted, np.uint64)
    starts = np.empty(_BUCKETS + 1, np.int64)
    ends = np.empty(_BUCKETS + 1, np.int64)
    own = min(num_own, size)
    for n in range(lanes.shape[0]):
        lane, key = lanes[n], np.uint64(keys[n])
        table[:] = -1
        count = 0
        if own > 0:
            for i in range(size):
                time = -log(uniform(fold(key, first_counter + np.uint64(i)))) * pool_cost[lane, i]
                race[i] = (bits_of_float(time) & -low_bits) | np.int32(i)
            if own < size:
                _select_smallest(race, own)
            for i in range(own):
                item = pool_items[lane, race[i] & (low_bits - 1)]
                if item >= 0 and _add(table, item):
                    chosen[count] = item
                    count += 1
        counter = first_counter + np.uint64(size)
        drawn = 0
        while count < wanted and drawn < num_uniform:
            item = np.int32(integer(fold(key, counter + np.uint64(drawn)), num_items))
            drawn += 1
            if _add(table, item):
                chosen[count] = item
                count += 1
        counter += np.uint64(num_uniform)
        drawn = 0
        while count < wanted and drawn < num_popular:
            hashed = fold(key, counter + np.uint64(drawn))
            drawn += 1
            cell = integer(hashed, num_items)
            below = np.int32(hashed & np.uint64(0x7FFFFFFF)) < accept[cell]
            item = np.int32(cell) if below else alias[cell]
            if _add(table, item):
                chosen[count] = item
                count += 1
        rank = 0
        while count < wanted:
            item = most_popular[rank]
            rank += 1
            if _add(table, item):
                chosen[count] = item
                count += 1
        _shuffle(chosen, fold(key, order_purpose), hashes, sorted_hashes, starts, ends, out[lane])


@kernel
def prepare(lanes: Any, luck: Any, trip: Any, step: Any, purpose: np.uint64, *source: Any) -> None:
    """``draw`` for the step that the visit of ``lanes`` (int64 [n]) stands at, with the rest of its arguments."""
    keys = np.empty(lanes.shape[0], np.uint64)
    step_key(luck[lanes], trip[lanes], step[lanes], purpose, keys)
    draw(lanes, keys, *source)
