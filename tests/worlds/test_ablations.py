"""Ablations: parts that are left out are gone, runs are resumed, the table says what helps."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from recgym.commands.world import app
from recgym.errors import UnknownNameError, WorldError
from recgym.user_models.preference.training import Trainer
from recgym.worlds import ablations
from recgym.worlds.ablations import FULL, MEASURES, VARIANTS, Budget, ablate, compare, findings
from recgym.worlds.card import render_ablations, render_card
from recgym.worlds.world import load_world
from tests.user_models.test_training import CONFIG, small_data
from tests.user_models.test_trips import random_trips
from tests.worlds.test_build import RECIPE, shop


def trained(tmp_path, *without: str, **inputs) -> Trainer:
    data = dataclasses.replace(small_data(random_trips(5, users=30)), **inputs)
    trainer = Trainer(data, CONFIG.model_copy(update={"without": without}), 0, tmp_path)
    trainer.run()
    return trainer


def logits(trainer: Trainer) -> torch.Tensor:
    return trainer.catalogue_logits(np.flatnonzero(trainer.data.trips.trip_user_remaining == 0))


def test_what_is_left_out_is_zero_after_training(tmp_path):
    model = trained(tmp_path, "text", "graph", "sequence", "repeat").model
    items, users = model.items.fusion, model.network.fusion
    left = [items.project["text"], items.gate["text"], items.project["graph"], users.project["graph"]]
    left += [users.project["sequence"], users.gate["sequence"], model.items.text]
    assert all((parameter == 0).all() for module in left for parameter in module.parameters())
    assert (model.network.repeat_out == 0).all()
    assert all((parameter != 0).any() for parameter in users.project["time"].parameters())


def test_without_text_other_texts_make_no_difference(tmp_path):
    other = torch.randn(small_data().text.shape, generator=torch.Generator().manual_seed(9))
    without = [logits(trained(tmp_path / f"w{i}", "text", **part)) for i, part in enumerate(({}, {"text": other}))]
    assert torch.equal(*without)
    with_text = [logits(trained(tmp_path / f"t{i}", **part)) for i, part in enumerate(({}, {"text": other}))]
    assert not torch.allclose(*with_text)


def test_without_sequence_the_states_make_no_difference(tmp_path):
    for part, same in (((), False), (("sequence",), True)):
        trainer = trained(tmp_path / f"{same}", *part)
        before = logits(trainer)
        with torch.no_grad():
            trainer.model.network.norm_out.weight.mul_(3.0)
        assert torch.equal(logits(trainer), before) == same


def runs(**values: list[float]) -> dict[str, list[dict[str, float]]]:
    return {
        name.replace("_", " "): [{**dict.fromkeys(MEASURES, value), "seconds": 60.0} for value in seeds]
        for name, seeds in {"full_model": [0.20, 0.22, 0.21], **values}.items()
    }


def test_differences_are_paired_by_seed():
    rows = compare(
        runs(without_text=[0.10, 0.12, 0.11], with_edges=[0.20, 0.20, 0.23], without_graph=[0.21, 0.23, 0.22])
    )
    assert rows[0]["ndcg@10"][0] == pytest.approx(0.21)
    # The mean's half width: 4.303 (Student, two degrees of freedom) times 0.01 / sqrt(3).
    assert rows[0]["ndcg@10"][2] - rows[0]["ndcg@10"][0] == pytest.approx(4.303 * 0.01 / np.sqrt(3), abs=1e-5)
    assert rows[1]["ndcg@10 above full"] == pytest.approx([-0.10, -0.10, -0.10])
    told = findings(rows)
    # These runs have one value for all measures: what raises NDCG and AUC raises the log loss, and so is worse there.
    same = "[+0.1000, +0.1000]"
    assert told[0] == (
        f"Text: improves NDCG@10 (+0.1000 {same}), AUC (+0.1000 {same}); worsens log loss (-0.10 [-0.10, -0.10])."
    )
    assert told[1].startswith("Edges: no effect shown on NDCG@10 (")
    assert told[1].count(";") == 0
    assert told[2].startswith("Graph: improves log loss (+0.01 [+0.01, +0.01]); worsens NDCG@10 (-0.0100")


def test_the_table_is_part_of_the_card():
    figures = {**Budget()._asdict(), "items": 40, "rows": compare(runs(without_text=[0.1, 0.1, 0.1]))}
    figures["findings"] = findings(figures["rows"])
    table = render_ablations(figures)
    noted = render_ablations({**figures, "note": "Of an earlier build."})
    assert noted == table.replace("paired by seed.", "paired by seed. Of an earlier build.")
    frozen = render_ablations({**figures, "same": ["with text frozen"]})
    assert frozen == table.replace("paired by seed.", "paired by seed. The full model is the one with text frozen.")
    assert "| without text | 0.1000" in table
    spec = load_world("ecommerce").spec
    assert "## Ablations" not in render_card(spec.model_copy(update={"metrics": {}}))
    card = render_card(spec.model_copy(update={"metrics": {"ablations": figures}}))
    assert table.strip() in card


def test_every_variant_is_a_configuration():
    recipes = {name: RECIPE.changed(changes) for name, changes in VARIANTS.items()}
    assert recipes[FULL] == recipes["with text frozen"] == RECIPE  # this recipe's text is frozen
    assert len({recipe.model_dump_json() for recipe in recipes.values()}) == len(VARIANTS) - 1


@pytest.mark.slow
def test_an_ablation_goes_on_run_by_run(recgym_home, tmp_path, monkeypatch):
    from recgym.worlds.build import build_world

    log = shop()
    world = build_world(RECIPE, log=log)
    budget = Budget(users=30, pretrain_epochs=1, finetune_epochs=1, batch_segments=8, seeds=2)
    made = []

    def stop(*args: object) -> dict[str, float]:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(1)
        return run(*args)

    run = ablations.run
    monkeypatch.setattr(ablations, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        ablate(world, log, budget, ["without text"])
    monkeypatch.setattr(ablations, "run", run)
    figures = ablate(world, log, budget, ["without text"])
    assert len(made) == 3
    assert [row["name"] for row in figures["rows"]] == [FULL, "without text"]
    assert figures == ablate(world, log, budget, ["without text"])
    with pytest.raises(UnknownNameError, match="Did you mean 'without text'"):
        ablate(world, log, budget, ["without txt"])
    with pytest.raises(WorldError, match="50 users to draw from, not 51"):
        ablate(world, log, budget._replace(users=51))
    monkeypatch.setattr("recgym.data.load", lambda name: log)
    flags = ["--users", "30", "--pretrain-epochs", "1", "--finetune-epochs", "1", "--seeds", "2"]
    out = tmp_path / "figures.json"
    done = CliRunner().invoke(
        app, ["ablate", "shop", *flags, "--variants", "without text", "--out", str(out), "--write"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["rows"][1]["name"] == "without text"
    assert "## Ablations" in (world.path / "card.md").read_text()
