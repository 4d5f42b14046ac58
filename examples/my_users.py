"""Users of one's own in 40 lines: night owls and early birds, who tire of a category and get over it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recgym.types import Record, Response, Slate, TensorRecord, Visit
from recgym.user_models.simple import SimpleUsers
from recgym.worlds.world import World


@dataclass(frozen=True)
class Owl(TensorRecord):
    """What is hidden about each user: never observed, copied and saved by the simulator."""

    taste: Tensor  # [B, C] logits by category
    tired: Tensor  # [B, C] slates' worth of each category seen lately


class NightOwls(SimpleUsers):
    """Users who differ in their taste for the categories of the world, and tire of what they examine."""

    mean_basket, mean_gap = 5.0, 4.0

    def __init__(self, world: World, device: str | torch.device = "cpu") -> None:
        """Numbers the categories; everything is a function of row numbers, so every process agrees."""
        super().__init__(world, device)
        names = sorted(set(world.items["category"].astype(str)))
        numbers = [names.index(name) for name in world.items["category"].astype(str)]
        self.category = torch.tensor(numbers, device=self.device)  # [N]
        common, own = torch.arange(len(names)) * 1.7, torch.arange(world.num_users)[:, None] * 2.4
        self.taste = (2.0 * torch.sin(common) + torch.sin(common + own) - 1.5).to(self.device)  # [U, C]

    def init(self, users: Tensor, record: Record, visit: Visit) -> Owl:
        """Everybody starts fresh."""
        return Owl(self.taste[users], torch.zeros_like(self.taste[users]))

    def logits(self, state: Owl, items: Tensor, visit: Visit) -> Tensor:
        """Taste for the category of each item [B, C], less what it has worn off."""
        return (state.taste - 0.3 * state.tired).gather(1, self.category[items])

    def transition(self, state: Owl, slate: Slate, response: Response, visit: Visit) -> Owl:
        """What was examined tires; the rest is got over."""
        seen = torch.zeros_like(state.tired).scatter_add_(1, self.category[slate.items], slate.examined.float())
        return replace(state, tired=0.7 * state.tired + seen)
