"""Conformance of a user model: what it returns, that it is pure, keyed by its draws, and the same in any batch."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recgym import compiled
from recgym.errors import RecGymError
from recgym.random import fold, mix, uniform
from recgym.registration import USER_MODELS
from recgym.scenario import load_scenario
from recgym.simulation.record import Records, own_history
from recgym.simulation.simulator import Simulator
from recgym.testing import answers
from recgym.testing.playing import difference, digest, elsewhere, generators_watched, importable, play, unlike_alone
from recgym.testing.report import Checks, Report
from recgym.testing.worlds import tiny_world
from recgym.types import Noise, Record, Slate, TensorRecord, Visit
from recgym.user_models.protocol import UserModel, can_bind
from recgym.worlds.world import World, load_world

METHODS = ("init", "appraise", "respond", "transition", "intend", "away", "arrive")
LANES, LIFT = 24, 0.7
_SOME = [17, 0, 5]  # lanes asked again without the others
_SLOW = 50.0  # microseconds a user and slate above which a hint is given
UserModelLike = str | Callable[[World, Any], UserModel]


def check_user_model(
    model: UserModelLike, world: str | Path | World | None = None, *, processes: bool = True
) -> Report:
    """Checks a user model: construction, types, shapes, ranges, purity, determinism, batches, processes and speed.

    Args:
        model: a registered name, ``module:Class``, ``path.py:Class``, or what makes one from a world and a device.
        world: the world to try it in; None: a tiny one with purchases and a tiny one with ratings.
        processes: whether to play it in a new process as well, which takes some seconds.

    Returns:
        what was checked, with hints on speed.

    Raises:
        ConformanceError: each finding says what is wrong and what to change.
        UnknownNameError: no user model of that name.
    """
    checks = Checks("user model", model if isinstance(model, str) else getattr(model, "__qualname__", repr(model)))
    make = USER_MODELS.load(model) if isinstance(model, str) else model
    worlds = [load_world(world)] if world is not None else [tiny_world(), tiny_world(kind="rating", name="tiny-films")]
    for one in worlds:
        users = _construct(checks, make, one)
        with generators_watched() as touched:
            make(one, "cpu")
        _expect_untouched(checks, "making it", touched)
        _Trial(checks, users, one).run()
        trace = _play(checks, make, users, one)
        _pickle(checks, users)
        if processes:
            _in_a_new_process(checks, model, one, trace)
    _time(checks, make, worlds[0])
    return checks.report()


def _construct(checks: Checks, make: Any, world: World) -> UserModel:
    advice = "Give it a constructor (world, device='cpu')"
    checks.expect(callable(make), "construction", f"{make!r} cannot be called with a world and a device", advice)
    checks.settle()
    users: UserModel = checks.attempt("construction", "making it from (world, device)", advice, make, world, "cpu")
    for name in METHODS:
        checks.expect(
            callable(getattr(users, name, None)),
            "methods",
            f"it has no method {name!r}",
            f"Define {name}, see recgym.user_models.protocol.UserModel; recgym.user_models.simple has a base class",
        )
    checks.settle()
    return users


def _expect_untouched(checks: Checks, what: str, generators: list[str]) -> None:
    checks.expect(
        not generators,
        "randomness",
        f"{what} draws from or seeds the global generator of {', '.join(generators)}",
        "Decide by the draws that are passed in (noise, uniforms), and make tables with a generator of your own",
    )
    checks.settle()


def _slate(world: World, lanes: int, salt: int) -> Tensor:
    """Distinct item rows int64 [lanes, K]."""
    keys = mix(torch.arange(lanes)[:, None] * 1_000_003 + torch.arange(world.num_items) + salt)
    return keys.argsort(dim=1)[:, : min(10, world.num_items)].contiguous()


def _noise(shape: torch.Size, salt: int) -> Noise:
    number = torch.arange(shape.numel()).view(shape)
    return Noise(*(uniform(fold(mix(number), salt, part)) for part in range(3)))


@dataclass
class _Trial:
    """Every method asked directly, for ``LANES`` users in front of a slate."""

    checks: Checks
    users: UserModel
    world: World

    def run(self) -> None:
        """Everything that can be told without a simulator.

        Raises:
            ConformanceError: there are findings.
        """
        rows = torch.arange(LANES) % self.world.num_users
        records = Records(self.world, torch.device("cpu"))
        record, _ = records.start(rows)
        visit = records.last_visit(rows)
        items = _slate(self.world, LANES, 0)
        examined = (uniform(mix(items + 1)) < 0.7) | (torch.arange(items.shape[1]) == 0)
        history = own_history(record, visit.day, items)
        active = torch.ones(LANES, dtype=torch.bool)
        slate = Slate(items, examined, torch.full(items.shape, LIFT), *history, active)
        noise = _noise(items.shape, 1)
        given = (rows, record, visit, slate, noise)

        state = self._call("init", given, rows, record, visit)
        self._state("init", state)
        view = self._call("appraise", (state, *given), state, items, *history, visit)
        answers.check_appraisal(self.checks, view, items, "rating" in self.world.spec.responses)
        answer = self._call("respond", (state, *given), state, slate, visit, noise)
        answers.check_answer(self.checks, answer, slate, "rating" in self.world.spec.responses)
        answers.check_same_truth(self.checks, self.users, state, view, slate, visit, noise)
        answers.check_draws(self.checks, self.users, state, slate, visit, _noise)
        half = torch.linspace(0.02, 0.98, LANES)
        answers.check_sizes(self.checks, self._call("intend", (state, *given), state, half), LANES)
        hazards = (torch.full((LANES,), hazard) for hazard in (0.5, 2.0))
        seldom, often = (self._call("away", (state, *given), state, record, half, hazard) for hazard in hazards)
        answers.check_absence(self.checks, seldom, often, LANES)
        self._batches(state, record, visit, slate, noise, half)
        moved = self._call("transition", given, used := state.clone(), slate, answer[0], visit)
        self._state("transition", moved)
        self._unshared("transition", moved, *given, answer[0])
        answers.check_repeatable(self.checks, self.users, used, moved.clone(), answer[0], slate, visit, noise)
        back = self._call("arrive", given, moved.clone(), record, visit)
        self._state("arrive", back)
        self._unshared("arrive", back, *given)
        self._same_structure(state, moved, back)

    def _call(self, name: str, inputs: tuple[Any, ...], *arguments: Any) -> Any:
        """The method asked twice: it must answer alike and leave its inputs as they were."""
        before = [_tensors(value) for value in inputs]
        kept = [{key: tensor.clone() for key, tensor in found.items()} for found in before]
        method, twin = getattr(self.users, name), [_copy(value) for value in arguments]
        answer = self.checks.attempt(name, name, "See recgym.user_models.protocol.UserModel", method, *arguments)
        for found, copies in zip(before, kept, strict=True):
            for key, tensor in found.items():
                self.checks.expect(
                    torch.equal(tensor, copies[key]),
                    "purity",
                    f"{name} changed {key or 'the users'} in place",
                    "What comes in is not yours: record and visit are what agents observe, and a branch needs the old "
                    "state. Make a new tensor (x = x + 1, not x += 1; torch.where, not x[mask] = y)",
                )
        self.checks.settle()
        with generators_watched() as touched:
            again = self.checks.attempt(name, name, "See recgym.user_models.protocol.UserModel", method, *twin)
        _expect_untouched(self.checks, name, touched)
        one, two = _tensors(answer), _tensors(again)
        for key in one.keys() & two.keys():
            self.checks.expect(
                torch.equal(one[key].nan_to_num(), two[key].nan_to_num()),
                "determinism",
                f"{name} answers otherwise when asked the same again ({key})",
                "Keep nothing between calls, and decide by the draws that are passed in",
            )
        self.checks.settle()
        return answer

    def _state(self, name: str, state: Any) -> None:
        self.checks.expect(
            isinstance(state, TensorRecord) and hasattr(state, "__dataclass_fields__"),
            "state",
            f"{name} returned a {type(state).__name__}",
            "Return a frozen dataclass that derives from recgym.types.TensorRecord, with tensors as fields",
        )
        self.checks.settle()
        for key, value in vars(state).items():
            if isinstance(value, TensorRecord) or value is None:
                continue
            what = f"field {key!r} of the state that {name} returned"
            tensor = self.checks.expect(
                isinstance(value, Tensor),
                "state",
                f"{what} is a {type(value).__name__}",
                "Every field is a tensor with the lane dimension first; what all users share belongs to the model",
            )
            if not tensor:
                continue
            self.checks.expect(
                value.dim() > 0 and len(value) == LANES,
                "state",
                f"{what} has shape {tuple(value.shape)} for {LANES} users",
                f"The first dimension is the lane: [{LANES}, ...]",
            )
            self.checks.expect(
                not value.requires_grad,
                "state",
                f"{what} carries a gradient",
                "Call .detach(), or compute under torch.no_grad()",
            )
        self.checks.settle()

    def _same_structure(self, *states: TensorRecord) -> None:
        shapes = [{key: (value.dtype, value.shape) for key, value in state.flatten().items()} for state in states]
        for name, shape in zip(("transition", "arrive"), shapes[1:], strict=True):
            for key in shapes[0].keys() | shape.keys():
                self.checks.expect(
                    shapes[0].get(key) == shape.get(key),
                    "state",
                    f"{name} turned {key} from {shapes[0].get(key)} into {shape.get(key)}",
                    "A state keeps its fields, types and shapes, so that it can be written back lane by lane",
                )
        self.checks.settle()

    def _unshared(self, name: str, state: TensorRecord, *inputs: Any) -> None:
        """The state lives in storage of its own: it is written in place, lane by lane."""
        others = {f"the {key}": tensor for value in inputs for key, tensor in _tensors(value).items()}
        others |= {f"self.{key}": value for key, value in vars(self.users).items() if isinstance(value, Tensor)}
        for key, mine in state.flatten().items():
            shared = next((other for other, tensor in others.items() if _storage(tensor) == _storage(mine)), None)
            self.checks.expect(
                shared is None,
                "storage",
                f"{key} of the state that {name} returned shares its memory with {shared}",
                "Call .clone(): states are written in place, and what shares their memory would change with them",
            )
        self.checks.settle()

    def _batches(self, state: Any, record: Record, visit: Visit, slate: Slate, noise: Noise, luck: Tensor) -> None:
        """Each method of some lanes alone gives bitwise what it gives among all."""
        some = torch.tensor(_SOME)
        one = torch.ones(LANES)
        few: list[Any] = [value.select(some) for value in (state, record, visit, slate, noise)]
        history, few_history = (slate.own_counts, slate.own_days), (few[3].own_counts, few[3].own_days)
        asked: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
            "appraise": ((state, slate.items, *history, visit), (few[0], few[3].items, *few_history, few[2])),
            "respond": ((state, slate, visit, noise), (few[0], few[3], few[2], few[4])),
            "intend": ((state, luck), (few[0], luck[some])),
            "away": ((state, record, luck, one), (few[0], few[1], luck[some], one[some])),
        }
        for name, (everybody, part) in asked.items():
            method = getattr(self.users, name)
            whole, alone = _tensors(method(*everybody)), _tensors(method(*part))
            for key in whole:
                same = whole[key][some].shape == alone[key].shape and torch.equal(whole[key][some], alone[key])
                self.checks.expect(
                    same,
                    "batch",
                    f"{name} gives a user another {key} alone than among others",
                    "A user depends on nobody else: no means over lanes; and products round by the number of rows, so "
                    "multiply and sum over the last dimension instead of matmul, and use recgym.simulation.kernels."
                    "sigmoid instead of torch.sigmoid",
                )
        self.checks.settle()


def _play(checks: Checks, make: Any, users: UserModel, world: World) -> list[dict[str, Tensor]]:
    """In a simulator: in other batches, made anew, and by torch alone where the users are bound."""
    trace: list[dict[str, Tensor]] = []
    for kind in ("session", "horizon"):
        settings = {"episode": {"kind": kind, "max_slates": 4}, **small_actions(world)}
        scenario = load_scenario("default", settings)

        def simulator(model: UserModel, scenario: Any = scenario) -> Simulator:
            return Simulator(world, scenario, user_model=model)

        lanes = torch.arange(LANES)
        advice = "The simulator could not play it; see recgym.user_models.protocol.UserModel"
        trace = checks.attempt("simulation", f"a {kind} episode", advice, play, simulator(users), lanes)
        advice = "See what is said under [batch]; arrive, transition and away count too"
        found = unlike_alone(simulator(users), trace)
        checks.expect(found is None, "batch", f"in {kind} episodes, {found}", advice)
        fresh = make(world, "cpu")
        found = difference(trace, play(simulator(fresh), lanes), range(LANES))
        checks.expect(
            found is None,
            "determinism",
            f"made anew from the same world, it differs in {found}",
            "Make its tables from row numbers (recgym.random) or with a generator of a fixed seed",
        )
        if compiled.enabled() and can_bind(users):
            with compiled.reference():
                plain = play(simulator(fresh), lanes)
            same = [torch.equal(a["consumed"], b["consumed"]) for a, b in zip(trace[:-1], plain[:-1], strict=True)]
            checks.expect(all(same), "binding", "bound users buy otherwise", "Have bind compute what the methods do")
        checks.settle()
    return trace


def small_actions(world: World) -> dict[str, Any]:
    """Settings of a slate that a world of a few items can fill."""
    size = min(world.num_items, 100)
    return {
        "actions": {
            "slate_size": min(10, size),
            "num_candidates": size,
            "candidates": {"own": size * 4 // 10, "popular": size - size * 4 // 10 - size // 5, "uniform": size // 5},
        }
    }


def _pickle(checks: Checks, users: UserModel) -> None:
    try:
        pickle.loads(pickle.dumps(users))
    except Exception as error:
        advice = "Keep no lambdas, open files or locks, and define the class at the top level of a module"
        checks.expect(False, "pickling", f"it cannot be sent to another process: {error}", advice)
    checks.expect(True, "pickling", "", "")
    checks.settle()


def digest_of(target: str, world: str) -> str:
    """What a user model plays in the bundle at ``world``, as a digest; for ``elsewhere``."""
    loaded = load_world(Path(world))
    make, checks = USER_MODELS.load(target), Checks("user model", target)
    return digest(_play(checks, make, make(loaded, "cpu"), loaded))


def _in_a_new_process(checks: Checks, model: UserModelLike, world: World, trace: list[dict[str, Tensor]]) -> None:
    rule = "processes"
    if not (world.path / "world.json").is_file():
        checks.hints.append(f"world {world.name!r} lives in memory only: not played in a new process")
        return
    try:
        found = elsewhere("recgym.testing.user_models:digest_of", importable(model), str(world.path))
    except RecGymError as error:
        checks.expect(False, rule, f"a new process cannot play it: {error}", "Define it at the top level of a module")
    else:
        checks.expect(
            found == digest(trace),
            rule,
            "in a new process it plays otherwise",
            "Python's hash() of texts and the order of sets change with the process: use row numbers, sorted(), or "
            "hashlib",
        )
    checks.settle()


def _time(checks: Checks, make: Any, world: World) -> None:
    """A hint where a slate takes long, and whether that is for a loop over users."""
    scenario = load_scenario("default", {"behaviour.patience": 0.0, **small_actions(world)})
    seconds = {}
    for lanes in (64, 512):
        simulator = Simulator(world, scenario, user_model=make(world, "cpu"))
        state = simulator.reset(torch.arange(lanes), torch.zeros(lanes, dtype=torch.int64))
        slate = _slate(world, lanes, 3)[:, : simulator.slate_size].contiguous()
        state, _ = simulator.step(state, slate)
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            state, _ = simulator.step(state, slate)
            best = min(best, time.perf_counter() - started)
        seconds[lanes] = best
    each = seconds[512] / 512 * 1e6
    if each > _SLOW:
        loop = "; eight times the users take as many times longer: is there a loop over them in Python?"
        grows = seconds[512] > 5 * seconds[64]
        checks.hints.append(f"a slate takes {each:.0f} microseconds a user{loop if grows else ''}")


def _tensors(value: Any, name: str = "") -> dict[str, Tensor]:
    """The tensors of a value by name."""
    if isinstance(value, Tensor):
        return {name: value}
    if isinstance(value, tuple):
        parts = (_tensors(part, str(place)) for place, part in enumerate(value))
        return {key: tensor for part in parts for key, tensor in part.items()}
    if isinstance(value, TensorRecord):
        kind = type(value).__name__
        return {f"{kind}.{key}": tensor for key, tensor in value.flatten().items() if isinstance(tensor, Tensor)}
    return {}


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor | TensorRecord):
        return value.clone()
    return value


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
