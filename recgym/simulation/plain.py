"""A step by torch alone, on any device: computed whole before any of it is written.

On a CPU ``plan.py`` steps in place instead, by compiled kernels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recgym.random import Purpose
from recgym.simulation.choice import Entries, remember, shown_before
from recgym.simulation.draws import begin, step_key, trip_draw
from recgym.simulation.mood import Deal
from recgym.simulation.observation import TEXT_SIZE
from recgym.simulation.record import away, enter, known_start
from recgym.simulation.state import Memory, Outcome, State
from recgym.simulation.terms import Shown
from recgym.types import Slate, Visit

if TYPE_CHECKING:
    from recgym.simulation.simulator import Simulator


@dataclass(frozen=True)
class Reaction:
    """A step that has been computed but not written yet."""

    state: State  # the next state, but for what ``entries`` and ``back`` bring
    outcome: Outcome
    entries: Entries
    ended: Tensor  # [B] bool, the trip ended
    back: State | None  # the n lanes of ``ended`` at the start of their next trip; None in session episodes


def start(core: Simulator, seeds: Tensor, episodes: Tensor, users: Tensor | None) -> State:
    """The state at the start of episodes; see ``Simulator.reset``."""
    luck, drawn = begin(seeds, episodes, core.world.num_users)
    users = drawn if users is None else users
    record, pool = core.records.start(users)
    known = None
    if core.known_records is not None:
        known, familiar = known_start(core.known_records, users)
        pool = dataclasses.replace(familiar, num_items=pool.num_items)
    size = len(users)

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros((size, *shape), dtype=dtype, device=core.device)

    # First as the log left the user, then one absence later: the gap is drawn as between any two trips.
    visit = core.records.last_visit(users)
    state = State(
        seed=seeds.clone(),
        episode=episodes.clone(),
        luck=luck,
        user=users.clone(),
        record=record,
        visit=visit,
        memory=Memory.blank(size, core.memory_size, core.device),
        pool=pool,
        satisfaction=zeros() + core.session.reference,
        steps=zeros(dtype=torch.int32),
        start_day=zeros(dtype=torch.int32),
        shown_text=zeros(TEXT_SIZE),
        shown_count=zeros(dtype=torch.int32),
        consumed_text=zeros(TEXT_SIZE),
        last_hits=zeros(),
        candidates=zeros(core.num_candidates, dtype=torch.int32),
        hidden=core.user_model.init(users, record, visit).clone(),  # its fields are written one by one
        known=known,
        mood=core.moods.start(size),
    )
    state, _ = _return(core, state, torch.ones_like(state.satisfaction))
    state = dataclasses.replace(state, start_day=state.visit.day.clone())
    return _with_candidates(core, state)


def react(core: Simulator, state: State, slate: Tensor, active: Tensor | None) -> Reaction:
    """All that users answer and become, computed without changing anything that a repeated step would read."""
    if active is None:
        active = torch.ones(len(slate), dtype=torch.bool, device=core.device)
    visit = state.visit
    met = core.examination.meet(state, slate)
    lift, promoted = core.moods.offer(state, slate)
    shown = Slate(
        items=slate,
        examined=met.examined,
        lift=lift,
        own_counts=met.own_counts,
        own_days=met.own_days,
        active=active,
    )
    response, probability = core.user_model.respond(state.hidden, shown, visit, met.noise)
    examined, response = core.examination.stop(shown.examined, response)
    shown = shown if examined is shown.examined else dataclasses.replace(shown, examined=examined)
    wanted, again = response.consumed, met.duplicate | shown_before(state.memory, slate.to(torch.int32))
    response, aside = core.moods.put_off(state, slate, response)
    deal = Deal(promoted, aside, core.moods.deliver(state))
    after = core.session.settle(state, slate, response.consumed, met.leave, core.observer.text)
    first = visit.step.to(torch.int64) % core.session.max_slates * core.slate_size
    slots = first[:, None] + torch.arange(core.slate_size, device=core.device)
    entered = slate.to(torch.int32).masked_fill_(met.duplicate, -1)
    entries = Entries(slots, entered, met.seen, examined, response.consumed, probability)
    moved = dataclasses.replace(
        state,
        visit=after.visit,
        satisfaction=after.satisfaction,
        steps=after.steps,
        shown_text=after.shown_text,
        shown_count=after.shown_count,
        consumed_text=after.consumed_text,
        last_hits=after.last_hits,
        hidden=core.user_model.transition(state.hidden, shown, response, after.visit),
        mood=core.moods.settle(state, slate, examined, response, deal),
    )
    ended = after.left | after.limit
    over = moved.steps >= core.session.max_steps
    gap = torch.zeros_like(moved.steps)
    back = None
    if core.session.horizon is None:
        terminated, truncated = after.left, after.limit | over
    else:
        terminated, truncated = torch.zeros_like(ended), over
        rows = ended.nonzero().squeeze(1)
        if len(rows):
            on_trip = moved.select(rows)
            remember(on_trip.memory, entries.select(rows))
            back, gone = _next_trip(core, on_trip)
            terminated[rows], gap[rows] = gone, back.visit.gap_days
            truncated[rows] |= back.visit.day - back.start_day >= core.session.horizon
    truncated = truncated & ~terminated
    shown_slate = Shown(
        items=slate,
        response=response,
        again=again,
        returned=ended & ~terminated & ~truncated,
        wanted=wanted if aside is None else response.consumed | aside,
        paid=core.moods.paid(promoted, slate),
        **core.moods.delivered(state, deal.due),
    )
    earned = core.objective.evaluate(shown_slate)
    outcome = Outcome(
        slate=slate,
        examined=examined,
        response=response,
        duplicate=met.duplicate,
        reward=earned.reward,
        terms=earned.terms,
        costs=earned.costs,
        terminated=terminated,
        truncated=truncated,
        trip_ended=ended,
        gap_days=gap,
    )
    return Reaction(moved, outcome, entries, ended, back)


def finish(core: Simulator, reaction: Reaction) -> tuple[State, Outcome]:
    """Writes the trip's memory and the lanes that came back for another trip, in place, and draws candidates."""
    state = reaction.state
    remember(state.memory, reaction.entries)
    if reaction.back is not None:
        state.write(reaction.ended.nonzero().squeeze(1), reaction.back)
    return _with_candidates(core, state), reaction.outcome


def _return(core: Simulator, state: State, hazard: Tensor) -> tuple[State, Tensor]:
    """Sends users away and has them come back for their next trip; and bool [B], who never comes back."""
    luck = trip_draw(state.luck, state.visit, Purpose.GAP)
    gap, gone = core.user_model.away(state.hidden, state.record, luck, hazard)
    # Fields are written in place later on, so no two may share storage.
    zero = state.visit.step * 0
    number = state.visit.trip + 1
    day = state.visit.day + gap
    visit = Visit(day=day, gap_days=gap, trip=number, step=zero, bought=zero.clone(), intended=zero.clone())
    hidden = core.user_model.arrive(state.hidden, state.record, visit)
    luck = trip_draw(state.luck, visit, Purpose.INTENDED_SIZE)
    intended = core.user_model.intend(hidden, luck)
    state = dataclasses.replace(
        state,
        visit=dataclasses.replace(visit, intended=intended),
        hidden=hidden,
        known=away(state.known, gap),
        mood=core.moods.away(state.mood, visit),
        memory=Memory.blank(len(gap), core.memory_size, core.device),
        shown_text=torch.zeros_like(state.shown_text),
        shown_count=zero.clone(),
        consumed_text=torch.zeros_like(state.consumed_text),
        last_hits=torch.zeros_like(state.last_hits),
    )
    return state, gone


def _next_trip(core: Simulator, state: State) -> tuple[State, Tensor]:
    """Lanes (copies) whose trip ended at the start of their next trip; and who never returns, bool [n]."""
    basket = state.memory.items.masked_fill(~state.memory.bought, -1)
    basket = core.moods.basket(state.mood, basket, state.visit.trip)
    record, known, pool = enter(state.record, state.known, basket, state.visit.day, state.visit.gap_days)
    state = dataclasses.replace(state, record=record, known=known, pool=pool)
    return _return(core, state, core.session.hazard(state.satisfaction) * core.moods.hazard(state.mood))


def _with_candidates(core: Simulator, state: State) -> State:
    if not core.draws_candidates:
        return state
    key = step_key(state.luck, state.visit, Purpose.CANDIDATES)
    return dataclasses.replace(
        state, candidates=core.candidates.draw(key, state.pool, state.visit.day - state.start_day)
    )
