"""The world behind what a user names: an environment id, a world's name or its directory."""

from __future__ import annotations

from pathlib import Path

from recgym.errors import UnknownNameError, unknown_name
from recgym.registration import ENVS, WORLDS
from recgym.worlds.world import World, load_world


def named_world(name: str | Path | World, *, own_users: bool = True) -> tuple[World, str]:
    """The world, and the scenario that goes with the name: the environment's own, or ``default``.

    Args:
        name: an environment id, a world's name or directory, or a world.
        own_users: whether the world's own users are to be played, so that an environment with others is refused.

    Raises:
        UnknownNameError: neither an environment nor a world; the nearest of both is named.
        RecGymError: the environment has other users than its world's.
    """
    env = ENVS.spec(name) if isinstance(name, str) and name in ENVS.names() else None
    if env:
        return load_world(env.own_world() if own_users else env.world), env.scenario
    try:
        return load_world(name), "default"
    except UnknownNameError as error:
        raise unknown_name("environment or world", str(name), {*ENVS.names(), *WORLDS.names()}) from error
