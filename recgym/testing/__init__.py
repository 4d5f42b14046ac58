"""Conformance suites for what users of RecGym bring: user models, agents, worlds and scenarios."""

from __future__ import annotations

from recgym.testing.agents import check_agent
from recgym.testing.bundles import check_world
from recgym.testing.report import ConformanceError, Finding, Report
from recgym.testing.scenarios import check_scenario
from recgym.testing.user_models import check_user_model

__all__ = [
    "ConformanceError",
    "Finding",
    "Report",
    "check_agent",
    "check_scenario",
    "check_user_model",
    "check_world",
]
