"""Slates against the truth: what a user would have taken of all that could have been shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from recgym.evaluation.metrics import accuracy
from recgym.evaluation.metrics.arrays import Bools, Floats, Ints, row_sums
from recgym.evaluation.metrics.provider_fairness import target_exposure
from recgym.simulation.choice import position_weights
from recgym.simulation.draws import draw
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import State


@dataclass(frozen=True)
class Verdict:
    """The first slate of a visit of n lanes, and the M candidates that it was chosen from.

    The first slate alone: there, what is wanted hangs on nothing that the policy did on this visit, and two policies
    that meet a user with the same luck choose from the same candidates. It also keeps the cost low.
    """

    lanes: Ints  # [n]
    slates: Ints  # [n, K] positions among the candidates
    items: Ints  # [n, M] item rows of the candidates
    relevance: Floats  # [n, M] expected reward of each if looked at
    wanted: Bools  # [n, M] whether the user takes it on this visit if looked at
    attention: Floats  # [K] chance that a position is looked at

    def accuracy(self) -> dict[str, Floats]:
        """[n] each: precision, recall, NDCG and MRR of what was wanted; 0 where nothing was, see ``answerable``."""
        wanted = self.wanted.astype(np.float64)
        answerable: Floats = np.minimum(wanted.sum(axis=1), 1.0)
        return {
            "precision_true_sum": accuracy.precision(self.slates, wanted),
            "recall_sum": np.nan_to_num(accuracy.recall(self.slates, wanted)),
            "ndcg_sum": np.nan_to_num(accuracy.ndcg(self.slates, wanted)),
            "mrr_sum": accuracy.mrr(self.slates, wanted),
            "num_answerable": answerable,
        }

    def of_new(self, unseen: Bools) -> dict[str, Floats]:
        """[n] each: NDCG where nothing but new items counts as wanted; 0 where none was wanted, see ``answerable``.

        Args:
            unseen: [N] items that no log has seen.
        """
        wanted = (self.wanted & unseen[self.items]).astype(np.float64)
        return {
            "ndcg_unseen_sum": np.nan_to_num(accuracy.ndcg(self.slates, wanted)),
            "num_answerable_unseen": np.minimum(wanted.sum(axis=1), 1.0),
        }

    def regret(self) -> Floats:
        """[n] expected reward that the slate gives away: of the most relevant items at the top, less its own."""
        width = self.slates.shape[1]
        best = -np.sort(-self.relevance, axis=1)[:, :width]
        own = np.take_along_axis(self.relevance, self.slates, axis=1)
        return row_sums(best - own, self.attention)

    def received(self) -> Floats:
        """[n, M] the attention that each candidate was given."""
        given = np.zeros(self.relevance.shape)
        np.put_along_axis(given, self.slates, np.broadcast_to(self.attention, self.slates.shape), axis=1)
        return given

    def due(self) -> Floats:
        """[n, M] the attention that an ideal ranking gives; see ``target_exposure``."""
        return target_exposure(self.relevance, self.attention)


def judge(simulator: Simulator, state: State, slates: Ints, playing: Bools) -> Verdict | None:
    """What the truth says of slates about to be shown as the first of a visit; None where there are none.

    Args:
        simulator: of the world and the scenario.
        state: B lanes; it is read only.
        slates: [B, K] positions among the candidates.
        playing: [B] the lanes that count.
    """
    first = playing & (state.visit.step.numpy(force=True) == 0)
    lanes = np.flatnonzero(first)
    shown = np.asarray(slates)[lanes]
    num_candidates = state.candidates.shape[1]
    if not len(lanes) or shown.dtype.kind not in "iu" or shown.min() < 0 or shown.max() >= num_candidates:
        return None  # what is no slate is refused by the step itself
    if (np.diff(np.sort(shown, axis=1), axis=1) == 0).any():
        return None
    part = state if len(lanes) == len(first) else state.select(torch.as_tensor(lanes, device=state.candidates.device))
    items = part.candidates.to(torch.int64)
    chances, appraisal = simulator.chance(part, items)
    nothing = torch.zeros_like(items, dtype=torch.bool)  # has been shown on this trip yet
    relevance = simulator.objective.expected(items, chances, appraisal, nothing)
    want = draw(part.luck, part.visit, items).want
    return Verdict(
        lanes=lanes,
        slates=shown.astype(np.int64),
        items=items.numpy(force=True),
        relevance=np.maximum(relevance.numpy(force=True).astype(np.float64), 0),
        wanted=(want < chances).numpy(force=True),
        attention=attention(simulator),
    )


def attention(simulator: Simulator) -> Floats:
    """[K] chance that each position is looked at; see ``position_weights``."""
    weights = position_weights(simulator.scenario.behaviour, simulator.slate_size)
    return weights.numpy().astype(np.float64)
