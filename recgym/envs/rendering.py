"""What a step looked like: readable text, or a small picture of the slate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from recgym.simulation.state import Outcome, State
from recgym.worlds.world import World

_WIDTH, _ROW, _HEAD = 640, 26, 58
_PAPER, _INK, _FAINT, _BOUGHT, _PASSED = (255, 255, 255), (32, 33, 36), (128, 134, 139), (24, 128, 56), (95, 99, 104)


@dataclass(frozen=True)
class Shown:
    """One lane's last step."""

    user: int
    day: int
    trip: int
    step: int  # slates of this episode so far
    items: np.ndarray  # [K] item rows; empty before the first slate
    examined: np.ndarray  # [K] bool
    consumed: np.ndarray  # [K] bool
    quantity: np.ndarray  # [K] int
    rating: np.ndarray  # [K] int
    duplicate: np.ndarray  # [K] bool
    reward: float
    ended: str  # "", "left" or "truncated"


def snapshot(
    outcome: Outcome | None, visit: dict[str, Tensor], state: State, acted: Tensor | None = None
) -> list[Shown]:
    """What there is to draw, lane by lane.

    Args:
        outcome: of the slates; None: none was shown yet.
        visit: see ``Lanes.visit``.
        state: after the slates.
        acted: the lanes that were shown theirs, bool [B]; None: all.
    """
    numbers = {key: value.cpu().numpy() for key, value in visit.items()}
    steps = state.steps.cpu().numpy()
    lanes = range(len(steps))
    if outcome is None:
        none = np.zeros(0, dtype=np.int64)
        tables = dict.fromkeys(
            ("items", "examined", "consumed", "quantity", "rating", "duplicate"), [none] * len(steps)
        )
        rewards, ended = [0.0] * len(steps), [""] * len(steps)
    else:
        parts = {"items": outcome.slate, "examined": outcome.examined, "consumed": outcome.consumed}
        parts |= {"quantity": outcome.quantity, "rating": outcome.rating, "duplicate": outcome.duplicate}
        tables = {key: list(value.cpu().numpy()) for key, value in parts.items()}
        rewards = outcome.reward.tolist()
        left, cut = outcome.terminated.tolist(), outcome.truncated.tolist()
        ended = ["left" if left[lane] else "truncated" if cut[lane] else "" for lane in lanes]
        for lane in [] if acted is None else (~acted).nonzero().squeeze(1).tolist():
            rewards[lane], ended[lane] = 0.0, ""
            for table in tables.values():
                table[lane] = table[lane][:0]
    return [
        Shown(
            user=int(numbers["user"][lane]),
            day=int(numbers["day"][lane]),
            trip=int(numbers["trip"][lane]),
            step=int(steps[lane]),
            reward=rewards[lane],
            ended=ended[lane],
            **{key: table[lane] for key, table in tables.items()},
        )
        for lane in lanes
    ]


def _lines(world: World, shown: Shown) -> list[tuple[str, str, str, str]]:
    """Title, price, what the user did, and its kind (bought, passed, unseen), a row of the slate each."""
    rows = []
    currency = world.spec.currency or ""
    for slot, item in enumerate(shown.items.tolist()):
        entry = world.items.iloc[item]
        price = entry.get("price")
        text = f"{price:.2f} {currency}".strip() if price is not None and price == price else ""
        discount = entry.get("discount")
        if text and discount is not None and discount == discount and discount >= 0.005:
            text += f" (-{100 * discount:.0f}%)"
        if shown.consumed[slot]:
            if shown.rating[slot]:
                did = f"watched, rated {int(shown.rating[slot])}"
            elif world.spec.kind == "rating":
                did = "watched"
            else:
                did = "bought" if shown.quantity[slot] <= 1 else f"bought {int(shown.quantity[slot])}"
            kind = "bought"
        elif shown.duplicate[slot]:
            did, kind = "duplicate", "unseen"
        else:
            did, kind = ("looked, passed on", "passed") if shown.examined[slot] else ("not seen", "unseen")
        rows.append((str(entry["title"]), text, did, kind))
    return rows


def _heading(world: World, shown: Shown) -> tuple[str, str]:
    first = f"{world.spec.title} · user {shown.user} · day {shown.day} · trip {shown.trip + 1}"
    if not len(shown.items):
        return first, "no slate shown yet"
    second = f"slate {shown.step} · reward {shown.reward:g}"
    ending = {"left": " · the user left", "truncated": " · cut off at a limit"}.get(shown.ended, "")
    return first, second + ending


def draw_text(world: World, shown: Shown) -> str:
    """The step as text: titles, prices and what the user did."""
    lines = list(_heading(world, shown))
    for slot, (title, price, did, kind) in enumerate(_lines(world, shown)):
        mark = {"bought": "+", "passed": "-", "unseen": " "}[kind]
        lines.append(f" {mark} {slot + 1:>2}. {_cut(title, 44):<44} {price:>18}  {did}")
    return "\n".join(lines) + "\n"


def draw_picture(world: World, shown: Shown, slate_size: int) -> np.ndarray:
    """The step as a picture, uint8 [height, 640, 3]; the height depends on the slate size alone."""
    from PIL import Image, ImageDraw, ImageFont  # only when a picture is asked for

    height = _HEAD + slate_size * _ROW + 12
    image = Image.new("RGB", (_WIDTH, height), _PAPER)
    pen = ImageDraw.Draw(image)
    large, small = ImageFont.load_default(15), ImageFont.load_default(13)
    first, second = _heading(world, shown)
    pen.text((16, 10), _plain(_cut(first, 84)), _INK, font=large)
    pen.text((16, 32), _plain(second), _FAINT, font=small)
    pen.line((16, _HEAD - 4, _WIDTH - 16, _HEAD - 4), fill=(218, 220, 224))
    for slot, (title, price, did, kind) in enumerate(_lines(world, shown)):
        top = _HEAD + slot * _ROW
        color = {"bought": _BOUGHT, "passed": _PASSED, "unseen": (189, 193, 198)}[kind]
        if kind == "bought":
            pen.rectangle((10, top, _WIDTH - 10, top + _ROW - 3), fill=(230, 244, 234))
        pen.ellipse((18, top + 7, 26, top + 15), fill=color if kind != "unseen" else _PAPER, outline=color)
        pen.text((36, top + 3), _plain(f"{slot + 1}. {_cut(title, 40)}"), _INK, font=small)
        pen.text((370, top + 3), _plain(price), _FAINT, font=small)
        pen.text((490, top + 3), _plain(did), color if kind != "unseen" else _FAINT, font=small)
    return np.asarray(image, dtype=np.uint8).copy()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _plain(text: str) -> str:
    """The text in characters that Pillow's built-in font has."""
    return text.replace("…", "...").replace("·", "-")
