"""The plan of an evaluation: names resolved and numbers checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from recgym.agents.protocol import vocabulary_hash
from recgym.devices import usable
from recgym.errors import RecGymError
from recgym.evaluation.entrants import AgentLike, Entrant, entrants
from recgym.evaluation.metrics.arrays import Ints
from recgym.random import derive_seeds
from recgym.registration import USER_MODELS
from recgym.scenario import Scenario, load_scenario
from recgym.simulation.fit import check_fit
from recgym.sources import own_source, recgym_source
from recgym.worlds.named import named_world
from recgym.worlds.world import World

CHUNK = 512
_SAMPLE = 0x5A3D1E  # the stream that orders users for sampling; far from the evaluation seeds people use

Scenarios: TypeAlias = Sequence[str | Path | Scenario] | str | Path | Scenario
Agents: TypeAlias = Sequence[AgentLike] | Mapping[str, AgentLike] | AgentLike


@dataclass(frozen=True)
class Plan:
    """An evaluation, resolved and checked before anything runs."""

    world: World
    scenarios: tuple[Scenario, ...]
    entrants: tuple[Entrant, ...]
    users: Ints  # [n] user rows, the same for every agent, scenario and seed
    requested_users: int
    seeds: tuple[int, ...]
    chunk: int  # users simulated at once
    train_steps: int | None
    device: str
    user_model: str
    home: World | None = None  # where the agents are trained, if that is another world

    def to_dict(self) -> dict[str, Any]:
        """The resolved configuration, as JSON values."""
        spec = self.world.spec
        return {
            "world": {
                "name": self.world.name,
                "title": spec.title,
                "hash": self.world.hash,
                "kind": spec.kind,
                "reward": spec.reward,
                "currency": spec.currency,
                "num_users": spec.num_users,
                "num_items": spec.num_items,
                "data": spec.data,
            },
            "scenarios": {scenario.name: scenario.model_dump(mode="json") for scenario in self.scenarios},
            "agents": {entrant.label: entrant.describe() for entrant in self.entrants},
            "users": {"requested": self.requested_users, "used": len(self.users), "available": self.world.num_users},
            "seeds": list(self.seeds),
            "chunk": self.chunk,
            "train_steps": self.train_steps,
            "device": self.device,
            "user_model": self.user_model,
            "trained_in": {"name": self.home.name, "hash": self.home.hash} if self.home else None,
        }

    def code(self) -> dict[str, str]:
        """Digests of the code that rows come of: RecGym's, and of agents and users that are not RecGym's own."""
        return {"source of RecGym": recgym_source(), **own_code(self.entrants, self.user_model)}


def own_code(taking_part: Iterable[Entrant], user_model: str) -> dict[str, str]:
    """Digests of the source of agents and users, by what a message calls them; RecGym's own are left out."""
    kinds: dict[str, Any] = {f"source of agent {entrant.label}": entrant.kind for entrant in taking_part}
    kinds[f"source of user model {user_model}"] = USER_MODELS.load(user_model)
    return {name: source for name, kind in kinds.items() if (source := own_source(kind)) is not None}


def make_plan(
    world: str | Path | World,
    scenarios: Scenarios | None = None,
    agents: Agents = (),
    users: int | None = None,
    seeds: int | Sequence[int] | None = None,
    train_steps: int | None = None,
    chunk: int = CHUNK,
    device: str = "cpu",
    user_model: str = "preference",
    trained_in: str | Path | World | None = None,
) -> Plan:
    """Resolves every name and checks every number; see ``evaluate``."""
    taking_part = tuple(entrants(agents))
    loaded, own = named_world(world)
    scenarios = own if scenarios is None else scenarios
    if isinstance(scenarios, str | Path | Scenario):
        scenarios = [scenarios]
    resolved = tuple(load_scenario(scenario) for scenario in scenarios)
    names = [scenario.name for scenario in resolved]
    if not names or len(set(names)) < len(names):
        raise RecGymError(f"give at least one scenario, each under a name of its own; got {names}")
    users = resolved[0].evaluation.users if users is None else users
    for name, count in (("users", users), ("chunk", chunk), ("train_steps", 1 if train_steps is None else train_steps)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise RecGymError(f"{name} must be a whole number of at least 1, got {count!r}")
    numbers = _seeds(resolved[0].evaluation.seeds if seeds is None else seeds)
    usable(device)
    USER_MODELS.load(user_model)  # an unknown name is told before anything is trained
    schools = {scenario.env.train_world for scenario in resolved}
    if trained_in is None and len(schools) > 1:
        raise RecGymError(f"scenarios {names} train agents in different worlds; evaluate them one by one")
    trained_in = trained_in or schools.pop()
    home = None if trained_in is None else named_world(trained_in)[0]
    for scenario in resolved:
        check_fit(loaded, scenario)
        if home is not None:
            check_fit(home, scenario_at_home(scenario, home))
    if home is not None and vocabulary_hash(home) != vocabulary_hash(loaded):
        raise RecGymError(
            f"agents trained in world {home.name!r} cannot be scored in {loaded.name!r}: the two have different items"
        )
    return Plan(
        world=loaded,
        scenarios=resolved,
        entrants=taking_part,
        users=sample_users(loaded.num_users, users),
        requested_users=users,
        seeds=numbers,
        chunk=min(chunk, users, loaded.num_users),
        train_steps=train_steps,
        device=device,
        user_model=user_model,
        home=home,
    )


def at_home(plan: Plan) -> Plan | None:
    """The same evaluation in the world that the agents are trained in; None where that is where they are scored."""
    if plan.home is None:
        return None
    users = sample_users(plan.home.num_users, plan.requested_users)
    scenarios = tuple(scenario_at_home(scenario, plan.home) for scenario in plan.scenarios)
    return replace(
        plan, world=plan.home, home=None, scenarios=scenarios, users=users, chunk=min(plan.chunk, len(users))
    )


def scenario_at_home(scenario: Scenario, home: World) -> Scenario:
    """The scenario as it is played in the world of the training."""
    return load_scenario(scenario, {"env.world": home.name, "env.train_world": None})


def sample_users(available: int, count: int) -> Ints:
    """The first ``count`` of all user rows in a fixed random order: a larger sample contains every smaller one."""
    keys = derive_seeds(_SAMPLE, torch.arange(available))
    order: Ints = keys.argsort(stable=True)[:count].numpy()
    return order


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        if seeds < 1:
            raise RecGymError(f"seeds must be at least 1, got {seeds}")
        return tuple(range(seeds))
    chosen = tuple(seeds) if isinstance(seeds, Sequence) else ()
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in chosen)
    if not chosen or not whole or len(set(chosen)) < len(chosen):
        raise RecGymError(f"seeds must be a count or different whole numbers of at least 0, got {seeds!r}")
    return chosen
