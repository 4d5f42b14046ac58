"""Validation while training: rewards on a fixed set of users and luck, the best agent kept, and an early end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file

from recgym.agents.protocol import Agent, read_tensors
from recgym.random import derive_seeds
from recgym.threads import one_thread

if TYPE_CHECKING:
    from recgym.scenario import Scenario
    from recgym.worlds.world import World

HISTORY = "validation.json"
BEST = "best.safetensors"
_LUCK = 0x7A11DA7E  # the seed of validation episodes; far from the seeds that evaluations use


class Validation(BaseModel):
    """How a training is validated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(ge=1, description="slates between validations")
    patience: int = Field(5, ge=1, description="validations in a row without a better one that end the training")
    users: int = Field(200, ge=1, description="episodes of a validation, of different users where there are enough")


class StopTraining(Exception):
    """Ends a training that has stopped to improve; see ``Agent.train``."""


def scorer(
    world: World, scenario: Scenario, users: int, device: str = "cpu", user_model: str | None = None
) -> Callable[[Agent], float]:
    """The mean reward of an agent's episodes with a fixed set of ``users`` users and fixed luck.

    They are the last ones in the order in which evaluations draw users, so that small evaluations meet others.
    """
    from recgym.evaluation.catalogue import Catalogue
    from recgym.evaluation.plan import sample_users
    from recgym.evaluation.rollout import play
    from recgym.registration import USER_MODELS
    from recgym.simulation.simulator import Simulator

    rows = sample_users(world.num_users, world.num_users)[-users:]
    seeds = derive_seeds(_LUCK, torch.from_numpy(rows)).numpy()
    model = None if user_model is None else USER_MODELS.load(user_model)(world, device)
    simulator = Simulator(world, scenario, device, model)
    catalogue = Catalogue.of(simulator)

    def score(agent: Agent) -> float:
        with one_thread():
            played = play(agent.clone() if agent.adapts else agent, simulator, rows, seeds, catalogue=catalogue)
        return float(played.episodes["reward"].mean())

    return score


class Validator:
    """Validates an agent while it trains, in ``directory``; called with the slates shown so far.

    A training that was interrupted and resumed repeats the validations after its checkpoint, and comes to the same end.
    """

    def __init__(
        self, agent: Agent, settings: Validation, score: Callable[[Agent], float], directory: Path, resume: bool
    ) -> None:
        """Begins with the validations that ``directory`` holds, if a training is resumed."""
        self.agent, self.settings = agent, settings
        self._score, self._directory = score, directory
        file = directory / HISTORY
        self.history: list[dict[str, Any]] = json.loads(file.read_text()) if resume and file.is_file() else []

    @property
    def best(self) -> dict[str, Any]:
        """The first validation with the highest reward."""
        return max(self.history, key=lambda entry: entry["reward"])

    def __call__(self, steps: int) -> None:
        """Validates if it is time.

        Raises:
            StopTraining: patience is exhausted.
        """
        self.history = [entry for entry in self.history if entry["steps"] < steps]  # later ones are repeated
        last = self.history[-1]["steps"] if self.history else 0
        if steps // self.settings.every > last // self.settings.every:
            self._validate(steps)
            since = len(self.history) - 1 - self.history.index(self.best)
            if since >= self.settings.patience:
                raise StopTraining

    def finish(self, steps: int, stopped: bool) -> dict[str, Any]:
        """Gives the agent back what it was at its best; a training not ``stopped`` is validated at its end as well."""
        if not stopped:
            self._validate(steps)  # the last update may follow the last call
        self.agent.restore(read_tensors(self._directory / BEST))
        return self.best

    def _validate(self, steps: int) -> None:
        reward = self._score(self.agent)
        improved = not self.history or reward > self.best["reward"]
        self.history.append({"steps": steps, "reward": reward})
        if improved:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.agent.tensors().items()}
            partial = self._directory / f"partial-{BEST}"
            save_file(tensors, partial)
            partial.replace(self._directory / BEST)
        partial = self._directory / f"partial-{HISTORY}"
        partial.write_text(json.dumps(self.history, indent=1) + "\n", encoding="utf-8")
        partial.replace(self._directory / HISTORY)
        self.agent.log({"validation/reward": reward}, steps)
