"""The user side of a bundle: where each simulated user starts, derived from trips."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recgym.simulation.record import RECORD_SIZE
from recgym.user_models.preference.graph import fold_in
from recgym.user_models.preference.network import PreferenceNetwork
from recgym.user_models.preference.scoring import receptive_field
from recgym.user_models.preference.trips import Trips, draw_tokens


def user_side(
    trips: Trips, network: PreferenceNetwork, item_graph: Tensor, half_life_days: float, seed: int
) -> tuple[dict[str, Tensor], pd.DataFrame]:
    """What a bundle holds about users whose histories are ``trips``.

    Args:
        trips: the histories, up to where the simulation starts.
        network: for the receptive field and the group size.
        item_graph: item graph embeddings [N, d], from which user embeddings fold in.
        half_life_days: of the fold-in weights.
        seed: of the drawing of tokens.

    Returns:
        Tensors (graph [U, d]; token_* and repeat_*, see ``World``) and the per-user columns num_trips, num_events,
        last_day, last_gap, last_size, mean_log_size, mean_log_gap.
    """
    tokens = draw_tokens(trips, np.random.default_rng(seed), network.config.group, 0.0)
    stop = tokens.users[1:]
    start = np.maximum(tokens.users[:-1], stop - receptive_field(network))
    keep = np.concatenate([np.arange(a, b) for a, b in zip(start, stop, strict=True)])
    gap = np.where(tokens.first, trips.gap[tokens.trip], -1)
    repeat_offsets, repeats = _repeat_table(trips)
    narrow = torch.int16 if trips.num_items < 2**15 else torch.int32
    tensors = {
        "graph": fold_in(trips, item_graph, half_life_days).to(torch.float16),
        "token_offsets": torch.from_numpy(np.concatenate(([0], np.cumsum(stop - start)))),
        "token_items": torch.from_numpy(tokens.items[keep]).to(narrow),
        "token_feedback": torch.from_numpy(tokens.feedback[keep]).to(torch.uint8),
        "token_gap": torch.from_numpy(gap[keep].clip(max=2**15 - 1)).to(torch.int16),
        "repeat_offsets": torch.from_numpy(repeat_offsets),
        "repeat_items": torch.from_numpy(repeats["item"].to_numpy(copy=True)).to(narrow),
        "repeat_counts": torch.from_numpy(repeats["count"].to_numpy(copy=True)).to(torch.int16),
        "repeat_last_days": torch.from_numpy(repeats["last_day"].to_numpy(copy=True)).to(torch.int16),
    }
    made = np.diff(trips.users)
    pace = trips.final_pace

    def last(values: np.ndarray, fill: int) -> np.ndarray:
        """The value of each user's last trip."""
        out = np.full(trips.num_users, fill)
        out[made > 0] = values[trips.users[1:][made > 0] - 1]
        return out

    columns = pd.DataFrame(
        {
            "num_trips": made,
            "num_events": np.bincount(trips.trip_user[trips.trip], minlength=trips.num_users),
            "last_day": last(trips.trip_day, int(trips.trip_day.max(initial=0))),
            "last_gap": last(trips.gap, 0),
            "last_size": last(trips.size, 0),
            "mean_log_size": pace[:, 1],
            "mean_log_gap": pace[:, 2],
        }
    )
    return tensors, columns


def _repeat_table(trips: Trips) -> tuple[np.ndarray, pd.DataFrame]:
    events = pd.DataFrame(
        {"user": trips.trip_user[trips.trip], "item": trips.item, "last_day": trips.trip_day[trips.trip]}
    )
    table = events.groupby(["user", "item"], sort=True).agg(count=("last_day", "size"), last_day=("last_day", "max"))
    table = table.reset_index()
    newest = table.groupby("user")["last_day"].rank(method="first", ascending=False)
    table = table[newest <= RECORD_SIZE]
    return np.searchsorted(table["user"], np.arange(trips.num_users + 1)), table
