"""The functional core: the only place where users react, for all lanes at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from recgym import compiled
from recgym.devices import usable
from recgym.errors import ActionError, StateError
from recgym.random import Purpose, fold
from recgym.registration import USER_MODELS
from recgym.scenario import Scenario
from recgym.simulation import plain
from recgym.simulation.candidates import CandidateGenerator
from recgym.simulation.choice import Examination, recall, shown_before
from recgym.simulation.fit import check_fit
from recgym.simulation.kernels import sigmoid
from recgym.simulation.mood import Moods
from recgym.simulation.objective import Objective
from recgym.simulation.observation import Observer
from recgym.simulation.plan import Plans
from recgym.simulation.population import platform_world
from recgym.simulation.record import PAD, Records, own_history
from recgym.simulation.session import Session
from recgym.simulation.state import Memory, Outcome, State, used_entries
from recgym.threads import num_chunk_threads, spread
from recgym.types import Appraisal
from recgym.user_models.protocol import UserModel, can_bind
from recgym.worlds.world import World

CHUNK = 2048  # lanes stepped together on a CPU, by one thread; more would only take memory
_SMALLEST_CHUNK = 64  # below, handing lanes to another thread costs more than it brings


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
        self.population = check_fit(world, scenario)
        self.world, self.scenario, self.device = world, scenario, usable(device)
        actions = scenario.actions
        self.draws_candidates = draws_candidates
        self.slate_size, self.num_candidates = actions.slate_size, actions.num_candidates
        if user_model is None:
            user_model = USER_MODELS.load("preference")(world, self.device)
        self.user_model: UserModel = user_model
        self._can_bind = can_bind(user_model)
        self.is_ensemble = hasattr(user_model, "disagreement")
        self.platform = platform_world(world, scenario, self.population)  # what agents may know of the world
        self.records = Records(world, self.device)
        self.known_records = None if self.platform is world else Records(self.platform, self.device)
        popularity, arrivals = self.platform.items["popularity"].to_numpy("float64"), scenario.items.arrivals
        self.candidates = CandidateGenerator(popularity, actions, self.device, self.population.new, arrivals.day)
        self.objective = Objective(self.platform, scenario, self.population, self.device)
        self.moods = Moods(world, scenario, self.objective.price, self.device)
        self.observer = Observer(self.platform, scenario, self.device)
        self.session = Session(scenario, world.spec.behaviour.get("satisfaction_reference", 0.5))
        limit = scenario.episode.max_slates
        self.examination = Examination(scenario.behaviour, self.slate_size, limit, self.device)
        self.memory_size = self.session.max_slates * self.slate_size
        self._plans = Plans()

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
        return plain.start(self, seeds, episodes, users)

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
            return plain.start(self, seeds[part], episodes[part], None if users is None else users[part])

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
        return plain.start(self, one, one, None)

    def _blank(self, size: int) -> State:
        """Memory for ``size`` lanes that have yet to begin."""
        state = self._prototype.map(lambda tensor: tensor.new_empty((size, *tensor.shape[1:])))
        state.visit.step.zero_()
        state.candidates.zero_()
        for record in (state.record, *([] if state.known is None else [state.known.record])):
            record.items.fill_(PAD)
            record.counts.zero_()
            record.last_days.zero_()
        state.pool.num_items.zero_()
        return dataclasses.replace(state, memory=Memory.blank(size, self.memory_size, self.device))

    def _chunk(self, lanes: int) -> int:
        """How many of ``lanes`` are computed together."""
        if self.device.type != "cpu":
            return max(lanes, 1)
        threads = num_chunk_threads()
        rounds = max(-(-lanes // (CHUNK * threads)), 1)  # in which each thread takes a chunk, of equal size: none waits
        return max(-(-lanes // (rounds * threads)), _SMALLEST_CHUNK)

    # ------------------------------------------------------------------ one slate

    def step(self, state: State, slate: Tensor, active: Tensor | None = None) -> tuple[State, Outcome]:
        """Shows every user a slate and moves on.

        Args:
            state: B lanes. It is consumed: its memory is used by the state returned, so clone it to keep it. If this
                raises, it still is what it was, but for memory that users never read again: see
                ``UserModel.transition``.
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
            return plain.finish(self, plain.react(self, state, slate, active))

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

        Uses the true response model, the hidden state and what is settled already: an item declined on this trip at
        probability p0 is wanted at p1 with chance max(0, (p1 - p0) / (1 - p0)), one that was bought on it, or waits to
        be bought later, with chance 0.

        Args:
            state: B lanes.
            items: item rows, int64 [B, C].
        """
        items = items.contiguous()
        probability, appraisal = self.chance(state, items)
        again = shown_before(state.memory, items.to(torch.int32))
        return self.objective.expected(items, probability, appraisal, again)

    @torch.no_grad()
    def chance(self, state: State, items: Tensor) -> tuple[Tensor, Appraisal]:
        """Privileged: the chance that each item is bought, now or later, if examined, float32 [B, C]; as above."""
        seen = recall(state.memory, used_entries(state, self.slate_size), items)
        own_counts, own_days = own_history(state.record, state.visit.day, items)
        appraisal = self.user_model.appraise(state.hidden, items, own_counts, own_days, state.visit)
        probability = sigmoid(appraisal.logit + self.moods.lift(state, items))
        posterior = ((probability - seen.refused) / (1.0 - seen.refused).clamp(min=1e-12)).clamp(min=0.0)
        return posterior.masked_fill(seen.bought | self.moods.waits(state, items), 0.0), appraisal

    @torch.no_grad()
    def disagreement(self, state: State, items: Tensor) -> Tensor | None:
        """Privileged: how the members of an ensemble differ on ``items`` (int64 [B, C]), float32 [B, C].

        The standard deviation of the chance q between them; None where the users are no ensemble.
        """
        if not self.is_ensemble:
            return None
        items = items.contiguous()
        own_counts, own_days = own_history(state.record, state.visit.day, items)
        users: Any = self.user_model
        found: Tensor = users.disagreement(state.hidden, items, own_counts, own_days, state.visit)
        return found

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
