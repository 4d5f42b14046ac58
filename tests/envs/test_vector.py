"""RecVectorEnv: agreement with RecEnv under every autoreset mode, seeds, masks, torch output, saving."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from recgym.envs.single import RecEnv
from recgym.envs.vector import RecVectorEnv
from recgym.errors import ActionError, RecGymError, StateError
from recgym.scenario import load_scenario
from recgym.worlds.world import World

SCENARIOS = {
    "session": load_scenario("default", {"episode.max_slates": 4}),
    "horizon": load_scenario("default", {"episode.kind": "horizon", "episode.horizon_days": 20}),
    "cascade": load_scenario("default", {"behaviour.examination.model": "cascade"}),
}


def slates(lanes: int, step: int) -> np.ndarray:
    return (np.arange(10)[None, :] * 7 + np.arange(lanes)[:, None] + 3 * step) % 100


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_agrees_with_gymnasiums_vector_of_single_environments(
    world: World, films: World, name: str, mode: AutoresetMode, device: torch.device
) -> None:
    bundle = films if name == "cascade" else world
    scenario, lanes = SCENARIOS[name], 7
    vec = RecVectorEnv(bundle, scenario, lanes, autoreset_mode=mode, device=device)

    def make() -> Callable[[], RecEnv]:
        return lambda: RecEnv(bundle, scenario, simulator=vec.simulator)

    sync = SyncVectorEnv([make() for _ in range(lanes)], autoreset_mode=mode)
    ours, info = vec.reset(seed=50)
    theirs, their_info = sync.reset(seed=50)
    compare(ours, theirs)
    compare_info(info, their_info)
    endings = {"terminated": 0, "truncated": 0}
    for step in range(40):
        action = slates(lanes, step)
        ours, reward, terminated, truncated, info = vec.step(action)
        theirs, their_reward, their_terminated, their_truncated, their_info = sync.step(action)
        compare(ours, theirs)
        assert np.array_equal(reward, their_reward)
        assert np.array_equal(terminated, their_terminated) and np.array_equal(truncated, their_truncated)
        compare_info(info, their_info)
        endings["terminated"] += int(terminated.sum())
        endings["truncated"] += int(truncated.sum())
        ended = terminated | truncated
        assert ("final_obs" in info) == ("final_info" in info) == (mode is AutoresetMode.SAME_STEP and ended.any())
        if mode is AutoresetMode.DISABLED and ended.any():
            ours, info = vec.reset(options={"reset_mask": ended})
            theirs, their_info = sync.reset(options={"reset_mask": ended})
            compare(ours, theirs)
            compare_info(info, their_info)
    assert min(endings.values()) > 0 and sum(endings.values()) > 5
    assert vec.observation_space == sync.observation_space and vec.action_space == sync.action_space


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert np.array_equal(ours[key], theirs[key]), key


def compare_info(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Both give the same keys for the same lanes, and there the same values.

    Except that of lanes which restart within the step, Gymnasium tells how the slate went in ``final_info`` alone.
    """
    told_twice = {
        f"_{key}"
        for key in ours
        if "final_obs" in ours and key not in ("user", "day", "trip", "final_obs", "final_info")
    }
    assert {key for key in ours if key.startswith("_")} == {key for key in theirs if key.startswith("_")}
    for key, mask in theirs.items():
        if not key.startswith("_"):
            continue
        assert (ours[key] | ~mask).all() if key in told_twice else np.array_equal(ours[key], mask), key
        name = key[1:]
        if name == "final_info":
            compare_info(ours[name], theirs[name])
            continue
        for lane in np.flatnonzero(mask):
            if name == "final_obs":
                compare(ours[name][lane], theirs[name][lane])
            else:
                assert np.array_equal(ours[name][lane], theirs[name][lane]), name


def test_seeds(world: World) -> None:
    vec = RecVectorEnv(world, num_envs=3, observation=("candidate_items",))
    items = lambda out: out[0]["candidate_items"]  # noqa: E731
    a = items(vec.reset(seed=5))
    b = items(vec.reset(seed=[7, 6, 5]))
    assert np.array_equal(a, b[::-1])
    following = items(vec.reset())
    mixed = items(vec.reset(seed=[7, None, 5]))
    assert np.array_equal(mixed[0], b[0]) and np.array_equal(mixed[2], b[2])
    third = items(vec.reset(seed=[7, 6, 5], options={"episodes": np.array([0, 2, 1])}))
    assert np.array_equal(third[1], mixed[1]) and np.array_equal(third[2], following[2])
    assert np.array_equal(vec.lane_seeds, [7, 6, 5])
    _, info = vec.reset(seed=0, options={"users": np.array([4, 4, 9])})
    assert info["user"].tolist() == [4, 4, 9]
    unseeded, other = RecVectorEnv(world, num_envs=3), RecVectorEnv(world, num_envs=3)
    unseeded.reset()
    other.reset()
    assert not np.array_equal(unseeded.lane_seeds, other.lane_seeds)
    for seed, message in [([1, 2], "3 expected, got 2"), ([1, 2, "x"], "got 'x'"), ([1, 2, 2**63], "64 bits")]:
        with pytest.raises(StateError, match=message):
            vec.reset(seed=seed)  # type: ignore[arg-type]
    with pytest.raises(StateError, match=r"options\['users'\] holds 3 whole numbers"):
        vec.reset(options={"users": np.array([1.0, 2.0, 3.0])})
    with pytest.raises(StateError, match=r"unknown reset options \['user'\]"):
        vec.reset(options={"user": 1})


def test_disabled_autoreset_takes_a_mask(world: World) -> None:
    vec = RecVectorEnv(world, SCENARIOS["session"], 6, autoreset_mode="Disabled")
    assert vec.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert RecVectorEnv.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    vec.reset(seed=0)
    ended = np.zeros(6, bool)
    step = 0
    while not ended.any():
        observations, _, terminated, truncated, _ = vec.step(slates(6, step))
        ended = terminated | truncated
        step += 1
    with pytest.raises(StateError, match=f"lane {int(np.flatnonzero(ended)[0])}: its episode has ended"):
        vec.step(slates(6, step))
    fresh, info = vec.reset(options={"reset_mask": ended})
    for key in fresh:
        assert np.array_equal(fresh[key][~ended], observations[key][~ended])
        assert not np.array_equal(fresh[key][ended], observations[key][ended])
    assert np.array_equal(info["_user"], ended)
    vec.step(slates(6, step))
    for mask in (np.zeros(6, bool), np.ones(5, bool), np.ones(6, int)):
        with pytest.raises(StateError, match="reset_mask"):
            vec.reset(options={"reset_mask": mask})


def test_an_action_is_ignored_where_a_lane_restarts(world: World) -> None:
    vec = RecVectorEnv(world, SCENARIOS["session"], 5, strict=True)
    vec.reset(seed=0)
    ended, step = np.zeros(5, bool), 0
    while not ended.any():
        _, _, terminated, truncated, _ = vec.step(slates(5, step))
        ended = terminated | truncated
        step += 1
    action = slates(5, step)
    action[ended] = -1
    _, reward, terminated, truncated, info = vec.step(action)
    assert (reward[ended] == 0).all() and not (terminated | truncated)[ended].any()
    assert np.array_equal(info["_slate"], ~ended) and info["_user"].all()
    assert not info["consumed"][ended].any() and (info["trip"][ended] == 0).all()


def test_bad_actions_name_the_lane(world: World) -> None:
    vec = RecVectorEnv(world, num_envs=4)
    vec.reset(seed=0)
    before = vec.get_state()
    action = slates(4, 0)
    action[2, 5] = 100
    with pytest.raises(ActionError, match="lane 2: candidate 100 at position 5"):
        vec.step(action)
    with pytest.raises(ActionError, match=r"shape \(4, 10\)"):
        vec.step(slates(3, 0))
    after = vec.get_state()
    assert all(torch.equal(before[key], after[key]) for key in before)
    for wrong in (0, -1, 2.0, True):
        with pytest.raises(RecGymError, match="num_envs must be a whole number of at least 1"):
            RecVectorEnv(world, num_envs=wrong)  # type: ignore[arg-type]
    with pytest.raises(RecGymError, match="output must be"):
        RecVectorEnv(world, output="jax")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", list(AutoresetMode)[:2])
def test_torch_output_is_the_same(world: World, mode: AutoresetMode) -> None:
    scenario = SCENARIOS["session"]
    numpy = RecVectorEnv(world, scenario, 5, autoreset_mode=mode)
    tensors = RecVectorEnv(world, scenario, 5, autoreset_mode=mode, output="torch", simulator=numpy.simulator)
    numpy.reset(seed=1)
    tensors.reset(seed=1)
    for step in range(12):
        a, b = numpy.step(slates(5, step)), tensors.step(torch.from_numpy(slates(5, step)))
        for x, y in zip(a[1:4], b[1:4], strict=True):
            assert isinstance(y, torch.Tensor) and np.array_equal(x, y.numpy())
        for key in a[0]:
            assert np.array_equal(a[0][key], b[0][key].numpy())
        assert a[4].keys() <= b[4].keys()
        if "final_obs" in a[4]:
            for place, lane in enumerate(b[4]["final_lanes"].tolist()):
                for key, value in a[4]["final_obs"][lane].items():
                    assert np.array_equal(value, b[4]["final_obs"][key][place].numpy())


def test_observations_are_the_callers(world: World) -> None:
    vec = RecVectorEnv(world, num_envs=3)
    first, _ = vec.reset(seed=0)
    kept = {key: value.copy() for key, value in first.items()}
    vec.step(slates(3, 0))
    for key in kept:
        assert np.array_equal(kept[key], first[key])


def test_save_pickle_and_branch(world: World) -> None:
    vec = RecVectorEnv(world, SCENARIOS["horizon"], 4, autoreset_mode=AutoresetMode.SAME_STEP)
    vec.reset(seed=0)
    for step in range(6):
        vec.step(slates(4, step))
    kept, copy = vec.get_state(), pickle.loads(pickle.dumps(vec))
    twin = vec.branch(2, luck="same")
    ahead = [vec.step(slates(4, step)) for step in range(10)]
    vec.set_state(kept)
    for step, expected in enumerate(ahead):
        for other in (vec, copy):
            got = other.step(slates(4, step))
            compare(got[0], expected[0])
            assert np.array_equal(got[1], expected[1])
        doubled = twin.step(slates(4, step).repeat(2, axis=0))
        assert np.array_equal(doubled[1], expected[1].repeat(2))
        compare(doubled[0], {key: value.repeat(2, axis=0) for key, value in expected[0].items()})
    with pytest.raises(StateError, match="must be"):
        RecVectorEnv(world, SCENARIOS["horizon"], 5, simulator=vec.simulator).set_state(kept)


def test_rendering_gives_a_frame_a_lane(world: World) -> None:
    text = RecVectorEnv(world, num_envs=2, render_mode="ansi")
    text.reset(seed=0)
    text.step(slates(2, 0))
    frames = text.render()
    assert frames is not None and len(frames) == 2 and all("slate 1" in frame for frame in frames)
    pictures = RecVectorEnv(world, num_envs=2, render_mode="rgb_array", simulator=text.simulator)
    pictures.reset(seed=0)
    shots = pictures.render()
    assert shots is not None and shots[0].shape == shots[1].shape == (330, 640, 3)


def test_a_lane_that_was_only_reset_shows_no_slate(world: World) -> None:
    """In the manner of Gymnasium, the action of such a lane is ignored: it is not to be seen either."""
    vec = RecVectorEnv(world, SCENARIOS["session"], 5, render_mode="ansi")
    picture = RecVectorEnv(world, SCENARIOS["session"], 5, render_mode="rgb_array", simulator=vec.simulator)
    vec.reset(seed=0)
    picture.reset(seed=0)
    blank = 0
    for step in range(8):
        *_, info = vec.step(slates(5, step))
        picture.step(slates(5, step))
        frames, shots = vec.render(), picture.render()
        assert frames is not None and shots is not None and len({shot.shape for shot in shots}) == 1
        for lane, frame in enumerate(frames):
            assert f"user {info['user'][lane]} " in frame and f"trip {info['trip'][lane] + 1}" in frame
            assert ("no slate shown yet" in frame) == (not info["_slate"][lane])
            blank += not info["_slate"][lane]
    assert blank > 3


@pytest.mark.parametrize("how", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("shell", [RecEnv, RecVectorEnv])
def test_copies_draw_the_same_actions_and_keep_their_spec(world: World, how: Any, shell: Any) -> None:
    path = str(world.path)
    gymnasium.register("tiny-copy-v0", entry_point=RecEnv, vector_entry_point=RecVectorEnv, kwargs={"world": path})
    try:
        make = gymnasium.make if shell is RecEnv else gymnasium.make_vec
        simulator = RecEnv(world).simulator
        env = make("tiny-copy-v0", simulator=simulator, strict=True).unwrapped
    finally:
        gymnasium.registry.pop("tiny-copy-v0")
    env.action_space.seed(3)
    env.action_space.sample()
    for _ in range(2):
        twin = how(env)
        assert np.array_equal(env.action_space.sample(), twin.action_space.sample())
        assert not np.array_equal(env.action_space.sample(), env.action_space.sample())
        assert twin.spec.id == "tiny-copy-v0" and twin.spec.kwargs["strict"] and "simulator" not in twin.spec.kwargs
        env.reset(seed=0)
        assert how(env).np_random.random() == env.np_random.random()
    assert RecEnv(world).spec is None and how(RecEnv(world)).spec is None


def test_a_thousand_steps_with_restarts(world: World) -> None:
    vec = RecVectorEnv(world, num_envs=8)
    vec.reset(seed=0)
    vec.action_space.seed(0)
    for _ in range(125):
        observations = vec.step(vec.action_space.sample())[0]
    assert vec.observation_space.contains(observations)
