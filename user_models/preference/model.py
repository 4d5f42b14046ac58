"""The preference model as it is trained: item encoder, network and what pre-training alone needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from recgym.user_models.preference.config import ModelConfig
from recgym.user_models.preference.graph import Knowledge, num_relations
from recgym.user_models.preference.items import ItemEncoder
from recgym.user_models.preference.network import PreferenceNetwork
from recgym.user_models.preference.trips import Trips

Losses = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a preference model learns from: N items, U users."""

    trips: Trips  # all trips; each user's last two are held out
    text: Tensor  # [N, width] frozen text embeddings
    item_attributes: Tensor  # [N, F]
    user_attributes: Tensor  # [U, A]
    item_statistics: Tensor  # [N, 3] from training trips; see ``item_features``
    ratings: bool  # feedback is a rating and not a quantity
    knowledge: Knowledge | None = None  # facts about the items, where a relation of the graph needs them


class PretrainingHeads(nn.Module):
    """Parameters of masked items and of the contrastive objective; they do not ship."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.zeros(dim))  # stands for the items of a masked token
        self.recall = nn.Linear(dim, dim)
        self.view = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))


class PreferenceModel(nn.Module):
    """The item encoder and the preference network, trained together."""

    def __init__(self, config: ModelConfig, data: TrainingData) -> None:
        super().__init__()
        self.items = ItemEncoder(
            config.network,
            config.graph,
            data.trips.num_items,
            data.text.shape[1],
            data.item_attributes.shape[1],
            num_relations(config.graph, data.knowledge),
        )
        self.network = PreferenceNetwork(config.network, data.user_attributes.shape[1])
        training = config.training
        self.heads = PretrainingHeads(config.network.dim) if training.masked_item or training.contrastive else None

    def forward(self, losses: Callable[[PreferenceModel], Losses]) -> Losses:
        """The losses that ``losses`` makes of this model: what wraps a module acts on its calls alone."""
        return losses(self)


def initialise(model: PreferenceModel, config: ModelConfig, trips: Trips) -> None:
    """What the plain initial weights lack: levels of what is not trained, the base rate of purchases, parts left out.

    Args:
        model: changed in place.
        config: of the model.
        trips: of training.
    """
    popularity = np.bincount(trips.item, minlength=trips.num_items)
    rate = float(popularity.mean() / len(trips.trip_user))
    network = model.network
    # No token of training holds anything that was passed over: what is not trained has to say nothing.
    nn.init.zeros_(network.item_ignored.weight)
    with torch.no_grad():
        network.size_token.weight[:, 1] = 0.0
    nn.init.zeros_(network.item_bias.weight)
    nn.init.constant_(network.item_bias.bias, float(np.log(rate)))
    # A part that is left out is zero and stays it, in simulation too: its source adds nothing to what it is fused with.
    items, users = model.items.fusion, network.fusion
    parts: dict[str, list[nn.Module]] = {
        "text": [model.items.text, items.project["text"], items.gate["text"]],
        "graph": [*(f.project["graph"] for f in (items, users)), *(f.gate["graph"] for f in (items, users))],
        "sequence": [users.project["sequence"], users.gate["sequence"]],
        "repeat": [nn.ParameterList([network.repeat_out])],
    }
    for parameter in chain.from_iterable(module.parameters() for part in config.without for module in parts[part]):
        nn.init.zeros_(parameter)
        parameter.requires_grad_(False)
