"""The vector environment: any number of simulated users as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from recgym.envs.lanes import RESPONSE_KEYS, Lanes, resolve
from recgym.envs.pickling import Rebuilt
from recgym.envs.rendering import Shown, draw_picture, draw_text, snapshot
from recgym.envs.resets import generator_seed, lane_seeds, masked_lanes, named_options
from recgym.envs.saving import read_state, write_state
from recgym.envs.spaces import observation_space
from recgym.errors import RecGymError, StateError, unknown_name
from recgym.scenario import Scenario
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import Outcome, State
from recgym.threads import chunk_threads
from recgym.user_models.protocol import UserModel
from recgym.worlds.world import World

Output = Literal["numpy", "torch"]


class RecVectorEnv(Rebuilt, gymnasium.vector.VectorEnv):
    """Recommending slates of items to B simulated users at once.

    ## Description
    Each lane is one user of the world, who answers slates of K items. What users want comes from the world's preference
    model; how they look at slates, lose patience and come back is set by the scenario. Lane i is bitwise the same user
    with the same luck as ``RecEnv`` seeded alike: alone, or in a batch of any size and order.

    ## Observation
    A Dict of boxes with finite bounds, the lane dimension first: the keys of ``observation``.

    | key | shape | what |
    |---|---|---|
    | ``user`` | [B, Du] float32 | observable attributes with missing flags, counts, days, this trip's slates so far |
    | ``candidates`` | [B, M, F] float32 | text, popularity, price, discount, category, own count and recency |
    | ``candidate_items`` | [B, M] int64 | item rows of the candidates |
    | ``user_id`` | [B, 1] int64 | user row |
    | ``history`` | [B, 50] int64 | most recently consumed item rows, newest first, -1 pads |

    ``recgym.envs.features`` names the features. Nothing in them was computed by the preference model.

    ## Action
    By ``action_mode``: ``slate`` MultiDiscrete([M] * K) over the candidates, ``catalogue`` MultiDiscrete([N] * K) over
    all items, ``item`` Discrete(M), a slate of one; ``scores`` Box(-1, 1, M), the K best shown; ``weights``
    Box(-1, 1, F), the K best by the weighted sum of their features; ``proto`` Box(-1, 1, F), the K whose features are
    nearest. A duplicate wastes its slot and is counted in ``info["duplicates"]``; with ``strict`` it is an error.

    ## Reward
    The scenario's objective or, where it has none, the world's: distinct items bought on the slate (``purchase``), or
    watches rated 4 or more (``liked``). ``info["terms/<name>"]`` holds the unweighted terms. Where the
    scenario has constraints, ``info["costs/<term>"]`` says how far each lies outside its bounds, and
    ``info["violations/<term>"]`` whether it does.

    ## Termination
    ``terminated``: the user left (session episodes) or will never return (horizon episodes). ``truncated``: a limit of
    slates or days was reached. Lanes restart by ``autoreset_mode``: NEXT_STEP (as in Gymnasium, the default; the next
    step ignores the lane's action, resets it and gives reward 0), SAME_STEP (``final_obs`` and ``final_info`` hold what
    the episode ended with), or DISABLED (``reset(options={"reset_mask": mask})``).

    ``info`` of a step has arrays with the lane dimension first: ``slate``, ``consumed``, ``examined``, ``quantity``,
    ``rating`` [B, K]; ``duplicates``, ``gap_days`` [B]; ``user``, ``day``, ``trip`` [B] as of the slate shown (of a
    lane that was reset in this step: of its new episode). ``_<key>`` tells the lanes for which a key holds something.

    ## Arguments
    See ``__init__``. ``reset`` takes ``seed`` (int: lane i gets seed + i; a list of ints or None; None: each lane goes
    to the next episode of its stream) and ``options`` with ``users`` [B] (user rows), ``episodes`` [B] (numbers in the
    lanes' streams) and ``reset_mask`` [B] (bool: reset these lanes only).

    ## Version History
    * v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        world: str | Path | World,
        scenario: str | Path | Scenario = "default",
        num_envs: int = 1,
        *,
        action_mode: str | None = None,
        output: Output = "numpy",
        observation: Sequence[str] | None = None,
        strict: bool = False,
        render_mode: str | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        device: str | torch.device = "cpu",
        user_model: str | UserModel | None = None,
        simulator: Simulator | None = None,
    ) -> None:
        """Loads the world and builds the simulation.

        Args:
            world: name, path or ``World``.
            scenario: name, path or ``Scenario``.
            num_envs: B, the number of lanes.
            action_mode: ``slate``, ``catalogue``, ``item``, ``scores``, ``weights`` or ``proto``; None: the scenario's.
            output: ``numpy``, or ``torch`` for tensors on ``device`` with no host copy.
            observation: observation keys; None: the scenario's.
            strict: whether a duplicate on a slate is an error.
            render_mode: ``ansi``, ``rgb_array`` or None.
            autoreset_mode: what happens to a lane whose episode ended.
            device: where the simulation runs.
            user_model: name, target or object; None: the world's preference model.
            simulator: a simulator to share instead of building one, of the same world, scenario and users; it runs
                where it runs, and has users of its own where ``user_model`` is None.

        Raises:
            RecGymError: an argument out of range, or a ``simulator`` of something else; UnknownNameError for an unknown
                name.
        """
        if isinstance(num_envs, bool) or not isinstance(num_envs, int | np.integer) or num_envs < 1:
            raise RecGymError(f"num_envs must be a whole number of at least 1, got {num_envs!r}")
        if output not in ("numpy", "torch"):
            raise RecGymError(f"output must be 'numpy' or 'torch', got {output!r}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise RecGymError(f"render_mode must be None, 'ansi' or 'rgb_array', got {render_mode!r}")
        setup = resolve(world, scenario, action_mode, observation, device, user_model, simulator)
        self.autoreset_mode = _autoreset(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.num_envs, self.output, self.render_mode = int(num_envs), output, render_mode
        self.simulator, self.scenario, self.world = setup.simulator, setup.scenario, setup.simulator.platform
        self.slate_size, self.num_candidates = setup.simulator.slate_size, setup.simulator.num_candidates
        self._lanes = Lanes(setup, self.num_envs, strict)
        self._shown: list[Shown] | None = None
        self.single_observation_space = observation_space(setup.simulator.observer, setup.keys)
        self.single_action_space = self._lanes.mode.space()
        self.remember_arguments(
            world=world,
            scenario=scenario,
            num_envs=self.num_envs,
            action_mode=setup.mode,
            output=output,
            observation=setup.keys,
            strict=strict,
            render_mode=render_mode,
            autoreset_mode=self.autoreset_mode.value,
            device=str(setup.simulator.device),
            user_model=user_model,
        )

    # Built when asked for: the bounds of a batched Box take as much memory as the observations themselves.
    @cached_property
    def observation_space(self) -> gymnasium.Space:  # type: ignore[override]
        """The batched observation space."""
        return batch_space(self.single_observation_space, self.num_envs)

    @cached_property
    def action_space(self) -> gymnasium.Space:  # type: ignore[override]
        """The batched action space."""
        return batch_space(self.single_action_space, self.num_envs)

    @property
    def state(self) -> State:
        """The current state of all lanes; privileged."""
        return self._lanes.current

    @property
    def lane_seeds(self) -> np.ndarray:
        """The identities of the lanes, int64 [B]."""
        return self._lanes.seeds.cpu().numpy().copy()

    # ------------------------------------------------------------------ Gymnasium

    @chunk_threads()
    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts episodes; see the class docstring for ``seed`` and ``options``.

        Raises:
            StateError: a seed or an option of the wrong length, type or range.
        """
        episodes, chosen, users = named_options(options, "episodes", "reset_mask", "users")
        rows = masked_lanes(chosen, self.num_envs)
        if rows is not None and self._lanes.state is None:
            raise StateError("the environment has no state yet: the first reset() takes no reset_mask")
        seeds: list[int | None] = [None] * self.num_envs if seed is None else lane_seeds(seed, self.num_envs)
        super().reset(seed=generator_seed(seeds[0]))
        if seed is None and self._lanes.state is None:
            first = int(self.np_random.integers(2**31))  # from the operating system's entropy: nothing was asked for
            seeds = lane_seeds(first, self.num_envs)
        where = None if rows is None else torch.from_numpy(rows).to(self.simulator.device)
        self._lanes.begin(seeds, users, episodes, where)
        self._shown = None
        mask = np.full(self.num_envs, rows is None)
        if rows is not None:
            mask[rows] = True
        info = {key: self._out(value) for key, value in self._lanes.visit().items()}
        return self._observations(), {**info, **{f"_{key}": mask for key in info}}

    @chunk_threads()
    def step(self, actions: Any) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
        """Shows every user a slate.

        Args:
            actions: one a lane, lane dimension first; numpy or torch.

        Returns:
            Observations, rewards float32 [B], terminated bool [B], truncated bool [B], info.

        Raises:
            ActionError: an action that cannot be taken; the environment is left as it was.
            StateError: called before ``reset`` or, with DISABLED, while a lane waits for its reset.
        """
        if self.autoreset_mode is AutoresetMode.SAME_STEP:  # which lanes restart is known only when all have moved on
            with self._lanes.or_as_before():
                return self._step(actions)
        return self._step(actions)

    def _step(self, actions: Any) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
        lanes = self._lanes
        restart, rows, starts = None, None, None
        if self.autoreset_mode is not AutoresetMode.SAME_STEP and lanes.state is not None and bool(lanes.ended.any()):
            restart = lanes.ended.clone()
            if self.autoreset_mode is AutoresetMode.DISABLED:
                lane = int(restart.nonzero()[0])
                raise StateError(f"lane {lane}: its episode has ended; reset it with options={{'reset_mask': mask}}")
            rows = restart.nonzero().squeeze(1)
            starts = lanes.starts(rows)
        visit = lanes.visit()
        outcome = lanes.step(actions, None if restart is None else ~restart)
        reward, terminated, truncated = outcome.reward, outcome.terminated, outcome.truncated
        info = self._step_info(outcome)
        acted = None
        if restart is not None:
            lanes.restart(rows, starts)
            acted = ~restart
            reward, terminated, truncated = reward * acted, terminated & acted, truncated & acted
            info = {key: value * _like(acted, value) for key, value in info.items()}
            visit = {key: torch.where(acted, visit[key], value) for key, value in lanes.visit().items()}
        if self.render_mode is not None:
            self._shown = snapshot(outcome, visit, lanes.current, acted)
        extra: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            done = lanes.ended
            rows = done.nonzero().squeeze(1)
            if len(rows):
                extra = self._final(rows, done.clone(), {**info, **visit})
                lanes.restart(rows)
                now = lanes.visit()
                visit = {key: value.index_copy(0, rows, now[key][rows]) for key, value in visit.items()}
        everyone = torch.ones(self.num_envs, dtype=torch.bool, device=reward.device)
        mask, always = self._out(everyone if acted is None else acted), self._out(everyone)
        out = {key: self._out(value) for key, value in {**info, **visit}.items()}
        out |= {f"_{key}": always if key in visit else mask for key in list(out)}
        return (
            self._observations(),
            self._out(reward),
            self._out(terminated),
            self._out(truncated),
            {**out, **extra},
        )

    def render(self) -> tuple[Any, ...] | None:
        """One frame a lane of the last step: text (``ansi``) or uint8 [height, width, 3] (``rgb_array``)."""
        if self.render_mode is None:
            return None
        shown = self._shown if self._shown is not None else snapshot(None, self._lanes.visit(), self._lanes.current)
        if self.render_mode == "ansi":
            return tuple(draw_text(self.world, one) for one in shown)
        return tuple(draw_picture(self.world, one, self.slate_size) for one in shown)

    # ------------------------------------------------------------------ saving and branching

    def get_state(self) -> dict[str, Tensor]:
        """Everything the future depends on, as tensors by name (ready for safetensors), sharing no storage."""
        return self._lanes.tensors()

    def set_state(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Goes back to what ``get_state`` gave, and returns the observations there.

        Raises:
            StateError: the state is of another world, scenario, version, users or number of lanes; nothing is changed.
        """
        self._lanes.restore(tensors)
        self._shown = None
        return self._observations()

    def save_state(self, path: str | Path) -> Path:
        """Writes ``get_state`` to a safetensors file with a digest, whole or not at all; returns the path."""
        return write_state(path, self.get_state())

    def load_state(self, path: str | Path) -> dict[str, Any]:
        """``set_state`` from a file of ``save_state``.

        Raises:
            StateError: the file is missing, cut off or damaged, or ``set_state`` refuses it; nothing is changed.
        """
        return self.set_state(read_state(path))

    def branch(self, copies: int, luck: Literal["same", "fresh"] = "fresh") -> RecVectorEnv:
        """A new environment with ``copies`` copies of every lane, lane by lane, that go their own way from here.

        Args:
            copies: at least 1.
            luck: ``fresh`` redraws all that is not settled yet (for planning); ``same`` replays what would have
                happened (for counterfactual comparison; to plan on it would be clairvoyant).

        Raises:
            RecGymError: ``copies`` or ``luck`` is not valid.
        """
        return branch_lanes(self._lanes, self._arguments, copies, luck)

    # ------------------------------------------------------------------ internals

    def _observations(self) -> dict[str, Any]:
        return {key: self._out(value) for key, value in self._lanes.observe().items()}

    def _out(self, value: Tensor) -> Any:
        return value if self.output == "torch" else value.cpu().numpy()

    def _step_info(self, outcome: Outcome) -> dict[str, Tensor]:
        info = {key: getattr(outcome, key) for key in RESPONSE_KEYS}
        info |= {"duplicates": outcome.duplicate.sum(dim=1), "gap_days": outcome.gap_days}
        info |= {f"terms/{name}": value for name, value in outcome.terms.items()}
        info |= {f"costs/{name}": value for name, value in outcome.costs.items()}
        return info | {f"violations/{name}": value > 0 for name, value in outcome.costs.items()}

    def _final(self, rows: Tensor, done: Tensor, info: dict[str, Tensor]) -> dict[str, Any]:
        """``final_obs`` and ``final_info`` of the lanes ``rows`` (int64 [n]), before they restart.

        As in Gymnasium, ``final_obs`` is an object array with a dict for each lane that ended and None elsewhere; with
        torch output, where that would cost a copy a lane, a dict of tensors [n, ...] of the lanes in ``final_lanes``.
        """
        final = self._lanes.observe_lanes(rows)
        mask = self._out(done)
        infos = {key: self._out(value.clone()) for key, value in info.items()}
        extra: dict[str, Any] = {"final_info": {**infos, **{f"_{key}": mask for key in infos}}, "_final_info": mask}
        if self.output == "torch":
            return {**extra, "final_obs": final, "_final_obs": mask, "final_lanes": rows}
        arrays = {key: value.cpu().numpy() for key, value in final.items()}
        observations = np.full(self.num_envs, None, dtype=object)
        for place, lane in enumerate(rows.tolist()):
            observations[lane] = {key: value[place] for key, value in arrays.items()}
        return {**extra, "final_obs": observations, "_final_obs": mask}


def _like(mask: Tensor, value: Tensor) -> Tensor:
    """``mask`` [B] with as many dimensions as ``value`` [B, ...]."""
    return mask.reshape(mask.shape + (1,) * (value.dim() - 1))


def branch_lanes(lanes: Lanes, arguments: dict[str, Any], copies: int, luck: Literal["same", "fresh"]) -> RecVectorEnv:
    """The vector environment of ``copies`` copies of ``lanes``; it shares their simulator, and nothing else."""
    if isinstance(copies, bool) or not isinstance(copies, int) or copies < 1:
        raise RecGymError(f"copies must be a whole number of at least 1, got {copies!r}")
    if luck not in ("same", "fresh"):
        raise RecGymError(f"luck must be 'same' or 'fresh', got {luck!r}")
    shared = lanes.simulator  # and what it is of, which need not be read again
    given = {**arguments, "world": shared.world, "scenario": shared.scenario, "simulator": shared}
    branched = RecVectorEnv(**{**given, "num_envs": lanes.num_lanes * copies})
    branched._lanes.copy_from(lanes, copies, luck)
    return branched


def _autoreset(mode: AutoresetMode | str) -> AutoresetMode:
    """The mode itself, or the one of that name or value."""
    for member in AutoresetMode:
        if mode in (member, member.name, member.value):
            return member
    raise unknown_name("autoreset mode", str(mode), AutoresetMode.__members__)
