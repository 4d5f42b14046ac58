"""The runner: identical users and luck for everyone, byte-identical rows, resume, and bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import recgym
from recgym.agents.protocol import ActContext, Agent, Observations, make_agent
from recgym.errors import ActionError, AgentError, RecGymError, UnknownNameError
from recgym.evaluation import stage
from recgym.evaluation.entrants import entrants
from recgym.evaluation.plan import sample_users
from recgym.evaluation.runner import evaluate
from recgym.registration import AGENTS as AGENT_REGISTRY
from recgym.registration import ENVS
from recgym.registry import EnvSpec
from recgym.scenario import load_scenario
from recgym.worlds.world import World

AGENTS = ("random", "popularity", "greedy")


def run(world: World, out: Path | None = None, **changes: Any) -> pd.DataFrame:
    settings: dict[str, Any] = {"agents": AGENTS, "users": 12, "seeds": 2, "progress": False}
    return evaluate(world, out=out, **{**settings, **changes})


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation")
    run(world, out)
    return out


def test_every_agent_meets_the_same_users_with_the_same_luck(world: World) -> None:
    rows = run(world)
    assert len(rows) == 3 * 2 * 12
    assert rows["agent"].unique().tolist() == list(AGENTS)
    met = [part[["seed", "user", "lane_seed"]].to_numpy() for _, part in rows.groupby("agent", sort=False)]
    assert all((other == met[0]).all() for other in met)
    assert rows["lane_seed"].nunique() == 2 * 12
    assert rows.set_index("agent")["privileged"].groupby("agent").first().to_dict() == {
        "random": False,
        "popularity": False,
        "greedy": True,
    }
    assert (rows["num_steps"] >= 1).all() and (rows["num_consumed"] <= rows["num_examined"]).all()
    assert (rows["num_examined"] <= rows["num_shown"]).all() and (rows["num_new"] <= rows["num_consumed"]).all()
    assert (rows["units"] >= rows["num_consumed"]).all()
    assert (rows["reward"] == rows["num_consumed"]).all()  # the reward of a purchase world
    assert set(rows["ended"]) <= {"left", "slates"}


def test_rows_are_byte_identical_between_runs(world: World, finished: Path, tmp_path: Path) -> None:
    run(world, tmp_path)
    for name in ("rows.parquet", "items.parquet", "steps.parquet"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes(), name


def test_chunks_do_not_change_the_rows(world: World, finished: Path) -> None:
    pd.testing.assert_frame_equal(run(world, chunk=5), pd.read_parquet(finished / "rows.parquet"))


def test_an_interrupted_evaluation_resumes_where_it_stopped(
    world: World, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(task: str, done: int, total: int) -> None:
        if task == "popularity" and done > 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path, progress=interrupt)
    assert not (tmp_path / "rows.parquet").exists()
    played: list[str] = []
    play = stage.play

    def counting(agent: Agent, *arguments: Any, **options: Any) -> Any:
        played.append(agent.id)
        return play(agent, *arguments, **options)

    monkeypatch.setattr(stage, "play", counting)
    run(world, tmp_path)
    assert played == ["popularity", "greedy", "greedy"]
    assert (tmp_path / "rows.parquet").read_bytes() == (finished / "rows.parquet").read_bytes()
    assert (tmp_path / "steps.parquet").read_bytes() == (finished / "steps.parquet").read_bytes()


def test_a_changed_configuration_is_refused_in_the_same_directory(world: World, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(RecGymError, match=r"users\.requested: 12 there, 11 here"):
        run(world, tmp_path / "run", users=11)
    with pytest.raises(RecGymError, match=r"agents\.frequency: only here"):
        run(world, tmp_path / "run", agents=(*AGENTS, "frequency"))
    with pytest.raises(RecGymError, match=r"behaviour\.lift: 0\.7 there, 0\.3 here"):
        run(world, tmp_path / "run", scenarios=load_scenario("default", {"behaviour.lift": 0.3}))
    changed = make_agent("popularity", world, seed=5)
    objects = {"random": "random", "popularity": changed, "greedy": "greedy"}
    with pytest.raises(RecGymError, match="differs in agents"):
        run(world, tmp_path / "run", agents=objects)
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(RecGymError, match="cannot be read"):
        run(world, tmp_path / "run")


def test_run_json_records_what_the_rows_depend_on(world: World, finished: Path) -> None:
    manifest = json.loads((finished / "run.json").read_text())
    configuration = manifest["configuration"]
    assert configuration["world"]["hash"] == world.hash
    assert configuration["seeds"] == [0, 1]
    assert configuration["scenarios"]["default"]["actions"]["slate_size"] == 10
    assert manifest["versions"]["recgym"] == recgym.__version__
    assert set(manifest["fingerprints"]) == {f"{name} in default" for name in AGENTS}


def test_more_users_than_the_world_holds_means_all_of_them(world: World) -> None:
    rows = run(world, agents="random", users=world.num_users + 100, seeds=1)
    assert sorted(rows["user"]) == list(range(world.num_users))


def test_a_larger_sample_contains_a_smaller_one() -> None:
    large = sample_users(1000, 200)
    assert (large[:50] == sample_users(1000, 50)).all()
    assert len(set(large.tolist())) == 200
    assert 400 < large.mean() < 600


def test_seeds_can_be_given_one_by_one(world: World, finished: Path) -> None:
    rows = run(world, seeds=[1])
    everything = pd.read_parquet(finished / "rows.parquet")
    expected = everything[everything["seed"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, expected)


def test_agents_come_as_objects_and_run_directories(world: World, tmp_path: Path) -> None:
    saved = make_agent("popularity", world).save(tmp_path / "saved")
    rows = run(
        world, agents={"name": "popularity", "object": make_agent("popularity", world), "run": saved}, users=5, seeds=1
    )
    rewards = [part["reward"].tolist() for _, part in rows.groupby("agent", sort=False)]
    assert rewards[0] == rewards[1] == rewards[2]
    assert run(world, agents=[str(saved)], users=2, seeds=1)["agent"].unique().tolist() == ["saved"]


class Spy(Agent):
    """Notes what it is handed."""

    id = "spy"
    observes = ("candidates",)

    def act(self, observations: Observations, context: ActContext, *, env: Any = None) -> np.ndarray:
        assert set(observations) == {"candidates"} and env is None
        assert (context.step == context.step[0]).all()
        return np.tile(np.arange(context.slate_size), (len(context.lane_seeds), 1))


class Careless(Spy):
    """Shows one item where ten are asked for."""

    def act(self, observations: Observations, context: ActContext, *, env: Any = None) -> np.ndarray:
        return np.zeros((len(context.lane_seeds), 1), np.int64)


class Repeating(Spy):
    """Shows one item ten times."""

    def act(self, observations: Observations, context: ActContext, *, env: Any = None) -> np.ndarray:
        return np.zeros((len(context.lane_seeds), context.slate_size), np.int64)


def test_an_agent_sees_its_own_keys_only(world: World) -> None:
    assert len(run(world, agents=Spy(world), users=4, seeds=1)) == 4


class Mistaken(Spy):
    """Shows proper slates, but for ``wrong`` in slot 3 of lane 2 of the second step."""

    wrong: Any = 100

    def act(self, observations: Observations, context: ActContext, *, env: Any = None) -> np.ndarray:
        slates = super().act(observations, context, env=env)
        slates = slates.astype(type(self.wrong))
        if context.step[0] == 1:
            slates[2, 3] = self.wrong
        return slates


def test_wrong_slates_are_refused(world: World) -> None:
    with pytest.raises(AgentError, match=r"agent 'spy' returned slates of shape \(4, 1\), not \(4, 10\)"):
        run(world, agents=Careless(world), users=4, seeds=1)
    with pytest.raises(ActionError, match=r"lane 0: candidate 0 at position 1 is already on the slate"):
        run(world, agents=Repeating(world), users=4, seeds=1)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (100, "slate 1 of the episodes: lane 2: candidate 100 at position 3 must lie in 0..99"),
        (-1, "slate 1 of the episodes: lane 2: candidate -1 at position 3 must lie in 0..99"),
        (0, "slate 1 of the episodes: lane 2: candidate 0 at position 3 is already on the slate"),
        (0.5, "slate 0 of the episodes: an action of this mode holds whole numbers"),
    ],
)
def test_an_invalid_slate_is_refused_with_agent_lane_and_reason(world: World, wrong: Any, reason: str) -> None:
    agent = Mistaken(world)
    agent.wrong = wrong
    scenario = load_scenario("default", {"behaviour.patience": 0.0})
    with pytest.raises(ActionError, match=f"agent 'spy', {reason}"):
        run(world, agents=agent, scenarios=scenario, users=4, seeds=1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"agents": ["popularty"]}, UnknownNameError, "'popularty'.*'popularity'"),
        ({"agents": ["runs/nothing"]}, AgentError, "runs/nothing is neither"),
        ({"agents": []}, AgentError, "at least one agent"),
        ({"agents": ["random", "random"]}, AgentError, "two agents are called 'random'"),
        ({"agents": [3]}, AgentError, "got 3"),
        ({"scenarios": ["defualt"]}, UnknownNameError, "'defualt'.*'default'"),
        ({"scenarios": ["default", "default"]}, RecGymError, "name of its own"),
        ({"scenarios": []}, RecGymError, "at least one scenario"),
        ({"users": 0}, RecGymError, "users must be a whole number of at least 1, got 0"),
        ({"users": 2.5}, RecGymError, "got 2.5"),
        ({"seeds": 0}, RecGymError, "seeds must be at least 1, got 0"),
        ({"seeds": [1, 1]}, RecGymError, "different whole numbers"),
        ({"chunk": 0}, RecGymError, "chunk must be"),
        ({"workers": 0}, RecGymError, "workers must be"),
        ({"train_steps": -1}, RecGymError, "train_steps must be"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    world: World, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(world, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_an_unknown_world_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="'ecomerce'.*'ecommerce'"):
        evaluate("ecomerce", agents="random", users=1, seeds=1, progress=False)


def test_an_environment_with_other_users_is_refused_instead_of_played_with_its_worlds_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ENVS, "_own", dict(ENVS._own))
    ENVS.register(EnvSpec("bored-v0", world="ecommerce", kwargs={"user_model": "boredom"}))
    with pytest.raises(RecGymError, match="'bored-v0' plays user model 'boredom'.*'ecommerce'"):
        evaluate("bored-v0", None, ["random"], users=2, seeds=1)


def test_all_stands_for_every_registered_agent(world: World) -> None:
    names = [entrant.label for entrant in entrants(["all"])]
    assert names == AGENT_REGISTRY.names() and len(names) > 20
    saved = make_agent("popularity", world)
    saved.id = "mine"  # type: ignore[misc]
    assert [entrant.label for entrant in entrants(["all", "random", saved])] == [*names, "mine"]
