"""What both shells share: lanes with seeds and episodes, driven through the core one slate at a time."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from recgym.devices import usable
from recgym.envs.actions import action_mode
from recgym.envs.resets import per_lane
from recgym.errors import RecGymError, StateError, unknown_name
from recgym.registration import USER_MODELS
from recgym.scenario import Scenario, load_scenario
from recgym.simulation.observation import OBSERVATION_KEYS
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import Outcome, State
from recgym.user_models.protocol import UserModel
from recgym.worlds.world import World, load_world

STATE_FORMAT = 2  # counts up when what a saved state holds changes
RESPONSE_KEYS = ("slate", "consumed", "examined", "quantity", "rating")  # what ``info`` tells of an outcome


@dataclasses.dataclass(frozen=True)
class Setup:
    """The arguments that the shells have in common, resolved."""

    simulator: Simulator
    scenario: Scenario
    mode: str
    keys: tuple[str, ...]


def resolve(
    world: str | Path | World,
    scenario: str | Path | Scenario,
    mode: str | None,
    observation: Sequence[str] | None,
    device: str | torch.device,
    user_model: str | UserModel | None,
    simulator: Simulator | None,
) -> Setup:
    """Loads world, scenario and users, and applies the overrides of the shells' arguments.

    Raises:
        UnknownNameError: an unknown world, scenario, action mode, observation key or user model.
        ScenarioError: the scenario does not fit the world.
        RecGymError: the device cannot be used here, or the simulator to share is of something else.
    """
    loaded = load_scenario(scenario)
    mode = loaded.actions.mode if mode is None else mode
    keys = tuple(loaded.observation.keys if observation is None else observation)
    for key in keys:
        if key not in OBSERVATION_KEYS:
            raise unknown_name("observation key", key, OBSERVATION_KEYS)
    if mode == "item" and loaded.actions.slate_size != 1:
        promoted = min(loaded.actions.promotions.slots, 1)
        loaded = load_scenario(loaded, {"actions.slate_size": 1, "actions.promotions.slots": promoted})
    wanted = mode != "catalogue" or any(key.startswith("candidate") for key in keys)
    if simulator is None:
        loaded_world, device = load_world(world), usable(device)
        users = USER_MODELS.load(user_model)(loaded_world, device) if isinstance(user_model, str) else user_model
        simulator = Simulator(loaded_world, loaded, device, users, draws_candidates=wanted)
    else:
        _check_shared(simulator, load_world(world), loaded, user_model, wanted)
    return Setup(simulator, simulator.scenario, mode, keys)


def _check_shared(
    shared: Simulator, world: World, scenario: Scenario, user_model: str | UserModel | None, candidates: bool
) -> None:
    """Refuses a simulator of something else than what is asked for beside it."""

    def refuse(of: str, asked: str) -> RecGymError:
        return RecGymError(f"the simulator to share is of {of}, not of {asked}")

    if world.hash not in (shared.world.hash, shared.platform.hash):
        found = shared.world
        raise refuse(f"world {found.name!r} ({found.hash[:12]})", f"{world.name!r} ({world.hash[:12]})")
    if scenario.hash != shared.scenario.hash:
        of, asked = (
            f"{one.name!r} ({one.hash[:12]}, slates of {one.actions.slate_size})" for one in (shared.scenario, scenario)
        )
        raise refuse(f"scenario {of}", asked)
    if isinstance(user_model, str):
        kind = USER_MODELS.load(user_model)
        same = not isinstance(kind, type) or isinstance(shared.user_model, kind)
    else:
        same = user_model is None or user_model is shared.user_model
    if not same:
        raise refuse(f"users {type(shared.user_model).__qualname__}", f"user_model={user_model!r}")
    if candidates and not shared.draws_candidates:
        raise RecGymError(
            "the simulator to share draws no candidates, which the action mode or an observation needs: make it with "
            "draws_candidates=True"
        )


class Lanes:
    """B lanes: identities, episode numbers, the current state, and which lanes have ended."""

    def __init__(self, setup: Setup, num_lanes: int, strict: bool) -> None:
        """Lanes that have not begun: ``begin`` starts them."""
        self.simulator, self.keys = setup.simulator, setup.keys
        self.mode = action_mode(setup.mode, setup.simulator, strict)
        self.num_lanes = num_lanes
        device = setup.simulator.device
        self.seeds = torch.zeros(num_lanes, dtype=torch.int64, device=device)
        self.episodes = torch.full((num_lanes,), -1, dtype=torch.int64, device=device)
        self.ended = torch.zeros(num_lanes, dtype=torch.bool, device=device)
        self.state: State | None = None
        self._everyone = torch.arange(num_lanes, device=device)

    @property
    def current(self) -> State:
        """The state of the lanes.

        Raises:
            StateError: they have not begun.
        """
        if self.state is None:
            raise StateError("the environment has no state yet: call reset() first")
        return self.state

    def begin(
        self,
        seeds: Sequence[int | None],
        users: Any = None,
        episodes: Any = None,
        lanes: Tensor | None = None,
    ) -> None:
        """Starts an episode in all lanes, or in ``lanes`` (int64 [n]) only.

        Args:
            seeds: new identities, one a lane of the environment; None goes to the lane's next episode.
            users: user rows, one a lane of the environment; None: drawn.
            episodes: numbers of the episodes, one a lane of the environment; None: 0 for new identities, else the next.
            lanes: where to start.
        """
        device = self.seeds.device
        if (
            self.state is not None
            and lanes is None
            and users is None
            and episodes is None
            and not any(seed is not None for seed in seeds)
        ):
            self.restart()
            return
        given = torch.tensor([seed is not None for seed in seeds], device=device)
        values = torch.tensor([0 if seed is None else seed for seed in seeds], device=device)
        new_seeds = torch.where(given, values, self.seeds)
        number = torch.where(given, 0, self.episodes + 1)
        if episodes is not None:
            number = self._per_lane("episodes", episodes)
            if bool((number < 0).any()):
                raise StateError(f"options['episodes'] counts from 0, got {int(number.min())}")
        rows = None if users is None else self._per_lane("users", users)
        where = self._everyone if lanes is None else lanes
        beginning = new_seeds[where], number[where], None if rows is None else rows[where]
        if self.state is None:
            self.state = self.simulator.reset(*beginning)
        else:
            self.simulator.restart(self.state, where, *beginning)
        self.seeds[where], self.episodes[where], self.ended[where] = new_seeds[where], number[where], False

    def starts(self, lanes: Tensor) -> list[State] | None:
        """The next episodes of ``lanes`` (int64 [n]) as ``restart`` takes them.

        Whoever steps first and restarts then asks for them before the step, so that a user model that fails leaves all
        as it was. None where users are bound: they do not fail, and begin in place.
        """
        return None if self.simulator.binds else self.simulator.starts(self.seeds[lanes], self.episodes[lanes] + 1)

    def restart(self, lanes: Tensor | None = None, starts: list[State] | None = None) -> None:
        """Takes ``lanes`` (int64 [n]; None: all) to their next episode, ``starts`` where it is computed already."""
        if lanes is None:
            self.simulator.restart(self.current, self._everyone, self.seeds, self.episodes + 1)
            self.episodes += 1
            self.ended.zero_()
            return
        if starts is None:
            self.simulator.restart(self.current, lanes, self.seeds[lanes], self.episodes[lanes] + 1)
        else:
            self.simulator.place(self.current, lanes, starts)
        self.episodes[lanes] += 1
        self.ended.index_fill_(0, lanes, False)  # without uploading a scalar, as an assignment would

    @contextmanager
    def or_as_before(self) -> Iterator[None]:
        """Takes the lanes back to where they are now if what follows fails; bound users never fail and cost nothing."""
        if self.state is None or self.simulator.binds:
            yield
            return
        kept = self.state.clone(), self.episodes.clone(), self.ended.clone()
        try:
            yield
        except BaseException:
            self.state, self.episodes, self.ended = kept
            raise

    def step(self, actions: Any, active: Tensor | None = None) -> Outcome:
        """Shows what ``actions`` mean; the caller restarts the lanes outside ``active``, whose state is undefined."""
        state = self.current
        slate = self.mode.slates(actions, state, active)
        self.state, outcome = self.simulator.advance(state, slate, active)
        self.ended = outcome.terminated | outcome.truncated
        return outcome

    def visit(self) -> dict[str, Tensor]:
        """User [B], day [B] and trip [B] of the slate to come."""
        state = self.current
        return {"user": state.user.clone(), "day": state.visit.day.clone(), "trip": state.visit.trip.clone()}

    def observe(self) -> dict[str, Tensor]:
        """The observation of every lane."""
        return self.simulator.observe(self.current, self.keys)

    def observe_lanes(self, lanes: Tensor) -> dict[str, Tensor]:
        """The observation of ``lanes`` (int64 [n]) only."""
        visible = dataclasses.replace(self.current, hidden=None).select(lanes)
        return self.simulator.observe(visible, self.keys)

    # ------------------------------------------------------------------ saving

    def tensors(self) -> dict[str, Tensor]:
        """Everything that the future depends on, by name, ready for safetensors; shares no storage with the lanes."""
        out = {f"state.{name}": tensor.clone() for name, tensor in self.current.flatten().items()}
        out |= {"seeds": self.seeds.clone(), "episodes": self.episodes.clone(), "ended": self.ended.clone()}
        out["fingerprint"] = self._fingerprint(self.simulator.draws_candidates)
        return out

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave.

        Raises:
            StateError: the state is of another world, scenario, version, users or number of lanes, or it lacks
                candidates; nothing is changed.
        """
        fingerprint = tensors.get("fingerprint")
        fitting = {True, self.simulator.draws_candidates}  # candidates that nobody needs do no harm
        if not isinstance(fingerprint, Tensor) or not any(
            torch.equal(fingerprint.cpu(), self._fingerprint(one).cpu()) for one in fitting
        ):
            candidates = " and candidates" if self.simulator.draws_candidates else ""
            raise StateError(
                f"the state is of another world, scenario, version or users, or lacks candidates: this environment "
                f"plays world {self.simulator.world.name!r} ({self.simulator.world.hash[:12]}) with scenario "
                f"{self.simulator.scenario.name!r}, users {self._users}{candidates}"
            )
        one = torch.zeros(1, dtype=torch.int64, device=self.seeds.device)
        shape = self.state if self.state is not None else self.simulator.reset(one, one)
        expected = {f"state.{name}": tensor for name, tensor in shape.flatten().items()}
        expected |= {"seeds": self.seeds, "episodes": self.episodes, "ended": self.ended}
        for name, like in expected.items():
            found = tensors.get(name)
            wanted = (self.num_lanes, *like.shape[1:])
            if not isinstance(found, Tensor) or tuple(found.shape) != wanted or found.dtype != like.dtype:
                got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
                got = "missing" if found is None else got
                raise StateError(f"{name} of the state must be {like.dtype} {wanted}, is {got}")
        world = self.simulator.world
        for name, stop in (("state.user", world.num_users), ("state.candidates", world.num_items)):
            if len(wrong := tensors[name][(tensors[name] < 0) | (tensors[name] >= stop)]):
                raise StateError(f"{name} of the state holds row {int(wrong[0])}, which must lie in 0..{stop - 1}")
        mine = {name: tensors[name].to(self.seeds.device).clone() for name in expected}
        self.state = shape.unflatten(mine, "state.")
        self.seeds, self.episodes, self.ended = mine["seeds"], mine["episodes"], mine["ended"]

    def copy_from(self, other: Lanes, copies: int, luck: Literal["same", "fresh"]) -> None:
        """Takes over ``copies`` copies of every lane of ``other``, lane by lane; see ``Simulator.branch``."""
        self.state = self.simulator.branch(other.current, copies, luck)
        self.seeds = other.seeds.repeat_interleave(copies)
        self.episodes = other.episodes.repeat_interleave(copies)
        self.ended = other.ended.repeat_interleave(copies)

    @property
    def _users(self) -> str:
        """The user model by its class, whose module may be called otherwise in another process."""
        return type(self.simulator.user_model).__qualname__

    def _fingerprint(self, candidates: bool) -> Tensor:
        text = f"{STATE_FORMAT} {self.simulator.world.hash} {self.simulator.scenario.hash} {self._users} {candidates}"
        digest = hashlib.sha256(text.encode()).digest()[:8]
        return torch.tensor([int.from_bytes(digest, "little", signed=True)], device=self.seeds.device)

    def _per_lane(self, name: str, values: Any) -> Tensor:
        return torch.from_numpy(per_lane(name, values, self.num_lanes)).to(self.seeds.device)
