"""Where the values of a scenario come from, for messages."""

from __future__ import annotations

from dataclasses import dataclass, field

Keys = tuple[str | int, ...]  # the path of a value in a scenario


@dataclass(frozen=True)
class Source:
    """Where values come from, for messages."""

    label: str
    places: dict[Keys, str] = field(default_factory=dict)  # key path -> file:line, from 1

    def at(self, path: Keys) -> str:
        """``file:line`` of the key at ``path``, or of the nearest key around it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.label
