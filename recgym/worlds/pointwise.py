"""Held-out trips, item by item: ranking, AUC, log loss and calibration of q, for everybody and for groups of users."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recgym.evaluation.fidelity.calibration import Mass, brier_scores, calibration_floor, log_losses, reliability
from recgym.evaluation.statistics import Estimate, means
from recgym.user_models.preference.metrics import ndcg_and_recall
from recgym.user_models.preference.trips import Trips
from recgym.worlds.views import HeldOut

NEGATIVES = 100  # per user and kind
PROBED = 100  # items a user whose chances are checked: those of highest q, and as many sampled by popularity
SAMPLES = 20  # times that items are sampled: a single sample holds too few purchases to tell its lower bins from chance
PSEUDO_TRIPS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)  # of the personal-frequency predictor; chosen on validation
HISTORY = {"0": (0, 0), "1-5": (1, 5), "6-20": (6, 20), ">20": (21, 10**9)}  # trips before the held-out one
CHUNK = 256  # users whose catalogues are held at once beside the logits
SMALLEST = 1e-9


@dataclass(frozen=True, eq=False)
class Predictors:
    """Chances of every item for P held-out trips: the model's and what it is to beat."""

    logits: Tensor  # [P, N] calibrated logits of q
    held: HeldOut
    num_trips: np.ndarray  # [P] trips of each user before the held-out one
    pseudo_trips: float

    def chances(self, rows: slice) -> dict[str, Tensor]:
        """[n, N] by predictor: the model, each item's base rate, and the user's own frequency shrunk to that rate."""
        rate = self.held.rates.expand(len(self.logits[rows]), -1)
        made = torch.from_numpy(self.num_trips[rows]).float()[:, None]
        own = (self.held.own_counts[rows] + self.pseudo_trips * rate) / (made + self.pseudo_trips)
        return {"model": torch.sigmoid(self.logits[rows]), "base_rate": rate, "personal_frequency": own}

    def labels(self, rows: slice) -> Tensor:
        """Whether each item is in the held-out basket, float32 [n, N]."""
        out = torch.zeros(len(self.logits[rows]), self.logits.shape[1])
        for row, basket in enumerate(self.held.baskets[rows]):
            out[row, basket] = 1.0
        return out

    def blocks(self) -> list[slice]:
        """The users in chunks."""
        return [slice(start, start + CHUNK) for start in range(0, len(self.logits), CHUNK)]


def choose_pseudo_trips(trips: Trips) -> float:
    """Pseudo-trips of the personal-frequency predictor: those of least log loss on the validation trips.

    Args:
        trips: the log up to and with the validation trips, each user's last here.
    """
    targets = np.flatnonzero(trips.trip_user_remaining == 0)
    held = HeldOut.of(trips, targets)
    nothing = torch.zeros_like(held.own_counts)
    losses = [
        float(np.mean(catalogue_losses(Predictors(nothing, held, trips.number[targets], m))["personal_frequency"]))
        for m in PSEUDO_TRIPS
    ]
    return PSEUDO_TRIPS[int(np.argmin(losses))]


def catalogue_losses(predictors: Predictors) -> dict[str, np.ndarray]:
    """Log loss over the whole catalogue of each held-out trip, in nats, [P] by predictor."""
    parts: dict[str, list[Tensor]] = {}
    for rows in predictors.blocks():
        bought = predictors.labels(rows).bool()
        for name, chance in predictors.chances(rows).items():
            p = chance.clamp(SMALLEST, 1 - 1e-6)
            parts.setdefault(name, []).append(-torch.where(bought, p.log(), (-p).log1p()).sum(1))
    return {name: torch.cat(losses).double().numpy() for name, losses in parts.items()}


def areas(logits: Tensor, held: HeldOut, num_items: int, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Per user, the chance that a bought item scores above a negative (ties count half): negatives -> scorer -> [P].

    Where no item of the sample is a negative, all items not in the basket are; NaN where there are none.
    """
    rng = np.random.default_rng([seed, 17])
    chance = (held.popularity / held.popularity.sum()).numpy()
    out = {}
    for kind, weights in (("uniform", None), ("popularity", chance)):
        found = {name: np.empty(len(logits)) for name in ("model", "own_frequency", "popularity")}
        for row in range(len(logits)):
            basket = held.baskets[row]
            drawn = rng.choice(num_items, NEGATIVES + len(basket), p=weights)
            drawn = drawn[~np.isin(drawn, basket.numpy())][:NEGATIVES]
            negative = torch.from_numpy(drawn if len(drawn) else np.setdiff1d(np.arange(num_items), basket.numpy()))
            scored = {"model": logits[row], "own_frequency": held.own_counts[row], "popularity": held.popularity}
            for name, scores in scored.items():
                above = scores[basket][:, None] - scores[negative][None, :]
                found[name][row] = float(((above > 0).float() + 0.5 * (above == 0).float()).mean())
        out[kind] = found
    return out


@dataclass(frozen=True, eq=False)
class Probes:
    """Chances and outcomes of ``PROBED`` items of each user, by predictor; sampled ``samples`` times."""

    chances: dict[str, np.ndarray]  # [P, n] float64
    outcomes: np.ndarray  # [P, n] 0 or 1
    items: np.ndarray  # [P, n] int64 item rows; a user's may repeat from sample to sample
    samples: int

    def losses(self, name: str) -> np.ndarray:
        """Mean log loss of a pair, by user, [P]."""
        return self._scores(log_losses, self.chances[name].clip(SMALLEST, 1 - 1e-6))

    def briers(self, name: str) -> np.ndarray:
        """Mean Brier score of a pair, by user, [P]."""
        return self._scores(brier_scores, self.chances[name])

    def _scores(self, score: Callable[[np.ndarray, np.ndarray], np.ndarray], chances: np.ndarray) -> np.ndarray:
        means: np.ndarray = score(chances.ravel(), self.outcomes.ravel()).reshape(chances.shape).mean(1)
        return means


def probe(predictors: Predictors, seed: int, samples: int = SAMPLES) -> dict[str, Probes]:
    """Each user's items of highest q, and items sampled by popularity, ``samples`` times (each without repeats)."""
    rng = np.random.default_rng([seed, 19])
    popularity = predictors.held.popularity.double() + 1e-9
    width = min(PROBED, predictors.logits.shape[1])
    chances: dict[str, dict[str, list[Tensor]]] = {"top": {}, "popular": {}}
    outcomes: dict[str, list[Tensor]] = {"top": [], "popular": []}
    picked: dict[str, list[Tensor]] = {"top": [], "popular": []}
    for rows in predictors.blocks():
        logits, labels, predicted = predictors.logits[rows], predictors.labels(rows), predictors.chances(rows)
        # The smallest of exponential times with rates as the popularity: a sample without repeats.
        times = (torch.from_numpy(rng.standard_exponential(logits.shape)) / popularity for _ in range(samples))
        popular = torch.cat([time.topk(width, dim=1, largest=False).indices for time in times], dim=1)
        for name, items in (("top", logits.topk(width, dim=1).indices), ("popular", popular)):
            picked[name].append(items)
            outcomes[name].append(labels.gather(1, items))
            for predictor, chance in predicted.items():
                chances[name].setdefault(predictor, []).append(chance.gather(1, items))
    return {
        name: Probes(
            {predictor: torch.cat(parts).double().numpy() for predictor, parts in chances[name].items()},
            torch.cat(outcomes[name]).double().numpy(),
            torch.cat(picked[name]).numpy(),
            samples if name == "popular" else 1,
        )
        for name in chances
    }


def summarise_probes(probes: Probes, users: np.ndarray, seed: int) -> dict[str, Any]:
    """Reliability, log loss and Brier score of probed items, as JSON values."""
    predicted, outcomes = probes.chances["model"].ravel(), probes.outcomes.ravel()
    both = np.column_stack((1 - predicted, predicted))
    pairs = np.arange(len(probes.items))[:, None] * (probes.items.max() + 1) + probes.items
    same = np.unique(pairs, return_inverse=True)[1].ravel()
    out: dict[str, Any] = {
        "items_per_user": probes.outcomes.shape[1] // probes.samples,
        "samples": probes.samples,
        "pairs": int(same.max()) + 1,
    }
    masses: tuple[Mass, ...] = ("pairs", "predicted")
    for mass in masses:
        table = reliability(predicted, outcomes, mass=mass)
        rng = np.random.default_rng([seed, 41])
        floor = calibration_floor(both, (0, 1), rng, mass=mass, draws=50, same=same)
        out[f"equal_{mass}"] = {
            "bins": table.rows(),  # [mean predicted, observed rate, pairs]
            "bins_within_0.8_and_1.25": table.num_close,
            "bins_of_a_perfect_model": round(floor.num_close, 1),
            "calibration_error": round(table.error, 5),
            "calibration_error_of_a_perfect_model": round(floor.error, 5),
        }
    for score, of in (("log_loss", probes.losses), ("brier", probes.briers)):
        out[score] = summaries({name: of(name) for name in probes.chances}, users, 5)
    return out


def ranking(logits: Tensor, held: HeldOut, trips: Trips, targets: np.ndarray) -> dict[str, Any]:
    """NDCG@10 and Recall@10 of the next trip over the whole catalogue, beside popularity and personal frequency."""
    users = trips.trip_user[targets]
    frequency = held.own_counts + held.popularity / (held.popularity.max() + 1)  # ties by popularity
    scored = {"model": logits, "popularity": held.popularity.expand_as(logits), "personal_frequency": frequency}
    found = {name: ndcg_and_recall(scores, trips, targets) for name, scores in scored.items()}
    out: dict[str, Any] = {
        name: summaries({"ndcg@10": ndcg, "recall@10": recall}, users) for name, (ndcg, recall) in found.items()
    }
    above = found["model"][0] - found["personal_frequency"][0]
    out["model"]["ndcg@10 above personal_frequency"] = summary(above, users)
    return out


def by_group(
    groups: dict[str, np.ndarray],
    found: dict[str, dict[str, np.ndarray]],
    losses: dict[str, np.ndarray],
    top: Probes,
    users: np.ndarray,
) -> list[dict[str, Any]]:
    """The pointwise figures of each group of users (bool [P] by name), as JSON values; empty groups are left out."""
    out = []
    for name, inside in groups.items():
        if not inside.any():
            continue
        expected = float(top.chances["model"][inside].sum())
        out.append(
            {
                "group": name,
                "users": int(inside.sum()),
                "auc": {
                    kind: summaries({scorer: values[inside] for scorer, values in scorers.items()}, users[inside])
                    for kind, scorers in found.items()
                },
                "log_loss": summaries({name: loss[inside] for name, loss in losses.items()}, users[inside]),
                "brier_top": round(float(top.briers("model")[inside].mean()), 5),
                "observed_over_predicted_top": round(float(top.outcomes[inside].sum()) / max(expected, SMALLEST), 4),
            }
        )
    return out


def history_groups(num_trips: np.ndarray) -> dict[str, np.ndarray]:
    """Users by trips before the held-out one, bool [P] by name."""
    return {name: (num_trips >= low) & (num_trips <= high) for name, (low, high) in HISTORY.items()}


def attribute_groups(users: pd.DataFrame, attributes: dict[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    """Users by the level of each observable attribute, bool [U] by name; those without one are a group too."""
    out = {}
    for attribute, levels in attributes.items():
        for level in levels:
            out[f"{attribute}: {level}"] = (users[attribute] == level).to_numpy(bool)
        out[f"{attribute}: unknown"] = (~users[attribute].isin(levels)).to_numpy(bool)
    return out


def summary(values: Tensor | np.ndarray, users: np.ndarray, digits: int = 4) -> list[float | None]:
    """[mean, low, high] with a bootstrap 95% interval over users; no interval where there is one user only.

    Rows with NaN are left out; [None, None, None] where no row is left.
    """
    return summaries({"": values}, users, digits)[""]


def summaries(
    columns: Mapping[str, Tensor | np.ndarray], users: np.ndarray, digits: int = 4
) -> dict[str, list[float | None]]:
    """The ``summary`` of several columns, on the same resamples of the users."""
    values = [np.asarray(column, dtype=np.float64) for column in columns.values()]
    told = ~np.isnan(values).any(0)
    if not told.any():
        return {name: [None, None, None] for name in columns}
    found = means([column[told] for column in values], users[told], np.random.default_rng(0))
    return {name: numbers(estimate, digits) for name, estimate in zip(columns, found, strict=True)}


def numbers(estimate: Estimate, digits: int = 4) -> list[float | None]:
    """[value, low, high] as JSON values."""
    values = (estimate.value, estimate.low, estimate.high)
    return [None if number != number else round(number, digits) for number in values]
