"""Bundles: loading, checksums, and what a truncated or altered file says."""

import dataclasses
import json

import pytest
import torch

from recgym.errors import UnknownNameError, WorldError
from recgym.testing.worlds import tiny_world
from recgym.worlds.build import rewrite
from recgym.worlds.world import Ragged, load_world


@pytest.fixture
def bundle(tmp_path):
    return tiny_world(tmp_path / "tiny").path


@pytest.mark.parametrize("name", ["items.parquet", "items.safetensors", "users.safetensors", "model.safetensors"])
@pytest.mark.parametrize("damage", ["truncate", "alter", "remove"])
def test_a_damaged_file_is_named(bundle, name, damage):
    file = bundle / name
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.raises(WorldError, match=name):
        load_world(bundle)


def test_another_format_version_is_refused(bundle):
    spec = json.loads((bundle / "world.json").read_text())
    (bundle / "world.json").write_text(json.dumps({**spec, "format_version": 99}))
    with pytest.raises(WorldError, match="format_version 99"):
        load_world(bundle)


def test_a_file_outside_the_bundle_is_refused(bundle):
    spec = json.loads((bundle / "world.json").read_text())
    spec["files"]["../secret"] = "0" * 64
    (bundle / "world.json").write_text(json.dumps(spec))
    with pytest.raises(WorldError, match="outside the bundle"):
        load_world(bundle)


@pytest.mark.parametrize("content", [b'{"format_version": 1,', b'{"title": "Caf\xe9"}'])
def test_broken_json_is_named(bundle, content):
    (bundle / "world.json").write_bytes(content)
    with pytest.raises(WorldError, match=r"world\.json"):
        load_world(bundle)


def test_a_bundle_is_found_by_its_directory_alone(bundle, monkeypatch):
    monkeypatch.chdir(bundle.parent)
    assert load_world(bundle.name).path.samefile(bundle)


def test_whole_numbers_of_a_bundle_stay_what_they_are_when_it_is_written_again(bundle):
    world = load_world(bundle)
    rows = torch.tensor([[2049, 9343, 70001]])  # half precision has none of them
    again = rewrite(dataclasses.replace(world, item_tensors={**world.item_tensors, "rows": rows}))
    again = rewrite(again)
    assert torch.equal(again.item_tensors["rows"], rows)


def test_unknown_worlds_get_the_nearest_name():
    with pytest.raises(UnknownNameError, match="Did you mean 'ecommerce'"):
        load_world("ecomerce")
    with pytest.raises(WorldError, match="recgym world build movies"):
        load_world("movies")


def test_writing_again_changes_nothing(bundle):
    world = rewrite(load_world(bundle))  # with all documents, of which a tiny world has one
    again = rewrite(world)
    assert again.spec.files.keys() == world.spec.files.keys()
    for name in ("items.safetensors", "users.safetensors", "model.safetensors"):
        assert again.spec.files[name] == world.spec.files[name]


def test_a_failed_write_leaves_the_old_bundle(bundle):
    world = load_world(bundle)
    broken = dataclasses.replace(world, item_tensors={"vectors": "not a tensor"})
    with pytest.raises(AttributeError):
        rewrite(broken)
    assert load_world(bundle).hash == world.hash
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_a_world_is_the_same_whatever_its_card_says(bundle):
    world = load_world(bundle)
    told = world.spec.model_copy(update={"title": "Other words", "metrics": {"nothing": 1.0}})
    again = rewrite(dataclasses.replace(world, spec=told))
    assert again.spec.files != world.spec.files
    assert again.hash == world.hash
    other = world.spec.model_copy(update={"behaviour": {"satisfaction_reference": 0.123}})
    assert dataclasses.replace(world, spec=other).hash != world.hash


def test_interactions_follow_the_repeat_table(bundle):
    world = load_world(bundle)
    frame = world.interactions()
    assert len(frame) == int(world.repeats.offsets[-1])
    assert frame.groupby("user").size().to_dict() == {
        user: int(n) for user, n in enumerate(world.repeats.offsets.diff()) if n
    }


def test_ragged_rows_are_padded_from_their_ends():
    ragged = Ragged(torch.tensor([0, 2, 2, 5]), {"x": torch.arange(5)})
    padded = ragged.padded(torch.tensor([0, 1, 2]), width=2, fill={"x": -1})["x"]
    assert padded.tolist() == [[0, 1], [-1, -1], [3, 4]]
