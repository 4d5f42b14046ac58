"""Each broken agent, of a few lines, is told exactly what is wrong with it and what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from typer.testing import CliRunner

from recgym.agents.popularity import PopularityAgent
from recgym.agents.protocol import Agent
from recgym.cli import app
from recgym.testing import ConformanceError, check_agent
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny")


class Sound(Agent):
    """What is broken below: the first candidates."""

    id = "sound"
    observes = ("candidates",)

    def act(self, observations: Any, context: Any, *, env: Any = None) -> Any:
        lanes = len(context.lane_seeds)
        return np.tile(np.arange(context.slate_size), (lanes, 1))


class NoAct(Agent):
    id = "no_act"
    observes = ("user",)


class Spy(Sound):
    observes = ("user", "hidden")


class Loose(Sound):
    class Config(BaseModel):  # type: ignore[assignment]
        pass


class Floats(Sound):
    def act(self, *args: Any, **kwargs: Any) -> Any:
        return super().act(*args, **kwargs).astype(np.float32)


class ItemRows(Sound):
    def act(self, *args: Any, **kwargs: Any) -> Any:
        return super().act(*args, **kwargs) + 200


class Repeats(Sound):
    def act(self, *args: Any, **kwargs: Any) -> Any:
        return super().act(*args, **kwargs) * 0


class OneItem(Sound):
    def act(self, *args: Any, **kwargs: Any) -> Any:
        return super().act(*args, **kwargs)[:, :1]


class ByPlace(Sound):
    def act(self, *args: Any, **kwargs: Any) -> Any:
        slates = super().act(*args, **kwargs)
        return slates + np.arange(len(slates))[:, None]


class Writes(Sound):
    def act(self, observations: Any, context: Any, *, env: Any = None) -> Any:
        if isinstance(observations["candidates"], np.ndarray):
            observations["candidates"][0, 0, 0] = 9.0
        return super().act(observations, context)


class NumpyOnly(Sound):
    def act(self, observations: Any, context: Any, *, env: Any = None) -> Any:
        observations["candidates"].astype(np.float64)
        return super().act(observations, context)


class Global(Sound):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.first = torch.randint(5, ())

    def act(self, *args: Any, **kwargs: Any) -> Any:
        return super().act(*args, **kwargs)


class Impossible(Sound):
    def propensities(self, observations: Any, context: Any, slates: Any) -> Any:
        return np.full(slates.shape, 2.0)


class Forgets(Sound):
    learns = "log"
    first = 0

    def fit(self, world: World) -> None:
        self.first = 7

    def act(self, *args: Any, **kwargs: Any) -> Any:
        return super().act(*args, **kwargs) + self.first

    @classmethod
    def load(cls, directory: str | Path, world: World) -> Any:
        return cls(world)


BROKEN = [
    (NoAct, "[declaration] it does not define act"),
    (Spy, "[declaration] observes is ('user', 'hidden')"),
    (Loose, "[declaration] its Config takes unknown settings in silence"),
    (Floats, "[slates] act returned float32"),
    (ItemRows, "[slates] positions 200 to 209 do not lie among 100 candidates"),
    (Repeats, "[slates] a slate shows a candidate twice"),
    (OneItem, "[slates] act returned slates of shape (12, 1)"),
    (ByPlace, "[batch] a lane is shown another slate among 12 lanes"),
    (Writes, "[purity] act changed observation 'candidates' in place"),
    (NumpyOnly, "[inputs] act on torch observations raised AttributeError"),
    (Global, "[randomness] it draws from or seeds the global generator of torch"),
    (Impossible, "[propensities] propensities of its own slates are not chances"),
    (Forgets, "[saving] saved and loaded, it shows other slates"),
]


@pytest.mark.parametrize(("broken", "problem"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_one_is_told_what_is_wrong(broken: Any, problem: str, world: World) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_agent(broken, world, processes=False)
    assert problem in str(caught.value), str(caught.value)


def test_one_of_a_file_passes_in_a_new_process_too(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from recgym.agents.popularity import PopularityAgent\nclass Mine(PopularityAgent):\n    id = 'mine'\n"
    )
    target = f"{tmp_path / 'mine.py'}:Mine"
    assert "processes" in check_agent(target, world).rules
    told = CliRunner().invoke(app, ["check", "agent", target, "--world", str(world.path), "--no-processes"])
    assert told.exit_code == 0 and "conforms" in told.output
    assert check_agent(PopularityAgent, world, processes=False).hints == ()
