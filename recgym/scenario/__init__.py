"""Scenarios: the typed YAML schema and its loader."""

from __future__ import annotations

from recgym.scenario.base import Section
from recgym.scenario.behaviour import Behaviour, Examination, Satisfaction
from recgym.scenario.loader import before_arrivals, load_scenario
from recgym.scenario.objective import Constraint, Objective, Term
from recgym.scenario.schema import (
    ActionMode,
    Actions,
    Candidates,
    Env,
    Episode,
    Evaluation,
    Observation,
    ObservationKey,
    Scenario,
)

__all__ = [
    "ActionMode",
    "Actions",
    "Behaviour",
    "Candidates",
    "Constraint",
    "Env",
    "Episode",
    "Evaluation",
    "Examination",
    "Objective",
    "Observation",
    "ObservationKey",
    "Satisfaction",
    "Scenario",
    "Section",
    "Term",
    "before_arrivals",
    "load_scenario",
]
