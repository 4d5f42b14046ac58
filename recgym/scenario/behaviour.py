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


class PriceImage(Section):
    """How dear a shop looks, and what that does to returns."""

    effect: float = assumed(
        0.0,
        "The hazard of returning is multiplied by exp(-effect * (price image - 1/2)). The price image is the running "
        "mean of how dear the items were that were looked at: the share of the log's purchases that cost less, so that "
        "what users buy when nobody recommends has a mean of 1/2; 0: prices change no visits.",
        "Hamilton and Chernev, Low prices are just the beginning: price image in retail management, Journal of "
        "Marketing 2013",
        ge=0,
    )
    rate: float = assumed(
        0.2,
        "Weight of the latest slate in the price image.",
        "Mazumdar, Raj and Sinha, Reference price research: review and propositions, Journal of Marketing 2005",
        gt=0,
        le=1,
    )


class Boredom(Section):
    """How much of the same makes a user want less of it."""

    strength: float = assumed(
        0.0,
        "Odds of wanting an item are divided by ((1 + recent exposures to its topic) / (1 + tolerance)) ** strength "
        "where exposures exceed the tolerance; 0: no boredom.",
        "Warlop, Lazaric and Mary, Fighting boredom in recommender systems with linear reinforcement learning, "
        "NeurIPS 2018",
        ge=0,
    )
    tolerance: float = assumed(
        0.0,
        "Recent exposures to a topic that do not bore yet.",
        "Deffayet, Thonet, Hwang, Lehoux, Renders and de Rijke, SARDINE: a simulator for automated recommendation in "
        "dynamic and interactive environments, ACM Transactions on Recommender Systems 2024",
        ge=0,
    )
    half_life: float = assumed(
        7.0,
        "Days in which exposures fade by half.",
        "Kapoor, Subbian, Srivastava and Schrater, Just in time recommendations: modeling the dynamics of boredom in "
        "activity streams, WSDM 2015",
        gt=0,
    )


class Drift(Section):
    """Taste that drifts towards what is shown."""

    strength: float = assumed(
        0.0,
        "Added to the logit of wanting an item: strength * (the topic's share of what was looked at lately - its share "
        "of the catalogue); 0: no drift.",
        "Jiang, Chiappa, Lattimore, György and Kohli, Degenerate feedback loops in recommender systems, AIES 2019",
        ge=0,
    )
    rate: float = assumed(
        0.05,
        "Weight of the latest slate in what was looked at lately.",
        "Kalimeris, Bhagat, Kalyanaraman and Weinsberg, Preference amplification in recommender systems, KDD 2021",
        gt=0,
        le=1,
    )


class Shift(Section):
    """Taste that changes once."""

    strength: float = assumed(
        0.0,
        "From a day on every user's logits rise by this for a random half of the topics and fall for the others; 0: "
        "nothing changes.",
        "Gama, Žliobaitė, Bifet, Pechenizkiy and Bouchachia, A survey on concept drift adaptation, ACM Computing "
        "Surveys 2014",
        ge=0,
    )
    day: int = assumed(
        45,
        "Days into the episode at which it changes.",
        "Gama, Žliobaitė, Bifet, Pechenizkiy and Bouchachia, A survey on concept drift adaptation, ACM Computing "
        "Surveys 2014",
        ge=0,
    )


class Delay(Section):
    """Purchases that follow trips after the click."""

    share: float = assumed(
        0.0,
        "Chance that an item that is wanted is put aside and bought on a later trip; 0: all are bought at once.",
        "Chapelle, Modeling delayed feedback in display advertising, KDD 2014",
        ge=0,
        le=1,
    )
    trips: float = assumed(
        2.0,
        "Mean number of trips until it is bought, geometric.",
        "Chapelle, Modeling delayed feedback in display advertising, KDD 2014",
        ge=1,
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
    price_image: PriceImage = PriceImage()
    topics: Literal["category", "subcategory"] = assumed(
        "category",
        "Item attribute by which boredom, drift and a change of taste tell topics apart.",
        "Kunaver and Požrl, Diversity in recommender systems: a survey, Knowledge-Based Systems 2017",
    )
    boredom: Boredom = Boredom()
    drift: Drift = Drift()
    shift: Shift = Shift()
    delay: Delay = Delay()
    price_elasticity: float = assumed(
        2.6,
        "A promotion adds this times -log(1 - discount) to the logit of wanting an item.",
        "Bijmolt, van Heerde and Pieters, New empirical generalizations on the determinants of price elasticity, "
        "Journal of Marketing Research 2005",
        ge=0,
    )
