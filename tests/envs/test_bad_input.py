"""Bad input gets an error that names the thing, the value and what is valid, before anything has changed."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from safetensors.torch import save_file
from torch import Tensor

import recgym
from recgym.envs.single import RecEnv
from recgym.envs.vector import RecVectorEnv
from recgym.errors import ActionError, RecGymError, StateError
from recgym.scenario import load_scenario
from recgym.testing.worlds import tiny_world
from recgym.user_models.boredom import BoredUsers
from recgym.worlds.world import World

SHORT = load_scenario("default", {"episode.max_slates": 3})
LANES = 4


@pytest.fixture
def vec(world: World, device: torch.device) -> RecVectorEnv:
    """An environment under way, that takes scores."""
    made = RecVectorEnv(world, SHORT, LANES, action_mode="scores", device=device)
    for seed in range(20):
        made.reset(seed=seed)
        _, _, terminated, truncated, _ = made.step(scores())
        if not (terminated | truncated).any():  # no lane restarts in the step to come
            return made
    raise AssertionError("some lane's episode ended at once, whatever the seed")


def scores() -> np.ndarray:
    return np.linspace(-1, 1, LANES * 100, dtype=np.float32).reshape(LANES, 100)


def with_score(lane: int, slot: int, value: float, dtype: Any = np.float32) -> np.ndarray:
    changed = scores().astype(dtype)
    changed[lane, slot] = value
    return changed


def refuses(vec: RecVectorEnv | RecEnv, error: type[Exception], message: str, act: Callable[[], Any]) -> None:
    """``act`` raises ``error`` and leaves the state of ``vec`` as it is, bit for bit."""
    before = vec.get_state()
    with pytest.raises(error, match=message):
        act()
    after = vec.get_state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("num_envs", [0, -1, 2.5, 2.0, True, "3", np.float32(2)])
def test_num_envs_is_a_whole_number_of_at_least_1(world: World, num_envs: Any) -> None:
    for make in (RecVectorEnv, lambda world, **given: recgym.make_vec(world=world, **given)):
        with pytest.raises(RecGymError, match=r"num_envs must be a whole number of at least 1, got .*" + str(num_envs)):
            make(world, num_envs=num_envs)


def test_num_envs_may_come_from_numpy(world: World) -> None:
    assert type(RecVectorEnv(world, num_envs=np.int64(2)).num_envs) is int


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (with_score(2, 7, np.nan), "lane 2: the score of candidate 7 is nan, not finite"),
        (with_score(0, 99, np.inf), "lane 0: the score of candidate 99 is inf, not finite"),
        (with_score(3, 0, -np.inf), "lane 3: the score of candidate 0 is -inf, not finite"),
        (with_score(1, 1, 1e300, np.float64), "lane 1: the score of candidate 1 is inf, not finite"),
        (scores().astype(np.int32), r"fractions \(float32\), got torch.int32"),
        (scores().astype(bool), "holds numbers, got bool"),
        (scores().astype(complex), "holds numbers, got complex"),
        (scores()[:3], r"shape \(4, 100\).*got \(3, 100\)"),
        (None, "holds numbers, got object"),
        ([[1.0, 2.0], [3.0]], r"holds numbers in rows of one length, got \[\[1.0, 2.0\], \[3.0\]\]"),
        (torch.zeros(LANES, 100, device="meta"), "runs on .*, the action is on meta"),
    ],
    ids=["nan", "inf", "minus inf", "float64 too large", "int", "bool", "complex", "shape", "none", "ragged", "device"],
)
def test_actions(vec: RecVectorEnv, actions: Any, message: str) -> None:
    refuses(vec, ActionError, message, lambda: vec.step(actions))


def test_slates(world: World, device: torch.device) -> None:
    vec = RecVectorEnv(world, SHORT, LANES, strict=True, device=device)
    vec.reset(seed=0)
    for bad, message in [(100, "candidate 100 at position 4 must lie in 0..99"), (-1, "candidate -1"), (0, "already")]:
        action = np.tile(np.arange(10), (LANES, 1))
        action[1, 4] = bad
        refuses(vec, ActionError, f"lane 1: .*{message}", lambda action=action: vec.step(action))
    slate = torch.zeros(LANES, 10, dtype=torch.int64, device="meta")
    refuses(vec, ActionError, "the slate is on meta", lambda: vec.simulator.step(vec.state, slate))


def test_scores_of_lanes_that_restart_may_be_anything(world: World, device: torch.device) -> None:
    vec = RecVectorEnv(world, SHORT, LANES, action_mode="scores", device=device)
    vec.reset(seed=0)
    ended = np.zeros(LANES, bool)
    while not ended.any():
        _, _, terminated, truncated, _ = vec.step(scores())
        ended = terminated | truncated
    action = scores()
    action[ended] = np.nan
    observation, *_ = vec.step(action)
    assert all(np.isfinite(value).all() for value in observation.values())


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "fpga", "hpu", 3.5])
def test_devices(world: World, name: Any) -> None:
    for make in (RecVectorEnv, RecEnv):
        with pytest.raises(RecGymError, match=rf"device {name!r} cannot be used .*Here: cpu"):
            make(world, device=name)
    with pytest.raises(RecGymError, match=r"cannot be used .*Here: cpu"):
        recgym.make(world=world, device=name, user_model="boredom")


def test_resets(vec: RecVectorEnv) -> None:
    for given, message in [
        ({"seed": [1, 2]}, "one entry a lane: 4 expected, got 2"),
        ({"seed": [1, 2, 3, 4.0]}, "whole number or None, got 4.0"),
        ({"options": {"users": [0, 1, 2, 40]}}, r"user row 40 of lane 3 must lie in 0..39"),
        ({"options": {"users": [0, 1, 2]}}, r"options\['users'\] holds 4 whole numbers"),
        ({"options": {"episodes": [0.0, 1.0, 2.0, 3.0]}}, r"options\['episodes'\] holds 4 whole numbers"),
        ({"options": {"reset_mask": np.zeros(LANES, bool)}}, "at least one True"),
        ({"options": {"lanes": 1}}, r"unknown reset options \['lanes'\]"),
        ({"seed": 1.5}, "a seed is a whole number or None, got 1.5"),
        ({"seed": True}, "whole number or None, got True"),
        ({"seed": [1, 2, True, 4]}, "whole number or None, got True"),
        ({"seed": np.array(1.5)}, r"whole number or None, got array\(1.5\)"),
        ({"seed": 2**63 - 2}, f"seed {2**63} does not fit into 64 bits"),
        ({"options": [1]}, r"reset options are a dict, got \[1\]"),
        ({"options": {"episodes": [0, 1, -5, 2]}}, r"options\['episodes'\] counts from 0, got -5"),
        ({"options": {"users": [[0, 1], [2]]}}, r"options\['users'\] holds numbers in rows of one length"),
        ({"options": {"reset_mask": [[True], []]}}, r"options\['reset_mask'\] holds numbers in rows of one length"),
    ]:
        refuses(vec, StateError, message, lambda given=given: vec.reset(**given))  # type: ignore[arg-type]


def test_resets_of_one(world: World, device: torch.device) -> None:
    env = RecEnv(world, device=device)
    env.reset(seed=3)
    for given, message in [
        ({"seed": 1.5}, "a seed is a whole number or None, got 1.5"),
        ({"seed": True}, "whole number or None, got True"),
        ({"seed": 2**63}, "does not fit into 64 bits"),
        ({"options": [1]}, r"reset options are a dict, got \[1\]"),
        ({"options": {"episode": -1}}, "counts from 0, got -1"),
    ]:
        refuses(env, StateError, message, lambda given=given: env.reset(**given))  # type: ignore[arg-type]
    refuses(
        env,
        ActionError,
        r"an action holds numbers in rows of one length, got \[\[1, 2\], \[3\]\]",
        lambda: env.step([[1, 2], [3]]),
    )


@pytest.mark.parametrize("seed", [-3, np.int64(5), np.array(5), torch.tensor(5)])
def test_seeds_of_every_kind_of_whole_number(world: World, seed: Any) -> None:
    vec, one, listed = RecVectorEnv(world, num_envs=2), RecEnv(world), RecVectorEnv(world, num_envs=2)
    _, info = vec.reset(seed=seed)
    assert vec.lane_seeds.tolist() == [int(seed), int(seed) + 1]
    assert one.reset(seed=seed)[1]["user"] == info["user"][0]
    assert listed.reset(seed=[seed, int(seed) + 1])[1]["user"].tolist() == info["user"].tolist()


def test_states_of_other_environments(vec: RecVectorEnv, world: World, tmp_path: Path, device: torch.device) -> None:
    def state_of(bundle: World, scenario: Any = SHORT, lanes: int = LANES, **given: Any) -> dict[str, Tensor]:
        other = RecVectorEnv(bundle, scenario, lanes, action_mode="scores", device=device, **given)
        other.reset(seed=0)
        return other.get_state()

    twin = tiny_world(tmp_path / "twin", seed=1)  # every shape the same
    bored = recgym.make_vec(world=world, scenario=SHORT, num_envs=LANES, user_model="boredom", device=str(device))
    bored.reset(seed=0)
    another = "of another world, scenario, version or users, or lacks .*: this environment plays world 'tiny'"
    for tensors, message in [
        (state_of(twin), another),
        (state_of(world, "default"), another),
        ({}, another),
        (state_of(world, lanes=3), r"must be .* \(4,.*, is .* \(3,"),
        (bored.get_state(), another + ".*users PreferenceUsers"),
    ]:
        refuses(vec, StateError, message, lambda tensors=tensors: vec.set_state(tensors))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recgym.envs.lanes.STATE_FORMAT", -1)
        later = state_of(world)
    refuses(vec, StateError, another, lambda: vec.set_state(later))


def test_states_without_candidates(world: World) -> None:
    """With which a strict environment would show one item in every slot."""
    blind = RecEnv(world, action_mode="catalogue", observation=("user",))
    blind.reset(seed=1)
    env = RecEnv(world)
    env.reset(seed=1)
    refuses(env, StateError, "plays world 'tiny'.* and candidates$", lambda: env.set_state(blind.get_state()))
    blind.set_state(env.get_state())  # candidates that are not needed do no harm
    refuses(env, StateError, "plays world 'tiny'.* and candidates$", lambda: env.set_state(blind.get_state()))
    sighted = RecEnv(world, action_mode="catalogue", observation=("user",), simulator=env.simulator)
    sighted.reset(seed=1)
    assert np.array_equal(copy.deepcopy(sighted).step(np.arange(10))[1], sighted.step(np.arange(10))[1])


def test_simulators_to_share(world: World, tmp_path: Path) -> None:
    vec = RecVectorEnv(world, num_envs=2)
    users = vec.simulator.user_model
    given: dict[str, Any]
    for given, message in [
        ({"world": tiny_world(tmp_path / "twin", seed=1)}, r"of world 'tiny' \(\w+\), not of 'tiny' \(\w+\)"),
        ({"scenario": SHORT}, r"of scenario 'default' \(\w+, slates of 10\), not of 'default' \(\w+, slates of 10\)"),
        ({"action_mode": "item"}, r"slates of 10\), not of 'default' \(\w+, slates of 1\)"),
        ({"user_model": "boredom"}, "of users PreferenceUsers, not of user_model='boredom'"),
        ({"user_model": BoredUsers(world)}, "of users PreferenceUsers, not of user_model=<"),
    ]:
        for shell in (RecEnv, RecVectorEnv):
            with pytest.raises(RecGymError, match=message):
                shell(**{"world": world, "simulator": vec.simulator, **given})
    for fine in ({"user_model": users}, {"user_model": "preference"}, {"world": str(world.path)}):
        RecEnv(**{"world": world, "simulator": vec.simulator, **fine})
    known = RecEnv(world, load_scenario("default", {"users.history": {"0": 1.0}}))
    RecEnv(known.world, known.scenario, simulator=known.simulator)  # the world as agents know it
    blind = RecEnv(world, action_mode="catalogue", observation=("user",)).simulator
    for given in ({}, {"action_mode": "weights"}, {"action_mode": "catalogue", "observation": ("candidate_items",)}):
        with pytest.raises(RecGymError, match="draws no candidates, which the action mode or an observation needs"):
            RecVectorEnv(world, simulator=blind, **given)
    RecVectorEnv(world, simulator=blind, action_mode="catalogue", observation=("user", "history"))


def test_states_with_parts_that_do_not_fit(vec: RecVectorEnv) -> None:
    good = vec.get_state()
    steps, users, candidates = (good[f"state.{name}"] for name in ("steps", "user", "candidates"))
    outside = candidates.clone()
    outside[2, 5] = 300
    for name, value, message in [
        ("steps", steps.to(torch.float32), r"state.steps of the state must be torch.int32 \(4,\), is torch.float32"),
        ("steps", steps[:2], r"state.steps .* \(4,\), is torch.int32 \(2,\)"),
        ("steps", steps.cpu().numpy(), "state.steps .* is ndarray"),
        ("steps", None, "state.steps .* is missing"),
        ("user", users - 50, r"state.user of the state holds row -\d+, which must lie in 0..39"),
        ("candidates", outside, r"state.candidates of the state holds row 300, which must lie in 0..299"),
    ]:
        refuses(vec, StateError, message, lambda bad={**good, f"state.{name}": value}: vec.set_state(bad))
    vec.set_state(good)


@pytest.mark.parametrize("shell", [RecEnv, RecVectorEnv])
def test_state_files(world: World, shell: Any, tmp_path: Path, device: torch.device) -> None:
    env = shell(world, SHORT, device=device)
    env.reset(seed=0)
    path = env.save_state(tmp_path / "saved" / "here.safetensors")
    kept = env.get_state()
    whole = path.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["here.safetensors"]
    env.step(np.arange(10) if shell is RecEnv else np.arange(10)[None])
    (header,) = struct.unpack("<Q", whole[:8])
    bad = tmp_path / "bad.safetensors"
    cut = [whole[:size] for size in (0, 5, 8, 8 + header // 2, 8 + header, (8 + header + len(whole)) // 2, -1)]
    for content in (*cut, b"PK\x03\x04" + whole, whole + b"x"):
        bad.write_bytes(content)
        refuses(env, StateError, "bad.safetensors cannot be read as a saved state", lambda: env.load_state(bad))
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    bad.write_bytes(bytes(flipped))
    refuses(env, StateError, "bad.safetensors is damaged", lambda: env.load_state(bad))
    save_file({"seeds": torch.zeros(1)}, bad)
    refuses(env, StateError, "bad.safetensors is no saved state", lambda: env.load_state(bad))
    refuses(env, StateError, "none cannot be read", lambda: env.load_state(tmp_path / "none"))
    refuses(env, StateError, "cannot be read", lambda: env.load_state(tmp_path))
    env.load_state(path)
    assert all(torch.equal(value, kept[name]) for name, value in env.get_state().items())


@pytest.mark.parametrize(("copies", "luck"), [(0, "same"), (2.5, "same"), (True, "same"), (2, "better")])
def test_branches(vec: RecVectorEnv, copies: Any, luck: Any) -> None:
    refuses(
        vec,
        RecGymError,
        r"(copies must be a whole number of at least 1|luck must be 'same' or 'fresh'), got",
        lambda: vec.branch(copies, luck),
    )


def test_a_step_before_the_reset(world: World) -> None:
    for mode in AutoresetMode:
        with pytest.raises(StateError, match=r"call reset\(\) first"):
            RecVectorEnv(world, num_envs=2, autoreset_mode=mode).step(np.zeros((2, 10), np.int64))
