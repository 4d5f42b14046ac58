"""RecEnv: Gymnasium's and SB3's checks, determinism, bad input, rendering, saving."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from safetensors.torch import load, save
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from recgym.envs.features import CANDIDATE_FEATURES, USER_FEATURES
from recgym.envs.single import RecEnv
from recgym.envs.vector import RecVectorEnv
from recgym.errors import ActionError, RecGymError, ScenarioError, StateError, UnknownNameError
from recgym.scenario import load_scenario
from recgym.worlds.world import World

MODES = ("slate", "catalogue", "item", "scores", "weights", "proto")
HORIZON = load_scenario("default", {"episode.kind": "horizon", "episode.horizon_days": 30})
NO_SPEC = "environment not having a spec"  # Gymnasium's word on environments made without gymnasium.make


def rollout(env: RecEnv, seed: int, steps: int) -> list[Any]:
    observation, info = env.reset(seed=seed)
    env.action_space.seed(seed)
    seen: list[Any] = [observation, info]
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        seen += [observation, reward, terminated, truncated, info]
        if terminated or truncated:
            seen += env.reset()
    return seen


def assert_same(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    else:
        assert np.array_equal(a, b), (a, b)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("render_mode", ["ansi", "rgb_array"])
def test_gymnasium_check(world: World, films: World, mode: str, render_mode: str) -> None:
    for bundle, scenario in ((world, HORIZON), (films, "default")):
        env = RecEnv(bundle, scenario, action_mode=mode, render_mode=render_mode)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check_env(env)
        assert [str(w.message) for w in caught if NO_SPEC not in str(w.message)] == []


def test_gymnasium_check_through_make(world: World) -> None:
    gymnasium.register("tiny-check-v0", entry_point=RecEnv, kwargs={"world": str(world.path)})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            env = gymnasium.make("tiny-check-v0", render_mode="ansi")
            check_env(env.unwrapped)
    finally:
        gymnasium.registry.pop("tiny-check-v0")


@pytest.mark.parametrize("mode", MODES)
def test_sb3_check(world: World, mode: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env_sb3(RecEnv(world, action_mode=mode))
    assert all("candidates has an unconventional shape" in str(w.message) for w in caught)


@pytest.mark.parametrize("mode", MODES)
def test_two_copies_agree_and_the_seed_matters(films: World, mode: str) -> None:
    first = rollout(RecEnv(films, action_mode=mode), 3, 30)
    assert_same(first, rollout(RecEnv(films, action_mode=mode), 3, 30))
    assert not np.array_equal(first[0]["candidates"], rollout(RecEnv(films, action_mode=mode), 4, 1)[0]["candidates"])


def test_reset_walks_through_the_stream(world: World) -> None:
    env = RecEnv(world, observation=("candidate_items",))
    zero, _ = env.reset(seed=7)
    one, _ = env.reset()
    again, _ = env.reset(seed=7)
    jumped, _ = env.reset(options={"episode": 1})
    assert_same(zero, again)
    assert_same(one, jumped)
    assert not np.array_equal(zero["candidate_items"], one["candidate_items"])
    _, info = env.reset(seed=7, options={"user": 12})
    assert info["user"] == 12


def test_observations_are_named_bounded_and_spread(world: World) -> None:
    env = RecEnv(world, HORIZON, observation=("user", "candidates", "candidate_items", "user_id", "history"))
    seen = rollout(env, 0, 60)
    observations = [entry for entry in seen if isinstance(entry, dict) and "user_id" in entry]
    for observation in observations:
        assert env.observation_space.contains(observation)
    first = observations[0]
    assert first["candidates"].shape == (100, len(CANDIDATE_FEATURES(world)))
    assert first["user"].shape == (len(USER_FEATURES(world)),)
    names = CANDIDATE_FEATURES(world)
    columns = np.concatenate([observation["candidates"] for observation in observations])
    for name in ("popularity", "price", "own_count", "own_recency", "text_0"):
        assert columns[:, names.index(name)].std() > 0.01, name
    assert (np.abs(columns[:, :16]) == 1).mean() < 0.01  # clipping is rare
    rows = first["candidate_items"]
    log = world.interactions()
    counts = dict(zip(log[log["user"] == first["user_id"][0]]["item"], log["count"], strict=False))
    mine = log[log["user"] == first["user_id"][0]].set_index("item")["count"]
    own = first["candidates"][:, names.index("own_count")]
    for row, value in zip(rows, own, strict=True):
        assert value == pytest.approx(np.log1p(mine.get(row, 0)) / np.log1p(64), abs=1e-6), counts
    user = first["user"]
    flags = [i for i, name in enumerate(USER_FEATURES(world)) if name.startswith("age=")]
    assert user[flags].sum() == 1
    age = world.users["age"].iloc[int(first["user_id"][0])]
    expected = "age=missing" if not isinstance(age, str) else f"age={age}"
    assert user[USER_FEATURES(world).index(expected)] == 1


def test_nothing_of_the_preference_model_is_observable(world: World) -> None:
    from recgym.user_models.preference.users import PreferenceUsers

    class Silent(PreferenceUsers):
        """The same users before their first slate, other numbers inside."""

        def intend(self, state: Any, uniforms: Any) -> Any:
            return super().intend(state, uniforms) + 5

    plain, other = RecEnv(world, user_model=PreferenceUsers(world)), RecEnv(world, user_model=Silent(world))
    assert_same(plain.reset(seed=1)[0], other.reset(seed=1)[0])
    assert int(other.state.visit.intended) == int(plain.state.visit.intended) + 5


@pytest.mark.parametrize(
    ("mode", "action", "message"),
    [
        ("slate", np.arange(9), r"shape \(1, 10\) .*got \(1, 9\)"),
        ("slate", np.arange(10.0), r"whole numbers \(int64\), got torch.float64"),
        (
            "slate",
            np.array([0, 1, 2, 3, 100, 5, 6, 7, 8, 9]),
            r"lane 0: candidate 100 at position 4 must lie in 0\.\.99",
        ),
        ("slate", np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, -1]), r"lane 0: candidate -1 at position 9"),
        ("slate", np.array([True] * 10), r"holds numbers, got bool"),
        ("slate", "top", r"holds numbers"),
        ("catalogue", np.array([0, 1, 2, 3, 300, 5, 6, 7, 8, 9]), r"item row 300 at position 4 must lie in 0\.\.299"),
        ("item", 100, r"candidate 100 at position 0"),
        ("item", np.array([1]), r"shape"),
        ("scores", np.full(100, np.nan, np.float32), r"lane 0: the score of candidate 0 is nan, not finite"),
        ("scores", np.array([0.0] * 99 + [np.inf], np.float32), r"the score of candidate 99 is inf"),
        ("scores", np.zeros(100, np.int64), r"fractions \(float32\), got torch.int64"),
        ("scores", np.zeros(99, np.float32), r"shape"),
    ],
)
def test_bad_actions_name_the_lane_and_change_nothing(world: World, mode: str, action: Any, message: str) -> None:
    env = RecEnv(world, action_mode=mode)
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ActionError, match=message):
        env.step(action)
    assert_same(before, env.get_state())


def test_duplicates_waste_their_slot_or_are_refused(world: World) -> None:
    action = np.array([3, 3, 1, 2, 4, 4, 5, 6, 7, 8])
    env = RecEnv(world)
    env.reset(seed=0)
    info = env.step(action)[4]
    assert info["duplicates"] == 2 and not info["examined"][[1, 5]].any()
    strict = RecEnv(world, strict=True)
    strict.reset(seed=0)
    with pytest.raises(ActionError, match=r"lane 0: candidate 3 at position 1 is already on the slate"):
        strict.step(action)


def test_scores_show_the_best_candidates_first(world: World) -> None:
    by_score, by_place = RecEnv(world, action_mode="scores"), RecEnv(world)
    by_score.reset(seed=5)
    by_place.reset(seed=5)
    scores = np.linspace(-1, 1, 100, dtype=np.float32)
    a, b = by_score.step(scores), by_place.step(np.arange(99, 89, -1))
    assert_same(list(a), list(b))
    by_score.reset(seed=5)
    by_place.reset(seed=5)
    assert_same(list(by_score.step(np.zeros(100, np.float32))), list(by_place.step(np.arange(10))))


def test_item_mode_shows_slates_of_one(world: World) -> None:
    env = RecEnv(world, action_mode="item")
    env.reset(seed=0)
    info = env.step(17)[4]
    assert env.slate_size == 1 and info["slate"].shape == (1,)


def test_misuse(world: World) -> None:
    env = RecEnv(world)
    with pytest.raises(StateError, match=r"call reset\(\) first"):
        env.step(np.arange(10))
    env.reset(seed=0)
    while True:
        if any(env.step(np.arange(10))[2:4]):
            break
    with pytest.raises(StateError, match="episode has ended"):
        env.step(np.arange(10))
    with pytest.raises(StateError, match=r"unknown reset options \['users'\]"):
        env.reset(options={"users": [1]})
    with pytest.raises(StateError, match=r"user row 40 of lane 0 must lie in 0..39"):
        env.reset(options={"user": 40})
    with pytest.raises(UnknownNameError, match="Did you mean 'slate'"):
        RecEnv(world, action_mode="slates")
    with pytest.raises(UnknownNameError, match="Did you mean 'candidates'"):
        RecEnv(world, observation=("candidate",))
    with pytest.raises(RecGymError, match="render_mode"):
        RecEnv(world, render_mode="human")
    with pytest.raises(ScenarioError, match="made for world 'ecommerce', not for 'tiny'"):
        RecEnv(world, load_scenario("default", {"env.world": "ecommerce"}))


def test_rendering(world: World, films: World) -> None:
    env = RecEnv(world, render_mode="ansi")
    env.reset(seed=3)
    assert "no slate shown yet" in env.render()
    info = env.step(np.arange(10))[4]
    text = env.render()
    for row in info["slate"]:
        assert str(world.items["title"].iloc[row]) in text
    assert text.count("bought") == info["consumed"].sum() and "USD" in text and "slate 1" in text
    picture = RecEnv(films, render_mode="rgb_array")
    picture.reset(seed=3)
    before = picture.render()
    picture.step(np.arange(10))
    after = picture.render()
    assert after.dtype == np.uint8 and after.shape == before.shape and after.ndim == 3
    assert not np.array_equal(before, after)
    assert RecEnv(world).render() is None


def test_state_survives_safetensors_pickle_and_goes_back(world: World) -> None:
    env = RecEnv(str(world.path), HORIZON)
    env.reset(seed=11)
    for _ in range(5):
        env.step(np.arange(10))
    kept = load(save(env.get_state()))
    copy = pickle.loads(pickle.dumps(env))
    actions = [np.arange(10) + 5 * i for i in range(8)]
    ahead = [env.step(action) for action in actions]
    assert_same(ahead, [copy.step(action) for action in actions])
    env.set_state(kept)
    assert_same(ahead, [env.step(action) for action in actions])
    with pytest.raises(StateError, match="another world, scenario, version or users"):
        RecEnv(world).set_state(kept)
    with pytest.raises(StateError, match=r"state.user of the state must be"):
        env.set_state({**kept, "state.user": kept["state.user"].repeat(2)})


def test_branches_share_nothing(world: World) -> None:
    env = RecEnv(world, HORIZON)
    env.reset(seed=11)
    env.step(np.arange(10))
    kept = env.get_state()
    same, fresh = env.branch(4, luck="same"), env.branch(64, luck="fresh")
    assert isinstance(same, RecVectorEnv) and same.num_envs == 4
    rewards = same.step(np.tile(np.arange(10), (4, 1)))[1]
    fresh_rewards = fresh.step(np.tile(np.arange(10), (64, 1)))[1]
    assert_same(kept, env.get_state())
    reward = env.step(np.arange(10))[1]
    assert (rewards == reward).all()
    assert len(np.unique(fresh_rewards)) > 1
    with pytest.raises(RecGymError, match="luck must be"):
        env.branch(2, luck="good")  # type: ignore[arg-type]


@pytest.mark.parametrize("env", [RecEnv, RecVectorEnv])
def test_docstrings_have_the_fixed_sections(env: type) -> None:
    sections = ["Description", "Observation", "Action", "Reward", "Termination", "Arguments", "Version History"]
    found = [line.strip()[3:] for line in (env.__doc__ or "").splitlines() if line.strip().startswith("## ")]
    assert found == sections
