"""One agent plays one episode with each user, all users of a chunk at once; out come columns of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from gymnasium.vector import AutoresetMode

from recgym.agents.online import Transitions
from recgym.agents.protocol import ActContext, Agent
from recgym.envs.vector import RecVectorEnv
from recgym.errors import ActionError, AgentError
from recgym.evaluation.catalogue import Catalogue
from recgym.evaluation.judge import attention, judge
from recgym.evaluation.ledger import Answer, Ledger
from recgym.evaluation.metrics.arrays import Bools, Floats, Ints
from recgym.evaluation.trace import Trace
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import State

_SMALL = 32  # lanes that are not worth making fewer


@dataclass(frozen=True)
class Played:
    """What a chunk of episodes left behind.

    Attributes:
        episodes: one row a user, in the order given; see ``Ledger.episodes``.
        visits: one row a visit; see ``Ledger.visits``.
        providers: one row a user and group of providers; see ``Ledger.providers``.
        exposures: one row an item that was shown or could have been, ascending; see ``Ledger.exposures``.
        steps: one row a slate position, for the users that were traced.
    """

    episodes: pd.DataFrame
    visits: pd.DataFrame
    providers: pd.DataFrame
    exposures: pd.DataFrame
    steps: pd.DataFrame


def play(
    agent: Agent,
    simulator: Simulator,
    users: Ints,
    lane_seeds: Ints,
    *,
    catalogue: Catalogue,
    num_traced: int = 0,
    finished: Callable[[int], None] = lambda count: None,
) -> Played:
    """Plays one episode with every user.

    Args:
        agent: chooses the slates; one that ``adapts`` is updated after every step.
        simulator: of the world and the scenario.
        users: [B] user rows.
        lane_seeds: [B] the luck of each episode.
        catalogue: of ``world``.
        num_traced: of how many users, from the first, every slate is recorded.
        finished: told after every step how many episodes have ended.

    Raises:
        AgentError: the agent returned slates of the wrong shape.
        ActionError: the agent returned an invalid slate; names the agent, the lane and the reason.
    """
    lanes, rows = len(users), np.arange(len(users))  # rows: of the users who are still on stage
    env = _stage(simulator, agent, lanes)
    trace = Trace(num_traced, env.world, catalogue.prices)
    observations, info = env.reset(
        seed=[int(seed) for seed in lane_seeds], options={"users": users, "episodes": np.zeros(lanes, np.int64)}
    )
    first_day = np.asarray(info["day"], np.int64).copy()
    ledger = Ledger(users, first_day, catalogue, attention(simulator), simulator.session.horizon)
    step = 0
    while ledger.alive.any():
        playing = ledger.alive[rows]
        if 2 * playing.sum() <= len(rows) > _SMALL:
            env, observations = _without(env, agent, playing)
            rows, playing = rows[playing], np.ones(int(playing.sum()), bool)
        count = len(rows)
        context = ActContext(lane_seeds[rows], np.full(count, step), env.slate_size, learning=agent.adapts)
        slates = agent.act(observations, context, env=env if agent.privileged else None)
        if np.shape(slates) != (count, env.slate_size):
            raise AgentError(
                f"agent {agent.id!r} returned slates of shape {np.shape(slates)}, not {(count, env.slate_size)}"
            )
        before, unsure = observations, _disagreement(simulator, env.state, slates)
        obvious = _obvious(env.state, catalogue, env.slate_size)
        verdict = judge(simulator, env.state, slates, playing)
        chance = _log_chance(agent, observations, context, slates)
        try:
            observations, rewards, terminated, truncated, info = env.step(slates)
        except ActionError as error:
            raise ActionError(f"agent {agent.id!r}, slate {step} of the episodes: {error}") from error
        ledger.record(Answer(rows, rewards, terminated, truncated, info, obvious, chance, unsure, verdict))
        if agent.adapts:
            told = (rewards, terminated, truncated, info)
            examined = env.scenario.observation.examined
            agent.update(Transitions.of_step(before, slates, told, lanes=playing, examined=examined))
        trace.record(step, rows, playing, info)
        step += 1
        finished(int(lanes - ledger.alive.sum()))
    return Played(
        ledger.episodes(lane_seeds), ledger.visits(), ledger.providers(), ledger.exposures(), trace.table(users)
    )


def _stage(simulator: Simulator, agent: Agent, lanes: int) -> RecVectorEnv:
    return RecVectorEnv(
        world=simulator.world,
        scenario=simulator.scenario,
        num_envs=lanes,
        action_mode="slate",
        observation=agent.observes,
        strict=True,
        autoreset_mode=AutoresetMode.NEXT_STEP,
        device=simulator.device,
        simulator=simulator,
    )


def _without(env: RecVectorEnv, agent: Agent, playing: Bools) -> tuple[RecVectorEnv, Any]:
    """A smaller environment with the lanes that are ``playing`` [B], and what they observe: a lane is what it was.

    The longest episodes of ninety days have several times the slates of the mean one: without this most of the work
    would be for users whose episodes are over.
    """
    kept = torch.from_numpy(np.flatnonzero(playing))
    state = env.get_state()
    mark = state.pop("fingerprint")
    smaller = _stage(env.simulator, agent, len(kept))
    return smaller, smaller.set_state(
        {"fingerprint": mark, **{name: tensor[kept.to(tensor.device)] for name, tensor in state.items()}}
    )


def _obvious(state: State, catalogue: Catalogue, slate_size: int) -> Floats:
    """[B] popularity of the K-th most popular candidate: who shows no other ones surprises nobody."""
    popularity = catalogue.popularity[state.candidates.numpy(force=True)]
    found: Floats = np.partition(popularity, -slate_size, axis=1)[:, -slate_size]
    return found


def _log_chance(agent: Agent, observations: Any, context: ActContext, slates: Ints) -> Floats:
    """[B] log of the chance of each slate under the agent's own draws; NaN where the agent does not know it."""
    chances = None if agent.adapts else agent.propensities(observations, context, slates)
    if chances is None:
        return np.full(len(slates), np.nan)
    with np.errstate(divide="ignore"):
        found: Floats = np.log(chances).sum(1)
    return found


def _disagreement(simulator: Simulator, state: State, slates: Ints) -> Floats | None:
    """How the members of an ensemble differ on the slates about to be shown, [B] a mean over slots; None without."""
    if not simulator.is_ensemble:
        return None
    positions = torch.as_tensor(slates, device=state.candidates.device).to(torch.int64)
    positions = positions.clamp(0, state.candidates.shape[1] - 1)  # what lies outside is refused by the step itself
    items = state.candidates.to(torch.int64).gather(1, positions)
    spread = simulator.disagreement(state, items)
    return None if spread is None else spread.mean(1).numpy(force=True).astype(np.float64)
