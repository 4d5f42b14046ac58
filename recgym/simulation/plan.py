"""The step on a CPU: compiled kernels bound once to the memory of a state, which is updated in place.

Binding costs as much as some steps, and a step then next to nothing beside the arithmetic: a single user is stepped
thousands of times a second, and threads that step chunks of many users hardly meet at the interpreter's lock.
"""

from __future__ import annotations

import dataclasses
import weakref
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from recgym.compiled import candidates as candidate_kernels
from recgym.compiled import choice as kernels
from recgym.compiled import session as session_kernels
from recgym.compiled import trips
from recgym.random import Purpose
from recgym.simulation.choice import shown_before
from recgym.simulation.draws import PURPOSES, trip_draw
from recgym.simulation.mood import Deal
from recgym.simulation.record import PAD, away, enter, known_start
from recgym.simulation.state import Mood, Outcome, State
from recgym.simulation.terms import Shown
from recgym.threads import spread
from recgym.types import Noise, Response, Slate, TensorRecord, Visit
from recgym.user_models.protocol import BindingUserModel, BoundUsers, Exchange

if TYPE_CHECKING:
    from recgym.simulation.simulator import Simulator


_BEGIN = np.array([Purpose.USER, Purpose.GAP], np.uint64)
_INTENDED_SIZE = np.uint64(Purpose.INTENDED_SIZE)
_SHOWN = ("slate", "examined", "consumed", "quantity", "rating", "duplicate", "gap_days")  # what an outcome copies


class Chunk:
    """Consecutive lanes of a plan that one thread steps."""

    def __init__(self, simulator: Simulator, state: State, told: dict[str, np.ndarray]) -> None:
        """Binds the kernels.

        Args:
            simulator: what is stepped.
            state: views of n lanes of the plan's state.
            told: views of what comes in and goes out: ``Plan.told``.
        """
        self.simulator, self.state, self.told = simulator, state, told
        lanes, slots = told["slate"].shape
        reals = np.zeros((9, lanes, slots), np.float32)
        want, quantity, rating, examine, refused, floor, own_counts, own_days, lift = reals
        lift[:] = simulator.scenario.behaviour.lift  # for good, unless moods change it slate by slate
        by_step = np.zeros((2, lanes), np.float32)
        refusals, bought = np.zeros((lanes, slots), np.int16), np.zeros((lanes, slots), np.bool_)
        probability = np.zeros((lanes, slots), np.float32)
        self.exchange = Exchange(
            items=told["slate"],
            examined=told["examined"],
            lift=lift,
            own_counts=own_counts,
            own_days=own_days,
            want=want,
            quantity_luck=quantity,
            rating_luck=rating,
            probability=probability,
            consumed=told["consumed"],
            quantity=told["quantity"],
            rating=told["rating"],
        )
        visit, record, memory = state.visit, state.record, state.memory
        shown = _arrays(memory.items, memory.refusals, memory.refused, memory.floor, memory.bought)
        seen = (refusals, refused, floor, bought)
        self._meet = (
            *_arrays(state.luck, visit.trip, visit.step, visit.day),
            *_arrays(record.items, record.counts, record.last_days, state.pool.num_items),
            *shown,
            *(told["slate"], PURPOSES, *simulator.examination.tables()),
            *(reals[:4], by_step, refusals, reals[4:6], told["duplicate"], bought, told["examined"], reals[6:8]),
        )
        self._cascade = simulator.examination.cascade
        self._stop = (told["examined"], told["consumed"], told["quantity"], told["rating"])
        session = simulator.session
        self._conclude = (
            *shown,
            *seen,
            *(told["duplicate"], told["examined"], told["consumed"], probability, told["slate"]),
            *_arrays(visit.step, visit.bought, visit.intended, state.steps, state.satisfaction, state.last_hits),
            *_arrays(state.shown_text, state.shown_count, state.consumed_text),
            *(by_step[1], simulator.observer.text.numpy()),
            *(np.float32(session.rate), np.float32(session.patience), session.max_slates),
            *(told["left"], told["limit"]),
        )
        self._prepare = (
            *_arrays(state.luck, visit.trip, visit.step),
            np.uint64(Purpose.CANDIDATES),
            *simulator.candidates.arguments(state.pool, visit.day, state.start_day),
            state.candidates.numpy(),
        )
        self._users: BoundUsers | None = None
        if simulator.binds:
            model = cast(BindingUserModel, simulator.user_model)
            self._users = model.bind(state.hidden, state.user, record, visit, self.exchange)
        self._memory = _trip_memory(state)
        self._again = None if simulator.objective.compiled else told["again"]
        self._mood: Mood | None = None  # after the slate
        self._hidden: TensorRecord | None = None
        self._active = np.arange(lanes)

    def react(self) -> None:
        """What users answer, computed without changing the state."""
        self._active = np.flatnonzero(self.told["active"])
        kernels.meet(*self._meet)
        state, slate, moods = self.state, torch.from_numpy(self.told["slate"]), self.simulator.moods
        if self._again is not None:
            shown = shown_before(state.memory, slate.to(torch.int32)).numpy()
            np.logical_or(shown, self.told["duplicate"], out=self._again)
        promoted = None
        if moods.active:
            lift, promoted = moods.offer(state, slate)
            self.exchange.lift[:] = lift.numpy()
        if self._users is not None:
            self._users.answer()
        else:
            with torch.no_grad():
                self._respond()
        if self._cascade:
            kernels.stop(*self._stop)
        if moods.active:
            self._settle(slate, promoted)
        if self._users is None:
            with torch.no_grad():
                self._transition()

    def _settle(self, slate: Tensor, promoted: Tensor | None) -> None:
        """What the slate does to wants, and what is put aside or was: computed without changing the state."""
        told, moods, state = self.told, self.simulator.moods, self.state
        answer = Response(*(torch.from_numpy(told[name]) for name in ("consumed", "quantity", "rating")))
        told["wanted"][:] = told["consumed"]
        left, aside = moods.put_off(state, slate, answer)
        if aside is not None:
            told["wanted"][:] = (left.consumed | aside).numpy()
            for name in ("consumed", "quantity", "rating"):
                told[name][:] = getattr(left, name).numpy()
        deal = Deal(promoted, aside, moods.deliver(state))
        told["paid"][:] = moods.paid(promoted, slate).numpy()
        for name, values in moods.delivered(state, deal.due).items():
            told[name][:] = values.numpy()
        self._mood = moods.settle(state, slate, torch.from_numpy(told["examined"]), left, deal)

    def _respond(self) -> None:
        """What users answer that are not bound."""
        told, state = self.exchange, self.state
        met = (told.items, told.examined, told.lift, told.own_counts, told.own_days, self.told["active"])
        slate = Slate(*(torch.from_numpy(a) for a in met))
        noise = Noise(*(torch.from_numpy(a) for a in (told.want, told.quantity_luck, told.rating_luck)))
        model = self.simulator.user_model
        response, probability = model.respond(state.hidden, slate, state.visit, noise)
        for array, values in (
            (told.probability, probability),
            (told.consumed, response.consumed),
            (told.quantity, response.quantity),
            (told.rating, response.rating),
        ):
            array[:] = values.numpy()

    def _transition(self) -> None:
        """What users become that are not bound."""
        told, state = self.exchange, self.state
        met = (told.items, told.examined, told.lift, told.own_counts, told.own_days, self.told["active"])
        slate = Slate(*(torch.from_numpy(a) for a in met))
        answer = Response(*(torch.from_numpy(a) for a in (told.consumed, told.quantity, told.rating)))
        visit = state.visit
        after = Visit(
            day=visit.day,
            gap_days=visit.gap_days,
            trip=visit.trip,
            step=visit.step + 1,
            bought=visit.bought + answer.consumed.sum(dim=1, dtype=torch.int32),
            intended=visit.intended,
        )
        self._hidden = self.simulator.user_model.transition(state.hidden, slate, answer, after)

    def conclude(self) -> None:
        """Moves on, in place."""
        session_kernels.conclude(*self._conclude)
        if self._mood is not None and self.state.mood is not None:
            self.state.mood.assign(self._mood)
        if self._users is not None:
            self._users.move(self._active)
        elif self._hidden is not None:
            self.state.hidden.assign(self._hidden)
            self._hidden = None

    def prepare(self) -> None:
        """Candidates for the step to come, of the lanes that are active."""
        candidate_kernels.prepare(self._active, *self._prepare)

    def restart(self, lanes: np.ndarray, seeds: np.ndarray, episodes: np.ndarray, users: np.ndarray) -> None:
        """Takes ``lanes`` of the chunk, whose users are bound, to the start of episodes; see ``trips.begin``."""
        luck = np.empty(len(lanes), np.float32)
        reference = np.float32(self.simulator.session.reference)
        given = (self.simulator.records.shelf, _BEGIN, reference, PAD, self.simulator.slate_size)
        trips.begin(*given, self._memory, lanes, seeds, episodes, users, luck)
        self._bound.init(lanes)
        self._forget(lanes)
        self._travel(lanes, luck, np.ones(len(lanes), np.float32))
        self._memory.start_day[lanes] = self._memory.day[lanes]
        if self.simulator.draws_candidates:
            candidate_kernels.prepare(lanes, *self._prepare)

    def return_from_trips(self) -> None:
        """Takes lanes whose trip has ended, and whose users are bound, to their next one; writes gap_days and gone."""
        state, told = self.state, self.told
        lanes = np.flatnonzero(told["left"] | told["limit"])
        told["gap_days"][:], told["gone"][:] = 0, False
        if not len(lanes):
            return
        rows = torch.from_numpy(lanes)
        visit, memory = state.visit.select(rows), state.memory.select(rows)
        basket = memory.items.masked_fill(~memory.bought, -1)
        mood = None if state.mood is None else state.mood.select(rows)
        basket = self.simulator.moods.basket(mood, basket, visit.trip)
        known = None if state.known is None else state.known.select(rows)
        record, known, pool = enter(state.record.select(rows), known, basket, visit.day, visit.gap_days)
        state.record.write(rows, record)
        state.pool.write(rows, pool)
        if state.known is not None and known is not None:
            state.known.write(rows, known)
        luck = trip_draw(state.luck[rows], visit, Purpose.GAP)
        hazard = self.simulator.session.hazard(state.satisfaction[rows]) * self.simulator.moods.hazard(mood)
        told["gap_days"][lanes], told["gone"][lanes] = self._travel(lanes, luck.numpy(), hazard.numpy())

    def _forget(self, lanes: np.ndarray) -> None:
        """As episodes of ``lanes`` begin: no mood yet, and what the platform has on file where it knows less."""
        state, records = self.state, self.simulator.known_records
        mood = self.simulator.moods.start(len(lanes))
        if state.mood is not None and mood is not None:
            state.mood.write(torch.from_numpy(lanes), mood)
        if state.known is None or records is None:
            return
        rows = torch.from_numpy(lanes)
        known, familiar = known_start(records, state.user[rows])
        state.known.write(rows, known)
        state.pool.write(rows, dataclasses.replace(familiar, num_items=state.pool.num_items[rows]))

    @property
    def _bound(self) -> BoundUsers:
        assert self._users is not None  # noqa: S101 - whoever restarts lanes in place has checked
        return self._users

    def _travel(self, lanes: np.ndarray, luck: np.ndarray, hazard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sends ``lanes`` away and has them come back for their next trip: days away, and who never comes back."""
        gap, gone = np.empty(len(lanes), np.int32), np.empty(len(lanes), np.bool_)
        self._bound.away(lanes, luck, hazard, gap, gone)
        intention = np.empty(len(lanes), np.float32)
        trips.come_back(_INTENDED_SIZE, self.simulator.slate_size, self._memory, lanes, gap, intention)
        self._bound.arrive(lanes, intention)
        rows, state = torch.from_numpy(lanes), self.state
        if state.known is not None:
            known = away(state.known.select(rows), torch.from_numpy(gap))
            assert known is not None  # noqa: S101 - what is known stays known
            state.known.write(rows, known)
        if state.mood is not None:
            mood = self.simulator.moods.away(state.mood.select(rows), state.visit.select(rows))
            assert mood is not None  # noqa: S101 - likewise
            state.mood.write(rows, mood)
        return gap, gone


class Plan:
    """Steps one state."""

    def __init__(self, simulator: Simulator, state: State, chunk: int) -> None:
        """Binds chunks of ``chunk`` lanes each."""
        lanes, slots = len(state.seed), simulator.slate_size
        self.simulator, self.chunk = simulator, chunk
        flags = ("examined", "consumed", "duplicate")
        self.told: dict[str, np.ndarray] = {name: np.zeros((lanes, slots), np.bool_) for name in flags}
        self.told |= {name: np.zeros(lanes, np.bool_) for name in ("active", "left", "limit", "gone")}
        self.told |= {name: np.zeros((lanes, slots), np.int32) for name in ("quantity", "rating")}
        self.told["gap_days"] = np.zeros(lanes, np.int32)
        self.told["slate"] = np.zeros((lanes, slots), np.int64)
        if not simulator.objective.compiled or simulator.moods.active:
            self.told |= {name: np.zeros((lanes, slots), np.bool_) for name in ("again", "wanted")}
            self.told |= {name: np.zeros(lanes, np.float32) for name in ("delivered", "delivered_value")}
            self.told["paid"] = np.ones((lanes, slots), np.float32)
        self.views = simulator.observer.bind(state, chunk)
        self.chunks = []
        for start in range(0, lanes, chunk):
            part = slice(start, start + chunk)
            view = state.map(lambda tensor, part=part: tensor[part])
            self.chunks.append(Chunk(simulator, view, {name: array[part] for name, array in self.told.items()}))

    def step(self, state: State, slate: Tensor, active: Tensor | None) -> Outcome:
        """Shows a checked ``slate`` [B, K] to the ``active`` lanes (None: all) of the state that the plan is of."""
        self.told["slate"][:] = slate.numpy()
        self.told["active"][:] = True if active is None else active.numpy()
        # All lanes react before any moves on: an exception of a user model leaves every lane as it was.
        spread(Chunk.react, self.chunks)
        spread(Chunk.conclude, self.chunks)
        if self.simulator.session.horizon is not None:
            spread(Chunk.return_from_trips, self.chunks)
        outcome = self._outcome(state)
        if self.simulator.draws_candidates:
            spread(Chunk.prepare, self.chunks)
        return outcome

    def restart(self, lanes: np.ndarray, seeds: np.ndarray, episodes: np.ndarray, users: np.ndarray) -> None:
        """Takes ``lanes`` (int64 [n], ascending) to the start of episodes; see ``trips.begin``. Users must be bound."""

        def begin(number: int) -> None:
            first, stop = np.searchsorted(lanes, (number * self.chunk, (number + 1) * self.chunk))
            part = slice(first, stop)
            if first < stop:
                self.chunks[number].restart(lanes[part] - number * self.chunk, seeds[part], episodes[part], users[part])

        spread(begin, range(len(self.chunks)))

    def _outcome(self, state: State) -> Outcome:
        arrays: dict[str, np.ndarray] = {name: self.told[name].copy() for name in _SHOWN}
        left, limit, session = self.told["left"], self.told["limit"], self.simulator.session
        over = state.steps.numpy() >= session.max_steps
        gone = left
        if session.horizon is None:
            over |= limit
        else:
            over |= (left | limit) & (state.visit.day.numpy() - state.start_day.numpy() >= session.horizon)
            gone = self.told["gone"]
        arrays |= {"terminated": gone.copy(), "truncated": over & ~gone, "trip_ended": left | limit}
        objective = self.simulator.objective
        if objective.compiled:
            answer = (arrays[name] for name in ("slate", "consumed", "quantity", "rating"))
            terms = objective.evaluate_arrays(*answer)
            arrays["reward"] = terms.pop("reward")
            return Outcome.of_arrays(arrays, terms)
        told = {name: torch.from_numpy(array) for name, array in (self.told | arrays).items()}
        moved = self.simulator.moods.active
        shown = Shown(
            items=told["slate"],
            response=Response(told["consumed"], told["quantity"], told["rating"]),
            again=told["again"],
            returned=told["trip_ended"] & ~told["terminated"] & ~told["truncated"],
            wanted=told["wanted" if moved else "consumed"],
            paid=told["paid"],
            delivered=told["delivered"],
            delivered_value=told["delivered_value"],
        )
        earned = objective.evaluate(shown)
        arrays["reward"] = earned.reward.numpy()
        return Outcome.of_arrays(arrays, {name: term.numpy() for name, term in earned.terms.items()}, earned.costs)


class Plans:
    """The plan of each state that is being stepped, for as long as the state lives."""

    def __init__(self) -> None:
        self._plans: dict[int, tuple[weakref.ref[State], Plan]] = {}

    def known(self, state: State) -> Plan | None:
        """The plan of ``state``, if it has been stepped."""
        known = self._plans.get(id(state))
        return known[1] if known is not None and known[0]() is state else None

    def of(self, simulator: Simulator, state: State, chunk: int) -> Plan:
        """The plan of ``state``, bound anew where there is none or the number of threads has changed."""
        plan = self.known(state)
        if plan is not None and plan.chunk == chunk:
            return plan
        plan, key = Plan(simulator, state, chunk), id(state)
        self._plans[key] = (weakref.ref(state, lambda _: self._plans.pop(key, None)), plan)
        return plan


def _trip_memory(state: State) -> trips.Memory:
    record, visit, memory, pool = state.record, state.visit, state.memory, state.pool
    return trips.Memory(
        *_arrays(state.seed, state.episode, state.luck, state.user),
        *_arrays(record.items, record.counts, record.last_days),
        *_arrays(record.num_trips, record.mean_log_size, record.mean_log_gap, record.recent),
        *_arrays(pool.items, pool.cost, pool.num_items),
        *_arrays(visit.day, visit.gap_days, visit.trip, visit.step, visit.bought, visit.intended),
        *_arrays(memory.items, memory.refusals, memory.refused, memory.floor, memory.bought),
        *_arrays(state.satisfaction, state.steps, state.start_day),
        *_arrays(state.shown_text, state.shown_count, state.consumed_text, state.last_hits),
    )


def _arrays(*tensors: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.numpy() for tensor in tensors)
