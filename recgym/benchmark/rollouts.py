"""SB3's PPO collecting rollouts through RecGym's adapter, or from single environments in a ``DummyVecEnv``."""

from __future__ import annotations

import time
from typing import Any, Literal

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

import recgym
from recgym.adapters.plackett_luce import PlackettLucePolicy
from recgym.adapters.sb3 import SB3VecEnv


class Contestant:
    """PPO with the Plackett-Luce re-ranker; a step is one rollout, followed by its gradient steps where ``learn``.

    SB3 resets a lane within the step that ends it, so every step of every lane is a slate answered.
    """

    def __init__(self, venv: VecEnv, num_steps: int, learn: bool, seed: int) -> None:
        """``num_steps`` slates a lane and rollout; otherwise the settings of RecGym's own PPO agent."""
        self.model = PPO(
            PlackettLucePolicy,
            venv,
            n_steps=num_steps,
            batch_size=min(1024, num_steps * venv.num_envs),
            n_epochs=3,
            gamma=0.0,
            policy_kwargs={"hidden": 32},
            seed=seed,
            device="cpu",
        )
        self.model.set_logger(Logger(None, []))
        _, self.callback = self.model._setup_learn(total_timesteps=2**40, callback=None)
        self.callback.on_training_start({}, {})
        self.learn, self.learning, self.collecting = learn, 0.0, 0.0
        self.size = num_steps * venv.num_envs
        self._threads = torch.get_num_threads()

    def step(self) -> int:
        """One rollout; how many slates it holds."""
        model, started = self.model, time.perf_counter()
        assert model.env is not None
        model.collect_rollouts(model.env, self.callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
        collected = time.perf_counter()
        self.collecting += collected - started
        if self.learn:
            model.train()
            self.learning += time.perf_counter() - collected
        return self.size

    def forget(self) -> None:
        """Starts the split of time anew."""
        self.learning = self.collecting = 0.0

    @property
    def facts(self) -> dict[str, Any]:
        """The share of the time that went into gradient steps."""
        share = self.learning / max(self.learning + self.collecting, 1e-12)
        return {"gradient_share": share, "slates_per_rollout": self.size, "threads": self._threads}


def prepare(
    env: str, kind: Literal["lanes", "dummy"], lanes: int, num_steps: int, learn: bool, seed: int
) -> Contestant:
    """PPO on ``lanes`` lanes of one vector environment, or on as many single environments."""
    venv: VecEnv
    if kind == "lanes":
        venv = SB3VecEnv(recgym.make_vec(env, num_envs=lanes, autoreset_mode="SAME_STEP"))
    else:
        venv = DummyVecEnv([lambda: recgym.make(env) for _ in range(lanes)])
    venv.seed(seed)
    return Contestant(venv, num_steps, learn, seed)
