"""The scenario's section on what a log does not identify about users."""

from __future__ import annotations

from typing import Literal

from recgym.scenario.base import Section, assumed


class Examination(Section):
    """Which positions of a slate a user looks at."""

    model: Literal["position", "cascade"] = assumed(
        "position",
        "position: each position by itself; cascade: from the top, on with chance decay, until something is consumed.",
        "Craswell, Zoeter, Taylor and Ramsey, An experimental comparison of click position-bias models, WSDM 2008",
    )
    decay: float = assumed(
        0.9,
        "Chance of examining position p (from 0) is decay ** p; in a cascade, of going on after an item.",
        "Moffat and Zobel, Rank-biased precision for measurement of retrieval effectiveness, TOIS 2008",
        gt=0,
        le=1,
    )


class Satisfaction(Section):
    """How what a user gets changes when that user comes back."""

    rate: float = assumed(
        0.2,
        "Weight of the latest slate in satisfaction: the running mean of whether a slate held something consumed.",
        "Cai et al., Reinforcing user retention in a billion scale short video recommender system, WWW 2023",
        gt=0,
        le=1,
    )
    return_effect: float = assumed(
        0.5,
        "The fitted hazard of returning is multiplied by exp(return_effect * (satisfaction - its reference)).",
        "Cai et al., Reinforcing user retention in a billion scale short video recommender system, WWW 2023",
        ge=0,
    )


class Behaviour(Section):
    """What a log does not identify about users: every parameter is assumed, with its reference."""

    lift: float = assumed(
        0.7,
        "Added to the logit of buying when an item is examined: logit P(buy | examined) = logit q + lift.",
        "Sato et al., Uplift-based evaluation and optimization of recommenders, RecSys 2019",
    )
    examination: Examination = Examination()
    reexamination: float = assumed(
        0.5,
        "Chance of examining an item is multiplied by this for each time it was examined and declined on the trip.",
        "Ma, Liu and Shen, User fatigue in online news recommendation, WWW 2016",
        ge=0,
        le=1,
    )
    patience: float = assumed(
        0.1,
        "Chance of leaving after a slate on which nothing was bought.",
        "Zhao et al., KuaiSim: a comprehensive user simulator for recommender systems, NeurIPS 2023",
        ge=0,
        le=1,
    )
    satisfaction: Satisfaction = Satisfaction()
