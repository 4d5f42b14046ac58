"""What all parts of a scenario share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def assumed(default: float | str, description: str, reference: str, **bounds: float) -> Any:
    """A behavioural parameter that no purchase log identifies: its schema says so and names the source."""
    extra: dict[str, Any] = {"status": "assumed", "reference": reference}
    return Field(default, description=description, json_schema_extra=extra, **bounds)  # type: ignore[call-overload]


class Misfit(ValueError):
    """A value that does not fit others of its section; names where in the section it stands."""

    def __init__(self, keys: tuple[str | int, ...], message: str) -> None:
        """``keys`` lead from the section to the value."""
        super().__init__(message)
        self.keys = keys


class Section(BaseModel):
    """What all parts of a scenario share: exact types, no unknown keys, no change after loading."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
