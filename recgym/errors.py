"""Errors that name the thing, the value and what would be valid."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RecGymError(Exception):
    """Base of every error that RecGym raises on purpose."""


class UnknownNameError(RecGymError, KeyError):
    """A name that no registry, schema or table holds; the message gives the nearest valid one."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class DataError(RecGymError, ValueError):
    """A log that cannot be read as it is: names file, row, column and value."""


class WorldError(RecGymError, ValueError):
    """A world bundle that is missing, truncated, altered or of another version."""


class ScenarioError(RecGymError, ValueError):
    """A scenario that cannot run: names the file, the key and what would be valid."""


class ActionError(RecGymError, ValueError):
    """An action that the environment refuses: names the lane and the value."""


class StateError(RecGymError, ValueError):
    """A saved state that does not belong to this environment."""


class AgentError(RecGymError, ValueError):
    """An agent that cannot be built, loaded or used here."""


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name closest to ``name``, or None where nothing is close."""
    found = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return found[0] if found else None


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> UnknownNameError:
    """An error for an unknown ``kind`` called ``name``, with the nearest valid name and the full list."""
    options = sorted(valid)
    guess = nearest(name, options)
    hint = f" Did you mean {guess!r}?" if guess else ""
    listing = ", ".join(options) if options else "none registered"
    return UnknownNameError(f"unknown {kind} {name!r}.{hint} Valid: {listing}.")
