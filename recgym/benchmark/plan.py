"""What is measured: suites of contestants, the ratios taken between them, and what they aim at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recgym.benchmark.environments import Peer
from recgym.errors import unknown_name

HERE = Path(__file__).parent
LANES = 4096
SMALL = {"lanes": 10_000, "items": 10_000}  # what --quick leaves in of the sizes

SARDINE = Peer("sardine-rec", ("sardine-rec==1.0.8", "gymnasium==1.4.0"))
RECSIM = Peer(
    "recsim", ("numpy<2", "gym==0.26.2", "gin-config==0.5.0", "absl-py==2.5.1", "six==1.17.0"), ("recsim==0.2.4",)
)
CARTPOLE = Peer("gymnasium", ("gymnasium==1.4.0",))

NOT_COMPARED = {
    "RecSim NG": "compiles whole rollouts of a two-topic model, 1 to 4 million steps/s, and has no step-by-step API; "
    "needs TensorFlow",
    "RecoGym 0.1.3": "shows one product instead of a slate, and imports the packages of all its agents (torch, "
    "scikit-learn, ...) with its environment",
    "MARS-Gym 0.1.0": "does not install: what it pins (torch 1.2, pandas below 1, ...) cannot be built any more",
    "VirtualTaobao, KuaiSim, EasyRL4Rec, RL4RS": "pip finds no such distribution",
}


@dataclass(frozen=True)
class Contestant:
    """One thing to measure.

    Attributes:
        name: unique in its suite.
        file: of ``recgym/benchmark``; its ``prepare`` gets ``settings``.
        settings: JSON values.
        peer: whose virtual environment it runs in; None: this one.
        at: where it stands on the axis of its suite.
        at_least: user-steps per second aimed at; None: no aim.
    """

    name: str
    file: str
    settings: dict[str, Any]
    peer: Peer | None = None
    at: float | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class Ratio:
    """User-steps per second of ``over`` divided by those of ``under``, in the same round.

    ``at_least`` and ``at_most`` are what is aimed at; ``name`` says what the ratio means.
    """

    name: str
    over: str
    under: str
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Suite:
    """Contestants that take turns, and the ratios between them."""

    id: str
    title: str
    contestants: tuple[Contestant, ...]
    ratios: tuple[Ratio, ...] = ()
    axis: str | None = None  # what ``Contestant.at`` counts
    notes: dict[str, str] = field(default_factory=dict)


def suites(names: list[str], env: str, device: str, seed: int = 0, *, quick: bool = False) -> list[Suite]:
    """The suites called ``names`` (all, where empty), in the order of ``SUITES``.

    Args:
        names: of suites.
        env: the environment id that is measured.
        device: torch device of RecGym's simulation in all suites but single, floor and sb3.
        seed: of lanes and actions.
        quick: leaves out what takes long to make: more than 10,000 lanes or generated items.

    Raises:
        UnknownNameError: no such suite; the message gives the nearest one.
    """
    for name in names:
        if name not in SUITES:
            raise unknown_name("suite", name, SUITES)
    built = [build(env, device, seed) for name, build in SUITES.items() if not names or name in names]
    return [_small(suite) for suite in built] if quick else built


def _small(suite: Suite) -> Suite:
    kept = tuple(
        one for one in suite.contestants if all(one.settings.get(key, 0) <= most for key, most in SMALL.items())
    )
    names = {one.name for one in kept}
    ratios = tuple(ratio for ratio in suite.ratios if {ratio.over, ratio.under} <= names)
    return Suite(suite.id, suite.title, kept, ratios, suite.axis, suite.notes)


def _vector(name: str, env: str, device: str, seed: int, lanes: int, **settings: Any) -> Contestant:
    at, at_least = settings.pop("at", None), settings.pop("at_least", None)
    made = {"lanes": lanes, "seed": seed, "device": device, **settings}
    if "items" not in settings:
        made["id"] = env
    return Contestant(name, "lanes.py", made, at=at, at_least=at_least)


def _sardine(seed: int) -> Contestant:
    settings = {"num_items": 10_000, "slate_size": 10, "seed": seed}
    return Contestant("sardine-rec", "peers/sardine_rec.py", settings, SARDINE)


def _recsim(candidates: int, slate: int, seed: int) -> Contestant:
    settings = {"num_candidates": candidates, "slate_size": slate, "seed": seed}
    name = f"recsim, {slate} of {candidates:,} candidates"
    return Contestant(name, "peers/recsim_evolution.py", settings, RECSIM)


def _peers(env: str, device: str, seed: int) -> Suite:
    cartpole = Contestant("CartPole", "peers/cartpole.py", {"lanes": LANES, "seed": seed}, CARTPOLE)
    return Suite(
        "peers",
        f"{env}, {LANES:,} lanes with its defaults, beside peers",
        (
            _vector("recgym", env, device, seed, LANES),
            _sardine(seed),
            _recsim(10_000, 10, seed),
            _recsim(5, 5, seed),
            cartpole,
        ),
        (
            Ratio("recgym / sardine-rec", "recgym", "sardine-rec", at_least=15.0),
            Ratio("recgym / recsim (10,000)", "recgym", "recsim, 10 of 10,000 candidates"),
            Ratio("recgym / recsim (5)", "recgym", "recsim, 5 of 5 candidates"),
        ),
        notes={
            "sardine-rec": "SlateTopK-BoredInf-v0 with 10,000 items of embeddings that it draws itself, slates of 10",
            "recsim": "interest evolution; redraws and observes all its candidates at each step",
            "CartPole": f"Gymnasium's vectorised CartPole, {LANES:,} lanes: no recommender, for scale",
            **{f"{name}, not compared": why for name, why in NOT_COMPARED.items()},
        },
    )


def _single(env: str, device: str, seed: int) -> Suite:
    alone = Contestant("recgym", "lanes.py", {"id": env, "lanes": 1, "seed": seed, "single": True})
    ratio = Ratio("recgym / sardine-rec", "recgym", "sardine-rec", at_least=0.5)
    return Suite("single", "One user, numpy in and out", (alone, _sardine(seed)), (ratio,))


def _reference(env: str, device: str, seed: int) -> Suite:
    settings = {"user_model": "boredom", "action_mode": "catalogue", "observation": ["user"]}
    contestant = _vector("boredom", env, device, seed, 10_000, at_least=500_000.0, **settings)
    return Suite("reference", "The core with a hand-written user, 10,000 lanes, lean observation", (contestant,))


def _floor(env: str, device: str, seed: int) -> Suite:
    floor = Contestant("bare torch", "floor.py", {"env": env, "lanes": LANES, "seed": seed})
    ratio = Ratio("recgym / bare torch", "recgym", "bare torch", at_least=0.6)
    return Suite(
        "floor",
        f"The same arithmetic as bare torch calls, {LANES:,} lanes",
        (_vector("recgym", env, "cpu", seed, LANES), floor),
        (ratio,),
        notes={
            "bare torch": "Transformer token, fusion, scoring of the slate and the default observation, in the fastest "
            "of several chunk sizes and thread counts; no luck, no bookkeeping, no resets"
        },
    )


def _scaling(env: str, device: str, seed: int) -> Suite:
    sizes = (1, 16, 256, 1024, 4096, 16384, 65536)
    contestants = tuple(_vector(_count(lanes, "lanes"), env, device, seed, lanes, at=lanes) for lanes in sizes)
    return Suite(
        "scaling",
        "Lanes, observation buffers reused",
        contestants,
        _costs("lanes", sizes, 1024),
        axis="lanes",
    )


def _catalogue(env: str, device: str, seed: int) -> Suite:
    sizes = (1_000, 10_000, 100_000, 1_000_000)
    contestants = tuple(
        _vector(_count(items, "items"), env, device, seed, 1024, items=items, at=items) for items in sizes
    )
    return Suite(
        "catalogue",
        "Items of worlds with random weights, 1,024 lanes",
        contestants,
        _costs("items", sizes, 10_000),
        axis="items",
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what if number != 1 else what.removesuffix('s')}"


def _costs(what: str, sizes: tuple[int, ...], reference: int) -> tuple[Ratio, ...]:
    """Cost of a user-step relative to the one at ``reference``; within a quarter from there on."""
    return tuple(
        Ratio(
            f"cost at {size:,} / at {reference:,} {what}",
            _count(reference, what),
            _count(size, what),
            at_most=1.25 if size > reference else None,
        )
        for size in sizes
        if size != reference
    )


def _model(env: str, device: str, seed: int) -> Suite:
    slates = tuple(
        _vector(f"slates of {size}", env, device, seed, 1024, scenario={"actions.slate_size": size})
        for size in (1, 5, 10, 20)
    )
    widths = tuple(_vector(f"width {dim}", env, device, seed, 1024, items=10_000, dim=dim) for dim in (32, 64, 128))
    return Suite("model", "Slate size and width of the model, 1,024 lanes", slates + widths)


def _sb3(env: str, device: str, seed: int) -> Suite:
    def ppo(name: str, kind: str, lanes: int, num_steps: int, learn: bool) -> Contestant:
        settings = {"env": env, "kind": kind, "lanes": lanes, "num_steps": num_steps, "learn": learn, "seed": seed}
        return Contestant(name, "rollouts.py", settings)

    return Suite(
        "sb3",
        "Stable-Baselines3 PPO, the same policy",
        (
            ppo("adapter, 1,024 lanes, collecting", "lanes", 1024, 8, False),
            ppo("DummyVecEnv, 8 envs, collecting", "dummy", 8, 64, False),
            ppo("adapter, 1,024 lanes, whole loop", "lanes", 1024, 8, True),
            ppo("DummyVecEnv, 8 envs, whole loop", "dummy", 8, 64, True),
        ),
        (
            Ratio(
                "collecting, adapter / DummyVecEnv",
                "adapter, 1,024 lanes, collecting",
                "DummyVecEnv, 8 envs, collecting",
                at_least=8.0,
            ),
            Ratio(
                "whole loop, adapter / DummyVecEnv",
                "adapter, 1,024 lanes, whole loop",
                "DummyVecEnv, 8 envs, whole loop",
            ),
        ),
        notes={"whole loop": "collecting a rollout and 3 epochs of gradient steps on it"},
    )


SUITES = {
    "peers": _peers,
    "single": _single,
    "reference": _reference,
    "floor": _floor,
    "scaling": _scaling,
    "catalogue": _catalogue,
    "model": _model,
    "sb3": _sb3,
}
