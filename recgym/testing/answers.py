"""What a user model answers: types, shapes, ranges, probabilities that mean what they say, and sane absences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from recgym.simulation.kernels import sigmoid
from recgym.testing.report import Checks
from recgym.types import Appraisal, Noise, Response, Slate, Visit
from recgym.user_models.protocol import UserModel

_DRAWS = 48  # slates' worth of luck that frequencies are counted over
_CLOSE = 1e-3  # probabilities this near are the same


def _tensor(checks: Checks, what: str, value: Any, dtype: torch.dtype, shape: torch.Size) -> bool:
    """Whether ``value`` is a tensor of that type and shape."""
    if not checks.expect(
        isinstance(value, Tensor), "types", f"{what} is a {type(value).__name__}", "Return a torch tensor"
    ):
        return False
    right = checks.expect(value.dtype == dtype, "types", f"{what} is {value.dtype}", f"It has to be {dtype}: use .to()")
    return right & checks.expect(
        value.shape == shape,
        "shapes",
        f"{what} has shape {tuple(value.shape)}",
        f"It has to be {tuple(shape)}, users first",
    )


def _within(checks: Checks, what: str, values: Tensor, low: float, high: float, advice: str) -> None:
    values = values.double()
    bad = ~((values >= low) & (values <= high))  # NaN is bad too
    shown = f"{values[bad][0].item():g}" if bool(bad.any()) else ""
    checks.expect(
        not bool(bad.any()), "ranges", f"{what} has values outside {low:g} to {high:g}, such as {shown}", advice
    )


def check_appraisal(checks: Checks, view: Any, items: Tensor, rated: bool) -> None:
    """What ``appraise`` returned for ``items`` [B, C].

    Raises:
        ConformanceError: there are findings.
    """
    checks.expect(
        isinstance(view, Appraisal),
        "types",
        f"appraise returned a {type(view).__name__}",
        "Return recgym.types.Appraisal(logit, quantity_stop or None, rating_cdf or None)",
    )
    checks.settle()
    if _tensor(checks, "Appraisal.logit", view.logit, torch.float32, items.shape):
        finite = "A logit is a finite number; log(0) is not: clamp probabilities before you take logits"
        _within(checks, "Appraisal.logit", view.logit, -1e6, 1e6, finite)
    if view.quantity_stop is not None:
        if _tensor(checks, "Appraisal.quantity_stop", view.quantity_stop, torch.float32, items.shape):
            advice = "It is the chance to stop at each unit: 1 over the expected quantity"
            _within(checks, "Appraisal.quantity_stop", view.quantity_stop, 1e-9, 1.0, advice)
    checks.expect(
        not rated or view.rating_cdf is not None,
        "ratings",
        "Appraisal.rating_cdf is None in a world with ratings",
        "Give P(rating <= 1..4 | consumed), [B, C, 4], where 'rating' in world.spec.responses",
    )
    if view.rating_cdf is not None:
        shape = torch.Size((*items.shape, 4))
        if _tensor(checks, "Appraisal.rating_cdf", view.rating_cdf, torch.float32, shape):
            _within(checks, "Appraisal.rating_cdf", view.rating_cdf, 0.0, 1.0, "Its values are probabilities")
            checks.expect(
                bool((view.rating_cdf.diff(dim=-1) >= 0).all()),
                "ranges",
                "Appraisal.rating_cdf falls along its last dimension",
                "Cumulate: P(rating <= 1), P(rating <= 2), ...",
            )
    checks.settle()


def check_answer(checks: Checks, answer: Any, slate: Slate, rated: bool) -> None:
    """What ``respond`` returned.

    Raises:
        ConformanceError: there are findings.
    """
    checks.expect(
        isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], Response),
        "types",
        f"respond returned a {type(answer).__name__}",
        "Return (recgym.types.Response(consumed, quantity, rating), probability)",
    )
    checks.settle()
    response, probability = answer
    shape = slate.items.shape
    right = _tensor(checks, "Response.consumed", response.consumed, torch.bool, shape)
    right &= _tensor(checks, "Response.quantity", response.quantity, torch.int32, shape)
    right &= _tensor(checks, "Response.rating", response.rating, torch.int32, shape)
    right &= _tensor(checks, "the probability of respond", probability, torch.float32, shape)
    if not right:
        checks.settle()
    _within(checks, "the probability of respond", probability, 0.0, 1.0, "Return probabilities, not logits")
    checks.expect(
        not bool((response.consumed & ~slate.examined).any()),
        "examination",
        "items that were not examined are consumed",
        "Consume with `slate.examined & ...`: nobody buys what they did not look at",
    )
    checks.expect(
        bool(((response.quantity > 0) == response.consumed).all()),
        "ranges",
        "Response.quantity is not positive exactly where an item is consumed",
        "At least 1 where consumed, 0 elsewhere",
    )
    low = 1 if rated else 0
    ratings = response.rating
    checks.expect(
        bool(((ratings == 0) | response.consumed).all()),
        "ranges",
        "Response.rating is not 0 where nothing is consumed",
        "Multiply by consumed",
    )
    _within(checks, "Response.rating of consumed items", ratings[response.consumed], low, 5, "Ratings are 1 to 5")
    checks.settle()


def check_same_truth(
    checks: Checks, users: UserModel, state: Any, view: Appraisal, slate: Slate, visit: Visit, noise: Noise
) -> None:
    """That ``respond`` follows ``appraise`` where one item is examined, wherever it stands.

    Raises:
        ConformanceError: there are findings.
    """
    first = torch.zeros_like(slate.examined)
    first[:, 0] = True
    alone = users.respond(state, replace(slate, examined=first), visit, noise)[1][:, 0]
    expected = sigmoid(view.logit + slate.lift)[:, 0]
    worst = int((alone - expected).abs().argmax())
    checks.expect(
        bool(torch.allclose(alone, expected, atol=_CLOSE)),
        "truth",
        f"the only item that a user examines has probability {alone[worst]:.3f} in respond, and "
        f"{expected[worst]:.3f} = sigmoid(logit + lift) by appraise",
        "Privileged agents, off-policy estimates and cards read appraise: compute both from the same logit, and add "
        "slate.lift in respond only",
    )
    backwards, back_noise = _reversed(slate), _reversed(noise)
    probability = users.respond(state, slate, visit, noise)[1]
    mirrored = users.respond(state, backwards, visit, back_noise)[1].flip(1)
    checks.expect(
        bool(torch.allclose(probability, mirrored, atol=_CLOSE)),
        "positions",
        "the same items in reverse order have other probabilities",
        "Positions are the scenario's to decide (behaviour.examination): a user model reads items, not slots",
    )
    checks.settle()


def check_draws(
    checks: Checks,
    users: UserModel,
    state: Any,
    slate: Slate,
    visit: Visit,
    noise: Callable[[torch.Size, int], Noise],
) -> None:
    """That items are consumed as often as their probabilities say.

    Raises:
        ConformanceError: there are findings.
    """
    expected, variance, consumed = (torch.zeros(slate.items.shape, dtype=torch.float64) for _ in range(3))
    for salt in range(_DRAWS):
        response, probability = users.respond(state, slate, visit, noise(slate.items.shape, 100 + salt))
        chance = probability.double() * slate.examined
        expected += chance
        variance += chance * (1 - chance)
        consumed += response.consumed
    open_ = variance > 1.0  # what luck decides at least now and then
    surprise = ((consumed - expected).square() / variance)[open_].mean() if bool(open_.any()) else torch.ones(())
    close = (consumed.sum() - expected.sum()).abs() <= 6 * variance.sum().clamp(min=1.0).sqrt()
    checks.expect(
        bool(close) and float(surprise) < 2.0,
        "luck",
        f"over {_DRAWS} slates with other luck, items are not consumed as often as their probabilities say: "
        f"{consumed.sum():.0f} times instead of {expected.sum():.0f}, and {surprise:.1f} times the variance by item",
        "An examined item is consumed where noise.want < probability",
    )
    checks.settle()


def check_sizes(checks: Checks, sizes: Any, lanes: int) -> None:
    """What ``intend`` returned.

    Raises:
        ConformanceError: there are findings.
    """
    if _tensor(checks, "what intend returned", sizes, torch.int32, torch.Size((lanes,))):
        _within(
            checks, "what intend returned", sizes, 1, 2**31 - 1, "Whoever comes wants at least 1 item: clamp(min=1)"
        )
    checks.settle()


def check_absence(checks: Checks, eager: Any, keen: Any, lanes: int) -> None:
    """What ``away`` returned at a hazard of one half and of two.

    Raises:
        ConformanceError: there are findings.
    """
    for answer in (eager, keen):
        checks.expect(
            isinstance(answer, tuple) and len(answer) == 2,
            "types",
            f"away returned a {type(answer).__name__}",
            "Return (days int32 [B], gone bool [B])",
        )
        checks.settle()
        shape = torch.Size((lanes,))
        right = _tensor(checks, "the days of away", answer[0], torch.int32, shape)
        if right & _tensor(checks, "the second part of away", answer[1], torch.bool, shape):
            _within(checks, "the days of away", answer[0], 0, 32_000, "Days are whole and not negative")
        checks.settle()
    checks.expect(
        bool((keen[0] <= eager[0]).all()) and not bool((keen[1] & ~eager[1]).any()),
        "hazard",
        "at a higher hazard of returning, users stay away longer",
        "The hazard multiplies that of returning: survival S(t) becomes S(t) ** hazard, so divide days by it",
    )
    checks.settle()


def check_repeatable(
    checks: Checks,
    users: UserModel,
    used: Any,
    moved: Any,
    response: Response,
    slate: Slate,
    visit: Visit,
    noise: Noise,
) -> None:
    """That a state which ``transition`` has made ``moved`` of still answers and moves as it did.

    Raises:
        ConformanceError: there are findings.
    """
    again = {
        "respond": (response, users.respond(used, slate, visit, noise)[0]),
        "transition": (moved, users.transition(used, slate, response, visit)),
    }
    for name, (before, after) in again.items():
        now = after.flatten()
        for key, was in before.flatten().items():
            checks.expect(
                torch.equal(was.nan_to_num(), now[key].nan_to_num()),
                "purity",
                f"transition changed its state in place: asked again, {name} gives another {key}",
                "Make a new tensor (x = x + 1, not x += 1): a step that fails later on is taken again from that state",
            )
    checks.settle()


def _reversed(record: Any) -> Any:
    """The slots of a slate or of its luck in reverse order."""
    return record.map(lambda tensor: tensor.flip(1) if tensor.dim() > 1 else tensor)
