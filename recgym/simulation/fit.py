"""Whether a scenario can be played in a world, found out before anything runs."""

from __future__ import annotations

from recgym.errors import ScenarioError, WorldError
from recgym.registration import SCENARIOS
from recgym.scenario import Scenario, load_scenario
from recgym.simulation.candidates import check_candidates
from recgym.simulation.mood import check_prices
from recgym.simulation.population import PLATFORM, Population
from recgym.simulation.terms import Terms
from recgym.worlds.world import World


def check_fit(world: World, scenario: Scenario) -> Population:
    """Refuses a scenario that ``world`` cannot play; else the users and items of the world as the scenario sees them.

    Raises:
        ScenarioError: names file, key and what is missing.
        WorldError: it is not the world but what some platform knows of it.
    """
    if PLATFORM in world.spec.files:
        raise WorldError(
            f"this is what the platform of a scenario knows of world {world.name!r}; environments take the world "
            "itself, env.simulator.world"
        )
    scenario.check_world(world.name)
    population = Population.of(world, scenario)
    check_candidates(scenario.actions, population.new)
    check_prices(world, scenario)
    asked = {str(one.term): "constraints" for one in scenario.constraints}
    if scenario.objective is not None:
        asked |= {str(name): f"objective.terms.{name}" for name in scenario.objective.terms}
    Terms.check(world, scenario, population, asked)
    return population


def fitting_scenarios(world: World) -> tuple[list[Scenario], dict[str, str]]:
    """The registered scenarios that ``world`` can play; and of the others, by name, why not."""
    found, refused = [], {}
    for name in SCENARIOS.names():
        scenario = load_scenario(name)
        try:
            check_fit(world, scenario)
        except ScenarioError as error:
            refused[name] = str(error)
        else:
            found.append(scenario)
    return found, refused
