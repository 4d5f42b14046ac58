"""Candidate retrieval: own purchases, popular items and uniform ones, distinct and shuffled, at bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recgym import compiled
from recgym.compiled import candidates as kernels
from recgym.errors import ScenarioError
from recgym.random import Purpose, fold, integers, mix, uniform
from recgym.scenario import Actions
from recgym.simulation.kernels import smallest, sort_rows
from recgym.simulation.state import Pool

MAX_CANDIDATES = 4096
_MIN_DRAWS = 128  # entries of the first pass: enough that a second one is rare on catalogues of real size
_EXTRA_DRAWS = 128  # further popularity draws in the second pass
_FIRST_COUNTER = 1024  # of a step's draws: above the numbers of purposes, which are folded into the same key
_ORDER_BITS = 14  # room for the position in the sequence of draws


class CandidateGenerator:
    """Draws M distinct candidates per lane.

    A lane's sequence of draws is: ``own`` items of its pool without replacement (exponential races, the same as
    Gumbel top-k: Efraimidis and Spirakis, 2006), ``new`` items that have arrived, ``uniform`` items of the catalogue,
    then items by popularity with replacement for as long as it takes. The first M distinct items of the sequence are
    the candidates, so popularity fills up whatever the other sources lack. Should the draws run out, the most popular
    items in order complete them. Cost and memory do not depend on the size of the catalogue.
    """

    def __init__(
        self,
        popularity: np.ndarray,
        actions: Actions,
        device: torch.device,
        new: np.ndarray | None = None,
        arrival_day: int = 0,
    ) -> None:
        """Builds the alias table of ``popularity`` (non-negative, [N]).

        Args:
            popularity: of the items.
            actions: how many candidates come from where.
            device: where they are drawn.
            new: bool [N], items that are drawn by the source ``new`` only, until users have bought them; None: no item.
            arrival_day: of the episode, from which on they are.

        Raises:
            ScenarioError: the catalogue holds fewer items than the scenario wants candidates.
        """
        parts, self.num_items, self.size = actions.candidates, len(popularity), actions.num_candidates
        new = np.zeros(self.num_items, bool) if new is None else new
        check_candidates(actions, new)
        old = np.flatnonzero(~new)
        self._own, self._uniform, self._new, self._arrival_day = parts.own, parts.uniform, parts.new, arrival_day
        self._old_rows = torch.from_numpy(old.astype(np.int32)).to(device)
        self._new_rows = torch.from_numpy(np.flatnonzero(new).astype(np.int32)).to(device)
        by_popularity = self.size - parts.own - parts.uniform + parts.own // 2
        first = max(_MIN_DRAWS, parts.own + parts.uniform + by_popularity)
        self._first = first - parts.own - parts.uniform
        weights = np.asarray(popularity, dtype=np.float64)
        weights = np.where(new, 0.0, weights if weights[old].sum() > 0 else 1.0)
        accept, alias = _alias_table(weights)
        accept[new], alias[new] = 0, np.where(new[alias], weights.argmax(), alias)[new]
        self._accept, self._alias = torch.from_numpy(accept).to(device), torch.from_numpy(alias).to(device)
        order = old[np.argsort(-weights[old], kind="stable")[: self.size]]
        self._most_popular = torch.from_numpy(order.astype(np.int32)).to(device)
        self._counters = torch.arange(1 << _ORDER_BITS, device=device) + _FIRST_COUNTER
        self._places = torch.arange(1 << _ORDER_BITS, dtype=torch.int32, device=device)

    def arguments(self, pool: Pool, day: Tensor, start_day: Tensor) -> tuple[Any, ...]:
        """What the compiled kernels need to draw from ``pool``, after lanes and keys; days are int32 [B]."""
        return (
            *(np.uint64(Purpose.CANDIDATES_ORDER), np.uint64(_FIRST_COUNTER), np.uint64(Purpose.NEW_ITEMS)),
            *(pool.items.numpy(), pool.cost.numpy(), day.numpy(), start_day.numpy()),
            *(self._own, self._new, self._arrival_day, self._uniform, self._first + _EXTRA_DRAWS),
            *(self._old_rows.numpy(), self._new_rows.numpy()),
            *(self._accept.numpy(), self._alias.numpy(), self._most_popular.numpy()),
        )

    def draw(self, key: Tensor, pool: Pool, days: Tensor | None = None) -> Tensor:
        """Candidates int32 [B, M], distinct in each row and in random order.

        Args:
            key: step keys, int64 [B].
            pool: users' own items.
            days: since the episode began, int32 [B]; None: 0.
        """
        days = torch.zeros_like(key, dtype=torch.int32) if days is None else days
        size = pool.items.shape[1]
        if compiled.runs_on(key):
            out = torch.zeros((len(key), self.size), dtype=torch.int32)
            kernels.draw(
                np.arange(len(key)), key.numpy(), *self.arguments(pool, days, torch.zeros_like(days)), out.numpy()
            )
            return out
        own, uniformly, popular = fold(key[:, None], self._counters[: size + self._uniform + self._first]).split(
            (size, self._uniform, self._first), dim=1
        )
        catalogue = self._old_rows[integers(uniformly, len(self._old_rows))]
        sequence = torch.cat(
            (self._own_items(own, pool), self._new_items(key, days), catalogue, self._popular(popular)), dim=1
        )
        salt = fold(key, Purpose.CANDIDATES_ORDER)[:, None]
        chosen, complete = self._first_distinct(salt, sequence)
        if not complete.all():
            lanes = (~complete).nonzero().squeeze(1)
            first = size + self._uniform + self._first
            more = fold(key[lanes, None], self._counters[first : first + _EXTRA_DRAWS])
            longer = (sequence[lanes], self._popular(more), self._most_popular.expand(len(lanes), -1))
            chosen[lanes] = self._first_distinct(salt[lanes], torch.cat(longer, dim=1))[0]
        return chosen

    def _own_items(self, draws: Tensor, pool: Pool) -> Tensor:
        """Own items [B, own] drawn by weight without replacement, -1 where the pool has no more."""
        if self._own == 0:
            return pool.items[:, :0]
        size = pool.items.shape[1]
        race = -uniform(draws).log() * pool.cost  # smallest first
        # Positive floats order as their bits do; the lowest bits make room for the position.
        bits = size.bit_length()
        packed = (race.view(torch.int32) & -(1 << bits)) | self._places[:size]
        return pool.items.gather(1, (smallest(packed, self._own) & ((1 << bits) - 1)).to(torch.int64))

    def _new_items(self, key: Tensor, days: Tensor) -> Tensor:
        """New items [B, new] drawn uniformly, -1 as long as they have not arrived."""
        if self._new == 0:
            return self._new_rows.new_zeros((len(key), 0))
        draws = fold(fold(key, Purpose.NEW_ITEMS)[:, None], self._counters[: self._new])
        drawn = self._new_rows[integers(draws, len(self._new_rows))]
        return torch.where((days >= self._arrival_day)[:, None], drawn, -1)

    def _popular(self, draws: Tensor) -> Tensor:
        """Items by popularity with replacement, from the alias table (Walker, 1977): integers only."""
        cell = integers(draws, self.num_items)
        low = (draws & 0x7FFFFFFF).to(torch.int32)
        return torch.where(low < self._accept[cell], cell.to(torch.int32), self._alias[cell])

    def _first_distinct(self, salt: Tensor, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """The first M distinct items of each row in random order, and whether the row has as many."""
        count = sequence.shape[1]
        # Sorting by a random hash of the item both brings copies together and shuffles. Two items that share a hash
        # stay apart: a copy is told by its item where the hashes meet.
        hashed = mix(sequence.to(torch.int64) ^ salt)
        keys = sort_rows((hashed & -(1 << _ORDER_BITS)) | self._places[:count])
        position = keys & ((1 << _ORDER_BITS) - 1)
        items = sequence.gather(1, position)
        fresh = items >= 0
        fresh[:, 1:] &= items[:, 1:] != items[:, :-1]
        in_order = torch.zeros_like(fresh).scatter_(1, position, fresh)
        rank = in_order.cumsum(dim=1, dtype=torch.int32)
        complete = rank[:, -1] >= self.size
        kept = (in_order & (rank <= self.size)).gather(1, position)
        place = kept.cumsum(dim=1, dtype=torch.int32) - 1
        place = torch.where(kept, place, self.size).to(torch.int64)  # the last column takes what is left over
        out = torch.zeros((len(sequence), self.size + 1), dtype=torch.int32, device=sequence.device)
        return out.scatter_(1, place, items)[:, : self.size].contiguous(), complete


def check_candidates(actions: Actions, new: np.ndarray) -> None:
    """Refuses a catalogue that holds fewer items than are wanted as candidates; ``new`` bool [N] says what is new.

    Raises:
        ScenarioError: it does.
    """
    size, num_items, num_new = actions.num_candidates, len(new), int(new.sum())
    if num_items < size:
        raise ScenarioError(
            f"actions.num_candidates is {size}, but the world holds {num_items} items only; give at most {num_items}"
        )
    if size > MAX_CANDIDATES:
        raise ScenarioError(f"actions.num_candidates is {size}; at most {MAX_CANDIDATES} can be drawn a step")
    if actions.candidates.new > num_new or num_items - num_new < size:
        raise ScenarioError(
            f"actions.candidates.new is {actions.candidates.new} and actions.num_candidates is {size}, but the world "
            f"holds {num_new} new items and {num_items - num_new} others; change items.arrivals.share"
        )


def _alias_table(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker's alias table: acceptance thresholds int32 (out of 2**31) and aliases int32, both [N]."""
    size = len(weights)
    scaled = weights * (size / weights.sum())
    accept, alias = np.ones(size), np.arange(size)
    small, large = list(np.flatnonzero(scaled < 1.0)), list(np.flatnonzero(scaled >= 1.0))
    while small and large:
        low, high = small.pop(), large.pop()
        accept[low], alias[low] = scaled[low], high
        scaled[high] -= 1.0 - scaled[low]
        (small if scaled[high] < 1.0 else large).append(high)
    return np.minimum(accept * 2.0**31, 2.0**31 - 1).astype(np.int32), alias.astype(np.int32)
