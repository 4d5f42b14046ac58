"""RecGym's own contestants: what they count, what the floor computes, and that every suite hangs together."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import recgym
from recgym.benchmark import driver, floor, lanes, worlds
from recgym.benchmark.plan import HERE, SUITES, suites
from recgym.errors import UnknownNameError
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

SIZES = {
    "dim": 16,
    "layers": 2,
    "heads": 2,
    "feedforward": 32,
    "window": 5,
    "hidden": 8,
    "repeat_hidden": 4,
    "items": 50,
    "slate": 3,
    "candidates": 7,
    "features": 6,
    "user": 4,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny")


def test_suites_hang_together() -> None:
    for suite in suites([], "ecommerce-v0", "cpu"):
        names = [one.name for one in suite.contestants]
        assert len(set(names)) == len(names)
        assert {name for ratio in suite.ratios for name in (ratio.over, ratio.under)} <= set(names)
        for one in suite.contestants:
            assert (HERE / one.file).is_file()
            if one.peer is None:
                inspect.signature(driver.load(str(HERE / one.file)).prepare).bind(**one.settings)
            assert (one.at is None) == (suite.axis is None)


def test_suites_are_chosen_by_name_and_kept_small_when_quick() -> None:
    chosen = suites(["floor", "peers"], "ecommerce-v0", "cpu")
    assert [suite.id for suite in chosen] == ["peers", "floor"]
    with pytest.raises(UnknownNameError, match="unknown suite 'flor'. Did you mean 'floor'"):
        suites(["flor"], "ecommerce-v0", "cpu")
    (quick,) = suites(["scaling"], "ecommerce-v0", "cpu", quick=True)
    assert max(one.settings["lanes"] for one in quick.contestants) == 4096
    assert {suite.id for suite in suites([], "ecommerce-v0", "cpu", quick=True)} == set(SUITES)


def test_steps_that_only_restart_a_lane_do_not_count(world: World) -> None:
    contestant = lanes.prepare(lanes=40, seed=3, world=world)
    assert isinstance(contestant, lanes.VectorContestant)
    twin = recgym.make_vec(world=world, num_envs=40)
    twin.reset(seed=3)
    expected, acted = [], np.ones(40, bool)
    for number in range(25):
        _, _, terminated, truncated, info = twin.step(contestant.actions[number % lanes.BATCHES])
        acted = info["_consumed"]
        expected.append(int(acted.sum()))
    counted = [contestant.step() for _ in range(25)]
    assert counted == expected
    assert min(counted) < 40


def test_one_user_and_overrides(world: World) -> None:
    alone = lanes.prepare(lanes=1, seed=0, single=True, world=world)
    assert [alone.step() for _ in range(30)] == [1] * 30  # through the ends of episodes
    wide = lanes.prepare(lanes=4, seed=0, world=world, scenario={"actions.slate_size": 3}, user_model="boredom")
    assert isinstance(wide, lanes.VectorContestant)
    assert wide.actions[0].shape == (4, 3)
    assert wide.step() == 4


def test_bench_worlds_are_built_once(monkeypatch: pytest.MonkeyPatch, recgym_home: Path) -> None:
    monkeypatch.setattr(worlds, "NUM_USERS", 10)
    monkeypatch.setattr(worlds, "WINDOW", 6)
    built = worlds.bench_world(120, 16)
    assert (built.num_items, built.num_users) == (120, 10)
    assert built.spec.config["model"]["network"]["window"] == 6
    monkeypatch.setattr("recgym.testing.worlds.tiny_world", None)  # a second call would fail
    assert worlds.bench_world(120, 16).hash == built.hash
    assert [path.name[:5] for path in (recgym_home / "bench" / "worlds").iterdir()] == ["items"]


def naive(chunk: floor.Chunk) -> torch.Tensor:
    """``Chunk.advance``, written out lane by lane; changes nothing."""
    t, s = chunk.tables, chunk.sizes
    dim, window, heads, width = s["dim"], s["window"], s["heads"], s["dim"] // s["heads"]
    cache = chunk.cache.clone().view(s["layers"], 2, chunk.n, heads, window, width)
    out = []
    for lane in range(chunk.n):
        rows = slice(lane * s["slate"], (lane + 1) * s["slate"])
        told = t["token"][chunk.slate[rows]] + t["feedback"][chunk.feedback[rows]]
        pooled = (told * chunk.consumed[rows, None]).sum(0) * chunk.scale[0, lane]
        passed = (t["ignored"][chunk.slate[rows]] * chunk.ignored[rows, None]).sum(0) * chunk.scale[1, lane]
        x = F.layer_norm(pooled + passed + chunk.gap[lane] + chunk.counts[lane] @ t["size"], (dim,))
        slot = (int(chunk.slot[lane]) + 1) % window
        for layer in range(s["layers"]):
            q, k, v = (F.layer_norm(x, (dim,)) @ t["qkv"] + t["qkv_bias"]).view(3, heads, width)
            cache[layer, 0, lane, :, slot], cache[layer, 1, lane, :, slot] = k, v
            bias = t["distance"][slot].view(heads, window)
            keys, values = cache[layer, :, lane]
            weights = ((keys * q[:, None]).sum(-1) / math.sqrt(width) + bias).softmax(-1)
            x = x + (values * weights[..., None]).sum(1).flatten() @ t["attention"]
            wide = F.gelu(F.layer_norm(x, (dim,)) @ t["expand"] + t["expand_bias"])
            x = x + wide @ t["contract"]
        out.append(F.layer_norm(x, (dim,)))
    return torch.stack(out)


def test_the_floor_advances_a_transformer() -> None:
    chunk = floor.Chunk(6, SIZES, floor._tables(SIZES, 0), seed=1)
    for _ in range(7):  # around the ring
        expected = naive(chunk)
        assert torch.allclose(chunk.advance(), expected, atol=1e-5)


def test_the_floor_writes_the_observation_and_scores_the_slate() -> None:
    tables = floor._tables(SIZES, 0)
    chunk = floor.Chunk(6, SIZES, tables, seed=1)
    candidates, user = torch.full((6, 7, 6), math.nan), torch.full((6, 4), math.nan)
    chunk.step(candidates, user)
    assert torch.equal(candidates[..., :3], tables["features"][chunk.drawn].view(6, 7, 6)[..., :3])
    assert torch.equal(candidates[..., 3:], chunk.own)
    assert torch.equal(user, chunk.user)
    item, d, h = tables["items"][chunk.slate].view(6, 3, -1), SIZES["dim"], SIZES["hidden"]
    query = chunk.query[:, None]
    head = F.silu(item[..., :h] + query[..., :h]) @ tables["purchase"]
    match = (item[..., h : h + d] * query[..., h : h + d]).sum(-1)
    inner = (chunk.history @ tables["repeat_pair"]).view(6, 3, -1) + item[..., h + d : -1] + query[..., h + d :]
    second = F.silu(inner) @ tables["repeat_inner"] + tables["repeat_bias"]
    logit = head + match + item[..., -1] + F.silu(second) @ tables["repeat_out"]
    assert torch.allclose(chunk.logit, logit.sigmoid(), atol=1e-5)


def test_the_floor_takes_the_fastest_way(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    recgym.register("tiny-floor-v0", world=str(world.path), replace=True)
    monkeypatch.setattr(floor, "TRIAL", 0.02)
    monkeypatch.setattr(floor, "CHUNKS", (16, 64))
    contestant = floor.prepare("tiny-floor-v0", lanes=40, seed=0)
    assert contestant.step() == 40
    tried = contestant.facts["tried"]
    assert {name.split(",")[0] for name in tried} == {"chunks of 16", "chunks of 40"}
    assert tried[contestant.facts["way"]] == max(tried.values())
