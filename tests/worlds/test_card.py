"""The fidelity card: complete, strict, and written all or nothing."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recgym.errors import WorldError
from recgym.scenario import Behaviour
from recgym.testing.worlds import tiny_world
from recgym.worlds import card
from recgym.worlds.build import rewrite
from recgym.worlds.bundle import replaced_directory
from recgym.worlds.parameters import behaviour_parameters
from recgym.worlds.recipes import ecommerce, movies
from recgym.worlds.spec import WorldSpec
from recgym.worlds.world import load_world


@pytest.fixture(scope="module")
def spec() -> WorldSpec:
    return load_world("ecommerce").spec


def leaves(schema: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    found = []
    for name, field in schema["properties"].items():
        inner = field.get("$ref")
        if inner:
            section = definitions[inner.rsplit("/", 1)[1]]
            found += [f"{name}.{leaf}" for leaf in leaves(section, definitions)]
        else:
            found.append(name)
    return found


@pytest.mark.parametrize("recipe", [ecommerce(), movies()])
def test_every_behavioural_parameter_is_fitted_or_assumed_and_says_why(recipe: Any) -> None:
    parameters = behaviour_parameters(recipe)
    schema = Behaviour.model_json_schema()
    assumed = {p.name.split(":")[0] for p in parameters if p.status == "assumed"}
    assert assumed == {f"behaviour.{leaf}" for leaf in leaves(schema, schema.get("$defs", {}))}
    assert all(parameter.evidence for parameter in parameters)
    assert all(parameter.metrics for parameter in parameters if parameter.status == "fitted")


def test_fitted_parameters_show_what_was_measured(spec: WorldSpec) -> None:
    for parameter in spec.parameters:
        if parameter.status == "fitted":
            for path in parameter.metrics.values():
                assert card.lookup(spec.metrics, path) is not None, path
    assert card.lookup(spec.metrics, "auc.no.such") is None


def test_the_card_links_every_figure_and_holds_every_layer(spec: WorldSpec) -> None:
    files = card.card_files(spec)
    text = files["card.md"].decode()
    figures = [name for name in files if name.endswith(".png")]
    assert sorted(figures) == ["groups.png", "marginals.png", "reliability.png", "sequences.png"]
    for name in figures:
        assert f"]({name})" in text
        assert files[name].startswith(b"\x89PNG")
        width, height = struct.unpack(">II", files[name][16:24])
        assert width >= 900
        assert height >= 200
    for heading in (
        "Pointwise",
        "Quantity",
        "Marginals, unaided",
        "Sequences",
        "Parameters",
        "Items unseen in training",
    ):
        assert heading in text, heading
    assert not re.search(r"\bnan\b", text.lower())


def test_the_figures_are_the_same_bytes_each_time(spec: WorldSpec) -> None:
    assert card.card_files(spec) == card.card_files(spec)


def test_the_json_is_strict_and_versioned(spec: WorldSpec) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    read = json.loads(card.render_json(spec), parse_constant=refuse)
    assert (read["schema"], read["schema_version"]) == ("recgym/fidelity-card", 1)
    assert read["metrics"] == json.loads(json.dumps(spec.metrics))
    broken = spec.model_copy(update={"metrics": {"auc": float("nan")}})
    with pytest.raises(WorldError, match="not a finite number"):
        card.render_json(broken)


def test_differences_name_the_figure_and_both_values() -> None:
    old = {"a": {"b": [1, 2.0, None]}, "c": "x", "same": 3}
    new = {"a": {"b": [1, 2.5, None]}, "c": "y", "same": 3, "d": [1]}
    assert card.differences(old, new) == ["a.b[1]: 2.0 -> 2.5", 'c: "x" -> "y"', "d: nothing -> [1]"]
    assert card.differences(old, old) == []


def test_a_card_replaces_a_card_and_nothing_else(spec: WorldSpec, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "card"
    card.write_card(spec, target)
    (target / "sequences.png").write_bytes(b"stale")
    card.write_card(spec, target)
    assert {path.name for path in target.iterdir()} == set(card.card_files(spec))
    assert list(target.parent.iterdir()) == [target]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(WorldError, match="holds something other than a card"):
        card.write_card(spec, other)
    with pytest.raises(WorldError, match="holds something other than a card"):
        card.write_card(spec, other / "thesis.tex")
    assert (other / "thesis.tex").read_text() == "years of work"
    with pytest.raises(WorldError, match=r"cannot be written: .*thesis.tex is no directory"):
        card.write_card(spec, other / "thesis.tex" / "card")
    (target / "thesis.tex").write_text("more of it")
    with pytest.raises(WorldError, match=r"something other than a card \(thesis.tex\)"):
        card.write_card(spec, target)


def test_a_bundle_is_no_card_and_replaces_a_bundle_alone(tmp_path: Path) -> None:
    world = tiny_world(tmp_path / "tiny")
    with pytest.raises(WorldError, match="something other than a card"):
        card.write_card(load_world("ecommerce").spec, world.path)
    for other, held in ((tmp_path, "a directory of mine"), (world.path, "notes.txt")):
        (other / held).mkdir()
        with pytest.raises(WorldError, match=f"something other than a world bundle .*{held}"):
            rewrite(replace(world, path=other))
        assert (other / held).is_dir()
        (other / held).rmdir()
    assert rewrite(load_world(world.path)).hash == world.hash


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interruption_leaves_what_was_there(error: type[BaseException], tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "kept").write_text("whole")
    with pytest.raises(error), replaced_directory(target) as work:
        (work / "half").write_text("half")
        raise error
    assert [path.name for path in target.iterdir()] == ["kept"]
    assert list(tmp_path.iterdir()) == [target]


def test_an_interruption_between_the_renames_puts_the_old_directory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "kept").write_text("whole")
    rename = Path.rename

    def interrupted(self: Path, to: Path) -> Path:
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replaced_directory(target) as work:
        (work / "half").write_text("half")
    assert [path.name for path in target.iterdir()] == ["kept"]
    assert list(tmp_path.iterdir()) == [target]
