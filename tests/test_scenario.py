"""Scenario files: defaults, overrides, hashes, and errors with file, line and key."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml

from recgym.errors import ScenarioError, UnknownNameError
from recgym.registration import SCENARIOS
from recgym.scenario import Behaviour, Scenario, Section, before_arrivals, load_scenario


@pytest.mark.parametrize("name", SCENARIOS.names())
def test_shipped_scenarios_load(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.description
    assert load_scenario(Path(SCENARIOS.spec(name).target)) == scenario
    assert pickle.loads(pickle.dumps(scenario)) == scenario


def test_default_spells_out_the_defaults() -> None:
    default = load_scenario("default")
    about = {name: getattr(default, name) for name in ("description", "question", "metrics", "reference")}
    assert default == Scenario(name="default", **about)
    spelled = yaml.safe_load(Path(SCENARIOS.spec("default").target).read_text())
    assert spelled == default.model_dump(mode="json")


def test_a_file_names_only_what_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nbehaviour:\n  lift: 1\nobjective: {terms: {purchase: 1, revenue: 0.1}}\n")
    scenario = load_scenario(str(path))
    assert scenario.behaviour == Behaviour(lift=1.0)
    assert scenario.objective is not None
    assert scenario.objective.terms == {"purchase": 1.0, "revenue": 0.1}


CASES = [
    ("behaviour:\n  liftt: 1", 3, "behaviour.liftt: unknown key. Did you mean 'lift'?"),
    ("behavior: {}", 2, "behavior: unknown key. Did you mean 'behaviour'?"),
    ("behaviour:\n  examination:\n    decy: 1", 4, "behaviour.examination.decy: unknown key. Did you mean 'decay'?"),
    ("actions: {mode: slat}", 2, "actions.mode: unknown value 'slat'. Did you mean 'slate'? Valid: slate, catalogue,"),
    ("objective:\n  terms: {revenu: 1}", 3, "objective.terms.revenu: unknown key. Did you mean 'revenue'?"),
    ("objective: {terms: {}}", 2, "objective.terms: dictionary should have at least 1 item"),
    ("objective: {}", 2, "objective.terms: missing"),
    (
        "observation:\n  keys:\n    - user\n    - histroy",
        5,
        "observation.keys.1: unknown value 'histroy'. Did you mean",
    ),
    ("observation: {keys: [user, user]}", 2, "observation: keys ['user', 'user'] name one key twice"),
    ("actions:\n  num_candidates: 50", 2, "actions: candidates add up to 100 (40 own + 40 popular + 20 uniform)"),
    ("actions: {slate_size: 101}", 2, "actions: slate_size 101 exceeds num_candidates 100"),
    ("behaviour: {patience: 1.5}", 2, "behaviour.patience: input should be less than or equal to 1, got 1.5"),
    ("behaviour: {lift: '0.7'}", 2, "behaviour.lift: input should be a valid number, got '0.7'"),
    ("behaviour: {lift: 1e-3}", 2, "got '1e-3'; YAML takes an exponent for a number only in the form 1.0e-3"),
    ("behaviour: {lift: .nan}", 2, "behaviour.lift: input should be a finite number, got nan"),
    ("episode: {max_slates: 2.0}", 2, "episode.max_slates: input should be a valid integer, got 2.0"),
    ("episode: 3", 2, "episode: must be a mapping, got 3"),
    ("tags: [2024-01-01]", 2, "tags.0: input should be a valid string, got datetime.date(2024, 1, 1)"),
    ("tags: &a [*a]", 2, "tags.0: anchors and aliases are not supported"),
    ("name: again", 2, "name: given twice, first in line 1"),
    (
        "objective:\n  terms:\n    harm: 1",
        4,
        "objective.terms.harm: a weight must be at most 0, for less of it is better",
    ),
    ("users:\n  history: {all: 0.5}", 3, "users.history: shares lie in 0..1 and add up to 1, got {'all': 0.5}"),
    (
        "constraints:\n  - {term: harm, at_most: 0.1}\n  - {term: harm, at_least: 0.3}",
        4,
        "constraints.1: contradiction: harm cannot be at least 0.3 and at most 0.1",
    ),
    ("constraints:\n  - {term: harm, at_most: -1}", 3, "constraints.0: contradiction: harm is always 0 or more"),
    ("env:\n  train_world: a", 3, "env.train_world: is 'a': env.world must say where agents are scored"),
    (
        "actions:\n  candidates:\n    own: 30\n    new: 10",
        5,
        "actions.candidates.new: is 10, but items.arrivals.share is 0: there are no new items",
    ),
    ("actions:\n  promotions:\n    slots: 11", 4, "actions.promotions.slots: 11 exceeds slate_size 10"),
    ("behaviour:\n  delay:\n    share: 0.5", 4, "behaviour.delay.share: needs episodes of several trips"),
    ("episode: {horizon_days: 0}", 2, "episode.horizon_days: input should be greater than or equal to 1, got 0"),
    ("evaluation: {users: 0}", 2, "evaluation.users: input should be greater than or equal to 1, got 0"),
    ("env: {world: ]}", 2, "not YAML: expected the node content"),
    ("tags: !!python/object:os.system x", 2, "not YAML: could not determine a constructor"),
]


@pytest.mark.parametrize(("text", "line", "message"), CASES, ids=[case[0].replace("\n", " ") for case in CASES])
def test_errors_name_file_line_and_key(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"name: bad\n{text}\n")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)


def test_every_problem_of_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: bad\nbehaviour:\n  lift: x\n  liftt: 1\n")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [f"{path}:3", f"{path}:4"]


@pytest.mark.parametrize(("text", "message"), [("", "a scenario is a mapping"), ("- a", "a scenario is a mapping")])
def test_a_file_that_is_no_scenario(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=message):
        load_scenario(path)


def test_a_missing_file_and_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="none.yaml: cannot be read: No such file"):
        load_scenario(tmp_path / "none.yaml")
    with pytest.raises(UnknownNameError, match="unknown scenario 'defualt'. Did you mean 'default'"):
        load_scenario("defualt")


@pytest.mark.parametrize(
    "overrides",
    [
        {"behaviour": {"lift": 0.2}, "objective": {"terms": {"revenue": 1}}},
        {"behaviour.lift": 0.2, "objective.terms": {"revenue": 1}},
        {"behaviour.lift": 0.2, "objective.terms.revenue": 1},
    ],
)
def test_overrides_change_only_what_they_name(overrides: dict[str, Any]) -> None:
    default = load_scenario("default")
    changed = load_scenario(default, overrides)
    assert (changed.behaviour.lift, changed.objective and changed.objective.terms) == (0.2, {"revenue": 1.0})
    assert changed.behaviour.model_copy(update={"lift": 0.7}) == default.behaviour
    assert default.objective is None


def test_overrides_of_one_section_add_up() -> None:
    deep = {"behaviour.examination.model": "cascade", "behaviour.lift": 0.1, "behaviour.examination.decay": 0.5}
    changed = load_scenario("default", deep).behaviour
    assert (changed.examination.model, changed.examination.decay, changed.lift) == ("cascade", 0.5, 0.1)


def test_overrides_replace_terms_as_a_whole() -> None:
    revenue = load_scenario("default", {"objective.terms": {"revenue": 1.0}})
    liked = load_scenario(revenue, {"objective": {"terms": {"liked": 1.0}}})
    assert liked.objective is not None
    assert liked.objective.terms == {"liked": 1.0}


@pytest.mark.parametrize("overrides", [{"behaviour": {"liftt": 1}}, {"behaviour.liftt": 1}])
def test_bad_overrides_are_named(overrides: dict[str, Any]) -> None:
    with pytest.raises(ScenarioError, match=re.escape("overrides: behaviour.liftt: unknown key. Did you mean 'lift'?")):
        load_scenario("default", overrides)


def test_what_an_override_changed_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nbehaviour:\n  lift: 1\n  patience: 0.2\nobjective: {terms: {purchase: 1}}\n")
    changed = load_scenario(path, {"behaviour.lift": 0.5, "objective": {"terms": {"revenue": 1}}, "name": "other"})
    assert changed.at("behaviour.lift") == "overrides: behaviour.lift"
    assert changed.at("objective.terms.revenue") == "overrides: objective.terms.revenue"
    assert changed.at("behaviour.patience") == f"{path}:4: behaviour.patience"
    assert load_scenario(path).at("behaviour.lift") == f"{path}:3: behaviour.lift"


def test_hash_follows_content() -> None:
    default = load_scenario("default")
    assert re.fullmatch("[0-9a-f]{64}", default.hash)
    assert load_scenario("default", {"behaviour.lift": 0.7}).hash == default.hash
    assert load_scenario("default", {"behaviour.lift": 0.71}).hash != default.hash


def test_scenarios_are_frozen() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        load_scenario("default").behaviour.lift = 1.0


def test_a_world_restriction_is_checked() -> None:
    load_scenario("default").check_world("movies")
    with pytest.raises(ScenarioError, match="made for world 'ecommerce', not for 'movies'"):
        load_scenario("default", {"env.world": "ecommerce"}).check_world("movies")


def behaviour_fields(section: type[Section] = Behaviour) -> list[tuple[str, Any]]:
    fields: list[tuple[str, Any]] = []
    for name, info in section.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            fields += behaviour_fields(inner)
        else:
            fields.append((f"{section.__name__}.{name}", info))
    return fields


@pytest.mark.parametrize(
    ("name", "info"), behaviour_fields(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_behaviour_says_what_is_assumed_and_why(name: str, info: Any) -> None:
    assert info.json_schema_extra["status"] == "assumed"
    assert re.search(r"\b(19|20)\d\d$", info.json_schema_extra["reference"])
    assert info.description


def test_schema_is_json() -> None:
    schema = json.loads(json.dumps(Scenario.model_json_schema()))
    assert schema["$defs"]["Behaviour"]["properties"]["lift"]["status"] == "assumed"
    assert schema["additionalProperties"] is False


def write(folder: Path, **files: str) -> Path:
    """YAML files in ``folder``; the first is returned."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


def test_extends_takes_over_what_is_not_given(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        mine="name: mine\nextends: base.yaml\nbehaviour: {lift: 0.1, examination: {decay: 0.5}}\nobjective: null\n",
        base="name: base\ndescription: not mine\ntags: [theirs]\nextends: default\nepisode: {kind: horizon}\n"
        "behaviour: {lift: 0.2, patience: 0.3, examination: {model: cascade}}\nobjective: {terms: {purchase: 2}}\n",
    )
    scenario = load_scenario(path)
    assert (scenario.name, scenario.description, scenario.tags, scenario.extends) == ("mine", "", (), None)
    behaviour = scenario.behaviour
    assert (behaviour.lift, behaviour.patience, scenario.episode.kind) == (0.1, 0.3, "horizon")
    assert (behaviour.examination.model, behaviour.examination.decay) == ("cascade", 0.5)
    assert scenario.objective is None
    assert load_scenario(path, {"behaviour.lift": 0.3}).behaviour.patience == 0.3


def test_a_mapping_that_is_no_section_is_taken_over_or_replaced_as_a_whole(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        mine="name: mine\nextends: base.yaml\nobjective: {terms: {revenue: 1}}\n",
        base="name: base\nobjective: {terms: {purchase: 2}}\n",
    )
    scenario = load_scenario(path)
    assert scenario.objective is not None and scenario.objective.terms == {"revenue": 1.0}


@pytest.mark.parametrize(
    ("mine", "base", "at", "message"),
    [
        ("extends: mine.yaml", "", "mine.yaml:2", "extends: scenarios extend each other in a circle: "),
        ("extends: base.yaml", "extends: ./mine.yaml", "base.yaml:2", "mine.yaml -> "),
        ("extends: defualt", "", "mine.yaml:2", "extends: unknown scenario 'defualt'. Did you mean 'default'?"),
        ("extends: none.yaml", "", "mine.yaml:2", "extends: there is no file"),
        ("extends: 3", "", "mine.yaml:2", "extends: must be the name of a scenario or the path of a file, got 3"),
        ("extends: base.yaml", "episode: {max_slats: 3}", "base.yaml:2", "max_slats: unknown key. Did you mean"),
        ("extends: base.yaml\nepisode: {max_steps: 0}", "episode: {horizon_days: 0}", "base.yaml:2", "equal to 1, got"),
        ("extends: base.yaml\nepisode: {max_steps: 0}", "episode: {horizon_days: 9}", "mine.yaml:3", "equal to 1, got"),
        ("extends: base.yaml\nbehaviour.lift: 1", "", "mine.yaml:3", "behaviour.lift: unknown key."),
    ],
)
def test_bad_chains_name_the_file_that_is_wrong(tmp_path: Path, mine: str, base: str, at: str, message: str) -> None:
    path = write(tmp_path, mine=f"name: mine\n{mine}\n", base=f"name: base\n{base}\n")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert f"{tmp_path / at}: " in str(caught.value)
    assert message in str(caught.value)


def test_agents_learn_before_new_items_arrive() -> None:
    scenario = load_scenario("cold_start_items")
    school = before_arrivals(scenario)
    now, then = scenario.actions.candidates, school.actions.candidates
    assert (now.new, then.new, then.popular) == (20, 0, now.popular + 20)
    assert school.items == scenario.items and school.model_copy(update={"actions": scenario.actions}) == scenario
    assert before_arrivals(load_scenario("default")) == load_scenario("default")
