"""A replay of the last transitions of all lanes; observations are kept once, in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Transitions drawn from a ``Replay``."""

    user: Tensor  # [n, Du] float32
    candidates: Tensor  # [n, M, F] float32
    next_user: Tensor  # [n, Du] float32; of another episode where ``terminated``
    next_candidates: Tensor  # [n, M, F] float32
    terminated: Tensor  # [n] float32, 0 or 1
    more: Mapping[str, Tensor]  # what else was added, by name, [n, ...]
    place: tuple[Tensor, Tensor]  # row and lane [n] in the ring


class Replay:
    """A ring of T rows of B lanes each.

    What follows a transition is the observation one row on. Where there is none (the newest row, an episode cut short,
    lanes that started afresh) the transition is not drawn, unless it ended its episode, so that nothing follows.
    Features observed lie in [-1, 1], what ``Knowledge`` adds reaches about 8: half precision keeps them to 1 part in
    2,000, in a quarter of what two float32 copies take.
    """

    def __init__(self, capacity: int) -> None:
        """Room for about ``capacity`` transitions; at least two rows."""
        self.capacity = capacity
        self.rows: dict[str, Tensor] = {}  # [T, B, ...] by name
        self.usable = torch.zeros(0, 0, dtype=torch.bool)  # [T, B]
        self.added = 0  # rows since the beginning
        self._joins: Tensor | None = None  # [B] lanes of the newest row whose episode goes on

    def add(
        self, user: Tensor, candidates: Tensor, terminated: Tensor, truncated: Tensor, more: Mapping[str, Tensor]
    ) -> None:
        """Adds a row: an observation, how it ended [B], and whatever else is wanted [B, ...], by name."""
        row = {"user": user.half(), "candidates": candidates.half(), "terminated": terminated.float(), **more}
        if not self.rows:
            length = max(self.capacity // len(user), 2)
            self.rows = {name: value.new_zeros(length, *value.shape) for name, value in row.items()}
            self.usable = torch.zeros(length, len(user), dtype=torch.bool)
        length = len(self.usable)
        if self._joins is not None:
            self.usable[(self.added - 1) % length] |= self._joins
        place = self.added % length
        for name, value in row.items():
            self.rows[name][place] = value
        self.usable[place] = terminated
        self._joins = ~(terminated | truncated)
        self.added += 1

    def cut(self) -> None:
        """Tells that the lanes start afresh: the next row does not follow the newest one."""
        self._joins = None

    def sample(self, number: int, generator: torch.Generator | None = None) -> Batch:
        """``number`` transitions, drawn uniformly with replacement; the default generator where none is given."""
        where = self.usable.nonzero()
        drawn = where[torch.randint(len(where), (number,), generator=generator)]
        row, lane = drawn[:, 0], drawn[:, 1]
        following = (row + 1) % len(self.usable)
        taken = {name: values[row, lane] for name, values in self.rows.items()}
        return Batch(
            user=taken.pop("user").float(),
            candidates=taken.pop("candidates").float(),
            next_user=self.rows["user"][following, lane].float(),
            next_candidates=self.rows["candidates"][following, lane].float(),
            terminated=taken.pop("terminated"),
            more=taken,
            place=(row, lane),
        )

    def later(self, gamma: float) -> Tensor:
        """What each transition's episode earned after it, as far as the ring knows, [T, B].

        sum over n >= 1 of gamma ** (n - 1) * reward of the n-th transition that follows; multiply by gamma to discount.
        """
        length = len(self.usable)
        goes_on = self.usable & (self.rows["terminated"] == 0)
        later = torch.zeros(self.usable.shape)
        newest = self.added - 1
        for number in range(newest - 1, max(newest - length, -1), -1):
            row, following = number % length, (number + 1) % length
            later[row] = goes_on[row] * (self.rows["reward"][following] + gamma * later[following])
        return later

    def __len__(self) -> int:
        """How many transitions can be drawn."""
        return int(self.usable.sum())

    def tensors(self) -> dict[str, Tensor]:
        """The contents by name, ready for safetensors; the newest row is cut off from what follows."""
        if not self.rows:
            return {}
        rows = {f"rows.{name}": values for name, values in self.rows.items()}
        return {**rows, "usable": self.usable, "added": torch.tensor(self.added)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave."""
        self.rows = {name[5:]: values for name, values in tensors.items() if name.startswith("rows.")}
        self.usable = tensors["usable"] if self.rows else torch.zeros(0, 0, dtype=torch.bool)
        self.added = int(tensors["added"]) if self.rows else 0
        self._joins = None
