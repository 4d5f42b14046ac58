"""Errors of predicted ratings, and what is said where there are too few."""

from __future__ import annotations

import re

import numpy as np

from recgym.benchmark.ratings import Errors

USERS = np.repeat(np.arange(20), 3)


def test_ratio_of_two_errors() -> None:
    """One of them errs twice as much; where a user's ratings are hit exactly, the others tell."""
    error = np.random.default_rng(0).normal(size=len(USERS)) * (USERS > 0)
    one, other = Errors(2 * error, USERS), Errors(error, USERS)
    assert one.ratio(other) == "2.0000 (2.0000 to 2.0000)"
    assert one.ratio(Errors(0 * error, USERS)) == "undefined, the latter makes no error"


def test_an_interval_needs_two_users() -> None:
    error = np.array([0.5, -0.5, 1.0])
    assert Errors(error, np.zeros(3)).interval() == "too few users"
    assert re.fullmatch(r"0\.\d{4} to \d\.\d{4}", Errors(error, np.array([0, 0, 1])).interval())
    assert Errors(error, np.zeros(3)).ratio(Errors(2 * error, np.zeros(3))) == "0.5000 (too few users)"
