"""Who takes part in an evaluation: agents by name, from run directories, or as objects."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from recgym.agents.online import CURVE
from recgym.agents.protocol import MANIFEST, Agent, agent_class, make_agent, saved_class
from recgym.agents.training import RUN, cache_directory, trained
from recgym.errors import AgentError, RecGymError
from recgym.evaluation.progress import Progress
from recgym.registration import AGENTS
from recgym.scenario import Scenario
from recgym.worlds.world import World

AgentLike: TypeAlias = str | Path | Agent
ALL = "all"


@dataclass(frozen=True)
class Entrant:
    """One line of the leaderboard: a label, and where its agent comes from."""

    label: str
    source: AgentLike

    @property
    def kind(self) -> type[Agent]:
        """The class of the agent."""
        if isinstance(self.source, Agent):
            return type(self.source)
        return saved_class(self.source) if isinstance(self.source, Path) else agent_class(self.source)

    @property
    def must_train(self) -> bool:
        """Whether the agent learns in the environment and was given by name, so that it has to be trained first."""
        return isinstance(self.source, str) and self.kind.learns == "environment"

    def agent(
        self, world: World, scenario: Scenario, known: World, *, train_steps: int | None, progress: Progress
    ) -> Agent:
        """The agent, ready to act: loaded, made, or trained (once; later calls load it from the cache).

        Args:
            world: the world.
            scenario: the scenario, in which a learner is trained.
            known: what the scenario's platform knows of ``world``, which takes a while to cut: see ``platform_world``.
            train_steps: budget of a learner given by name; None: its default.
            progress: told how far the training is.
        """
        if isinstance(self.source, Agent):
            return self.source
        if self.must_train:
            return trained(
                str(self.source),
                world,
                scenario,
                config=_budget(train_steps),
                progress=lambda done, total: progress(f"training {self.label}", done, total),
            )
        return make_agent(self.source, known)

    def curve(self, world: World, scenario: Scenario, *, train_steps: int | None) -> pd.DataFrame:
        """Reward while the agent was trained in ``scenario``, or no rows; arguments as ``agent``.

        Returns:
            columns scenario, agent, steps (slates shown), reward (mean of the latest training episodes).
        """
        empty = pd.DataFrame(columns=["scenario", "agent", "steps", "reward"])
        if isinstance(self.source, Path):
            directory = self.source
        elif self.must_train:
            directory = cache_directory(str(self.source), world, scenario, config=_budget(train_steps))
        else:
            return empty
        record = directory / RUN
        if not record.is_file() or not any(directory.glob("events.out.tfevents.*")):
            return empty
        if (json.loads(record.read_text(encoding="utf-8"))["scenario"] or {}).get("name") != scenario.name:
            return empty
        from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
            EventAccumulator,
        )

        events = EventAccumulator(str(directory)).Reload()
        if CURVE not in events.Tags()["scalars"]:
            return empty
        # What a resumed training repeated is there twice: the later one counts.
        points = {event.step: event.value for event in events.Scalars(CURVE)}
        steps = sorted(points)
        rewards = [points[step] for step in steps]
        return pd.DataFrame({"scenario": scenario.name, "agent": self.label, "steps": steps, "reward": rewards})

    def describe(self) -> dict[str, Any]:
        """Where the agent comes from, for ``run.json``."""
        if isinstance(self.source, Agent):
            return {"object": f"{type(self.source).__module__}:{type(self.source).__qualname__}"}
        return {"run": str(self.source)} if isinstance(self.source, Path) else {"name": self.source}


def _budget(train_steps: int | None) -> dict[str, int] | None:
    """The settings of a learner given by name."""
    return None if train_steps is None else {"total_steps": train_steps}


def entrants(agents: Sequence[AgentLike] | Mapping[str, AgentLike] | AgentLike) -> list[Entrant]:
    """The entrants that ``agents`` names, in order; ``all`` stands for every registered agent.

    Raises:
        UnknownNameError: a name that is neither registered nor a run directory; the message gives the nearest one.
        AgentError: two entrants with one label, none at all, or something that is not an agent.
    """
    if isinstance(agents, str | Path | Agent):
        agents = [agents]
    if not isinstance(agents, Mapping) and ALL in agents:
        rest = [agent for agent in agents if agent not in (ALL, *AGENTS.names())]
        agents = [*AGENTS.names(), *rest]
    pairs = list(agents.items()) if isinstance(agents, Mapping) else [(_label(agent), agent) for agent in agents]
    if not pairs:
        raise AgentError(f"give at least one agent; registered: {', '.join(AGENTS.names())}")
    found: dict[str, Entrant] = {}
    for label, agent in pairs:
        if label in found:
            raise AgentError(
                f"two agents are called {label!r}: give one of the run directories another name (in Python: name them, "
                "agents={'first': ..., 'second': ...})"
            )
        found[label] = Entrant(label, _source(agent))
    return list(found.values())


def moved(agent: Agent, world: World) -> Agent:
    """``agent`` as it acts in another world with the same items.

    What it learned in an environment goes along; what it learned from a log is learned anew, from the log of ``world``.

    Raises:
        AgentError: the items or the observations of ``world`` are others.
    """
    with tempfile.TemporaryDirectory(prefix="recgym-agent-") as home:
        return type(agent).load(agent.save(home), world)


def fingerprint(agent: Agent) -> str:
    """A digest of what decides the agent's slates: its class, configuration, seed and learned tensors."""
    name = f"{type(agent).__module__}:{type(agent).__qualname__}"
    identity = [name, agent.config.model_dump(mode="json"), agent.seed]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for name, tensor in sorted(agent.tensors().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _label(agent: AgentLike) -> str:
    if isinstance(agent, Agent):
        return agent.id
    if not isinstance(agent, str | Path):
        raise AgentError(f"an agent is a name, a run directory or an Agent, got {agent!r}")
    return agent if isinstance(agent, str) and agent in AGENTS.names() else Path(agent).name


def _source(agent: AgentLike) -> AgentLike:
    """``agent`` with a string that leads to a directory turned into a path, after checking that it can be loaded."""
    if isinstance(agent, Agent):
        return agent
    if not isinstance(agent, str | Path):
        raise AgentError(f"an agent is a name, a run directory or an Agent, got {agent!r}")
    if isinstance(agent, Path) or (agent not in AGENTS.names() and Path(agent).is_dir()):
        if not (Path(agent) / MANIFEST).is_file():
            raise AgentError(f"{agent} is not a run of an agent: it holds no {MANIFEST}")
        return Path(agent)
    try:
        agent_class(agent)
    except RecGymError:
        if "/" in agent and ":" not in agent:
            raise AgentError(f"{agent} is neither an agent's name nor a directory that exists") from None
        raise
    return agent
