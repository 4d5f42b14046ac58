"""The purchase record: bounded tables of (item, count, last day), looked up on every slate and merged after a trip."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from recgym import compiled
from recgym.compiled import choice as kernels
from recgym.compiled import trips
from recgym.simulation.kernels import sort_rows
from recgym.simulation.state import Known, Pool
from recgym.types import Record, Visit
from recgym.worlds.world import World

RECORD_SIZE = 1024  # entries of a record
RECENT_SIZE = 50  # most recently bought items kept in order
POOL_SIZE = 128  # own items that candidates are drawn from
RECENCY_DAYS = 60.0  # the draw weight of an own item falls by e in this many days
MEAN_RATE = 0.1  # of the exponential means of log basket size and log gap, after ten trips; before, plain means
PAD = 2**31 - 1
_INDEX_BITS = 20  # of packed sort keys: room for the position within a row


class Records:
    """Every user's record at the end of the log, and what is derived from it once per world."""

    def __init__(self, world: World, device: torch.device) -> None:
        """Reads the repeat tables and the per-user columns of ``world``."""
        repeats = world.repeats
        offsets, values = repeats.offsets, repeats.values
        lengths = offsets.diff()
        if len(lengths) and int(lengths.max()) > RECORD_SIZE:
            keep = _newest(offsets.numpy(), values["last_days"].numpy())
            values = {name: tensor[keep] for name, tensor in values.items()}
            offsets = torch.cat((offsets[:1], lengths.clamp(max=RECORD_SIZE).cumsum(0)))
        self._offsets = offsets.to(device)
        self._values = {name: tensor.to(device) for name, tensor in values.items()}
        columns = world.users
        self.last_day = torch.tensor(columns["last_day"].to_numpy(np.int32), device=device)  # [U]
        self._num_trips = torch.tensor(columns["num_trips"].to_numpy(np.int32), device=device)
        self._mean_log_size = torch.tensor(columns["mean_log_size"].to_numpy(np.float32), device=device)
        self._mean_log_gap = torch.tensor(columns["mean_log_gap"].to_numpy(np.float32), device=device)
        last_gap, last_size = (columns[name].to_numpy(np.int32) for name in ("last_gap", "last_size"))
        self._last_gap = torch.tensor(last_gap, device=device)
        self._last_size = torch.tensor(last_size, device=device)
        recents, pools = [], []
        for rows in torch.arange(world.num_users, device=device).split(4096):
            items, counts, days = self._tables(rows)
            recents.append(recent_items(items, days))
            pools.append(own_pool(items, counts, days))
        self._recent = torch.cat(recents)
        self._pool = pools[0].map(lambda *parts: torch.cat(parts), *pools[1:])

    @cached_property
    def shelf(self) -> trips.Shelf:
        """All of it, as compiled kernels read it."""
        columns = (self._num_trips, self._mean_log_size, self._mean_log_gap, self._recent)
        pool, last = self._pool, (self.last_day, self._last_gap, self._last_size)
        tensors = (self._offsets, *(self._values[name] for name in ("items", "counts", "last_days")), *columns)
        return trips.Shelf(*(t.numpy() for t in (*tensors, pool.items, pool.cost, pool.num_items, *last)))

    def last_visit(self, users: Tensor) -> Visit:
        """Where ``users`` (int64 [B]) stood when the log ended: at the end of their last trip, numbered -1."""
        size, zero = self._last_size[users], torch.zeros_like(self.last_day[users])
        return Visit(
            day=self.last_day[users],
            gap_days=self._last_gap[users],
            trip=zero - 1,
            step=zero + 1,
            bought=size,
            intended=size,
        )

    def _tables(self, users: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if compiled.runs_on(users):
            items = torch.empty(len(users), RECORD_SIZE, dtype=torch.int32)
            counts, days = (torch.empty(items.shape, dtype=torch.int16) for _ in range(2))
            columns = [self._values[name] for name in ("items", "counts", "last_days")]
            arguments = (users, self._offsets, *columns, items, counts, days)
            trips.records(*(tensor.numpy() for tensor in arguments), PAD)
            return items, counts, days
        start, stop = self._offsets[users], self._offsets[users + 1]
        index = start[:, None] + torch.arange(RECORD_SIZE, device=users.device)
        inside = index < stop[:, None]
        index = index.clamp_(max=max(len(self._values["items"]) - 1, 0))

        def table(name: str, dtype: torch.dtype, fill: int) -> Tensor:
            values = self._values[name]
            values = values if len(values) else values.new_zeros(1)
            return torch.where(inside, values[index].to(dtype), fill).to(dtype)

        return table("items", torch.int32, PAD), table("counts", torch.int16, 0), table("last_days", torch.int16, 0)

    def start(self, users: Tensor) -> tuple[Record, Pool]:
        """The records and candidate pools of ``users`` (int64 [B]) at the end of the log."""
        items, counts, days = self._tables(users)
        record = Record(
            items=items,
            counts=counts,
            last_days=days,
            num_trips=self._num_trips[users],
            mean_log_size=self._mean_log_size[users],
            mean_log_gap=self._mean_log_gap[users],
            recent=self._recent[users],
        )
        return record, self._pool.select(users)


def known_start(records: Records, users: Tensor) -> tuple[Known, Pool]:
    """What the platform knows of ``users`` (int64 [B]) at the end of the log, and its pool."""
    record, pool = records.start(users)
    return Known(record, pool.num_items, torch.zeros_like(pool.num_items)), pool


def away(known: Known | None, gap_days: Tensor) -> Known | None:
    """What the platform knows when users come back after ``gap_days`` (int32 [B])."""
    if known is None:
        return None
    return replace(known, gap_days=torch.where(known.record.num_trips > 0, gap_days, 0))


def _newest(offsets: np.ndarray, days: np.ndarray) -> Tensor:
    """Indices, ascending, of each row's ``RECORD_SIZE`` entries with the latest days."""
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((-days.astype(np.int64), rows))
    rank = np.arange(len(rows)) - offsets[rows]
    return torch.from_numpy(np.sort(order[rank < RECORD_SIZE]))


def own_history(record: Record, day: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Trips in which each user bought each item, and days since the last one, float32 [B, C] each.

    Args:
        record: what the platform has on file.
        day: today, int32 [B].
        items: item rows [B, C].

    Returns:
        Counts and days, both 0 for items never bought.
    """
    if compiled.runs_on(items):
        counts, days = torch.empty(items.shape), torch.empty(items.shape)
        everything = torch.full_like(day, record.items.shape[1])
        arguments = (record.items, record.counts, record.last_days, everything, day, items, counts, days)
        kernels.own_history(*(tensor.numpy() for tensor in arguments))
        return counts, days
    counts, last_days = lookup(record, items)
    return counts, (day[:, None] - last_days).clamp_(min=0).to(torch.float32) * (counts > 0)


def lookup(record: Record, items: Tensor) -> tuple[Tensor, Tensor]:
    """A user's own history with items [B, C]: trips in which they bought it, and the day of the last one.

    Returns:
        counts float32 [B, C] and last days int32 [B, C], both 0 for items never bought.
    """
    items = items.to(torch.int32)
    index = torch.searchsorted(record.items, items).clamp_(max=record.items.shape[1] - 1)
    mine = record.items.gather(1, index) == items
    counts = record.counts.gather(1, index) * mine
    days = record.last_days.gather(1, index) * mine
    return counts.to(torch.float32), days.to(torch.int32)


def _pack(values: Tensor) -> Tensor:
    """Sort keys int64 [B, n] that carry their position: value, then position."""
    return (values.to(torch.int64) << _INDEX_BITS) | torch.arange(values.shape[1], device=values.device)


def _position(keys: Tensor) -> Tensor:
    return keys & ((1 << _INDEX_BITS) - 1)


def recent_items(items: Tensor, last_days: Tensor) -> Tensor:
    """The most recently bought items [B, 50] int32, newest first, -1 pads; on one day the higher row comes first."""
    keys = sort_rows(_pack(torch.where(items == PAD, -1, last_days.to(torch.int32))))
    top = keys[:, -RECENT_SIZE:].flip(1)
    found = items.gather(1, _position(top))
    found = torch.where(found == PAD, -1, found)
    return torch.nn.functional.pad(found, (0, RECENT_SIZE - found.shape[1]), value=-1)


def own_pool(items: Tensor, counts: Tensor, last_days: Tensor) -> Pool:
    """The ``POOL_SIZE`` items with the largest weight ``count * exp(last_day / 60)``.

    Only ratios of weights matter to a draw, so the weights stay as they are while days pass.
    """
    present = items != PAD
    log_weight = counts.clamp(min=1).to(torch.float32).log() + last_days.to(torch.float32) / RECENCY_DAYS
    ranked = torch.where(present, (log_weight * 4096.0).to(torch.int64), -(1 << 30))
    top = _position(sort_rows(_pack(ranked))[:, -POOL_SIZE:])
    mine = present.gather(1, top)
    chosen = log_weight.gather(1, top)
    heaviest = chosen[:, -1:]  # ascending order: the last is the heaviest
    cost = ((heaviest - chosen).clamp(min=0.0, max=60.0)).exp()
    return Pool(
        items=torch.where(mine, items.gather(1, top), -1),
        cost=torch.where(mine, cost, torch.inf),
        num_items=present.sum(dim=1, dtype=torch.int32),
    )


def merge(record: Record, bought: Tensor, days: Tensor, gap_days: Tensor) -> Record:
    """The record after a trip.

    Args:
        record: the record before it, n users.
        bought: item rows bought on the trip, int32 [n, S], in any order, repeats allowed, -1 pads.
        days: day of the trip, int32 [n].
        gap_days: days between the trip before and this one, int32 [n].

    Returns:
        A new record; where it would exceed ``RECORD_SIZE``, the entries with the oldest last day are dropped. A trip
        on which nothing was bought leaves no trace: a purchase log would not hold it either.
    """
    size = record.items.shape[1]
    all_items = torch.cat((record.items, torch.where(bought < 0, PAD, bought)), dim=1)  # [n, R + S]
    keys = sort_rows(_pack(all_items))
    source = _position(keys)
    items = (keys >> _INDEX_BITS).to(torch.int32)
    edge = torch.full_like(items[:, :1], -1)
    first = items != torch.cat((edge, items[:, :-1]), dim=1)
    again = items == torch.cat((items[:, 1:], edge), dim=1)
    old = source < size
    place = source.clamp(max=size - 1)
    new = again | ~old  # the group of this item holds a purchase of the trip
    counts = record.counts.gather(1, place).to(torch.int32) * old + new
    last_days = torch.where(new, days[:, None], record.last_days.gather(1, place).to(torch.int32))
    keep = first & (items != PAD)
    age = sort_rows(_pack(torch.where(keep, last_days, -1)))
    keep &= _pack(last_days) >= age[:, -size:][:, :1]
    # Compact the kept entries, already in item order, to the left.
    order = _position(sort_rows(_pack(torch.where(keep, items, PAD)))[:, :size])
    keep = keep.gather(1, order)
    merged_items = torch.where(keep, items.gather(1, order), PAD)
    merged_days = last_days.gather(1, order) * keep
    limit = torch.iinfo(torch.int16).max
    basket = first & new & (items != PAD)
    log_size = basket.sum(dim=1, dtype=torch.int32).clamp(min=1).to(torch.float32).log()
    some = basket.any(dim=1)
    rate = (1.0 / (record.num_trips + 1)).clamp(min=MEAN_RATE)

    def mean(old_mean: Tensor, value: Tensor) -> Tensor:
        return torch.where(some, old_mean + rate * (value - old_mean), old_mean)

    return Record(
        items=merged_items,
        counts=(counts.gather(1, order) * keep).clamp(max=limit).to(torch.int16),
        last_days=merged_days.clamp(max=limit).to(torch.int16),
        num_trips=record.num_trips + some,
        mean_log_size=mean(record.mean_log_size, log_size),
        mean_log_gap=mean(record.mean_log_gap, gap_days.to(torch.float32).log1p()),
        recent=recent_items(merged_items, merged_days),
    )


def enter(
    record: Record, known: Known | None, bought: Tensor, days: Tensor, gap_days: Tensor
) -> tuple[Record, Known | None, Pool]:
    """The record after a trip, what the platform knows of it, and the pool it draws from; see ``merge``."""
    record = merge(record, bought, days, gap_days)
    if known is None:
        return record, None, own_pool(record.items, record.counts, record.last_days)
    mine = merge(known.record, bought, days, known.gap_days)
    pool = own_pool(mine.items, mine.counts, mine.last_days)
    everything = (record.items != PAD).sum(dim=1, dtype=torch.int32)
    return record, Known(mine, pool.num_items, known.gap_days), replace(pool, num_items=everything)
