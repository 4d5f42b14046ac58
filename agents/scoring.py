"""Agents that rank by a network's score, learned from a logged rollout: what they share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from recgym.agents.features.columns import FusionMode, initialise
from recgym.agents.features.inputs import CONTEXT, Batch, ScoringModel, Sizes
from recgym.agents.features.knowledge import OF_ITEMS, OF_PAIRS, Knowledge
from recgym.agents.features.learning import Examples, Loss, Schedule, importance, learn, predict
from recgym.agents.features.measures import auc, errors, ndcg
from recgym.agents.features.slates import OBSERVED, Slates, collect, split_lanes
from recgym.agents.protocol import (
    ActContext,
    Agent,
    AgentConfig,
    Observations,
    as_tensor,
    not_shown,
    observation_layout,
    top_slate,
)
from recgym.errors import AgentError
from recgym.threads import one_thread

if TYPE_CHECKING:
    from recgym.envs.vector import RecVectorEnv
    from recgym.worlds.world import World

_REPORTED = 10  # columns in the report of importance


class ScoringConfig(AgentConfig):
    """Settings that all agents of this kind have."""

    num_envs: int = Field(256, ge=3, description="lanes in which the logging policy acts at once")
    total_steps: int = Field(65_536, ge=1, description="slates that it shows in all, the default budget")
    held_out: float = Field(0.1, gt=0, lt=0.5, description="share of the lanes for early stopping, and for the report")
    epochs: int = Field(6, ge=1, description="passes over the log at most")
    patience: int = Field(2, ge=1, description="epochs without improvement on held-out slates before stopping")
    batch_size: int = Field(256, ge=1, description="slates per gradient step")
    learning_rate: float = Field(3e-3, gt=0, description="of AdamW, falling along a cosine")
    weight_decay: float = Field(0.01, ge=0)
    id_dropout: float = Field(0.3, ge=0, lt=1, description="share of users and items that are unknown at a step")
    dim: int = Field(32, ge=1, description="width of the vectors of users, items and contexts")
    fusion: FusionMode = Field("gated", description="how the sources of a vector are brought together")


class ScoringAgent(Agent):
    """Ranks by the score of a network; what this trip has shown already comes last.

    ``train`` lets a logging policy (see ``collect``) act in the environment and fits the network to what users bought
    (or watched and rated 4 or more) of what they were shown. In worlds with ratings a second network of the same kind
    predicts the ratings. A subclass defines ``network``.
    """

    observes = OBSERVED
    learns = "environment"
    loss: ClassVar[Loss] = "logistic"
    Config: ClassVar[type[AgentConfig]] = ScoringConfig

    def __init__(self, world: World, config: AgentConfig | None = None, seed: int = 0) -> None:
        """See ``Agent``; untrained until ``train`` or ``load``."""
        super().__init__(world, config, seed)
        self._columns = _columns(world)
        self._knowledge = Knowledge(world)
        self._here = torch.tensor(list(bytes.fromhex(world.hash)), dtype=torch.uint8)
        self._met = self._here  # the world whose user rows the networks know
        self.models: dict[str, ScoringModel] = self._build(world.num_users)
        self._report: dict[str, Any] = {}

    @classmethod
    def network(cls, sizes: Sizes, config: Any) -> nn.Module:
        """A network that gives scores [B, M] for a ``Batch`` of ``sizes``."""
        raise AgentError(f"{cls.__name__} does not define network(sizes, config)")

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """See ``Agent.act``."""
        seen = [as_tensor(observations[key]) for key in OBSERVED]
        scores = self.models["response"].scores_by_block(self._batch(*seen))
        return top_slate(context.slate_size, not_shown(self.world, observations), scores)

    def train(
        self,
        env: RecVectorEnv,
        steps: int,
        *,
        directory: Path | None = None,
        progress: Callable[[int], None] | None = None,
        resume: bool = False,
    ) -> None:
        """See ``Agent.train``; one that was interrupted begins again, since it takes about a minute."""
        with one_thread():
            self.learn(collect(env, steps, self.seed, progress=progress))

    def learn(self, slates: Slates) -> None:
        """Fits the networks to a log.

        Raises:
            AgentError: nobody bought anything of what was shown.
        """
        generator = torch.Generator().manual_seed(self.seed)
        self._met = self._here
        self.models = self._build(self.world.num_users)
        parts = split_lanes(slates, self.config.held_out, generator)
        self._report = {}
        for target, model in self.models.items():
            training, validation, rest = (self._examples(part, target) for part in parts)
            if not bool((training.target > 0).any()):
                raise AgentError(f"agent {self.id!r} cannot learn: no item shown in the log was bought or rated")
            loss = self.loss if target == "response" else "squared"
            checked = validation if bool(validation.counts.any()) else None
            fitted = learn(model, training, checked, loss, self.schedule(self.config), generator)
            scores = predict(model, rest.batch)
            if target == "response":
                good = rest.target > 0.5
                self._report |= {
                    "epochs": fitted.epochs,
                    "auc": auc(scores.flatten(), good.flatten()),
                    "ndcg@10": ndcg(scores, good),
                    "num_purchases": int(good.sum()),
                    "importance": self._importance(model, rest, generator),
                }
            else:
                self._report |= {**errors(*rest.known(scores)), "num_ratings": int(rest.counts.sum())}

    def report(self) -> dict[str, Any]:
        """How the scores do on slates that were held out from ``train``; empty before it and after ``load``.

        AUC over all items shown, NDCG@10 within slates with a purchase, RMSE and MAE of ratings where there are any,
        and the AUC lost when a column is shuffled, for the columns that matter most.
        """
        return {key: value for key, value in self._report.items() if value == value}  # NaN is no JSON

    @staticmethod
    def schedule(config: Any) -> Schedule:
        """How long and how fast the networks learn."""
        keys = ("epochs", "patience", "batch_size", "learning_rate", "weight_decay", "id_dropout")
        return Schedule(**{key: getattr(config, key) for key in keys})

    def _importance(self, model: ScoringModel, rest: Examples, generator: torch.Generator) -> dict[str, float]:
        if math.isnan(auc(rest.target.flatten(), rest.target.flatten() > 0.5)):
            return {}
        lost = importance(model, rest, {key: names for key, (names, _) in self._columns.items()}, generator)
        return {name: round(value, 5) for name, value in list(lost.items())[:_REPORTED]}

    def _build(self, num_users: int) -> dict[str, ScoringModel]:
        from recgym.simulation.observation import text_features

        widths = {key: len(names) for key, (names, _) in self._columns.items()}
        sizes = Sizes(num_users, self.world.num_items, **widths, texts=text_features(self.world))
        targets = ("response", "rating") if self.world.spec.kind == "rating" else ("response",)
        generator = torch.Generator().manual_seed(self.seed)
        with torch.random.fork_rng(devices=[]):  # the weights that torch draws by itself are all replaced
            models = {target: ScoringModel(self.network(sizes, self.config), sizes) for target in targets}
        for model in models.values():
            initialise(model, generator)
        return models

    def _batch(self, user: Tensor, candidates: Tensor, items: Tensor, user_id: Tensor, history: Tensor) -> Batch:
        """Observations [B, ...] as inputs."""
        rows, items, history = user_id.reshape(-1).long(), items.long(), history.long()
        of_items, of_pairs = (candidates[:, :, self._columns[key][1]].float() for key in ("item", "context"))
        return Batch(
            user_id=rows if torch.equal(self._met, self._here) else torch.full_like(rows, -1),
            user=user.float(),
            history=history,
            item_id=items,
            item=torch.cat([of_items, self._knowledge.of_items(items)], dim=-1),
            context=torch.cat([of_pairs, self._knowledge.of_pairs(rows, items, history)], dim=-1),
        )

    def _examples(self, slates: Slates, target: str) -> Examples:
        batch = self._batch(slates.user, slates.candidates, slates.items, slates.user_id, slates.history)
        if target == "rating":
            return Examples(batch, slates.ratings, slates.ratings > 0)
        good = slates.good(self.world)
        return Examples(batch, good, torch.ones_like(good, dtype=torch.bool))

    def tensors(self) -> dict[str, Tensor]:
        """The networks' parameters, the normalisation of their inputs, and a digest of the world whose users it met."""
        return {**nn.ModuleDict(self.models).state_dict(), "world": self._met}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave; in another world, the users that it met are nobody's rows."""
        weights = dict(tensors)
        self._met = weights.pop("world")
        tables = [len(value) - 1 for name, value in weights.items() if name.endswith("user_ids.table.weight")]
        self.models = self._build(tables[0] if tables else self.world.num_users)
        nn.ModuleDict(self.models).load_state_dict(weights)


def _columns(world: World) -> dict[str, tuple[list[str], list[int]]]:
    """Names of the columns of users, items and contexts, and where observations hold the first of them."""
    layout = observation_layout(world, OBSERVED)
    of_pairs = [name in CONTEXT for name in layout["candidates"]]
    places = {"context": [i for i, pair in enumerate(of_pairs) if pair]}
    places["item"] = [i for i, pair in enumerate(of_pairs) if not pair]
    more = {"context": OF_PAIRS, "item": OF_ITEMS}
    named = {key: ([layout["candidates"][i] for i in at] + [*more[key]], at) for key, at in places.items()}
    return {"user": (layout["user"], list(range(len(layout["user"])))), **named}
