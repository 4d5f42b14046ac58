"""Thompson sampling with a linear or a logistic reward (Chapelle and Li, NIPS 2011; Agrawal and Goyal, ICML 2013).

Linear: theta ~ N(A^-1 b, scale^2 A^-1) of the ridge regression. Logistic: Chapelle and Li's Algorithm 3, whose
posterior after each batch is the Laplace approximation around its mode, N(m, scale^2 Q^-1). Departures: they keep the
diagonal of Q, here ``covariance`` chooses (all of it by default: features go together, and there are few); each lane
and step draws its own theta, and the K best of its scores make the slate.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from recgym.agents.blocks import by_block
from recgym.agents.exploration import lane_keys
from recgym.agents.online import OnlineConfig, Transitions
from recgym.agents.protocol import (
    ActContext,
    Agent,
    AgentConfig,
    Observations,
    not_shown,
    observation_layout,
    top_slate,
)
from recgym.agents.ridge import Ridge, contexts, examples
from recgym.agents.search import Search
from recgym.random import fold, uniform

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv
    from recgym.worlds.world import World

_MOST_STEPS = 50  # of Newton's method; a handful are enough


class ThompsonConfig(OnlineConfig):
    """Settings of ``ThompsonAgent``."""

    likelihood: Literal["logistic", "linear"] = Field(
        "logistic", description="logistic: whether an item earned anything; linear: what it earned"
    )
    covariance: Literal["full", "diagonal"] = Field(
        "full", description="of the logistic posterior; diagonal, as in the paper, ignores that features go together"
    )
    scale: Annotated[float, Search(0.05, 2.0, log=True)] = Field(
        0.3, ge=0, description="standard deviations of the draws, as a multiple of the posterior's, while learning"
    )
    l2: Annotated[float, Search(0.1, 100.0, log=True)] = Field(1.0, gt=0, description="precision of the prior")


class LaplacePosterior:
    """N(mean, precision^-1): the posterior of logistic regression weights, approximated anew after every batch.

    The mode m' of the batch's posterior minimises 1/2 (w - m)^T Q (w - m) + sum_j log(1 + exp(-y_j w^T x_j)), y = +-1;
    then Q' = Q + sum_j p_j (1 - p_j) x_j x_j^T with p_j = sigmoid(m'^T x_j).
    """

    def __init__(self, size: int, l2: float, diagonal: bool) -> None:
        """The prior N(0, I / l2) over ``size`` weights."""
        self.mean = torch.zeros(size, dtype=torch.float64)  # m [d]
        self.precision = l2 * torch.eye(size, dtype=torch.float64)  # Q [d, d]
        self.diagonal = diagonal
        self._factor()

    def update(self, x: Tensor, y: Tensor) -> None:
        """Learns from contexts x [n, d] and outcomes y [n] in {0, 1}."""
        signs = 2.0 * y - 1.0

        def loss(w: Tensor) -> float:
            apart = w - self.mean
            fit = torch.nn.functional.softplus(-signs * (x @ w)).sum()
            return float(0.5 * apart @ self.precision @ apart + fit)

        w, at = self.mean, loss(self.mean)
        for _ in range(_MOST_STEPS):
            p = (x @ w).sigmoid()
            gradient = self.precision @ (w - self.mean) + x.T @ (p - y)
            if float(gradient.abs().max()) < 1e-9:
                break
            step = torch.linalg.solve(self._hessian(x, p), gradient)
            size = 1.0
            while (value := loss(w - size * step)) > at and size > 1e-6:
                size /= 2.0  # Newton may overshoot far from the mode
            if size <= 1e-6:
                break  # as close as float64 gets
            w, at = w - size * step, value
        precision = self._hessian(x, (x @ w).sigmoid())
        self.mean = w
        self.precision = torch.diag(precision.diagonal()) if self.diagonal else precision
        self._factor()

    def _hessian(self, x: Tensor, p: Tensor) -> Tensor:
        return self.precision + (x * (p * (1.0 - p))[:, None]).T @ x

    def _factor(self) -> None:
        factor = torch.linalg.cholesky(self.precision)  # Q = L L^T
        identity = torch.eye(len(factor), dtype=torch.float64)
        self.whitener = torch.linalg.solve_triangular(factor, identity, upper=False)  # L^-1


class ThompsonAgent(Agent):
    """Shows the K best candidates under weights drawn from their posterior, one draw a lane and step.

    Where it is not learning there is nothing to explore for, and it ranks by the posterior's mean. What this trip has
    shown already comes last.
    """

    id = "thompson"
    observes = ("candidates",)
    learns = "environment"
    learns_online = True
    stochastic = True
    Config = ThompsonConfig

    def __init__(self, world: World, config: AgentConfig | None = None, seed: int = 0) -> None:
        """See ``Agent``; knows the prior alone until ``update``."""
        super().__init__(world, config, seed)
        size = len(observation_layout(world, self.observes)["candidates"]) + 1
        self.ridge = Ridge(size, self.config.l2)
        self.posterior = LaplacePosterior(size, self.config.l2, self.config.covariance == "diagonal")

    def _now(self) -> tuple[Tensor, Tensor]:
        """The posterior's mean [d] and the factor L^-1 [d, d] of its covariance L^-T L^-1."""
        if self.config.likelihood == "linear":
            return self.ridge.theta, self.ridge.whitener
        return self.posterior.mean, self.posterior.whitener

    def draw(self, context: ActContext) -> Tensor:
        """Weights [B, d], one draw a lane, keyed by agent seed, lane seed and step."""
        mean, whitener = self._now()
        scale = self.config.scale if context.learning else 0.0
        keys = fold(lane_keys(self.seed, context)[:, None], torch.arange(len(mean)))
        normal = math.sqrt(2.0) * torch.erfinv(2.0 * uniform(keys).double() - 1.0)  # [B, d]
        return mean + scale * by_block(lambda z: z @ whitener, normal)

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        scores = by_block(lambda x, w: (x * w[:, None]).sum(-1), contexts(observations), self.draw(context))
        return top_slate(context.slate_size, not_shown(self.world, observations), scores)

    def propensities(
        self, observations: Observations, context: ActContext, slates: NDArray[np.int64]
    ) -> NDArray[np.float64] | None:
        """See ``Agent.propensities``: 1 where it does not draw; of draws they have no closed form."""
        return None if context.learning else np.ones(slates.shape)

    def update(self, transitions: Transitions) -> None:
        """See ``Agent.update``."""
        x, rewards = examples(transitions)
        if self.config.likelihood == "linear":
            self.ridge.update(x, rewards)
        else:
            self.posterior.update(x, (rewards > 0).double())

    def tensors(self) -> dict[str, Tensor]:
        """What the posterior is made of."""
        if self.config.likelihood == "linear":
            return self.ridge.tensors()
        return {"mean": self.posterior.mean, "precision": self.posterior.precision}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave."""
        if self.config.likelihood == "linear":
            self.ridge.restore(tensors)
        else:
            self.posterior.mean, self.posterior.precision = tensors["mean"], tensors["precision"]
            self.posterior._factor()
