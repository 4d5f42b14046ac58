"""Deterministic splits of a log into training, validation and test events."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import pandas as pd

from recgym.data.interactions import Interactions
from recgym.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """Three disjoint masks over the events of one log, each event in exactly one.

    Attributes:
        kind: name of the rule.
        train: [E] bool.
        validation: [E] bool.
        test: [E] bool.
        parameters: what the rule was given, as JSON values.
        log_hash: ``events_hash`` of the log that was split.
    """

    kind: str
    train: np.ndarray  # [E] bool
    validation: np.ndarray  # [E] bool
    test: np.ndarray  # [E] bool
    parameters: Mapping[str, float | int | str] = field(default_factory=dict)
    log_hash: str = ""

    def __post_init__(self) -> None:
        """Refuses masks that overlap or leave an event out, and empty parts; freezes the masks."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        if not np.all(self.train.astype(int) + self.validation + self.test == 1):
            raise DataError(f"split {self.kind!r}: every event must be in exactly one part")
        for name, mask in parts.items():
            if not mask.any():
                raise DataError(
                    f"split {self.kind!r} leaves no {name} event with {dict(self.parameters)!r}; "
                    f"{', '.join(f'{part}: {int(m.sum()):,}' for part, m in parts.items())}"
                )
            mask.flags.writeable = False
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    @property
    def sizes(self) -> dict[str, int]:
        """Number of events in each part."""
        return {name: int(getattr(self, name).sum()) for name in ("train", "validation", "test")}


def leave_last_basket(log: Interactions, *, min_baskets: int = 3) -> Split:
    """Each user's last basket is test, the one before it validation, the earlier ones training.

    Baskets are ordered by their first event (time, then the log's stable order); two baskets at one time keep that
    order. Users with fewer than ``min_baskets`` baskets are training only.

    Raises:
        DataError: if the log has no ``basket``, a basket belongs to two users, or a part is empty.
    """
    if "basket" not in log:
        raise DataError(f"log {log.name!r} has no column 'basket' for leave_last_basket; use leave_last")
    _at_least("min_baskets", min_baskets, 3)
    basket = pd.factorize(log["basket"])[0]
    pairs = pd.DataFrame({"basket": basket, "user": log.user_rows}).drop_duplicates()
    shared = pairs["basket"].duplicated()
    if shared.any():
        code = int(pairs.loc[shared, "basket"].iloc[0])
        shown = log["basket"][int(np.argmax(basket == code))]
        raise DataError(f"log {log.name!r}: basket {shown!r} belongs to more than one user")
    # The log is sorted by (user, time), so factorize numbers the baskets in the order of their first event.
    owner = pairs["user"].to_numpy()
    from_last = _number_from_last(owner)
    count = np.bincount(owner, minlength=log.num_users)[owner]
    back = np.where(count >= min_baskets, from_last, len(owner))[basket]
    few = int((np.bincount(owner, minlength=log.num_users) < min_baskets).sum())
    parameters: dict[str, float | int | str] = {"min_baskets": min_baskets, "users_training_only": few}
    return _last_two("leave_last_basket", back, parameters, log)


def leave_last(log: Interactions, *, min_events: int = 3) -> Split:
    """Each user's last event is test, the one before it validation, the earlier ones training.

    Events that tie in time keep the log's stable order. Users with fewer than ``min_events`` are training only.

    Raises:
        DataError: if a part is empty.
    """
    _at_least("min_events", min_events, 3)
    count = np.bincount(log.user_rows, minlength=log.num_users)
    back = np.where(count[log.user_rows] >= min_events, _number_from_last(log.user_rows), len(log))
    few = int((count < min_events).sum())
    return _last_two("leave_last", back, {"min_events": min_events, "users_training_only": few}, log)


def global_temporal(
    log: Interactions,
    *,
    validation: float | str | np.datetime64 = 0.1,
    test: float | str | np.datetime64 = 0.1,
) -> Split:
    """Events before one moment are training, events from a later moment on are test, those between are validation.

    Args:
        log: the log.
        validation: fraction of the events, or the first moment of the validation part.
        test: fraction of the events, or the first moment of the test part.

    Events at one time are never separated, so fractions are met up to ties.

    Raises:
        DataError: if a fraction is not in (0, 1), the two kinds are mixed, or a part is empty.
    """
    times = log["time"]
    fractions = [isinstance(value, int | float) for value in (validation, test)]
    if fractions[0] != fractions[1]:
        raise DataError(
            f"validation and test must both be fractions or both be moments, got {validation!r} and {test!r}"
        )
    if fractions[0]:
        shares = float(validation), float(test)
        _fractions(*shares)
        ordered = np.sort(times)
        test_from = ordered[round(len(ordered) * (1 - shares[1]))] if shares[1] * len(ordered) >= 0.5 else ordered[-1]
        validation_from = ordered[min(round(len(ordered) * (1 - shares[0] - shares[1])), len(ordered) - 1)]
    else:
        validation_from, test_from = _moment("validation", validation), _moment("test", test)
        if validation_from >= test_from:
            raise DataError(f"validation must begin before test, got {validation_from} and {test_from}")
    is_test = times >= test_from
    is_validation = (times >= validation_from) & ~is_test
    parameters = {"validation_from": str(validation_from), "test_from": str(test_from)}
    return Split("global_temporal", ~is_test & ~is_validation, is_validation, is_test, parameters, log.events_hash)


def by_user(log: Interactions, *, validation: float = 0.1, test: float = 0.1, seed: int = 0) -> Split:
    """All events of a user go to one part, decided by a hash of (seed, user id).

    Adding users to the log never moves another user, and no random generator is involved.

    Raises:
        DataError: if a fraction is not in (0, 1) or a part is empty.
    """
    _fractions(validation, test)
    draws = np.array([_unit(f"{seed}:{user}") for user in log.users.index])  # [U] in [0, 1)
    draw = draws[log.user_rows]
    is_test = draw < test
    is_validation = (draw >= test) & (draw < test + validation)
    parameters = {"validation": validation, "test": test, "seed": seed}
    return Split("by_user", ~is_test & ~is_validation, is_validation, is_test, parameters, log.events_hash)


def _number_from_last(groups: np.ndarray) -> np.ndarray:
    """[n] int64: 0 for the last entry of each run of equal ``groups``, 1 for the one before it, and so on."""
    if not len(groups):
        return np.zeros(0, np.int64)
    last = np.append(np.flatnonzero(np.diff(groups)), len(groups) - 1)
    run = np.cumsum(np.diff(groups, prepend=groups[0]) != 0)
    return last[run] - np.arange(len(groups))


def _last_two(kind: str, back: np.ndarray, parameters: dict[str, float | int | str], log: Interactions) -> Split:
    return Split(kind, back > 1, back == 1, back == 0, parameters, log.events_hash)


def _unit(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") / 2**64


def _fractions(validation: float, test: float) -> None:
    for name, value in (("validation", validation), ("test", test)):
        if not 0 < value < 1:
            raise DataError(f"{name} must be a fraction in (0, 1), got {value!r}")
    if validation + test >= 1:
        raise DataError(f"validation + test must be below 1, got {validation!r} + {test!r}")


def _moment(name: str, value: float | str | np.datetime64) -> np.datetime64:
    moment = pd.to_datetime(str(value), errors="coerce")
    if pd.isna(moment):
        raise DataError(f"{name} must be a fraction or a moment such as '2017-11-01', got {value!r}")
    return np.datetime64(moment.to_datetime64(), "ns")


def _at_least(name: str, value: int, low: int) -> None:
    if value < low:
        raise DataError(f"{name} must be at least {low} (training, validation and test), got {value!r}")
