"""Fairness of an agent's rows: gaps between groups of its users, and what groups of providers get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from recgym.errors import RecGymError
from recgym.evaluation import aggregate
from recgym.evaluation.metrics.arrays import Floats
from recgym.evaluation.metrics.provider_fairness import parity
from recgym.evaluation.metrics.user_fairness import group_gap, relative_spread
from recgym.evaluation.statistics import Estimate

# Utilities of users: id -> title, numerator and denominator of each user's number.
UTILITIES = {
    "reward": ("reward", "reward", None),
    "parity": ("share of slates with something taken", "num_hits", "num_steps"),
    "opportunity": ("share of wanted items shown", "recall_sum", "num_answerable"),
}
PROVIDER_METRICS = {
    "exposure_parity": (
        "exposure parity",
        "Attention an item of the group, on all slates: the smallest rate over the largest; 1 is fair (Singh and "
        "Joachims, 2018).",
    ),
    "exposed_utility": (
        "exposed utility",
        "Attention over relevance of the group, on first slates of visits: the smallest rate over the largest; 1 is "
        "fair (ibidem).",
    ),
    "realised_utility": (
        "realised utility",
        "Items consumed over relevance of the group, on first slates of visits: the smallest rate over the largest; 1 "
        "is fair (ibidem).",
    ),
    "rsp": ("RSP", "Spread over groups of the chance that a candidate is shown; 0 is fair (Zhu et al., 2020)."),
    "reo": ("REO", "The same of candidates that the user wants; 0 is fair (ibidem)."),
    "expected_exposure": (
        "exposure loss",
        "Squared gap between the groups' shares of attention on first slates and those an ideal ranking gives (Diaz et "
        "al., 2020).",
    ),
    "awrf": (
        "AWRF",
        "Distance of the groups' shares of attention on first slates from their shares of relevance; 0 is fair "
        "(Sapiezynski et al., 2019).",
    ),
}
# Attention on all slates, and what first slates of visits tell, where relevance is known.
_SUMS = ("attention", "received", "taken", "relevance", "due", "offered", "wanted", "placed", "found")


def user_gaps(
    rows: pd.DataFrame, labels: pd.Series, rng: np.random.Generator, *, draws: int, permutations: int
) -> Iterator[tuple[str, Any]]:
    """The gap of each utility between groups of users.

    Args:
        rows: of one agent in one scenario.
        labels: group by user.
        rng: source of the resamples and permutations.
        draws: resamples.
        permutations: of the labels.

    Yields:
        utility and ``GroupGap``, or utility and why there is none.
    """
    sums = rows.groupby("user", sort=True)[["reward", "num_hits", "num_steps", "recall_sum", "num_answerable"]].sum()
    sizes = rows.groupby("user", sort=True).size()
    for utility, (_, top, bottom) in UTILITIES.items():
        below = sizes if bottom is None else sums[bottom]
        values = (sums[top] / below)[below > 0]
        users = values.index.to_numpy()
        try:
            groups = labels.reindex(users).to_numpy()
            yield utility, group_gap(values, users, groups, rng, draws=draws, permutations=permutations)
        except RecGymError as error:
            yield utility, str(error)


def provider_scores(
    table: pd.DataFrame, sizes: Mapping[str, int], rng: np.random.Generator, *, draws: int
) -> dict[str, Estimate]:
    """``PROVIDER_METRICS`` of one agent in one scenario and one attribute, intervals clustered by user.

    Args:
        table: rows of ``providers.parquet``.
        sizes: items of each group.
        rng: source of the resamples.
        draws: resamples.
    """
    groups = [group for group in sizes if group in set(table["group"])]
    wide = table.groupby(["user", "group"], sort=True)[list(_SUMS)].sum().unstack("group", fill_value=0.0)
    sums = {name: wide[name][groups].to_numpy(np.float64) for name in _SUMS}  # each [C, G]
    items = np.array([sizes[group] for group in groups], np.float64)

    def statistic(weights: Floats) -> Floats:
        of = {name: weights @ values for name, values in sums.items()}  # each [d, G]
        shares = {name: _over(of[name], of[name].sum(1, keepdims=True)) for name in ("received", "relevance", "due")}
        found: Floats = np.stack(
            [
                parity(of["attention"] / items),
                parity(_over(of["received"], of["relevance"])),
                parity(_over(of["taken"], of["relevance"])),
                relative_spread(_over(of["placed"], of["offered"])),
                relative_spread(_over(of["found"], of["wanted"])),
                ((shares["received"] - shares["due"]) ** 2).sum(1),
                np.abs(shares["received"] - shares["relevance"]).sum(1) / 2,
            ],
            axis=1,
        )
        return found

    estimates = aggregate.bootstrap(statistic, wide.index.to_numpy(), rng, draws=draws)
    return dict(zip(PROVIDER_METRICS, estimates, strict=True))


def exposure_shares(table: pd.DataFrame, rng: np.random.Generator, *, draws: int) -> pd.DataFrame:
    """Each group's share of attention on first slates, with its interval, beside its shares of relevance there.

    Args:
        table: rows of ``providers.parquet``, of one agent, scenario and attribute.
        rng: source of the resamples.
        draws: resamples.

    Returns:
        columns group, value, low, high, relevance, taken.
    """
    wide = table.groupby(["user", "group"], sort=True)[["received", "relevance", "taken"]].sum().unstack("group")
    received = wide["received"].to_numpy(np.float64)

    def shares(weights: Floats) -> Floats:
        sums = weights @ received
        return _over(sums, sums.sum(1, keepdims=True))

    estimates = aggregate.bootstrap(shares, wide.index.to_numpy(), rng, draws=draws)
    total = wide.sum()
    return pd.DataFrame(
        [
            {
                "group": group,
                **{name: getattr(estimate, name) for name in ("value", "low", "high")},
                **{
                    name: float(total[name][group] / total[name].sum()) if total[name].sum() > 0 else np.nan
                    for name in ("relevance", "taken")
                },
            }
            for group, estimate in zip(wide["received"].columns, estimates, strict=True)
        ]
    )


def _over(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=np.asarray(bottom) > 0)
