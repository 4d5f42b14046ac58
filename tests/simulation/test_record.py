"""The purchase record against a plain dictionary."""

from __future__ import annotations

import numpy as np
import torch

from recgym.simulation.record import PAD, RECENT_SIZE, RECORD_SIZE, Records, lookup, merge, own_pool
from recgym.types import Record
from recgym.worlds.world import World


def _empty(lanes: int, size: int) -> Record:
    return Record(
        items=torch.full((lanes, size), PAD, dtype=torch.int32),
        counts=torch.zeros(lanes, size, dtype=torch.int16),
        last_days=torch.zeros(lanes, size, dtype=torch.int16),
        num_trips=torch.zeros(lanes, dtype=torch.int32),
        mean_log_size=torch.zeros(lanes),
        mean_log_gap=torch.zeros(lanes),
        recent=torch.full((lanes, RECENT_SIZE), -1, dtype=torch.int32),
    )


def test_merge_agrees_with_a_dictionary() -> None:
    rng = np.random.default_rng(0)
    lanes, size, slots = 6, 64, 30
    record = _empty(lanes, size)
    books: list[dict[int, tuple[int, int]]] = [{} for _ in range(lanes)]
    trips = np.zeros(lanes, dtype=int)
    for day in range(40):
        basket = rng.integers(0, 120, (lanes, slots))
        basket[rng.random((lanes, slots)) < 0.6] = -1
        if day % 7 == 0:
            basket[0] = -1
        record = merge(
            record,
            torch.from_numpy(basket.astype(np.int32)),
            torch.full((lanes,), day, dtype=torch.int32),
            torch.ones(lanes, dtype=torch.int32),
        )
        for lane in range(lanes):
            book = books[lane]
            bought = set(basket[lane].tolist()) - {-1}
            trips[lane] += bool(bought)
            for item in bought:
                book[item] = (book.get(item, (0, 0))[0] + 1, day)
            while len(book) > size:
                # The oldest goes first; of one day, the lowest row.
                del book[min(book, key=lambda item: (book[item][1], item))]
            kept = record.items[lane][record.items[lane] != PAD].tolist()
            assert kept == sorted(book)
            assert record.counts[lane, : len(kept)].tolist() == [book[item][0] for item in kept]
            assert record.last_days[lane, : len(kept)].tolist() == [book[item][1] for item in kept]
            newest = sorted(book, key=lambda item: (book[item][1], item), reverse=True)[:RECENT_SIZE]
            assert record.recent[lane][record.recent[lane] >= 0].tolist() == newest
    assert record.num_trips.tolist() == trips.tolist()
    queries = torch.arange(120).repeat(lanes, 1)
    counts, days = lookup(record, queries)
    for lane in range(lanes):
        assert counts[lane].tolist() == [books[lane].get(item, (0, 0))[0] for item in range(120)]
        assert days[lane].tolist() == [books[lane].get(item, (0, 0))[1] for item in range(120)]


def _one(value: int) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.int32)


def test_exponential_means_and_saturation() -> None:
    record = _empty(1, 8)
    record.counts[:, 0], record.items[:, 0] = 32767, 3
    first = merge(record, basket := torch.tensor([[3, 5, -1, 5]], dtype=torch.int32), _one(9), _one(4))
    assert torch.allclose(first.mean_log_size, torch.tensor([np.log(2)], dtype=torch.float32))  # a plain mean at first
    record.num_trips.fill_(30)
    after = merge(record, basket, _one(9), _one(4))
    assert after.counts[0, :2].tolist() == [32767, 1]
    assert torch.allclose(after.mean_log_size, torch.tensor([0.1 * np.log(2)], dtype=torch.float32))
    assert torch.allclose(after.mean_log_gap, torch.tensor([0.1 * np.log(5)], dtype=torch.float32))


def test_records_of_a_world(world: World) -> None:
    records = Records(world, torch.device("cpu"))
    record, pool = records.start(torch.arange(world.num_users))
    log = world.interactions()
    for user in (0, 5, 17):
        mine = log[log["user"] == user].sort_values("item")
        present = record.items[user] != PAD
        assert record.items[user][present].tolist() == mine["item"].tolist()
        assert record.counts[user][present].tolist() == mine["count"].tolist()
        assert record.last_days[user][present].tolist() == mine["last_day"].tolist()
        assert int(pool.num_items[user]) == len(mine)
        newest = mine.sort_values(["last_day", "item"], ascending=False)["item"].tolist()[:RECENT_SIZE]
        assert record.recent[user][record.recent[user] >= 0].tolist() == newest
    assert record.items.shape == (world.num_users, RECORD_SIZE)
    assert (pool.items[0] == -1).all() and torch.isinf(pool.cost[0]).all()  # user 0 has no history


def test_the_pool_prefers_frequent_and_recent_items() -> None:
    items = torch.tensor([[1, 2, 3, PAD]], dtype=torch.int32)
    counts = torch.tensor([[8, 4, 4, 0]], dtype=torch.int16)
    days = torch.tensor([[100, 100, 160, 0]], dtype=torch.int16)
    pool = own_pool(items, counts, days)
    weight = {int(item): 1 / float(cost) for item, cost in zip(pool.items[0], pool.cost[0], strict=True) if item >= 0}
    assert set(weight) == {1, 2, 3}
    assert abs(weight[1] / weight[2] - 2) < 1e-4 and abs(weight[3] / weight[2] - np.e) < 1e-4
