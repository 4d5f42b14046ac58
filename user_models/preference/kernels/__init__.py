"""Compiled CPU kernels of the preference model: the sequence Transformer, the user state, the responses.

Each computes what its torch twin in ``backends.py``, ``cache.py`` and ``users.py`` does, a lane at a time, with its
temporary values in the nearest cache; products take ``BLOCK`` lanes at a time (``recgym.compiled.products``).
"""

from recgym.user_models.preference.kernels.responses import answer, appraise, respond
from recgym.user_models.preference.kernels.sequence import advance, replay
from recgym.user_models.preference.kernels.state import arrive, away, init, move, refresh, sample
from recgym.user_models.preference.kernels.weights import distribution, head_weights, sequence_weights, state_weights

__all__ = [
    "advance",
    "answer",
    "appraise",
    "arrive",
    "away",
    "distribution",
    "head_weights",
    "init",
    "move",
    "refresh",
    "replay",
    "respond",
    "sample",
    "sequence_weights",
    "state_weights",
]
