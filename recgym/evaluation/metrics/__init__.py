"""Metrics of recommendation: of rows of ``evaluate``, and as pure functions of arrays by theme in the modules here."""

from recgym.evaluation.metrics.definitions import METRICS, Metric
from recgym.evaluation.metrics.rows import NUM_HISTORY_GROUPS, by_history, coverage, score

__all__ = ["METRICS", "NUM_HISTORY_GROUPS", "Metric", "by_history", "coverage", "score"]
