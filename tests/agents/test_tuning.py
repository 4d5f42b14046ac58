"""Tuning finds the better setting of a trivial problem, and goes on after an interruption as if there had been none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from recgym.agents import AgentConfig, make_agent
from recgym.agents.learning import NetworkAgent
from recgym.agents.offline import OfflineAgent
from recgym.agents.protocol import agent_class
from recgym.agents.search import Search, search_space
from recgym.agents.training import train_agent
from recgym.agents.tuning import tune
from recgym.errors import AgentError, UnknownNameError
from recgym.registration import AGENTS
from recgym.worlds.world import World

pytest.importorskip("optuna")

SIGNED = """
from typing import Annotated
from pydantic import Field
from recgym.agents.greedy import GreedyAgent
from recgym.agents.protocol import AgentConfig, as_tensor, top_slate
from recgym.agents.search import Search

class SignedConfig(AgentConfig):
    sign: Annotated[float, Search(-1.0, 1.0)] = Field(-0.5)
    idle: int = 3

class Signed(GreedyAgent):
    "Greedy, or its opposite where sign is negative."
    id = "signed"
    Config = SignedConfig

    def act(self, observations, context, *, env=None):
        expected = env.simulator.expected_reward(env.state, as_tensor(observations["candidate_items"]))
        return top_slate(context.slate_size, self.config.sign * expected)
"""


@pytest.fixture
def signed(tmp_path: Path) -> str:
    (tmp_path / "signed.py").write_text(SIGNED)
    return f"{tmp_path / 'signed.py'}:Signed"


def learns_by_trying(name: str) -> bool:
    return issubclass(agent_class(name), NetworkAgent | OfflineAgent)


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "tuning" / "run.json").read_text())


def test_finds_the_better_sign(world: World, tmp_path: Path, signed: str) -> None:
    out = tmp_path / "run"
    agent = tune(signed, world, trials=6, out=out)
    assert agent.config.sign > 0 and agent.config.idle == 3
    found = results(out)
    assert found["status"] == "complete" and len(found["results"]) == 6
    assert found["results"][0]["settings"] == {"sign": -0.5}  # the defaults come first
    rewards = [trial["reward"] for trial in found["results"]]
    assert rewards[found["best"]] == max(rewards) > rewards[0]
    assert all((trial["reward"] == max(rewards)) == (trial["settings"]["sign"] > 0) for trial in found["results"])
    assert json.loads((out / "run.json").read_text())["config"]["sign"] == agent.config.sign
    assert make_agent(out, world).config == agent.config


def test_interrupted_and_resumed_tries_the_same(world: World, tmp_path: Path) -> None:
    config = {"num_envs": 4, "segment_steps": 4, "total_steps": 32}
    whole = tune("linucb", world, trials=7, out=tmp_path / "whole", config=config)

    def stop(done: int, total: int) -> None:
        assert total == 7 * 32
        if done > 5 * 32 + 16:  # within the sixth trial, when TPE is at work
            raise KeyboardInterrupt

    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        tune("linucb", world, trials=7, out=out, config=config, progress=stop)
    assert results(out)["status"] == "running" and not (out / "run.json").exists()
    with pytest.raises(AgentError, match="already holds a run"):
        tune("linucb", world, trials=7, out=out, config=config)
    with pytest.raises(AgentError, match="its seed is 0"):
        tune("linucb", world, trials=7, out=out, config=config, seed=1, resume=True)
    resumed = tune("linucb", world, trials=7, out=out, config=config, resume=True)
    assert results(out)["results"] == results(tmp_path / "whole")["results"]
    assert resumed.config == whole.config
    assert len({json.dumps(trial["settings"]) for trial in results(out)["results"]}) == 7
    more = tune("linucb", world, trials=8, out=out, config=config, resume=True)  # a finished one takes more trials
    assert results(out)["results"][:7] == results(tmp_path / "whole")["results"]
    assert more.config.num_envs == 4


def test_bad_input_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="'popularity' declares nothing to tune"):
        tune("popularity", world, trials=2, out=tmp_path / "run")
    with pytest.raises(AgentError, match=r"nothing to tune beside \['alpha', 'l2'\]"):
        tune("linucb", world, trials=2, out=tmp_path / "run", config={"alpha": 1.0, "l2": 1.0})
    with pytest.raises(AgentError, match="trials = 0"):
        tune("linucb", world, trials=0, out=tmp_path / "run")
    with pytest.raises(UnknownNameError, match="Did you mean 'linucb'"):
        tune("linucbb", world, trials=2, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train_agent("random", world, out=tmp_path / "run")
    with pytest.raises(AgentError, match="was not tuned"):
        tune("linucb", world, trials=2, out=tmp_path / "run", resume=True)


@pytest.mark.parametrize("name", AGENTS.names())
def test_defaults_lie_within_the_search_space(name: str) -> None:
    config = agent_class(name).Config()
    for key, search in search_space(type(config)).items():
        value = getattr(config, key)
        inside = value in search.choices if search.choices else search.low <= value <= search.high
        assert inside, f"{name}.{key} = {value} lies outside {search}"


@pytest.mark.parametrize("name", [name for name in AGENTS.names() if learns_by_trying(name)])
def test_every_rl_agent_can_be_tuned(name: str) -> None:
    space = search_space(agent_class(name).Config)
    assert "learning_rate" in space and {"gamma", "gae_lambda"} & set(space)  # how fast, and how far it looks


def test_an_rl_agent_is_tuned(world: World, tmp_path: Path) -> None:
    small = {"num_envs": 4, "num_steps": 4, "batch_size": 8, "calibration_steps": 1, "hidden": 4}
    agent = tune("dqn", world, trials=2, out=tmp_path / "run", steps=32, config=small, loggers=())
    trials = results(tmp_path / "run")["results"]
    assert [set(trial["settings"]) for trial in trials] == [{"learning_rate", "gamma", "exploration"}] * 2
    assert agent.config.hidden == 4 and agent.config.gamma in [trial["settings"]["gamma"] for trial in trials]


def test_a_search_is_a_range_or_choices() -> None:
    class Mine(AgentConfig):
        rate: Annotated[float, Search(0.1, 1.0, log=True)] = Field(0.5, gt=0)
        kind: Annotated[str, Search(choices=("a", "b"))] = "a"
        other: int = 1

    assert search_space(Mine) == {"rate": Search(0.1, 1.0, log=True), "kind": Search(choices=("a", "b"))}
    for bad in ({}, {"low": 1}, {"low": 1, "high": 2, "choices": (1,)}, {"low": 2, "high": 1}):
        with pytest.raises(AgentError, match="search"):
            Search(**bad)
    with pytest.raises(AgentError, match="low > 0"):
        Search(0.0, 1.0, log=True)
