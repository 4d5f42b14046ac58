"""SVD++: biases and factors, with the items that a user has anything to do with as a second profile (Koren, KDD 2008).

Departures from the paper: minibatches and Adam instead of single steps; and where purchases instead of ratings are
learned, the target is 1 for them and 0 for items drawn at random.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from recgym.agents.collaborative import CollaborativeAgent, CollaborativeConfig
from recgym.agents.features.columns import initialise
from recgym.agents.features.factors import Factors
from recgym.agents.features.measures import errors
from recgym.agents.features.pairs import Pairs, ratings_of_world
from recgym.user_models.preference.loop import Fit, descend, fit, pace

_STEPS = 16  # at least, in a pass over the purchases: small logs take smaller steps


class SVDpp(nn.Module):
    """``mean + b_u + b_i + <q_i, p_u + |N(u)|^-1/2 sum_{j in N(u)} y_j>``, N(u) the items that the log has with u."""

    offsets: Tensor
    seen: Tensor
    mean: Tensor

    def __init__(self, seen: Pairs, factors: int, mean: float) -> None:
        """Parameters for the users and items of ``seen``, which also says who has to do with what."""
        super().__init__()
        self.user_bias, self.item_bias = nn.Embedding(seen.num_users, 1), nn.Embedding(seen.num_items, 1)
        self.p, self.q = nn.Embedding(seen.num_users, factors), nn.Embedding(seen.num_items, factors)
        self.y = nn.Embedding(seen.num_items, factors)
        self.register_buffer("offsets", seen.offsets())
        self.register_buffer("seen", seen.items)
        self.register_buffer("mean", torch.tensor(mean))

    def users(self) -> Tensor:
        """[U, f]: p_u and what the user's items add to it."""
        profile = F.embedding_bag(self.seen, self.y.weight, self.offsets[:-1], mode="sum")
        return self.p.weight + profile * self.offsets.diff().clamp(min=1).rsqrt()[:, None]

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Predictions [n] for pairs of known users [n] and items [n]."""
        match = (self.users()[users] * self.q(items)).sum(-1)
        return self.mean + (self.user_bias(users) + self.item_bias(items)).squeeze(-1) + match

    def penalty(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared norms of what predicts the pairs: biases, and factors."""
        biases = (self.user_bias(users) ** 2 + self.item_bias(items) ** 2).mean()
        factors = (self.p(users) ** 2 + self.q(items) ** 2 + self.y(items) ** 2).sum(-1).mean()
        return biases, factors


class SVDppConfig(CollaborativeConfig):
    """Settings of ``SVDppAgent``; those of the regularisation were chosen on parts of training ratings."""

    factors: int = Field(32, ge=1, description="width of the vectors")
    epochs: int = Field(5, ge=1, description="passes over the purchases, the length of the learning rate's cosine")
    rating_epochs: int = Field(40, ge=1, description="passes over ratings at most")
    patience: int = Field(4, ge=1, description="epochs without improvement on held-out ratings before stopping")
    negatives: int = Field(3, ge=1, description="random items with target 0 for each purchase")
    batch_size: int = Field(65_536, ge=1, description="purchases at a step, random items not counted")
    rating_batch_size: int = Field(1024, ge=1, description="ratings at a step")
    learning_rate: float = Field(0.01, gt=0, description="of Adam, falling along a cosine")
    bias_penalty: float = Field(0.02, ge=0, description="on squared biases, per prediction")
    factor_penalty: float = Field(0.12, ge=0, description="on squared factors, per prediction of a rating")
    purchase_penalty: float = Field(1e-3, ge=0, description="on squared factors, per prediction of a purchase")


class SVDppAgent(CollaborativeAgent):
    """Ranks by SVD++ fitted to who bought what; in worlds with ratings its errors on held-out ratings are reported."""

    id = "svdpp"
    Config = SVDppConfig
    Model = Factors

    def learn(self, pairs: Pairs) -> Factors:
        """See ``CollaborativeAgent``."""
        if not len(pairs):
            return Factors.blank(pairs.num_users, pairs.num_items)
        config = self.config
        generator = torch.Generator().manual_seed(self.seed)
        model = new_model(pairs, config.factors, 1 / (1 + config.negatives), generator)
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
        size = min(config.batch_size, max(1, len(pairs) // _STEPS))
        for epoch in range(config.epochs):
            optimizer.param_groups[0]["lr"] = config.learning_rate * pace(epoch, config.epochs)
            for rows in torch.randperm(len(pairs), generator=generator).split(size):
                users = pairs.users[rows].repeat(1 + config.negatives)
                random = torch.randint(pairs.num_items, (config.negatives * len(rows),), generator=generator)
                items = torch.cat([pairs.items[rows], random])
                target = torch.cat([torch.ones(len(rows)), torch.zeros(len(random))])
                biases, factors = model.penalty(users, items)
                loss = F.mse_loss(model(users, items), target)
                loss = loss + config.bias_penalty * biases + config.purchase_penalty * factors
                descend(loss, model, optimizer, 10.0, lambda: "SVD++ of purchases; lower the learning rate")
        with torch.no_grad():
            vectors, ridge = model.users().clone(), torch.eye(config.factors)
        items, bias = model.q.weight.detach().clone(), model.item_bias.weight.detach().squeeze(-1).clone()
        return Factors(vectors, items, bias, ridge, torch.ones(()))

    def _learn(self, pairs: Pairs) -> None:
        super()._learn(pairs)
        ratings = ratings_of_world(self.world)
        if ratings is None or not self.config.held_out:
            return
        generator = torch.Generator().manual_seed(self.seed)
        kept, held = ratings.split(self.config.held_out, generator)
        kept, watched = kept.split(self.config.held_out, generator)
        if len(held) and len(watched) and len(kept):
            model = learn_ratings(kept, watched, self.config, self.seed).model
            with torch.no_grad():
                predicted = model(held.users, held.items).clamp(1.0, 5.0)
            self._report |= {**errors(predicted, held.values), "num_ratings": len(held)}


def new_model(seen: Pairs, factors: int, mean: float, generator: torch.Generator) -> SVDpp:
    """An SVD++ model with initial weights from ``generator``: biases 0, factors small."""
    with torch.random.fork_rng(devices=[]):  # the weights that torch draws by itself are all replaced
        model = SVDpp(seen, factors, mean)
    initialise(model, generator)
    for biases in (model.user_bias, model.item_bias):
        nn.init.zeros_(biases.weight)
    return model


def learn_ratings(
    ratings: Pairs, held_out: Pairs | None, config: SVDppConfig, seed: int, epochs: int | None = None
) -> Fit[SVDpp]:
    """SVD++ fitted to ratings.

    Args:
        ratings: what is learned from.
        held_out: decides which epoch's weights are kept; None: the last one's.
        config: of the agent.
        seed: of initial weights and the order of the ratings.
        epochs: stop after that many epochs of the schedule.

    Raises:
        DivergedError: the loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    model = new_model(ratings, config.factors, float(ratings.values.mean()), generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)

    def step(epoch: int) -> dict[str, float]:
        optimizer.param_groups[0]["lr"] = config.learning_rate * pace(epoch, config.rating_epochs)
        for rows in torch.randperm(len(ratings), generator=generator).split(config.rating_batch_size):
            part = ratings.select(rows)
            biases, factors = model.penalty(part.users, part.items)
            loss = F.mse_loss(model(part.users, part.items), part.values)
            loss = loss + config.bias_penalty * biases + config.factor_penalty * factors
            descend(loss, model, optimizer, 10.0, lambda: f"epoch {epoch}; lower the learning rate")
        return {}

    @torch.no_grad()
    def validate(held: Pairs) -> tuple[float, dict[str, float]]:
        error = errors(model(held.users, held.items).clamp(1.0, 5.0), held.values)["rmse"]
        return error, {"rmse": error}

    check = None if held_out is None else lambda: validate(held_out)
    return fit(model, min(epochs or config.rating_epochs, config.rating_epochs), config.patience, step, check, None)
