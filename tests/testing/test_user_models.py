"""Each broken user model, of a few lines, is told exactly what is wrong with it and what to change."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from recgym.cli import app
from recgym.registration import USER_MODELS
from recgym.testing import ConformanceError, check_user_model
from recgym.testing.worlds import tiny_world
from recgym.types import Appraisal, Response, TensorRecord
from recgym.user_models.simple import SimpleState, SimpleUsers
from recgym.worlds.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "tiny")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world(tmp_path_factory.mktemp("worlds") / "films", kind="rating", name="films")


class Sound(SimpleUsers):
    """What is broken below: odd users like odd items."""

    def logits(self, state: Any, items: Tensor, visit: Any) -> Tensor:
        return torch.where((items + state.user[:, None]) % 2 == 0, 0.5, -2.0)


class NoDevice(Sound):
    def __init__(self, world: World) -> None:
        super().__init__(world)


class NoMethod:
    def __init__(self, world: World, device: str) -> None: ...


class DictState(Sound):
    def init(self, users: Tensor, record: Any, visit: Any) -> Any:
        return {"user": users}


@dataclass(frozen=True)
class Mood(TensorRecord):
    user: Tensor
    mood: Any


class NumberInState(Sound):
    def init(self, users: Tensor, record: Any, visit: Any) -> Any:
        return Mood(users.clone(), 0.0)


class SharedState(Sound):
    def init(self, users: Tensor, record: Any, visit: Any) -> Any:
        return Mood(users.clone(), torch.zeros(3))


class Doubles(Sound):
    def logits(self, state: Any, items: Tensor, visit: Any) -> Tensor:
        return super().logits(state, items, visit).double()


class OneLogitAUser(Sound):
    def logits(self, state: Any, items: Tensor, visit: Any) -> Tensor:
        return super().logits(state, items, visit)[:, 0]


class LogOfZero(Sound):
    def logits(self, state: Any, items: Tensor, visit: Any) -> Tensor:
        return ((items % 2).float()).log()


class NoRatings(Sound):
    def appraise(self, *args: Any) -> Appraisal:
        return dataclasses.replace(super().appraise(*args), rating_cdf=None)


class DensityOfRatings(Sound):
    def appraise(self, state: Any, items: Tensor, *args: Any) -> Appraisal:
        density = torch.tensor([0.4, 0.3, 0.2, 0.1]).expand(*items.shape, 4)
        return dataclasses.replace(super().appraise(state, items, *args), rating_cdf=density)


class BuysUnseen(Sound):
    def respond(self, state: Any, slate: Any, visit: Any, noise: Any) -> Any:
        return super().respond(state, dataclasses.replace(slate, examined=slate.examined | True), visit, noise)


class BuysNone(Sound):
    def respond(self, *args: Any) -> Any:
        response, probability = super().respond(*args)
        return dataclasses.replace(response, quantity=response.quantity * 0), probability


class AnswersLogits(Sound):
    def respond(self, state: Any, slate: Any, visit: Any, noise: Any) -> Any:
        response, _ = super().respond(state, slate, visit, noise)
        return response, self.logits(state, slate.items, visit)


class LiftTwice(Sound):
    def respond(self, state: Any, slate: Any, visit: Any, noise: Any) -> Any:
        return super().respond(state, dataclasses.replace(slate, lift=2 * slate.lift), visit, noise)


class LikesTheTop(Sound):
    def respond(self, state: Any, slate: Any, visit: Any, noise: Any) -> Any:
        down = torch.arange(slate.items.shape[1]) * 0.3
        return super().respond(state, dataclasses.replace(slate, lift=slate.lift - down), visit, noise)


class NoLuck(Sound):
    def respond(self, state: Any, slate: Any, visit: Any, noise: Any) -> Any:
        _, probability = super().respond(state, slate, visit, noise)
        consumed = slate.examined & (probability > 0.5)
        return Response(consumed, consumed.int(), torch.zeros_like(consumed, dtype=torch.int32)), probability


class OwnLuck(Sound):
    def respond(self, state: Any, slate: Any, visit: Any, noise: Any) -> Any:
        noise = dataclasses.replace(noise, want=torch.rand_like(noise.want))
        return super().respond(state, slate, visit, noise)


class SeedsGlobally(Sound):
    def __init__(self, world: World, device: str = "cpu") -> None:
        super().__init__(world, device)
        np.random.seed(0)  # noqa: NPY002


class Remembers(Sound):
    asked = 0

    def intend(self, state: Any, uniforms: Tensor) -> Tensor:
        self.asked += 1
        return super().intend(state, uniforms) + self.asked


class WritesTheRecord(Sound):
    def away(self, state: Any, record: Any, uniforms: Tensor, hazard: Tensor) -> Any:
        record.recent[:, 0] = state.user
        return super().away(state, record, uniforms, hazard)


class WritesTheState(Sound):
    def appraise(self, state: Any, *args: Any) -> Appraisal:
        state.user[0] = 7
        return super().appraise(state, *args)


class CountsInPlace(Sound):
    def init(self, users: Tensor, record: Any, visit: Any) -> Any:
        return Mood(users.clone(), torch.zeros(len(users)))

    def transition(self, state: Any, *args: Any) -> Any:
        state.mood.add_(1.0)
        return state


class LooksAtOthers(Sound):
    def logits(self, state: Any, items: Tensor, visit: Any) -> Tensor:
        logit = super().logits(state, items, visit)
        return logit - logit.mean()


class NeverCame(Sound):
    def intend(self, state: Any, uniforms: Tensor) -> Tensor:
        return super().intend(state, uniforms) - 1


class ComesBackYesterday(Sound):
    def away(self, state: Any, record: Any, uniforms: Tensor, hazard: Tensor) -> Any:
        days, gone = super().away(state, record, uniforms, hazard)
        return days - 1, gone


class HazardUpsideDown(Sound):
    def away(self, state: Any, record: Any, uniforms: Tensor, hazard: Tensor) -> Any:
        return super().away(state, record, uniforms, 1.0 / hazard)


class KeepsTheVisit(Sound):
    def arrive(self, state: Any, record: Any, visit: Any) -> Any:
        return SimpleState(visit.day)


class GrowsAField(Sound):
    def transition(self, state: Any, *args: Any) -> Any:
        return SimpleState(state.user.float())


class Gradients(Sound):
    def init(self, users: Tensor, record: Any, visit: Any) -> Any:
        return Mood(users.clone(), torch.zeros(len(users), requires_grad=True))


class AnotherEachTime(Sound):
    made = 0

    def __init__(self, world: World, device: str = "cpu") -> None:
        super().__init__(world, device)
        type(self).made += 1
        self.shift = float(type(self).made)

    def logits(self, state: Any, items: Tensor, visit: Any) -> Tensor:
        return super().logits(state, items, visit) + self.shift


class Lambda(Sound):
    def __init__(self, world: World, device: str = "cpu") -> None:
        super().__init__(world, device)
        self.taste = lambda item: item


class Crashes(Sound):
    def transition(self, state: Any, *args: Any) -> Any:
        raise ZeroDivisionError("no slate")


BROKEN = [
    (NoDevice, "[construction] making it from (world, device) raised TypeError", "constructor (world, device='cpu')"),
    (NoMethod, "[methods] it has no method 'away'", "Define away"),
    (DictState, "[state] init returned a dict", "derives from recgym.types.TensorRecord"),
    (NumberInState, "[state] field 'mood' of the state that init returned is a float", "a tensor with the lane"),
    (SharedState, "[state] field 'mood' of the state that init returned has shape (3,) for 24 users", "is the lane"),
    (Gradients, "[state] field 'mood' of the state that init returned carries a gradient", ".detach()"),
    (GrowsAField, "[state] transition turned user from (torch.int64", "keeps its fields, types and shapes"),
    (Doubles, "[types] Appraisal.logit is torch.float64", "has to be torch.float32"),
    (OneLogitAUser, "[shapes] Appraisal.logit has shape (24,)", "has to be (24, 10), users first"),
    (LogOfZero, "[ranges] Appraisal.logit has values outside -1e+06 to 1e+06, such as -inf", "clamp probabilities"),
    (BuysUnseen, "[examination] items that were not examined are consumed", "slate.examined & ..."),
    (BuysNone, "[ranges] Response.quantity is not positive exactly where an item is consumed", "At least 1"),
    (AnswersLogits, "[ranges] the probability of respond has values outside 0 to 1, such as -2", "not logits"),
    (LiftTwice, "[truth] the only item that a user examines has probability", "add slate.lift in respond only"),
    (LikesTheTop, "[positions] the same items in reverse order have other probabilities", "behaviour.examination"),
    (
        NoLuck,
        "[luck] over 48 slates with other luck, items are not consumed as often",
        "consumed where noise.want < probability",
    ),
    (OwnLuck, "[randomness] respond draws from or seeds the global generator of torch", "draws that are passed in"),
    (SeedsGlobally, "[randomness] making it draws from or seeds the global generator of numpy", "of your own"),
    (Remembers, "[determinism] intend answers otherwise when asked the same again", "Keep nothing between calls"),
    (AnotherEachTime, "[determinism] made anew from the same world, it differs in", "from row numbers"),
    (WritesTheRecord, "[purity] away changed Record.recent in place", "what agents observe"),
    (WritesTheState, "[purity] appraise changed SimpleState.user in place", "x = x + 1, not x += 1"),
    (
        CountsInPlace,
        "[purity] transition changed its state in place: asked again, transition gives another mood",
        "x = x + 1, not x += 1",
    ),
    (LooksAtOthers, "[batch] appraise gives a user another Appraisal.logit alone than among others", "no means over"),
    (NeverCame, "[ranges] what intend returned has values outside 1 to", "clamp(min=1)"),
    (ComesBackYesterday, "[ranges] the days of away has values outside 0 to 32000, such as -1", "not negative"),
    (HazardUpsideDown, "[hazard] at a higher hazard of returning, users stay away longer", "divide days by it"),
    (
        KeepsTheVisit,
        "[storage] user of the state that arrive returned shares its memory with the Visit.day",
        ".clone()",
    ),
    (Lambda, "[pickling] it cannot be sent to another process", "Keep no lambdas"),
    (Crashes, "[transition] transition raised ZeroDivisionError: no slate", "recgym.user_models.protocol"),
]
RATED = [
    (NoRatings, "[ratings] Appraisal.rating_cdf is None in a world with ratings", "[B, C, 4]"),
    (DensityOfRatings, "[ranges] Appraisal.rating_cdf falls along its last dimension", "Cumulate"),
]


@pytest.mark.parametrize(("broken", "problem", "advice"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_one_is_told_what_is_wrong(broken: Any, problem: str, advice: str, world: World) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_user_model(broken, world, processes=False)
    assert str(caught.value).startswith(f"user model {broken.__name__} does not conform:")
    assert problem in str(caught.value) and advice in str(caught.value), str(caught.value)
    rule = problem[1:].partition("]")[0]
    assert {finding.rule for finding in caught.value.findings} == {rule}  # this fault and no other


@pytest.mark.parametrize(("broken", "problem", "advice"), RATED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_one_of_ratings_is_told_too(broken: Any, problem: str, advice: str, films: World) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_user_model(broken, films, processes=False)
    assert problem in str(caught.value) and advice in str(caught.value), str(caught.value)


def test_a_sound_one_passes_and_a_slow_one_is_hinted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    report = check_user_model(Sound, world, processes=False)
    assert {"batch", "purity", "luck", "hazard", "storage", "pickling"} <= set(report.rules)
    monkeypatch.setattr("recgym.testing.user_models._SLOW", 0.0)
    assert any("microseconds a user" in hint for hint in check_user_model(Sound, world, processes=False).hints)


FILE = """
import torch
from recgym.user_models.simple import SimpleUsers

class Hashed(SimpleUsers):
    def __init__(self, world, device="cpu"):
        super().__init__(world, device)
        self.shift = {shift}

    def logits(self, state, items, visit):
        return torch.where((items + state.user[:, None]) % 2 == 0, 0.5, -2.0) + self.shift
"""


def test_what_depends_on_the_process_is_found(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE.format(shift="hash('salt') % 997 / 997"))
    with pytest.raises(ConformanceError, match=r"\[processes\] in a new process it plays otherwise.*hash\(\) of texts"):
        check_user_model(f"{tmp_path / 'mine.py'}:Hashed", world)

    class Inner(Sound):
        """Found by nobody else."""

    with pytest.raises(ConformanceError, match=r"\[pickling\]|\[processes\].*top level of a module"):
        check_user_model(Inner, world)


def test_the_command_says_the_same(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE.format(shift="0.0"))
    target = f"{tmp_path / 'mine.py'}:Hashed"
    good = CliRunner().invoke(app, ["check", "user-model", target, "--world", str(world.path)])
    assert good.exit_code == 0, good.output
    assert "conforms" in good.output and "processes" in good.output
    (tmp_path / "bad.py").write_text(FILE.format(shift="float('nan')"))
    bad = CliRunner().invoke(app, ["check", "user-model", f"{tmp_path / 'bad.py'}:Hashed", "--world", str(world.path)])
    assert bad.exit_code == 2
    assert "[ranges] Appraisal.logit has values outside" in bad.output
    unknown = CliRunner().invoke(app, ["check", "user-model", "boredon"])
    assert "Did you mean 'boredom'" in unknown.output


@pytest.mark.parametrize("kind", ["purchase", "rating"])
@pytest.mark.parametrize("name", USER_MODELS.names())
def test_every_registered_user_model_conforms(name: str, kind: str, world: World, films: World) -> None:
    check_user_model(name, world if kind == "purchase" else films, processes=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", USER_MODELS.names())
def test_every_registered_user_model_conforms_in_a_new_process(name: str) -> None:
    check_user_model(name)
