"""The world behind what a user names: an environment id, a world's name or its directory."""

from __future__ import annotations

from pathlib import Path

from recgym.errors import UnknownNameError, unknown_name
from recgym.registration import ENVS, WORLDS
from recgym.worlds.world import World, load_world


def named_world(name: str | Path | World) -> tuple[World, str]:
    """The world, and the scenario that goes with the name: the environment's own, or ``default``.

    Raises:
        UnknownNameError: neither an environment nor a world; the nearest of both is named.
        RecGymError: the environment has other users than its world's.
    """
    env = ENVS.spec(name) if isinstance(name, str) and name in ENVS.names() else None
    try:
        return load_world(env.own_world() if env else name), env.scenario if env else "default"
    except UnknownNameError as error:
        raise unknown_name("environment or world", str(name), {*ENVS.names(), *WORLDS.names()}) from error
