"""The single environment: the batched core with one lane."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from recgym.envs.arrays import array_of
from recgym.envs.lanes import RESPONSE_KEYS, Lanes, resolve
from recgym.envs.pickling import Rebuilt
from recgym.envs.rendering import Shown, draw_picture, draw_text, snapshot
from recgym.envs.resets import generator_seed, named_options, whole_seed
from recgym.envs.saving import read_state, write_state
from recgym.envs.spaces import observation_space
from recgym.envs.vector import RecVectorEnv, branch_lanes
from recgym.errors import ActionError, RecGymError, StateError
from recgym.scenario import Scenario
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import State
from recgym.user_models.protocol import UserModel
from recgym.worlds.world import World


class RecEnv(Rebuilt, gymnasium.Env):
    """Recommending slates of items to one simulated user.

    ## Description
    A user of the world answers slates of K items. What it wants comes from the world's preference model; how it looks
    at slates, loses patience and comes back is set by the scenario. The same seed gives bitwise the same user and the
    same luck as a lane of ``RecVectorEnv``.

    ## Observation
    A Dict of boxes with finite bounds: the keys of ``observation``, as in ``RecVectorEnv`` without the lane dimension.
    By default ``user`` [Du] and ``candidates`` [M, F], float32; ``recgym.envs.features`` names the features.

    ## Action
    By ``action_mode``: ``slate`` MultiDiscrete([M] * K) over the candidates, ``catalogue`` MultiDiscrete([N] * K) over
    all items, ``item`` Discrete(M), a slate of one; ``scores`` Box(-1, 1, M), the K best shown; ``weights``
    Box(-1, 1, F), the K best by the weighted sum of their features; ``proto`` Box(-1, 1, F), the K whose features are
    nearest. A duplicate wastes its slot and is counted in ``info["duplicates"]``; with ``strict`` it is an error.

    ## Reward
    The scenario's objective or, where it has none, the world's: distinct items bought on the slate (``purchase``), or
    watches rated 4 or more (``liked``). ``info["terms/<name>"]`` holds the unweighted terms.

    ## Termination
    ``terminated``: the user left (session episodes) or will never return (horizon episodes). ``truncated``: a limit of
    slates or days was reached.

    ## Arguments
    See ``__init__``. ``reset`` takes ``seed`` (None: the next episode of the stream) and ``options`` with ``user`` (a
    user row) and ``episode`` (a number in the stream). ``info`` of a step holds ``slate``, ``consumed``, ``examined``,
    ``quantity``, ``rating`` [K], ``duplicates``, ``gap_days``, and ``user``, ``day``, ``trip`` as of the slate shown.

    ## Version History
    * v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 1}

    def __init__(
        self,
        world: str | Path | World,
        scenario: str | Path | Scenario = "default",
        *,
        action_mode: str | None = None,
        observation: Sequence[str] | None = None,
        strict: bool = False,
        render_mode: str | None = None,
        device: str | torch.device = "cpu",
        user_model: str | UserModel | None = None,
        simulator: Simulator | None = None,
    ) -> None:
        """Loads the world and builds the simulation.

        Args:
            world: name, path or ``World``.
            scenario: name, path or ``Scenario``.
            action_mode: ``slate``, ``catalogue``, ``item``, ``scores``, ``weights`` or ``proto``; None: the scenario's.
            observation: observation keys; None: the scenario's.
            strict: whether a duplicate on a slate is an error.
            render_mode: ``ansi``, ``rgb_array`` or None.
            device: where the simulation runs.
            user_model: name, target or object; None: the world's preference model.
            simulator: a simulator to share instead of building one, of the same world, scenario and users; it runs
                where it runs, and has users of its own where ``user_model`` is None.

        Raises:
            RecGymError: an argument out of range, or a ``simulator`` of something else; UnknownNameError for an unknown
                name.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise RecGymError(f"render_mode must be None, 'ansi' or 'rgb_array', got {render_mode!r}")
        setup = resolve(world, scenario, action_mode, observation, device, user_model, simulator)
        self.render_mode = render_mode
        self.simulator, self.scenario, self.world = setup.simulator, setup.scenario, setup.simulator.platform
        self.slate_size, self.num_candidates = setup.simulator.slate_size, setup.simulator.num_candidates
        self._lanes = Lanes(setup, 1, strict)
        self._shown: Shown | None = None
        self.observation_space = observation_space(setup.simulator.observer, setup.keys)
        self.action_space = self._lanes.mode.space()
        self.remember_arguments(
            world=world,
            scenario=scenario,
            action_mode=setup.mode,
            observation=setup.keys,
            strict=strict,
            render_mode=render_mode,
            device=str(setup.simulator.device),
            user_model=user_model,
        )

    @property
    def state(self) -> State:
        """The current state, with a lane dimension of 1; privileged."""
        return self._lanes.current

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts an episode; see the class docstring for ``seed`` and ``options``.

        Raises:
            StateError: an unknown option, or a seed or option of the wrong type or range.
        """
        episode, user = named_options(options, "episode", "user")
        seed = None if seed is None else whole_seed(seed)
        super().reset(seed=generator_seed(seed))
        if seed is None and self._lanes.state is None:
            seed = int(self.np_random.integers(2**31))  # from the operating system's entropy: nothing was asked for
        self._lanes.begin([seed], None if user is None else [user], None if episode is None else [episode])
        self._shown = None
        return self._observation(), self._visit()

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Shows the user a slate.

        Raises:
            ActionError: an action that cannot be taken; the environment is left as it was.
            StateError: called before ``reset``, or after the episode ended.
        """
        lanes = self._lanes
        if lanes.state is not None and lanes.ended.item():
            raise StateError("the episode has ended: call reset()")
        batched = (action if isinstance(action, Tensor) else array_of(action, "an action", ActionError))[None]
        visit = self._visit()
        outcome = lanes.step(batched)
        if self.render_mode is not None:
            self._shown = snapshot(outcome, {name: torch.tensor([n]) for name, n in visit.items()}, lanes.current)[0]
        info: dict[str, Any] = {key: outcome.array(key)[0] for key in RESPONSE_KEYS}
        info["duplicates"] = int(np.count_nonzero(outcome.array("duplicate")))
        info["gap_days"] = outcome.gap_days.item()
        info |= {f"terms/{name}": value.item() for name, value in outcome.terms.items()}
        info |= {f"costs/{name}": value.item() for name, value in outcome.costs.items()}
        info |= {f"violations/{name}": value.item() > 0 for name, value in outcome.costs.items()}
        ended = bool(outcome.terminated.item()), bool(outcome.truncated.item())
        return self._observation(), float(outcome.reward.item()), *ended, {**info, **visit}

    def render(self) -> Any:
        """The last step as text (``ansi``) or as uint8 [height, width, 3] (``rgb_array``)."""
        if self.render_mode is None:
            return None
        shown = self._shown or snapshot(None, self._lanes.visit(), self._lanes.current)[0]
        if self.render_mode == "ansi":
            return draw_text(self.world, shown)
        return draw_picture(self.world, shown, self.slate_size)

    def get_state(self) -> dict[str, Tensor]:
        """Everything the future depends on, as tensors by name (ready for safetensors), sharing no storage."""
        return self._lanes.tensors()

    def set_state(self, tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """Goes back to what ``get_state`` gave, and returns the observation there.

        Raises:
            StateError: the state is of another world, scenario, version or users; nothing is changed.
        """
        self._lanes.restore(tensors)
        self._shown = None
        return self._observation()

    def save_state(self, path: str | Path) -> Path:
        """Writes ``get_state`` to a safetensors file with a digest, whole or not at all; returns the path."""
        return write_state(path, self.get_state())

    def load_state(self, path: str | Path) -> dict[str, np.ndarray]:
        """``set_state`` from a file of ``save_state``.

        Raises:
            StateError: the file is missing, cut off or damaged, or ``set_state`` refuses it; nothing is changed.
        """
        return self.set_state(read_state(path))

    def branch(self, copies: int, luck: Literal["same", "fresh"] = "fresh") -> RecVectorEnv:
        """A vector environment of ``copies`` copies that go their own way; see ``RecVectorEnv.branch``."""
        arguments = {**self._arguments, "autoreset_mode": AutoresetMode.NEXT_STEP}
        return branch_lanes(self._lanes, arguments, copies, luck)

    def _visit(self) -> dict[str, Any]:
        """User, day and trip of the slate to come."""
        state = self._lanes.current
        return {"user": state.user.item(), "day": state.visit.day.item(), "trip": state.visit.trip.item()}

    def _observation(self) -> dict[str, np.ndarray]:
        return {key: value.numpy(force=True)[0] for key, value in self._lanes.observe().items()}
