"""A ``RecVectorEnv`` as a Stable-Baselines3 ``VecEnv``; Python touches only the lanes whose episode ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.logger import KVWriter
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from recgym.adapters.credit import split_reward
from recgym.errors import ActionError, RecGymError

if TYPE_CHECKING:
    from recgym.agents.protocol import Log
    from recgym.envs.vector import RecVectorEnv


@dataclass(frozen=True)
class View:
    """What Stable-Baselines3 is handed instead of the environment's observations."""

    space: spaces.Space[Any]  # of one lane
    of: Callable[[Any], dict[str, NDArray[Any]]]  # of observations by key, [n, ...]


class SB3VecEnv(VecEnv):
    """What Stable-Baselines3 trains on: lanes restart within the step that ends them.

    ``infos[i]`` is empty except where lane i's episode ended: it then holds ``terminal_observation``,
    ``TimeLimit.truncated`` (true where the episode was cut off rather than left by the user, so that SB3 bootstraps its
    value) and ``episode`` (return ``r``, length ``l``, seconds ``t``, as ``Monitor`` has them). The environment's own
    batched info of the last step is in ``last_info``, what SB3 saw last in ``last_seen``.

    All lanes are one environment, so attributes and methods are its own: ``get_attr`` and ``env_method`` answer once
    and repeat the answer per index, ``set_attr`` sets for all lanes, ``set_options`` passes one dict on to ``reset``.
    """

    def __init__(self, env: RecVectorEnv, view: View | None = None) -> None:
        """Wraps ``env``, made with ``autoreset_mode=AutoresetMode.SAME_STEP`` and numpy output.

        Args:
            env: all lanes.
            view: what SB3 sees of it; None: its observations.

        Raises:
            RecGymError: ``env`` restarts lanes in another way.
        """
        mode = env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise RecGymError(f"SB3 needs an environment with autoreset_mode SAME_STEP, this one has {mode}")
        self.env, self._view = env, view
        space = env.single_observation_space if view is None else view.space
        super().__init__(env.num_envs, space, env.single_action_space)
        self.last_info: dict[str, Any] = {}
        self.last_seen: Any = None  # what was handed to SB3 last, of all lanes
        self.reward_scale = 1.0  # rewards are multiplied by it, but for those of ``episode``
        self._reset_options_all: dict[str, Any] | None = None
        self._actions: NDArray[Any] | None = None
        self._rewards: NDArray[np.float32] = np.zeros(self.num_envs, np.float32)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._started = time.monotonic()

    def reset(self) -> VecEnvObs:
        """Starts an episode in every lane, with the seeds of ``seed`` and the options of ``set_options`` if given."""
        seeds = None if all(seed is None for seed in self._seeds) else list(self._seeds)
        observations, self.last_info = self.env.reset(seed=seeds, options=self._reset_options_all)
        self.reset_infos = [{} for _ in range(self.num_envs)]
        self._returns[:] = 0.0
        self._lengths[:] = 0
        self._reset_seeds()
        self._reset_options()
        return self._seen(observations)

    def _seen(self, observations: Any) -> Any:
        self.last_seen = observations if self._view is None else self._view.of(observations)
        return self.last_seen

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """Options of the next ``reset``, one dict for all lanes (its arrays have the lane dimension first)."""
        if isinstance(options, list):
            raise RecGymError("options are one dict for all lanes, with arrays by lane, not a list of dicts")
        self._reset_options_all = options

    def _reset_options(self) -> None:
        self._reset_options_all = None

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keeps ``actions`` [B, ...] for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Observations, rewards, whether an episode ended, and infos; see the class docstring."""
        if self._actions is None:
            raise ActionError("step_wait was called before step_async: there is no action to take")
        observations, rewards, terminated, truncated, info = self.env.step(self._actions)
        self._actions = None
        self.last_info = info
        dones = terminated | truncated
        self._returns += rewards
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        elapsed = time.monotonic() - self._started
        final = self._final(info["final_obs"], dones) if dones.any() else []
        for lane, last in zip(np.flatnonzero(dones).tolist(), final, strict=True):
            infos[lane] = {
                "terminal_observation": last,
                "TimeLimit.truncated": bool(truncated[lane] and not terminated[lane]),
                "episode": {"r": float(self._returns[lane]), "l": int(self._lengths[lane]), "t": elapsed},
            }
        self._returns[dones] = 0.0
        self._lengths[dones] = 0
        self._rewards = np.float32(self.reward_scale) * np.asarray(rewards, np.float32)
        return self._seen(observations), self._rewards.copy(), dones, infos  # a copy: SB3 adds to it

    def _final(self, observations: Any, dones: NDArray[np.bool_]) -> list[dict[str, NDArray[Any]]]:
        """What was seen last in the lanes that ended, one by one."""
        lanes = np.flatnonzero(dones)
        each = [_lane(observations, lane) for lane in lanes.tolist()]
        if self._view is None:
            return each
        seen = self._view.of({key: np.stack([one[key] for one in each]) for key in each[0]})
        return [{key: values[at] for key, values in seen.items()} for at in range(len(lanes))]

    def credits(self) -> NDArray[np.float32]:
        """Rewards of the last step by position of the slate, [B, K]; see ``split_reward``."""
        return split_reward(self._rewards, self.last_info["consumed"])

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """The environment's ``rgb_array`` frames."""
        frames = self.env.render()
        return list(frames) if frames is not None else [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The environment's attribute, repeated for each index."""
        value = getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute of the environment: of all lanes, whatever ``indices``."""
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls the environment's method once and repeats the result for each index."""
        result = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """True for ``Monitor``, whose ``episode`` entry this adapter writes itself; False for any other wrapper."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]


class LogWriter(KVWriter):
    """Hands the figures that Stable-Baselines3 logs on to an agent's ``log``."""

    def __init__(self, log: Log) -> None:
        """Writes to ``log``."""
        self._log = log

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Writes the numbers among ``key_values``, but for those that SB3 keeps from TensorBoard."""
        wanted = {key: value for key, value in key_values.items() if "tensorboard" not in (key_excluded[key] or ())}
        self._log({k: float(v) for k, v in wanted.items() if isinstance(v, int | float | np.number)}, step)

    def close(self) -> None:
        """Leaves the log open: it belongs to whoever opened it."""


def _lane(observations: Any, lane: int) -> Any:
    """One lane of final observations: a dict of batched arrays, or an object array with one entry a lane."""
    if isinstance(observations, dict):
        return {key: values[lane] for key, values in observations.items()}
    return observations[lane]
