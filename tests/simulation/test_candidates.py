from __future__ import annotations

import numpy as np
import pytest
import torch

from recgym.errors import ScenarioError
from recgym.random import mix
from recgym.scenario import Actions
from recgym.simulation.candidates import CandidateGenerator
from recgym.simulation.state import Pool

CPU = torch.device("cpu")


def _pool(lanes: int, num_own: int, size: int = 128) -> Pool:
    """Items 0..num_own - 1, the weight of item i being 1 / (1 + i)."""
    items = torch.full((lanes, size), -1, dtype=torch.int32)
    cost = torch.full((lanes, size), torch.inf)
    items[:, :num_own] = torch.arange(num_own)
    cost[:, :num_own] = 1.0 + torch.arange(num_own)
    return Pool(items, cost, torch.full((lanes,), num_own, dtype=torch.int32))


def _actions(own: int = 40, popular: int = 40, uniform: int = 20) -> Actions:
    total = own + popular + uniform
    return Actions.model_validate(
        {"num_candidates": total, "candidates": {"own": own, "popular": popular, "uniform": uniform}}
    )


@pytest.mark.parametrize("num_items", [100, 101, 137, 300, 5000])
@pytest.mark.parametrize("num_own", [0, 7, 90])
def test_candidates_are_distinct_reproducible_and_alone_the_same(num_items: int, num_own: int) -> None:
    popularity = 1000.0 / (1 + np.arange(num_items)) ** 1.5  # steep: the draws repeat themselves a lot
    generator = CandidateGenerator(popularity, _actions(), CPU)
    key, pool = mix(torch.arange(50)), _pool(50, num_own)
    drawn = generator.draw(key, pool)
    assert drawn.shape == (50, 100) and drawn.dtype == torch.int32
    assert int(drawn.min()) >= 0 and int(drawn.max()) < num_items
    assert all(len(row.unique()) == 100 for row in drawn)
    assert torch.equal(drawn, generator.draw(key, pool))
    for lane in (0, 31):
        assert torch.equal(drawn[lane : lane + 1], generator.draw(key[lane : lane + 1], _pool(1, num_own)))
    if num_items >= 300:
        assert not torch.equal(drawn[0].sort().values, drawn[1].sort().values)


def test_shares_of_the_sources() -> None:
    num_items = 5000
    popularity = np.zeros(num_items)
    popularity[1000:1400] = 1.0
    generator = CandidateGenerator(popularity, _actions(), CPU)
    drawn = generator.draw(mix(torch.arange(200)), _pool(200, 90))
    own, popular = (drawn < 90).sum(1).float(), ((drawn >= 1000) & (drawn < 1400)).sum(1).float()
    assert 40 <= float(own.mean()) < 41  # uniform draws add a few of each
    assert 40 <= float(popular.mean()) < 43
    few = generator.draw(mix(torch.arange(200)), _pool(200, 5))
    assert ((few < 5).sum(1) >= 5).all()
    assert 74 <= float(((few >= 1000) & (few < 1400)).sum(1).float().mean()) < 78  # popularity fills up


def test_own_items_are_drawn_by_weight_and_order_tells_nothing() -> None:
    generator = CandidateGenerator(np.ones(5000), _actions(own=1, popular=99, uniform=0), CPU)
    drawn = generator.draw(mix(torch.arange(6000)), _pool(6000, 4))
    share = torch.stack([(drawn == item).any(1).float().mean() for item in range(4)])
    weight = 1 / (1 + torch.arange(4.0))
    chance = weight / weight.sum()
    assert float((share - (chance + (1 - chance) * 99 / 5000)).abs().max()) < 0.03
    place = (drawn < 4).float().argmax(1)[(drawn < 4).any(1)].float()
    assert abs(float(place.mean()) - 49.5) < 2.5


def test_popular_items_are_drawn_by_popularity() -> None:
    popularity = np.array([4.0, 2.0, 1.0, 1.0, *[0.0] * 96])
    generator = CandidateGenerator(popularity, _actions(own=0, popular=100, uniform=0), CPU)
    draws = generator._popular(mix(torch.arange(200_000)))
    share = torch.bincount(draws, minlength=100).float() / draws.numel()
    assert float((share[:4] - torch.tensor([0.5, 0.25, 0.125, 0.125])).abs().max()) < 0.01
    assert (share[4:] == 0).all()


def test_a_catalogue_smaller_than_the_candidates_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"num_candidates is 100, but the world holds 60 items"):
        CandidateGenerator(np.ones(60), _actions(), CPU)
