"""The terms that rewards and constraints are made of: one number a lane for a slate and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recgym.errors import ScenarioError, nearest
from recgym.scenario import Scenario
from recgym.simulation.choice import position_weights
from recgym.simulation.population import Population
from recgym.types import Response
from recgym.worlds.world import World

LIKED = 4  # the lowest rating that counts as liked
MAX_PROVIDERS = 64  # whose exposure can be compared slate by slate


@dataclass(frozen=True)
class Shown:
    """A slate, and what came of it; B lanes, K slots."""

    items: Tensor  # [B, K] int64 item rows
    response: Response
    again: Tensor  # [B, K] bool, shown higher up on the slate or on an earlier slate of the trip
    returned: Tensor  # [B] bool, the trip ended with this slate and the user comes back within the horizon
    wanted: Tensor  # [B, K] bool, bought or put aside to be bought later
    paid: Tensor  # [B, K] float32, share of the price that is asked for: below 1 where a promotion applies
    delivered: Tensor  # [B] float32, items put aside earlier that are bought now
    delivered_value: Tensor  # [B] float32 currency units


class Terms:
    """What terms need to know of a world, tabulated once; see each method for its definition and source."""

    def __init__(self, world: World, scenario: Scenario, population: Population, device: torch.device) -> None:
        """Tabulates prices, text, popularity and providers of the N items, as the platform knows them."""
        price = np.zeros(world.num_items) if world.prices is None else world.prices
        self.price = torch.tensor(price.astype(np.float32), device=device)  # [N] currency units, discount taken off
        text = world.item_tensors["text_pca"].float()
        self._text = (text / text.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-12)).to(device)  # [N, 16]
        popularity = world.items["popularity"].to_numpy(np.float64) + 1.0
        information = -np.log2(popularity / popularity.sum())
        self.surprise = torch.tensor((information / information.max()).astype(np.float32), device=device)  # [N]
        self.harmful = torch.from_numpy(population.harmful).to(device)  # [N] bool
        self._provider = self._share = torch.zeros(0, device=device)
        if population.provider is not None:
            codes, count = population.provider.codes, len(population.provider.levels)
            self._provider = torch.from_numpy(codes).to(device)  # [N]
            share = np.bincount(codes, minlength=count) / len(codes)
            self._share = torch.tensor(share.astype(np.float32), device=device)  # [P]
        weights = position_weights(scenario.behaviour, scenario.actions.slate_size)
        self.attention = (weights / weights.sum()).to(device)  # [K]
        self.by_name: dict[str, Callable[[Shown], Tensor]] = {
            "purchase": lambda shown: shown.response.consumed.sum(dim=1, dtype=torch.float32) + shown.delivered,
            "revenue": self.revenue,
            "liked": lambda shown: (shown.response.rating >= LIKED).sum(dim=1, dtype=torch.float32),
            "rating": lambda shown: shown.response.rating.sum(dim=1, dtype=torch.float32),
            "click": lambda shown: shown.wanted.sum(dim=1, dtype=torch.float32),
            "return_visit": lambda shown: shown.returned.to(torch.float32),
            "diversity": self.diversity,
            "novelty": self.novelty,
            "coverage": lambda shown: (~shown.again).to(torch.float32).mean(dim=1),
            "unfairness": self.unfairness,
            "harm": lambda shown: self.harmful[shown.items].sum(dim=1, dtype=torch.float32),
        }

    def revenue(self, shown: Shown) -> Tensor:
        """What is paid, promotions taken off, for what is bought on the slate or comes due with it."""
        paid = self.price[shown.items] * shown.response.quantity
        return (paid * shown.paid).sum(dim=1) + shown.delivered_value

    def diversity(self, shown: Shown) -> Tensor:
        """Intra-list diversity: the mean of 1 - cosine over pairs of items, of their texts' principal components.

        Smyth and McClave, Similarity vs. diversity, ICCBR 2001; Ziegler et al., Improving recommendation lists through
        topic diversification, WWW 2005. 0 for a slate of one.
        """
        size = shown.items.shape[1]
        if size == 1:
            return torch.zeros(len(shown.items), device=shown.items.device)
        text = self._text[shown.items]  # [B, K, 16]
        both = text.sum(dim=1).square().sum(dim=1) - text.square().sum(dim=(1, 2))
        return 1.0 - both / (size * (size - 1))

    def novelty(self, shown: Shown) -> Tensor:
        """Mean self-information -log2 p of the items, p from the log's purchases, as a share of the rarest item's.

        Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 2010; Vargas and
        Castells, Rank and relevance in novelty and diversity metrics, RecSys 2011.
        """
        return self.surprise[shown.items].mean(dim=1)

    def unfairness(self, shown: Shown) -> Tensor:
        """Demographic disparity of exposure: total variation between providers' attention and catalogue shares.

        Singh and Joachims, Fairness of exposure in rankings, KDD 2018. Attention falls with the position as examination
        does.
        """
        providers = torch.arange(len(self._share), device=shown.items.device)
        mine = self._provider[shown.items][:, :, None] == providers  # [B, K, P]
        exposure = (mine * self.attention[:, None]).sum(dim=1)
        return (exposure - self._share).abs().sum(dim=1) / 2.0

    @staticmethod
    def possible(world: World, scenario: Scenario, population: Population) -> dict[str, str | None]:
        """Every term with what is missing for it, None where nothing is."""
        responses = world.spec.responses
        rated = None if "rating" in responses else "ratings"
        providers = 0 if population.provider is None else len(population.provider.levels)
        few = f"at most {MAX_PROVIDERS} providers; {scenario.items.provider} has {providers}"
        missing: dict[str, str | None] = {
            "purchase": None,
            "revenue": None if "quantity" in responses and world.prices is not None else "quantities and prices",
            "liked": rated,
            "rating": rated,
            "click": None if scenario.behaviour.delay.share > 0 else "delayed purchases (behaviour.delay.share)",
            "return_visit": None if scenario.episode.kind == "horizon" else "episodes of several trips (episode.kind)",
            "diversity": None,
            "novelty": None,
            "coverage": None,
            "unfairness": None if 0 < providers <= MAX_PROVIDERS else few if providers else "items.provider",
            "harm": None if scenario.items.harmful is not None else "items.harmful",
        }
        return missing

    @staticmethod
    def check(world: World, scenario: Scenario, population: Population, names: dict[str, str]) -> None:
        """Refuses terms (name -> the key that asks for it) that cannot be computed here.

        Raises:
            ScenarioError: names file, key and what is missing.
        """
        missing = Terms.possible(world, scenario, population)
        valid = [name for name, what in missing.items() if what is None]
        for name, key in names.items():
            if missing.get(name, "") is not None:
                guess = nearest(name, valid)
                raise ScenarioError(
                    f"{scenario.at(key)}: term {name!r} does not apply to world {world.name!r} with scenario "
                    f"{scenario.name!r}: it needs {missing.get(name) or 'a definition'}; responses are "
                    f"{', '.join(world.spec.responses)}. Valid: {', '.join(valid)}."
                    + (f" Did you mean {guess!r}?" if guess else "")
                )
