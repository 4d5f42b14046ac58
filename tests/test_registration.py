"""Registries: names, targets, errors that suggest, entry points, and Gymnasium's own registry."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import recgym
from recgym.errors import RecGymError, UnknownNameError
from recgym.registration import AGENTS, DATASETS, ENVS, SCENARIOS, USER_MODELS, WORLDS
from recgym.registry import EnvSpec, Spec, load_target

REGISTRIES = [ENVS, WORLDS, DATASETS, AGENTS, USER_MODELS, SCENARIOS]
ALL = [(registry, name) for registry in REGISTRIES for name in registry.names()]

SHELL = """
class Shell:
    def __init__(self, **kwargs):
        self.kwargs = kwargs
"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Target of a shell that only records its arguments."""
    monkeypatch.setattr(ENVS, "_own", dict(ENVS._own))
    (tmp_path / "shells.py").write_text(SHELL)
    return f"{tmp_path / 'shells.py'}:Shell"


@pytest.mark.parametrize(("registry", "name"), ALL, ids=lambda value: str(getattr(value, "kind", value)))
def test_specs_survive_json(registry: Any, name: str) -> None:
    spec = registry.spec(name)
    assert spec.id == name
    assert spec.description or registry is SCENARIOS
    assert type(spec).from_json(spec.to_json()) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize(("registry", "name"), ALL, ids=lambda value: str(getattr(value, "kind", value)))
def test_everything_registered_loads(registry: Any, name: str) -> None:
    assert registry.load(name) is not None


@pytest.mark.parametrize("name", ENVS.names())
def test_envs_name_registered_worlds_and_scenarios(name: str) -> None:
    spec = ENVS.spec(name)
    assert spec.world in WORLDS.names()
    assert spec.scenario in SCENARIOS.names()
    known = gymnasium.spec(f"recgym/{name}")
    assert (known.entry_point, known.vector_entry_point) == (spec.target, spec.vector_target)
    assert known.kwargs == spec.shell_kwargs()


@pytest.mark.parametrize(
    ("registry", "wrong", "right"),
    [
        (ENVS, "ecomerce-v0", "ecommerce-v0"),
        (WORLDS, "movie", "movies"),
        (DATASETS, "ml-10k", "ml-100k"),
        (AGENTS, "populrity", "popularity"),
        (USER_MODELS, "preferences", "preference"),
        (SCENARIOS, "defualt", "default"),
    ],
    ids=lambda value: str(getattr(value, "kind", value)),
)
def test_unknown_names_suggest_the_nearest(registry: Any, wrong: str, right: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown {registry.kind} '{wrong}'. Did you mean '{right}'?"):
        registry.load(wrong)


def test_names_may_be_targets(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Agent:\n    class Inner: ...\n")
    first = AGENTS.load(f"{tmp_path / 'mine.py'}:Agent")
    assert first.__name__ == "Agent"
    assert AGENTS.load(f"{tmp_path / 'mine.py'}:Agent") is first
    assert AGENTS.load(f"{tmp_path / 'mine.py'}:Agent.Inner") is first.Inner
    assert isinstance(pickle.loads(pickle.dumps(first())), first)
    assert load_target("pathlib:Path") is Path


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("recgym.errors:RecGymErorr", "Did you mean 'RecGymError'"),
        ("no_such_module:Thing", "cannot be imported: No module named 'no_such_module'"),
        ("no/such/file.py:Thing", "there is no file"),
        ("recgym.errors", "must read 'module:attr'"),
    ],
)
def test_bad_targets_say_what_is_wrong(target: str, message: str) -> None:
    with pytest.raises(RecGymError, match=message):
        load_target(target)


def test_a_file_that_fails_is_not_half_loaded(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("Thing = 1 / 0\n")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            load_target(f"{tmp_path / 'broken.py'}:Thing")


def test_a_name_is_taken_once(shell: str) -> None:
    ENVS.register(EnvSpec("taken-v0", world="ecommerce"))
    ENVS.register(EnvSpec("taken-v0", world="ecommerce"))
    with pytest.raises(RecGymError, match="'taken-v0' is already registered"):
        ENVS.register(EnvSpec("taken-v0", world="movies"))
    ENVS.register(EnvSpec("taken-v0", world="movies"), replace=True)
    assert ENVS.spec("taken-v0").world == "movies"


@pytest.mark.parametrize("kwargs", [{"a": {1, 2}}, {"a": (1, 2)}, {1: 2}, {"a": float("nan")}])
def test_specs_hold_json_only(kwargs: Any) -> None:
    with pytest.raises(RecGymError, match="must be JSON values"):
        Spec("mine", "a:b", kwargs=kwargs)


def test_env_ids_carry_a_version() -> None:
    with pytest.raises(RecGymError, match="must read like 'ecommerce-v0'"):
        EnvSpec("grocery", world="ecommerce")


def entry_points(*found: EntryPoint) -> Any:
    return lambda group: [entry for entry in found if entry.group == group]


def test_entry_points_add_to_every_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "their_pkg"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from recgym.registration import EnvSpec\nenv = EnvSpec('theirs-v1', world='ecommerce')\nclass Agent: ...\n"
    )
    (package / "hard.yaml").write_text("name: hard\nbehaviour: {lift: 0.0}\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = entry_points(
        EntryPoint("theirs-v1", "their_pkg:env", "recgym.envs"),
        EntryPoint("wrong-v0", "their_pkg:Agent", "recgym.envs"),
        EntryPoint("their_agent", "their_pkg:Agent", "recgym.agents"),
        EntryPoint("hard", "their_pkg", "recgym.scenarios"),
    )
    monkeypatch.setattr("recgym.registry.entry_points", found)
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_plugins", None)
    assert {"theirs-v1", "ecommerce-v0"} <= set(ENVS.names())
    assert ENVS.spec("theirs-v1").world == "ecommerce"
    assert AGENTS.load("their_agent").__name__ == "Agent"
    assert SCENARIOS.load("hard").behaviour.lift == 0.0
    with pytest.raises(RecGymError, match="wrong-v0 = their_pkg:Agent of group recgym.envs is no environment"):
        ENVS.spec("wrong-v0")


def test_make_passes_what_is_given_and_the_spec_for_the_rest(shell: str) -> None:
    ENVS.register(EnvSpec("shell-v0", world="ecommerce", kwargs={"strict": True}, target=shell, vector_target=shell))
    single: Any = recgym.make("shell-v0", action_mode="item")
    assert single.kwargs == {"world": "ecommerce", "scenario": "default", "strict": True, "action_mode": "item"}
    vec: Any = recgym.make_vec("recgym/shell-v0", num_envs=3, world="movies", strict=False, output="torch")
    expected = {"world": "movies", "scenario": "default", "strict": False, "num_envs": 3, "output": "torch"}
    assert vec.kwargs == expected


def test_make_needs_an_id_or_a_world() -> None:
    with pytest.raises(RecGymError, match="give an environment id or a world; ids: ecommerce-v0"):
        recgym.make()
    with pytest.raises(UnknownNameError, match="Did you mean 'ecommerce-v0'"):
        recgym.make_vec("recgym/ecommerce-v1x")


def test_register_adds_to_both_registries(shell: str) -> None:
    try:
        spec = recgym.register("extra-v3", world="ecommerce", scenario="default", kwargs={"action_mode": "item"})
        assert ENVS.spec("extra-v3") == spec
        assert gymnasium.spec("recgym/extra-v3").kwargs["action_mode"] == "item"
        recgym.register("extra-v3", world="movies", replace=True)  # without Gymnasium's warning
        assert gymnasium.spec("recgym/extra-v3").kwargs["world"] == "movies"
    finally:
        gymnasium.registry.pop("recgym/extra-v3", None)


def test_gymnasium_makes_the_shipped_environment() -> None:
    env = gymnasium.make("recgym/ecommerce-v0")
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    env.close()
    vec = gymnasium.make_vec("recgym/ecommerce-v0", num_envs=2, vectorization_mode="vector_entry_point")
    observations, _ = vec.reset(seed=0)
    assert observations in vec.observation_space
    vec.close()


def test_gymnasium_imports_recgym_by_prefix(tmp_path: Path) -> None:
    code = "import gymnasium; gymnasium.make('recgym:recgym/ecommerce-v0').reset(seed=0)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_make_builds_a_named_user_model_for_the_world(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users.py").write_text("def Users(world, device): return (world, device)\n")
    ENVS.register(EnvSpec("shell-v0", world="ecommerce", target=shell))
    monkeypatch.setattr("recgym.worlds.world.load_world", lambda name: f"loaded {name}")
    env: Any = recgym.make("shell-v0", user_model=f"{tmp_path / 'users.py'}:Users")
    assert env.kwargs["world"] == "loaded ecommerce"
    assert env.kwargs["user_model"] == ("loaded ecommerce", "cpu")
    with pytest.raises(UnknownNameError, match="unknown user model 'preferense'. Did you mean 'preference'"):
        recgym.make("shell-v0", user_model="preferense")
