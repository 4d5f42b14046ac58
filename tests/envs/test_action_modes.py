"""``weights`` and ``proto``: known answers, bad input, and lanes that do not depend on their neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recgym.envs.features import CANDIDATE_FEATURES
from recgym.envs.single import RecEnv
from recgym.envs.vector import RecVectorEnv
from recgym.errors import ActionError
from recgym.worlds.world import World

MODES = ("weights", "proto")


def shown(world: World, mode: str, action: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features [M, F] of the candidates, and the positions [K] among them that ``action`` had shown."""
    env = RecEnv(world, action_mode=mode, observation=("candidates", "candidate_items"))
    observation, _ = env.reset(seed=seed)
    items = observation["candidate_items"].tolist()
    slate = env.step(action.astype(np.float32))[4]["slate"]
    return observation["candidates"], np.array([items.index(item) for item in slate])


def test_weights_show_the_best_weighted_sums(world: World) -> None:
    names = CANDIDATE_FEATURES(world)
    weights = np.zeros(len(names))
    weights[names.index("popularity")], weights[names.index("text_3")] = 1.0, -0.25
    features, slate = shown(world, "weights", weights)
    expected = np.argsort(-(features @ weights), kind="stable")[:10]
    assert slate.tolist() == expected.tolist()
    assert shown(world, "weights", np.zeros(len(names)))[1].tolist() == list(range(10))
    assert shown(world, "weights", 0.5 * weights)[1].tolist() == slate.tolist()  # the scale does not matter


def test_proto_shows_the_nearest(world: World) -> None:
    proto = np.random.default_rng(0).uniform(-1, 1, len(CANDIDATE_FEATURES(world))).astype(np.float32)
    features, slate = shown(world, "proto", proto)
    distance = ((features.astype(np.float64) - proto) ** 2).sum(1)
    assert slate.tolist() == np.argsort(distance, kind="stable")[:10].tolist()
    assert shown(world, "proto", features[17])[1][0] == 17  # an item is nearest to itself


@pytest.mark.parametrize("mode", MODES)
def test_the_space_is_a_box_with_a_number_for_each_feature(world: World, mode: str) -> None:
    space: Any = RecEnv(world, action_mode=mode).action_space
    assert space.shape == (len(CANDIDATE_FEATURES(world)),)
    assert (space.low == -1).all() and (space.high == 1).all()
    assert RecVectorEnv(world, num_envs=3, action_mode=mode).action_space.shape == (3, *space.shape)


@pytest.mark.parametrize(("mode", "what"), [("weights", "weight of feature"), ("proto", "proto-item's feature")])
def test_numbers_that_are_not_finite_name_lane_and_feature(world: World, mode: str, what: str) -> None:
    env = RecVectorEnv(world, num_envs=3, action_mode=mode)
    env.reset(seed=0)
    names = CANDIDATE_FEATURES(world)
    action = np.zeros((3, len(names)), np.float32)
    action[1, names.index("own_count")] = np.nan
    with pytest.raises(ActionError, match=f"lane 1: the {what} own_count is nan, not finite"):
        env.step(action)
    with pytest.raises(ActionError, match=rf"shape \(3, {len(names)}\)"):
        env.step(np.zeros((3, 100), np.float32))
    with pytest.raises(ActionError, match="fractions"):
        env.step(np.zeros((3, len(names)), np.int64))


@pytest.mark.parametrize("mode", MODES)
def test_a_lane_is_bitwise_the_same_in_any_batch(world: World, mode: str) -> None:
    size, steps = 131, 5
    numbers = np.random.default_rng(1).uniform(-1, 1, (steps, size, len(CANDIDATE_FEATURES(world))))
    actions = numbers.astype(np.float32)

    def play(lanes: list[int]) -> list[Any]:
        env = RecVectorEnv(world, num_envs=len(lanes), action_mode=mode)
        env.reset(seed=lanes)
        out = []
        for action in actions:
            observation, reward, *_, info = env.step(action[lanes])
            out.append((observation["candidates"], reward, info["slate"]))
        return out

    whole = play(list(range(size)))
    for lanes in ([130], [7, 3], list(range(0, size, 9)), list(range(size))[::-1]):
        for some, all_lanes in zip(play(lanes), whole, strict=True):
            for one, two in zip(some, all_lanes, strict=True):
                np.testing.assert_array_equal(one, two[lanes])
    env = RecEnv(world, action_mode=mode)
    env.reset(seed=7)
    for step, action in enumerate(actions):
        _, reward, terminated, truncated, info = env.step(action[7])
        assert np.array_equal(info["slate"], whole[step][2][7]) and reward == whole[step][1][7]
        if terminated or truncated:
            break
