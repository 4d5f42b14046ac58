"""RecGym: a Gymnasium simulator for reinforcement-learning recommendation with users fitted on real logs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium

from recgym.errors import RecGymError
from recgym.registration import ENVS, USER_MODELS
from recgym.registry import EnvSpec, load_target

if TYPE_CHECKING:
    from recgym.envs.single import RecEnv
    from recgym.envs.vector import RecVectorEnv
    from recgym.evaluation.runner import evaluate
    from recgym.scenario import Scenario, load_scenario
    from recgym.user_models.protocol import UserModel
    from recgym.worlds.world import World, load_world

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "load_scenario", "load_world", "make", "make_vec", "register"]

_NAMESPACE = "recgym/"  # of the ids in Gymnasium's registry

# Loaded on first use: a plain `import recgym` must not pull in torch or pandas.
_LAZY = {
    "evaluate": "recgym.evaluation.runner",
    "load_scenario": "recgym.scenario",
    "load_world": "recgym.worlds.world",
}


def register(
    id: str,
    *,
    world: str,
    scenario: str = "default",
    description: str = "",
    kwargs: dict[str, Any] | None = None,
    replace: bool = False,
) -> EnvSpec:
    """Registers an environment with RecGym as ``id`` and with Gymnasium as ``recgym/`` + ``id``.

    Args:
        id: a new versioned id, such as ``"grocery-v0"``.
        world: name or path of the world bundle.
        scenario: name or path of the scenario.
        description: one line for ``recgym list envs``.
        kwargs: further keyword arguments of the environment, JSON values only.
        replace: whether to overwrite an environment of that id.

    Raises:
        RecGymError: if the id is malformed or taken, or ``kwargs`` holds something else than JSON values.
    """
    spec = EnvSpec(id, world=world, scenario=scenario, description=description, kwargs=kwargs or {})
    ENVS.register(spec, replace=replace)
    _register_with_gymnasium(spec)
    return spec


def _register_with_gymnasium(spec: EnvSpec) -> None:
    gymnasium.registry.pop(_NAMESPACE + spec.id, None)  # or Gymnasium warns when it overwrites
    gymnasium.register(
        _NAMESPACE + spec.id,
        entry_point=spec.target,
        vector_entry_point=spec.vector_target,
        kwargs=spec.shell_kwargs(),
    )


def _resolve(id: str | None, world: str | Path | World | None, given: dict[str, Any]) -> tuple[EnvSpec, dict[str, Any]]:
    """The spec of ``id`` (of ``world`` alone where id is None) and the shell's arguments; None means not given."""
    if id is not None:
        spec = ENVS.spec(id.removeprefix(_NAMESPACE))
    elif world is not None:
        spec = EnvSpec("world-v0", world=str(getattr(world, "name", world)))
    else:
        raise RecGymError(f"give an environment id or a world; ids: {', '.join(ENVS.names())}")
    chosen = {name: value for name, value in {"world": world, **given}.items() if value is not None}
    arguments = {**spec.shell_kwargs(), **chosen}
    if isinstance(arguments.get("user_model"), str):
        arguments.update(_named_user_model(**arguments))
    return spec, arguments


def _named_user_model(*, world: str | Path | World, user_model: str, device: str = "cpu", **_: Any) -> dict[str, Any]:
    """The world, loaded, and the registered user model of that name for it; the shells take objects."""
    from recgym.devices import usable
    from recgym.worlds.world import World, load_world

    usable(device)
    loaded = world if isinstance(world, World) else load_world(world)
    return {"world": loaded, "user_model": USER_MODELS.load(user_model)(loaded, device)}


def make(
    id: str | None = None,
    *,
    scenario: str | Path | Scenario | None = None,
    world: str | Path | World | None = None,
    user_model: str | UserModel | None = None,
    render_mode: str | None = None,
    action_mode: str | None = None,
    observation: tuple[str, ...] | None = None,
    strict: bool | None = None,
    device: str | None = None,
    **kwargs: Any,
) -> RecEnv:
    """A single environment (``gymnasium.Env``), without Gymnasium's wrappers.

    Args:
        id: an environment id (``recgym list envs``), or None where ``world`` is given.
        scenario: name, path or ``Scenario``; by default the one of the id.
        world: name, path or ``World``; by default the one of the id.
        user_model: users in place of the world's own: a name (``recgym list user-models``), target or object.
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.
        action_mode: ``"slate"``, ``"catalogue"``, ``"item"``, ``"scores"``, ``"weights"`` or ``"proto"``; by default
            the scenario's.
        observation: observation keys; by default the scenario's.
        strict: whether a duplicate in a slate is an error rather than a wasted slot; by default False.
        device: torch device of the simulation; by default ``"cpu"``.
        **kwargs: further arguments of ``RecEnv``.

    Raises:
        UnknownNameError: for an unknown id; the message gives the nearest valid one.
        ScenarioError: if the scenario cannot be read or is not made for this world.
        WorldError: if the world bundle is missing or damaged.
    """
    given = dict(
        scenario=scenario,
        user_model=user_model,
        render_mode=render_mode,
        action_mode=action_mode,
        observation=observation,
        strict=strict,
        device=device,
        **kwargs,
    )
    spec, arguments = _resolve(id, world, given)
    env: RecEnv = load_target(spec.target)(**arguments)
    return env


def make_vec(
    id: str | None = None,
    *,
    num_envs: int = 1,
    scenario: str | Path | Scenario | None = None,
    world: str | Path | World | None = None,
    user_model: str | UserModel | None = None,
    render_mode: str | None = None,
    action_mode: str | None = None,
    observation: tuple[str, ...] | None = None,
    strict: bool | None = None,
    device: str | None = None,
    **kwargs: Any,
) -> RecVectorEnv:
    """A vector environment (``gymnasium.vector.VectorEnv``) of ``num_envs`` users simulated as one batch.

    The other arguments and errors are those of ``make``; ``kwargs`` are further arguments of ``RecVectorEnv``.
    """
    given = dict(
        num_envs=num_envs,
        scenario=scenario,
        user_model=user_model,
        render_mode=render_mode,
        action_mode=action_mode,
        observation=observation,
        strict=strict,
        device=device,
        **kwargs,
    )
    spec, arguments = _resolve(id, world, given)
    vec: RecVectorEnv = load_target(spec.vector_target)(**arguments)
    return vec


for _spec in ENVS.registered():
    _register_with_gymnasium(_spec)


def __getattr__(name: str) -> Any:
    """Imports a lazily exported function when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'recgym' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, lazy ones included."""
    return sorted({*globals(), *__all__})
