"""Names of the features that observations are made of, in order."""

from __future__ import annotations

from recgym.simulation.observation import OBSERVATION_KEYS
from recgym.simulation.observation import candidate_features as CANDIDATE_FEATURES
from recgym.simulation.observation import user_features as USER_FEATURES

__all__ = ["CANDIDATE_FEATURES", "OBSERVATION_KEYS", "USER_FEATURES"]
