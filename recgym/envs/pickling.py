"""Pickling of environments: arguments and state travel, and the simulation is built again from the world."""

from __future__ import annotations

from typing import Any

from recgym.worlds.world import World


class Rebuilt:
    """An environment that pickles as the arguments that build it and the tensors that its future depends on."""

    _arguments: dict[str, Any]

    def remember_arguments(self, **arguments: Any) -> None:
        """Keeps what ``__init__`` has to be given to build the same environment again; a world by its path."""
        world = arguments["world"]
        self._arguments = {**arguments, "world": str(world.path) if isinstance(world, World) else str(world)}

    def __getstate__(self) -> dict[str, Any]:
        lanes = self._lanes  # type: ignore[attr-defined]
        return {"arguments": self._arguments, "tensors": lanes.tensors() if lanes.state is not None else None}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__(**saved["arguments"])  # type: ignore[misc]
        if saved["tensors"] is not None:
            self._lanes.restore(saved["tensors"])  # type: ignore[attr-defined]
