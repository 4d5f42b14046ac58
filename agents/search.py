"""Search spaces: the settings of an agent that may be tuned, declared beside their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recgym.errors import AgentError

if TYPE_CHECKING:
    from recgym.agents.protocol import AgentConfig


@dataclass(frozen=True)
class Search:
    """Where to search for a setting, as metadata of its annotation: ``rate: Annotated[float, Search(1e-4, 1.0)]``.

    A range of ``low`` to ``high`` (both included; whole numbers where both are), or else ``choices``.
    """

    low: float | int | None = None
    high: float | int | None = None
    log: bool = False  # even in the logarithm
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Refuses what is neither a range nor choices."""
        ranged = self.low is not None and self.high is not None
        if ranged == bool(self.choices) or (self.low is None) != (self.high is None):
            raise AgentError(f"a search is over a range or over choices, got {self}")
        if self.low is not None and self.high is not None and (self.low >= self.high or self.log and self.low <= 0):
            raise AgentError(f"a search over a range needs low < high, and low > 0 where it is logarithmic; got {self}")


def search_space(config: type[AgentConfig]) -> dict[str, Search]:
    """The settings of ``config`` that declare a search, by name."""
    found = {}
    for name, field in config.model_fields.items():
        declared = [part for part in field.metadata if isinstance(part, Search)]
        if declared:
            found[name] = declared[0]
    return found
