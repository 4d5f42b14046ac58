"""``recgym world build --from``: one command from a table to a world that can be measured again."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import recgym
from recgym.cli import app
from recgym.commands.own import own_log, recipe_changes
from recgym.commands.settings import parse_settings
from recgym.user_models.preference.config import TrainingConfig
from recgym.worlds.recipes import Recipe, movies
from tests.worlds.test_build import shop

MAP = "user=user,item=item,time=time,basket=basket,quantity=quantity"


def table(directory: Path) -> Path:
    shop().to_frame().to_parquet(directory / "events.parquet")
    return directory / "events.parquet"


def run(*arguments: object) -> str:
    """The words that the command prints, with single spaces."""
    return " ".join(CliRunner().invoke(app, ["world", *map(str, arguments)]).output.split())


@pytest.mark.slow
def test_one_command_builds_a_world_that_finds_its_log_again(recgym_home: Path, tmp_path: Path) -> None:
    small = [f"--config=training.{stage}_epochs=1" for stage in ("pretrain", "finetune")]
    small += ["--config=network.dim=16", "--config=network.window=8"]
    output = run("build", "--from", table(tmp_path), "--map", MAP, "--name", "shop", "--min-item-users", 5, *small)
    assert "sha256" in output
    assert "licence: not stated" in output
    world = recgym.load_world("shop")
    assert "the text branch is off" in (world.path / "card.md").read_text()
    assert Recipe.model_validate(world.spec.config).log().hash == world.spec.data["hash"]
    measured = run("validate", "shop", "--out", tmp_path / "card")
    assert "every figure is the one in the bundle" in measured


def test_filters_that_leave_nothing_say_what_each_left(recgym_home: Path, tmp_path: Path) -> None:
    arguments = ("build", "--from", table(tmp_path), "--map", MAP, "--name", "shop", "--min-item-users", 51)
    assert "events read; 0 left without items with fewer than 51 users)" in run(*arguments)
    assert not (recgym_home / "worlds").exists()


def test_settings_go_to_their_places_and_the_rest_of_the_recipe_stays() -> None:
    given = parse_settings(
        ["training.pretrain_epochs=1", "tuning.steps=7", "text_components=64", "graph.relations=[knowledge]"]
    )
    recipe = movies().changed(recipe_changes(given))
    assert (recipe.tuning.steps, recipe.text_components) == (7, 64)
    assert recipe.model.training.pretrain_epochs == 1
    assert (
        recipe.model.training.finetune_epochs
        == movies().model.training.finetune_epochs
        != TrainingConfig().finetune_epochs
    )
    assert recipe.model.network == movies().model.network
    assert recipe.model.graph.relations == ("knowledge",)
    assert recipe_changes({}) == {}


@pytest.mark.parametrize("name", [(), ("--name", "../shop")])
def test_a_world_needs_a_plain_name(recgym_home: Path, tmp_path: Path, name: tuple[str, ...]) -> None:
    assert "--from needs --name, a word" in run("build", "--from", table(tmp_path), "--map", MAP, *name)
    assert not (recgym_home / "worlds").exists()


def test_a_data_set_is_named_in_place_of_a_file(recgym_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recgym.commands.own.load", lambda dataset: shop())
    options = {"mapping": "", "items": None, "text": "", "layout": None, "time_unit": None, "max_users": None}
    options |= {"licence": "not stated", "citation": "not stated"}
    recipe, log = own_log("groceries", Path("instacart-sample"), options, {"min_item_users": 9})
    assert (recipe.name, recipe.dataset, recipe.files, recipe.kind) == (
        "groceries",
        "instacart-sample",
        None,
        "purchase",
    )
    assert recipe.min_item_users == 9 and log.hash == shop().hash
    given = ("--map", MAP, "--max-users", 5)
    told = run("build", "--from", "instacart-sample", "--name", "shop", *given)
    assert "reads by itself: leave out --map, --max-users" in told
    assert "there is no file 'instacart-samples'" in run("build", "--from", "instacart-samples", "--name", "shop")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("ecommerce", "--map", MAP, "--items", "no.csv", "--layout", "zzz", "--max-users", 3, "--name", "mine")
            + ("--time-unit", "parsec", "--time-format", "%d", "--licence", "CC0"),
            "ecommerce is a recipe with a log of its own, and there is no --from: leave out --name, --map, --items, "
            "--layout, --time-unit, --time-format, --max-users, --licence",
        ),
        (("--from", "a.csv", "--map", MAP, "--text", "title"), "give the table of items, or leave out --text"),
        (("--from", "a.inter", "--items", "b.csv", "--text", "t"), "a.item beside it: leave out --items, --text"),
        (
            ("--from", ".", "--layout", "mind", "--map", MAP, "--items", "b.csv", "--licence", "CC0"),
            "--layout mind says what its files and columns mean: leave out --map, --items, --licence",
        ),
        (("ecommerce", "--from", "a.csv"), "a log has no recipe: leave out 'ecommerce', or --name shop"),
    ],
)
def test_options_that_would_not_be_read_are_refused(
    recgym_home: Path, arguments: tuple[object, ...], expected: str
) -> None:
    name = () if "--name" in arguments else ("--name", "shop")
    assert expected in run("build", *arguments, *name)
    assert not (recgym_home / "worlds").exists()
