"""The functional core: the only place where users react, for all lanes at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from recgym import compiled
from recgym.devices import usable
from recgym.errors import ActionError, StateError
from recgym.random import Purpose, fold
from recgym.registration import USER_MODELS
from recgym.scenario import Scenario
from recgym.simulation.candidates import CandidateGenerator
from recgym.simulation.choice import Entries, Examination, recall, remember
from recgym.simulation.draws import begin, step_key, trip_draw
from recgym.simulation.kernels import sigmoid
from recgym.simulation.objective import Objective
from recgym.simulation.observation import TEXT_SIZE, Observer
from recgym.simulation.plan import Plans
from recgym.simulation.record import PAD, Records, merge, own_history, own_pool
from recgym.simulation.session import Session
from recgym.simulation.state import Memory, Outcome, State, used_entries
from recgym.threads import num_chunk_threads, spread
from recgym.types import Slate, Visit
from recgym.user_models.protocol import UserModel, can_bind
from recgym.worlds.world import World

CHUNK = 2048  # lanes stepped together on a CPU, by one thread; more would only take memory
_SMALLEST_CHUNK = 64  # below, handing lanes to another thread costs more than it brings


@dataclass(frozen=True)
class Reaction:
    """A step that has been computed but not written yet."""

    state: State  # the next state, but for what ``entries`` and ``back`` bring
    outcome: Outcome
    entries: Entries
    ended: Tensor  # [B] bool, the trip ended
    back: State | None  # the n lanes of ``ended`` at the start of their next trip; None in session episodes


class Simulator:
    """B simulated users, stepped together; B is whatever the state given to a method has.

    Every draw is a hash of the lane's seed, the episode and what is drawn, so a lane has bitwise the same outcomes
    alone or in any batch. The simulator keeps no state but buffers.
    """

    def __init__(
        self,
        world: World,
        scenario: Scenario,
        device: str | torch.device = "cpu",
        user_model: UserModel | None = None,
        draws_candidates: bool = True,
    ) -> None:
        """Tabulates what is static.

        Args:
            world: the world to simulate.
            scenario: behaviour, episodes, candidates and objective.
            device: where the tensors live.
            user_model: the users; None: the world's own preference model.
            draws_candidates: whether candidates are wanted; without them, those of a state are all item row 0.

        Raises:
            ScenarioError: the scenario does not fit the world.
            RecGymError: the device cannot be used here.
        """
        scenario.check_world(world.name)
        self.world, self.scenario, self.device = world, scenario, usable(device)
        actions = scenario.actions
        self.draws_candidates = draws_candidates
        self.slate_size, self.num_candidates = actions.slate_size, actions.num_candidates
        if user_model is None:
            user_model = USER_MODELS.load("preference")(world, self.device)
        self.user_model: UserModel = user_model
        self._can_bind = can_bind(user_model)
        self.records = Records(world, self.device)
        popularity = world.items["popularity"].to_numpy("float64")
        self.candidates = CandidateGenerator(popularity, actions, self.device)
        self.objective = Objective(world, scenario, self.device)
        self.observer = Observer(world, scenario, self.device)
        self.session = Session(scenario, world.spec.behaviour.get("satisfaction_reference", 0.5))
        limit = scenario.episode.max_slates
        self.examination = Examination(scenario.behaviour, self.slate_size, limit, self.device)
        self._slots = torch.arange(self.slate_size, device=self.device)
        self._memory_size = self.session.max_slates * self.slate_size
        self._plans = Plans()
        self._lift = torch.tensor(scenario.behaviour.lift, device=self.device)

    # ------------------------------------------------------------------ beginnings

    @torch.no_grad()
    def reset(self, seeds: Tensor, episodes: Tensor, users: Tensor | None = None) -> State:
        """The state at the start of episodes.

        Args:
            seeds: identities of the lanes, int64 [B].
            episodes: number of the episode in each lane's stream, int64 [B].
            users: user rows, int64 [B]; None: drawn by hashing seed and episode.

        Returns:
            A new state of B lanes.
        """
        self._check_users(users)
        if self.binds:
            state = self._blank(len(seeds))
            self.restart(state, torch.arange(len(seeds)), seeds, episodes, users)
            return state
        return self._start(seeds, episodes, users)

    def _start(self, seeds: Tensor, episodes: Tensor, users: Tensor | None) -> State:
        luck, drawn = begin(seeds, episodes, self.world.num_users)
        users = drawn if users is None else users
        record, pool = self.records.start(users)
        size = len(users)

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros((size, *shape), dtype=dtype, device=self.device)

        # First as the log left the user, then one absence later: the gap is drawn as between any two trips.
        visit = self.records.last_visit(users)
        state = State(
            seed=seeds.clone(),
            episode=episodes.clone(),
            luck=luck,
            user=users.clone(),
            record=record,
            visit=visit,
            memory=Memory.blank(size, self._memory_size, self.device),
            pool=pool,
            satisfaction=zeros() + self.session.reference,
            steps=zeros(dtype=torch.int32),
            start_day=zeros(dtype=torch.int32),
            shown_text=zeros(TEXT_SIZE),
            shown_count=zeros(dtype=torch.int32),
            consumed_text=zeros(TEXT_SIZE),
            last_hits=zeros(),
            candidates=zeros(self.num_candidates, dtype=torch.int32),
            hidden=self.user_model.init(users, record, visit).clone(),  # its fields are written one by one
        )
        state, _ = self._return(state, torch.ones_like(state.satisfaction))
        state = dataclasses.replace(state, start_day=state.visit.day.clone())
        return self._with_candidates(state)

    def restart(
        self, state: State, lanes: Tensor, seeds: Tensor, episodes: Tensor, users: Tensor | None = None
    ) -> None:
        """Takes ``lanes`` (int64 [n], ascending) of ``state`` to the start of episodes, in place; else as ``reset``."""
        self._check_users(users)
        if self.binds:
            rows = torch.full_like(lanes, -1) if users is None else users
            plan = self._plans.of(self, state, self._chunk(len(state.seed)))
            plan.restart(*(tensor.numpy() for tensor in (lanes, seeds, episodes, rows)))
            return
        self.place(state, lanes, self.starts(seeds, episodes, users))

    @torch.no_grad()
    def starts(self, seeds: Tensor, episodes: Tensor, users: Tensor | None = None) -> list[State]:
        """The beginnings of n episodes in parts, in order: all that may fail of a restart where users are not bound."""

        def start(part: Tensor) -> State:
            return self._start(seeds[part], episodes[part], None if users is None else users[part])

        return spread(start, torch.arange(len(seeds), device=self.device).split(self._chunk(len(seeds))))

    def place(self, state: State, lanes: Tensor, starts: list[State]) -> None:
        """Writes the n beginnings ``starts`` into ``lanes`` (int64 [n]) of ``state``."""
        for rows, start in zip(lanes.split([len(start.seed) for start in starts]), starts, strict=True):
            state.write(rows, start)

    @property
    def binds(self) -> bool:
        """Whether the users are bound to the memory of a state."""
        return compiled.enabled() and self.device.type == "cpu" and self._can_bind

    def _check_users(self, users: Tensor | None) -> None:
        if users is None:
            return
        outside = (users < 0) | (users >= self.world.num_users)
        if outside.any():
            lane = int(outside.nonzero()[0])
            raise StateError(f"user row {int(users[lane])} of lane {lane} must lie in 0..{self.world.num_users - 1}")

    @cached_property
    def _prototype(self) -> State:
        one = torch.zeros(1, dtype=torch.int64)
        return self._start(one, one, None)

    def _blank(self, size: int) -> State:
        """Memory for ``size`` lanes that have yet to begin."""
        state = self._prototype.map(lambda tensor: tensor.new_empty((size, *tensor.shape[1:])))
        state.visit.step.zero_()
        state.candidates.zero_()
        state.record.items.fill_(PAD)
        for tensor in (state.record.counts, state.record.last_days, state.pool.num_items):
            tensor.zero_()
        return dataclasses.replace(state, memory=Memory.blank(size, self._memory_size, self.device))

    def _chunk(self, lanes: int) -> int:
        """How many of ``lanes`` are computed together."""
        if self.device.type != "cpu":
            return max(lanes, 1)
        threads = num_chunk_threads()
        rounds = max(-(-lanes // (CHUNK * threads)), 1)  # in which each thread takes a chunk, of equal size: none waits
        return max(-(-lanes // (rounds * threads)), _SMALLEST_CHUNK)

    def _return(self, state: State, hazard: Tensor) -> tuple[State, Tensor]:
        """Sends users away and has them come back for their next trip; and bool [B], who never comes back."""
        luck = trip_draw(state.luck, state.visit, Purpose.GAP)
        gap, gone = self.user_model.away(state.hidden, state.record, luck, hazard)
        # Fields are written in place later on, so no two may share storage.
        zero = state.visit.step * 0
        number = state.visit.trip + 1
        day = state.visit.day + gap
        visit = Visit(day=day, gap_days=gap, trip=number, step=zero, bought=zero.clone(), intended=zero.clone())
        hidden = self.user_model.arrive(state.hidden, state.record, visit)
        luck = trip_draw(state.luck, visit, Purpose.INTENDED_SIZE)
        intended = self.user_model.intend(hidden, luck)
        state = dataclasses.replace(
            state,
            visit=dataclasses.replace(visit, intended=intended),
            hidden=hidden,
            memory=Memory.blank(len(gap), self._memory_size, self.device),
            shown_text=torch.zeros_like(state.shown_text),
            shown_count=zero.clone(),
            consumed_text=torch.zeros_like(state.consumed_text),
            last_hits=torch.zeros_like(state.last_hits),
        )
        return state, gone

    def _with_candidates(self, state: State) -> State:
        if not self.draws_candidates:
            return state
        key = step_key(state.luck, state.visit, Purpose.CANDIDATES)
        return dataclasses.replace(state, candidates=self.candidates.draw(key, state.pool))

    # ------------------------------------------------------------------ one slate

    def step(self, state: State, slate: Tensor, active: Tensor | None = None) -> tuple[State, Outcome]:
        """Shows every user a slate and moves on.

        Args:
            state: B lanes. It is consumed: its memory is used by the state returned, so clone it to keep it. If this
                raises, it is still what it was.
            slate: item rows, int64 [B, K].
            active: bool [B]; what becomes of the other lanes is undefined until they restart. None: all.

        Returns:
            The next state, and what came of the slate. Lanes that ended keep going if stepped on: resetting them is
            the shell's business.

        Raises:
            ActionError: a slate of the wrong shape, type or device, or an item row out of range.
        """
        self._check(state, slate)
        return self.advance(state, slate.contiguous(), active)

    def advance(self, state: State, slate: Tensor, active: Tensor | None = None) -> tuple[State, Outcome]:
        """``step``, of a contiguous ``slate`` that has been checked."""
        # A plan cannot take back a step whose users fail on their way to the next trip; compiled users do not fail.
        if compiled.runs_on(slate) and (self.session.horizon is None or self.binds):
            return state, self._plans.of(self, state, self._chunk(len(slate))).step(state, slate, active)
        with torch.no_grad():
            return self._finish(self._react(state, slate, active))

    def _react(self, state: State, slate: Tensor, active: Tensor | None) -> Reaction:
        """All that users answer and become, computed without changing anything that a repeated step would read."""
        if active is None:
            active = torch.ones(len(slate), dtype=torch.bool, device=self.device)
        visit = state.visit
        met = self.examination.meet(state, slate)
        shown = Slate(
            items=slate,
            examined=met.examined,
            lift=self._lift.expand(slate.shape).contiguous(),
            own_counts=met.own_counts,
            own_days=met.own_days,
            active=active,
        )
        response, probability = self.user_model.respond(state.hidden, shown, visit, met.noise)
        examined, response = self.examination.stop(shown.examined, response)
        shown = shown if examined is shown.examined else dataclasses.replace(shown, examined=examined)
        reward, terms = self.objective.evaluate(slate, response)
        after = self.session.settle(state, slate, response.consumed, met.leave, self.observer.text)
        slots = (visit.step.to(torch.int64) % self.session.max_slates * self.slate_size)[:, None] + self._slots
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
            hidden=self.user_model.transition(state.hidden, shown, response, after.visit),
        )
        ended = after.left | after.limit
        over = moved.steps >= self.session.max_steps
        gap = torch.zeros_like(moved.steps)
        back = None
        if self.session.horizon is None:
            terminated, truncated = after.left, after.limit | over
        else:
            terminated, truncated = torch.zeros_like(ended), over
            rows = ended.nonzero().squeeze(1)
            if len(rows):
                on_trip = moved.select(rows)
                remember(on_trip.memory, entries.select(rows))
                back, gone = self._next_trip(on_trip)
                terminated[rows], gap[rows] = gone, back.visit.gap_days
                truncated[rows] |= back.visit.day - back.start_day >= self.session.horizon
        outcome = Outcome(
            slate=slate,
            examined=examined,
            response=response,
            duplicate=met.duplicate,
            reward=reward,
            terms=terms,
            terminated=terminated,
            truncated=truncated & ~terminated,
            trip_ended=ended,
            gap_days=gap,
        )
        return Reaction(moved, outcome, entries, ended, back)

    def _next_trip(self, state: State) -> tuple[State, Tensor]:
        """Lanes (copies) whose trip ended at the start of their next trip; and who never returns, bool [n]."""
        basket = state.memory.items.masked_fill(~state.memory.bought, -1)
        record = merge(state.record, basket, state.visit.day, state.visit.gap_days)
        pool = own_pool(record.items, record.counts, record.last_days)
        state = dataclasses.replace(state, record=record, pool=pool)
        return self._return(state, self.session.hazard(state.satisfaction))

    def _finish(self, reaction: Reaction) -> tuple[State, Outcome]:
        """Writes the trip's memory and the lanes that came back for another trip, in place, and draws candidates."""
        state = reaction.state
        remember(state.memory, reaction.entries)
        if reaction.back is not None:
            state.write(reaction.ended.nonzero().squeeze(1), reaction.back)
        return self._with_candidates(state), reaction.outcome

    def _check(self, state: State, slate: Tensor) -> None:
        lanes = len(state.seed)
        if slate.dtype != torch.int64:
            raise ActionError(f"a slate holds item rows as torch.int64, got {slate.dtype}")
        if tuple(slate.shape) != (lanes, self.slate_size):
            raise ActionError(f"a slate has shape ({lanes}, {self.slate_size}), got {tuple(slate.shape)}")
        if slate.device.type != self.device.type:
            raise ActionError(f"the simulation runs on {self.device}, the slate is on {slate.device}")
        lowest, highest = torch.aminmax(slate)
        if lowest.item() < 0 or highest.item() >= self.world.num_items:
            outside = (slate < 0) | (slate >= self.world.num_items)
            lane, slot = (int(i) for i in outside.nonzero()[0])
            raise ActionError(
                f"item row {int(slate[lane, slot])} at position {slot} of lane {lane} must lie in "
                f"0..{self.world.num_items - 1}"
            )

    # ------------------------------------------------------------------ views and copies

    def observe(self, state: State, keys: Iterable[str]) -> dict[str, Tensor]:
        """What an agent sees before the next slate, by key; see ``Observer.observe``."""
        plan = self._plans.known(state) if compiled.enabled() else None
        return self.observer.observe(state, keys, None if plan is None else plan.views)

    @torch.no_grad()
    def expected_reward(self, state: State, items: Tensor) -> Tensor:
        """Privileged: the expected immediate reward of each item if examined, float32 [B, C].

        Uses the true response model, the hidden state and what this trip has already settled: an item declined at
        probability p0 is bought at p1 with chance max(0, (p1 - p0) / (1 - p0)), one already bought with chance 0.

        Args:
            state: B lanes.
            items: item rows, int64 [B, C].
        """
        items = items.contiguous()
        seen = recall(state.memory, used_entries(state, self.slate_size), items)
        own_counts, own_days = own_history(state.record, state.visit.day, items)
        appraisal = self.user_model.appraise(state.hidden, items, own_counts, own_days, state.visit)
        probability = sigmoid(appraisal.logit + self.scenario.behaviour.lift)
        posterior = ((probability - seen.refused) / (1.0 - seen.refused).clamp(min=1e-12)).clamp(min=0.0)
        return self.objective.expected(items, posterior.masked_fill(seen.bought, 0.0), appraisal)

    @torch.no_grad()
    def branch(self, state: State, copies: int, luck: Literal["same", "fresh"]) -> State:
        """``copies`` copies of every lane, lane by lane: [B] -> [B * copies].

        ``same`` luck replays what would have happened (for counterfactual comparison; to plan on it would be
        clairvoyant); ``fresh`` luck redraws everything not settled yet.
        """
        size = len(state.seed)
        lanes = torch.arange(size, device=self.device).repeat_interleave(copies)
        branched = state.select(lanes)
        if luck == "same":
            return branched
        number = torch.arange(copies, device=self.device).repeat(size)
        return dataclasses.replace(
            branched,
            luck=fold(fold(branched.luck, Purpose.BRANCH), number),
            memory=dataclasses.replace(branched.memory, floor=branched.memory.refused.clone()),
        )
