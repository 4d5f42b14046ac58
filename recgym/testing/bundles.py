"""Conformance of a world: its tables fit together, it tells nothing it should not, and its users can be played."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from recgym.registration import USER_MODELS
from recgym.scenario import load_scenario
from recgym.simulation.kernels import sigmoid
from recgym.simulation.observation import OBSERVATION_KEYS, TEXT_SIZE
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import State
from recgym.testing.playing import difference, digest, elsewhere, play, unlike_alone
from recgym.testing.report import Checks, Report
from recgym.testing.user_models import small_actions
from recgym.types import TensorRecord
from recgym.worlds.unseen import UNSEEN_TENSORS
from recgym.worlds.world import World, load_world, verify

LANES = 24
_ITEM_COLUMNS = ("item_id", "title", "category", "subcategory", "brand", "price", "discount", "popularity")
_USER_COLUMNS = ("user_id", "num_trips", "num_events", "last_day", "last_gap", "last_size")


def check_world(world: str | Path | World, *, user_model: str = "preference", processes: bool = True) -> Report:
    """Checks a world: files, tables, ranges, privacy, sane probabilities, batches, hidden state and processes.

    Args:
        world: a name, a bundle's directory or a ``World``.
        user_model: who answers in it, a registered name or a target.
        processes: whether to play it in a new process as well, which takes some seconds.

    Returns:
        what was checked, with hints.

    Raises:
        ConformanceError: each finding says what is wrong and what to change.
        WorldError: the bundle cannot be loaded.
    """
    loaded = load_world(world)
    checks = Checks("world", loaded.name)
    on_disk = (loaded.path / "world.json").is_file()
    if on_disk:
        verify(loaded.path, loaded.spec)
        card = loaded.path / "card.md"
        checks.expect(card.is_file(), "card", f"{card} is missing", "Build the world again: every world has a card")
    _items(checks, loaded)
    _users(checks, loaded)
    _repeats(checks, loaded)
    checks.settle()
    kept = {name: tensor.clone() for name, tensor in {**loaded.item_tensors, **loaded.user_tensors}.items()}
    trace = _played(checks, loaded, user_model)
    for name, tensor in {**loaded.item_tensors, **loaded.user_tensors}.items():
        advice = "A world is shared: whoever plays it copies what it changes"
        checks.expect(torch.equal(tensor, kept[name]), "purity", f"playing it changed its tensor {name!r}", advice)
    if processes and on_disk:
        found = elsewhere("recgym.testing.bundles:digest_of", str(loaded.path), user_model)
        advice = "Its user model depends on the process: check it with check_user_model"
        checks.expect(found == digest(trace), "processes", "in a new process its users play otherwise", advice)
    elif processes:
        checks.hints.append("it lives in memory only: not played in a new process")
    return checks.report()


def _items(checks: Checks, world: World) -> None:
    items, size = world.items, world.num_items
    rows = checks.expect(
        len(items) == size,
        "items",
        f"world.json says {size} items, the table holds {len(items)}",
        "num_items is the number of rows of items.parquet",
    )
    missing = [name for name in _ITEM_COLUMNS if name not in items]
    advice = "See recgym.worlds.world.World.items"
    if not checks.expect(not missing, "items", f"items lack the columns {', '.join(missing)}", advice) or not rows:
        checks.settle()
    twice = items["item_id"][items["item_id"].duplicated()]
    checks.expect(
        twice.empty, "items", f"item_id {twice.iloc[0] if len(twice) else ''!r} stands twice", "Ids are unique"
    )
    for name, high in (("popularity", np.inf), ("price", np.inf), ("discount", 1.0)):
        values = pd.to_numeric(items[name], errors="coerce").dropna()
        bad = values[(values < 0) | (values > high)]
        shown = bad.iloc[0] if len(bad) else ""
        checks.expect(bad.empty, "ranges", f"items have {name} {shown}", f"{name} lies in 0 to {high:g}")
    for name, tensor in world.item_tensors.items():
        length = len(tensor) if name in UNSEEN_TENSORS else size
        checks.expect(
            len(tensor) == length and bool(torch.isfinite(tensor).all()),
            "items",
            f"item tensor {name!r} has shape {tuple(tensor.shape)} or values that are not finite",
            f"[{size}, ...], finite",
        )
    text = world.item_tensors.get("text_pca")
    checks.expect(
        text is not None and tuple(text.shape) == (size, TEXT_SIZE),
        "items",
        "item tensor 'text_pca' is missing or of another shape",
        f"[{size}, {TEXT_SIZE}] float32; zeros where items have no text",
    )


def _users(checks: Checks, world: World) -> None:
    users, size = world.users, world.num_users
    missing = [name for name in (*_USER_COLUMNS, *world.spec.attributes) if name not in users]
    checks.expect(
        len(users) == size and not missing,
        "users",
        f"world.json says {size} users, the table holds {len(users)} and lacks the columns {missing}",
        "See recgym.worlds.world.World.users",
    )
    checks.settle()
    twice = users["user_id"][users["user_id"].duplicated()]
    checks.expect(
        twice.empty, "users", f"user_id {twice.iloc[0] if len(twice) else ''!r} stands twice", "Ids are unique"
    )
    for name, levels in world.spec.attributes.items():
        other = sorted({str(value) for value in users[name].dropna()} - set(levels))
        checks.expect(
            not other, "users", f"attribute {name!r} has the values {other}", f"The levels are {', '.join(levels)}"
        )


def _repeats(checks: Checks, world: World) -> None:
    offsets, items = world.repeats.offsets, world.repeats.values["items"]
    right = checks.expect(
        len(offsets) == world.num_users + 1 and bool((offsets.diff() >= 0).all()) and int(offsets[-1]) == len(items),
        "records",
        "repeat_offsets do not cut repeat_items into one part a user",
        "num_users + 1 offsets, rising from 0 to the number of entries",
    )
    inside = len(items) == 0 or (int(items.min()) >= 0 and int(items.max()) < world.num_items)
    checks.expect(inside, "records", "repeat_items hold rows that are no items", f"0 to {world.num_items - 1}")
    if right and inside and len(items):
        owner = torch.repeat_interleave(torch.arange(world.num_users), offsets.diff())
        pairs = owner * world.num_items + items
        checks.expect(
            bool((pairs.diff() > 0).all()),
            "records",
            "the record of a user names an item twice, or items out of order",
            "One entry an item, rows ascending",
        )
    private = sorted(name for name in world.user_tensors if "time" in name or "basket" in name)
    checks.expect(
        not private,
        "privacy",
        f"it holds {', '.join(private)}",
        "A bundle holds derived state of users, never the lines of their log",
    )


def _played(checks: Checks, world: World, user_model: str) -> list[dict[str, torch.Tensor]]:
    users = USER_MODELS.load(user_model)(world, "cpu")
    scenario = load_scenario("default", small_actions(world))
    simulator = Simulator(world, scenario, user_model=users)
    lanes = torch.arange(LANES)
    trace = play(simulator, lanes)
    found = unlike_alone(simulator, trace)
    checks.expect(found is None, "batch", f"{found}", "Check its user model: recgym check user-model")
    again = difference(trace, play(simulator, lanes), range(LANES))
    checks.expect(again is None, "determinism", f"played twice, it differs in {again}", "Check its user model")
    state = simulator.reset(lanes * 7 + 5, lanes % 3)
    expect_hidden(checks, simulator, state)
    items = state.candidates.to(torch.int64)
    zero = torch.zeros(items.shape)
    q = sigmoid(users.appraise(state.hidden, items, zero, zero, state.visit).logit)
    low, high = (float(value) for value in q.quantile(torch.tensor([0.01, 0.99])))
    checks.expect(
        0.0 <= low <= high <= 1.0,
        "probabilities",
        f"chances of items lie between {low:g} and {high:g}",
        "Logits have to be finite",
    )
    if low > 0.45 and high < 0.75:
        checks.hints.append(f"nearly all chances lie in {low:.2f} to {high:.2f}: is a sigmoid applied twice?")
    if high > 0.999 and low > 0.999 or high < 1e-6:
        checks.hints.append(f"chances of items are all near {high:g}: there is nothing to learn")
    return trace


def expect_hidden(checks: Checks, simulator: Simulator, state: State) -> None:
    """That no observation changes with the hidden state of users."""
    scrambled = dataclasses.replace(state.clone(), hidden=_scrambled(state.hidden))
    seen, other = simulator.observe(state, OBSERVATION_KEYS), simulator.observe(scrambled, OBSERVATION_KEYS)
    for key, value in seen.items():
        checks.expect(
            torch.equal(value, other[key]),
            "hidden state",
            f"observation {key!r} changes with the hidden state of users",
            "Observations are made of the record, the visit and the slates so far alone",
        )
    checks.settle()


def _scrambled(hidden: TensorRecord) -> TensorRecord:
    def scramble(tensor: torch.Tensor) -> torch.Tensor:
        return ~tensor if tensor.dtype == torch.bool else tensor.flip(0) + 1

    return hidden.map(scramble)


def digest_of(world: str, user_model: str) -> str:
    """What is played in the bundle at ``world``, as a digest; for ``elsewhere``."""
    loaded = load_world(Path(world))
    return digest(_played(Checks("world", loaded.name), loaded, user_model))
