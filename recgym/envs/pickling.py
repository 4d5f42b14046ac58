"""Pickling of environments: arguments and state travel, and the simulation is built again from the world."""

from __future__ import annotations

import dataclasses
from typing import Any

from recgym.worlds.world import World

_KEPT = ("action_space", "single_action_space", "_np_random", "_np_random_seed")  # where an instance has them: the luck


class Rebuilt:
    """An environment that pickles as the arguments that build it and what its future depends on."""

    _arguments: dict[str, Any]

    def remember_arguments(self, **arguments: Any) -> None:
        """Keeps what ``__init__`` has to be given to build the same environment again; a world by its path."""
        world = arguments["world"]
        self._arguments = {**arguments, "world": str(world.path) if isinstance(world, World) else str(world)}

    def __getstate__(self) -> dict[str, Any]:
        lanes = self._lanes  # type: ignore[attr-defined]
        kept = {name: vars(self)[name] for name in _KEPT if name in vars(self)}
        if (spec := vars(self).get("spec")) is not None:  # of Gymnasium, with the arguments as they are remembered
            given = {key: self._arguments.get(key, one) for key, one in spec.kwargs.items() if key != "simulator"}
            kept["spec"] = dataclasses.replace(spec, kwargs=given)
        tensors = lanes.tensors() if lanes.state is not None else None
        return {"arguments": self._arguments, "tensors": tensors, "kept": kept}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__(**saved["arguments"])  # type: ignore[misc]
        vars(self).update(saved["kept"])
        if saved["tensors"] is not None:
            self._lanes.restore(saved["tensors"])  # type: ignore[attr-defined]
