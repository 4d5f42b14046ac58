"""Members of an ensemble are trained for the item table that ships."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recgym.testing.worlds import tiny_world
from recgym.worlds import build, ensemble
from recgym.worlds.build import build_directory
from recgym.worlds.ensemble import add_members
from tests.worlds.test_build import RECIPE, shop


class Asked(Exception):
    """Says for which directory a trainer was made."""


def test_members_for_another_item_table_are_trained_anew(
    recgym_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(data: Any, config: Any, seed: int, directory: Path, *rest: Any) -> None:
        raise Asked(directory)

    monkeypatch.setattr(ensemble, "Trainer", ask)
    monkeypatch.setattr(ensemble, "require_log", lambda world, log: None)
    monkeypatch.setattr(ensemble, "item_texts", lambda prepared, *_: (torch.zeros(len(prepared.items), 16), None))
    world = replace(tiny_world(tmp_path / "tiny"), members=())
    world = replace(world, spec=world.spec.model_copy(update={"config": RECIPE.model_dump(mode="json")}))
    asked = []
    for factor in (1.0, 1.0, 2.0):
        vectors = world.item_tensors["vectors"]
        tables = {**world.item_tensors, "vectors": vectors * factor, "graph": vectors}
        with pytest.raises(Asked) as caught:
            add_members(replace(world, item_tensors=tables), 2, shop())
        asked.append(caught.value.args[0])
    assert asked[0] == asked[1] != asked[2]
    assert all(directory.parent == build_directory(RECIPE, shop()) for directory in asked)


def test_a_build_does_not_go_on_from_checkpoints_of_another_version(
    recgym_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = shop()
    before = build_directory(RECIPE, log)
    monkeypatch.setattr(build, "VERSION", build.VERSION + 1)
    assert build_directory(RECIPE, log) != before
