"""The metrics of an evaluation: what is measured of its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recgym.evaluation.metrics.arrays import Floats
from recgym.evaluation.metrics.engagement import WINDOWS

FIRST = (1, 5, 20)  # slates of an episode after which the reward so far is kept
FAMILIES = {
    "engagement": "Engagement",
    "accuracy": "Accuracy",
    "beyond": "Beyond accuracy",
    "objective": "Objective",
    "simulator": "Simulator",
}


@dataclass(frozen=True)
class Metric:
    """A number an agent is scored by: a sum over episodes divided by another.

    Attributes:
        id: its name in JSON.
        title: its name in tables.
        description: one sentence with the unit.
        numerator: rows -> [R].
        denominator: rows -> [R].
        needs: columns without which the metric does not exist; a row without a value in them is left out.
        family: ``engagement``, ``accuracy`` or ``beyond``.
        without: why it does not exist where a column of ``needs`` is missing or empty.
    """

    id: str
    title: str
    description: str
    numerator: Callable[[pd.DataFrame], pd.Series]
    denominator: Callable[[pd.DataFrame], pd.Series]
    needs: tuple[str, ...] = ()
    family: str = "engagement"
    without: str = "the rows do not tell"

    def parts(self, rows: pd.DataFrame) -> tuple[Floats, Floats] | None:
        """Numerator and denominator [R], 0 in rows without a value; None where the metric does not exist."""
        if any(name not in rows for name in self.needs):
            return None
        known = np.ones(len(rows), bool)
        for name in self.needs:  # whole numbers and truth values are always there
            if rows[name].dtype.kind not in "iub":
                known &= rows[name].notna().to_numpy()
        if not known.any():
            return None
        top, bottom = (np.where(known, part(rows), 0.0) for part in (self.numerator, self.denominator))
        return (top, bottom) if bottom.sum() > 0 else None


def _episodes(rows: pd.DataFrame) -> pd.Series:
    return pd.Series(1.0, index=rows.index)


def _column(name: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda rows: rows[name].astype(float)


def _sum(
    id: str,
    title: str,
    description: str,
    numerator: str,
    denominator: str | None = None,
    *,
    family: str = "engagement",
    without: str = "the rows do not tell",
) -> Metric:
    """A metric that is the sum of one column over that of another (None: over the episodes)."""
    needs = tuple(name for name in (numerator, denominator) if name)
    bottom = _episodes if denominator is None else _column(denominator)
    return Metric(id, title, description, _column(numerator), bottom, needs, family, without)


_SESSIONS = "episodes are single visits"
_MIX = "the log tells no categories of these users"


def _satisfied(rows: pd.DataFrame) -> pd.Series:
    rated = rows["num_rated"].sum() > 0
    return (rows["rating_sum"] - rows["num_rated"]) / 4 if rated else rows["num_consumed"].astype(float)


def _satisfiable(rows: pd.DataFrame) -> pd.Series:
    return (rows["num_rated"] if rows["num_rated"].sum() > 0 else rows["num_examined"]).astype(float)


METRICS = (
    _sum("reward", "reward", "Reward of an episode.", "reward"),
    _sum("reward_per_step", "per slate", "Reward of a slate.", "reward", "num_steps"),
    Metric(
        "session_depth",
        "depth",
        "Slates a visit.",
        _column("num_steps"),
        lambda rows: rows["num_trips"].astype(float) if "num_trips" in rows else _episodes(rows),
        ("num_steps",),
    ),
    _sum(
        "hit_rate",
        "hit rate",
        "Share of slates from which at least one item was consumed.",
        "num_hits",
        "num_steps",
    ),
    _sum("precision", "taken", "Share of shown items that were consumed.", "num_consumed", "num_shown"),
    Metric(
        "satisfaction",
        "satisfaction",
        "From 0 to 1: of the ratings given; where nobody rates, the share of items looked at that were consumed.",
        _satisfied,
        _satisfiable,
        ("num_rated", "rating_sum", "num_examined"),
    ),
    _sum("discoveries", "new", "Different items consumed in an episode that the user never had before.", "num_new"),
    _sum(
        "revenue",
        "revenue",
        "Units bought times their price, an episode.",
        "revenue",
        without="the world has no prices",
    ),
    _sum(
        "lifetime_value",
        "lifetime value",
        "Revenue (reward, in worlds without prices) of an episode, discounted by 10% a year from the first visit.",
        "lifetime_value",
        without=_SESSIONS,
    ),
    _sum(
        "return_time",
        "return time",
        "Days to the next visit, where there was one.",
        "gap_sum",
        "num_gaps",
        without=_SESSIONS,
    ),
    *(
        _sum(
            f"{kind}_{days}",
            f"{title} {days}",
            f"Share of users {what} {days} days after the first visit.",
            f"{kind}_{days}",
            without=f"episodes are single visits, or last {short}",
        )
        for days in WINDOWS
        for kind, title, what, short in (
            ("returned", "back in", "who came back within", f"{days} days or less"),
            ("retained", "retained", "who visit on or after the day", f"less than {days} days"),
        )
    ),
    *(
        _sum(
            id,
            title,
            f"{text} of the first slate of a visit, against what the user wants of the candidates if looking.",
            f"{id}_sum",
            bottom,
            family="accuracy",
            without="nothing was wanted, or nothing judged",
        )
        for id, title, text, bottom in (
            ("precision_true", "precision", "Share of wanted items", "num_judged"),
            ("recall", "recall", "Share of the wanted items that are", "num_answerable"),
            ("ndcg", "NDCG", "Normalised discounted cumulative gain", "num_answerable"),
            ("mrr", "MRR", "Reciprocal rank of the first wanted item", "num_judged"),
        )
    ),
    _sum(
        "regret",
        "regret",
        "Expected reward that the first slate of a visit gives away against the best slate under the true model.",
        "regret_sum",
        "num_judged",
        family="accuracy",
    ),
    *(
        _sum(
            f"behind_{count}",
            f"regret to {count}",
            f"Reward of the best privileged agent until slate {count} of the same episode, less the agent's own.",
            f"behind_first_{count}",
            family="accuracy",
            without="no privileged agent took part to be measured against",
        )
        for count in FIRST
    ),
    _sum(
        "popularity",
        "popularity",
        "Average recommendation popularity: mean number of logged purchases of a shown item (Yin et al., 2012).",
        "popularity_shown",
        "num_shown",
        family="beyond",
    ),
    _sum(
        "tail",
        "tail",
        "Share of the long tail in what is shown (APLT; Abdollahpouri et al., 2017).",
        "num_tail",
        "num_shown",
        family="beyond",
    ),
    _sum(
        "diversity",
        "diversity",
        "Share of the pairs of a slate whose categories differ (Ziegler et al., 2005).",
        "diversity_sum",
        "num_steps",
        family="beyond",
    ),
    _sum(
        "novelty",
        "novelty",
        "Bits of surprise at a shown item, by its popularity (Zhou et al., 2010).",
        "information_shown",
        "num_shown",
        family="beyond",
    ),
    _sum(
        "serendipity",
        "serendipity",
        "Share of shown items that were consumed, for the first time by the user, and none of the most popular "
        "candidates (Ge et al., 2010).",
        "num_serendipitous",
        "num_shown",
        family="beyond",
    ),
    _sum(
        "disagreement",
        "disagreement",
        "How unsure the simulator is of what the agent shows: standard deviation of the chance of a purchase between "
        "the members of an ensemble, a mean over shown items.",
        "disagreement",
        family="simulator",
        without="the users are no ensemble (user model `ensemble`)",
    ),
    _sum(
        "unseen",
        "new items shown",
        "Share of shown items that no log has seen.",
        "num_unseen",
        "num_shown",
        family="beyond",
    ),
    _sum(
        "unseen_taken",
        "new items taken",
        "Share of the new items shown that were consumed.",
        "num_unseen_consumed",
        "num_unseen",
        family="beyond",
        without="no new items arrive, or none was shown",
    ),
    _sum(
        "ndcg_unseen",
        "NDCG of new items",
        "NDCG of the first slate of a visit where nothing counts but wanted items that no log has seen.",
        "ndcg_unseen_sum",
        "num_answerable_unseen",
        family="accuracy",
        without="no new items arrive, or none was wanted",
    ),
    _sum(
        "miscalibration",
        "miscalibration",
        "Divergence in nats of the categories shown from those of the user's log (Steck, 2018).",
        "miscalibration",
        family="beyond",
        without=_MIX,
    ),
    *(
        _sum(
            f"entropy{suffix}",
            f"entropy{title}",
            f"Bits of entropy of the categories shown on a visit{where} (Nguyen et al., 2014).",
            f"entropy{suffix}_sum",
            f"num_visits{suffix}",
            family="beyond",
            without=_SESSIONS if suffix else "no visits were given",
        )
        for suffix, title, where in (
            ("", "", ""),
            ("_early", ", early", " in the first third of the horizon"),
            ("_late", ", late", " in the last third of the horizon"),
        )
    ),
)


def term_metrics(rows: pd.DataFrame) -> tuple[Metric, ...]:
    """The scenario's own terms, and what its constraints cost, as metrics of ``rows``."""
    meanings = {
        "terms": "Mean over slates of a term of the scenario's reward or constraints, unweighted.",
        "costs": "Mean over slates of how far a constrained term lies outside its bounds.",
        "violations": "Share of slates on which a constrained term lies outside its bounds.",
    }
    names = [name for name in rows if name.partition("/")[0] in meanings and rows[name].notna().any()]
    return tuple(
        _sum(name, name.replace("/", ": "), meanings[name.partition("/")[0]], name, "num_steps", family="objective")
        for name in names
    )
