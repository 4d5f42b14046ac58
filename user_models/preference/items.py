"""The item side: text, graph and attributes fused into one vector an item."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, LGConv

from recgym.user_models.preference.config import GraphConfig, NetworkConfig
from recgym.user_models.preference.network import GatedFusion

STRENGTH = 0.2  # of a relation beside the user-item edges, before training


def normalised_adjacency(users: Tensor, items: Tensor, weights: Tensor, num_users: int, num_items: int) -> Tensor:
    """The symmetric user-item adjacency D^-1/2 A D^-1/2 as sparse CSR [U + N, U + N]; users come first."""
    return symmetric_adjacency(users, items + num_users, weights, num_users + num_items)


def symmetric_adjacency(one: Tensor, other: Tensor, weights: Tensor, size: int) -> Tensor:
    """D^-1/2 A D^-1/2 of ``size`` nodes and weighted edges between nodes ``one`` and ``other`` [Q], as sparse CSR."""
    rows = torch.cat((one, other))
    columns = torch.cat((other, one))
    values = torch.cat((weights, weights)).float()
    degree = torch.zeros(size).index_add_(0, rows, values).clamp(min=1e-12)
    values = values * (degree[rows] * degree[columns]).rsqrt()
    matrix = torch.sparse_coo_tensor(torch.stack((rows, columns)), values, (size, size), check_invariants=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return matrix.coalesce().to_sparse_csr()


def edge_weights(counts: Tensor, ages: Tensor, half_life_days: float) -> Tensor:
    """Weights of user-item edges: log(1 + count), halved every ``half_life_days`` since the last purchase."""
    return torch.log1p(counts.float()) * 0.5 ** (ages.float() / half_life_days)


class ItemGraph(nn.Module):
    """Graph convolution over the user-item graph with users that start at zero.

    Users own no parameters: a user is what its neighbours make of it, so new users fold in as those in training did
    (LightGCN, He et al., 2020, has no cold node). ``lightgcn`` averages the layers; ``gcn`` transforms each
    (Kipf and Welling, 2017). Entities of a knowledge graph start at zero as users do. Further relations of items are
    added at each layer, each with a strength of its own that is learned (as the relations of Schlichtkrull et al.,
    2018, with a scalar for each matrix).
    """

    def __init__(self, config: GraphConfig, dim: int, num_relations: int = 0) -> None:
        super().__init__()
        if config.convolution == "lightgcn":
            self.layers = nn.ModuleList(LGConv(normalize=False) for _ in range(config.layers))
        else:
            self.layers = nn.ModuleList(GCNConv(dim, dim, normalize=False) for _ in range(config.layers))
        self.transforms = config.convolution == "gcn"
        self.norm = nn.LayerNorm(dim)
        self.strength = nn.Parameter(torch.full((config.layers, num_relations), STRENGTH)) if num_relations else None

    def forward(self, base: Tensor, adjacency: Tensor, relations: Sequence[Tensor] = ()) -> Tensor:
        """Item graph embeddings [N, d].

        Args:
            base: base embeddings [N, d].
            adjacency: users and items, [U + N, U + N].
            relations: items and entities, [N + entities, N + entities] each; none of them for items without relations.
        """
        with torch.autocast(base.device.type, enabled=False):  # there are no sparse products in half precision
            return self._embedded(base.float(), adjacency, relations)

    def _embedded(self, base: Tensor, adjacency: Tensor, relations: Sequence[Tensor]) -> Tensor:
        count, dim = base.shape
        users = adjacency.shape[0] - count
        entities = relations[0].shape[0] - count if relations else 0
        x = torch.cat((base.new_zeros(users, dim), base, base.new_zeros(entities, dim)))
        total = x
        for number, layer in enumerate(self.layers):
            x = self._convolve(layer, number, x, adjacency, relations)
            if self.transforms:
                x = x.relu()
            total = total + x
        embedded: Tensor = self.norm(total[users : users + count] / (len(self.layers) + 1))
        return embedded

    def _convolve(
        self, layer: nn.Module, number: int, x: Tensor, adjacency: Tensor, relations: Sequence[Tensor]
    ) -> Tensor:
        """One layer over users, items and entities ``x``."""
        if self.strength is None or not relations:
            told: Tensor = layer(x, adjacency)
            return told
        first, users = adjacency.shape[0], len(x) - relations[0].shape[0]
        told = F.pad(layer(x[:first], adjacency), (0, 0, 0, len(x) - first))
        for strength, relation in zip(self.strength[number], relations, strict=True):
            told = told + strength * F.pad(layer(x[users:], relation), (0, 0, users, 0))
        return told


class ItemEncoder(nn.Module):
    """Item vectors y [N, dim] from text embeddings, the graph and attributes, by gated fusion.

    An item without an id (new, or hidden by id dropout) takes ``unknown``, one learned vector, plus its text.
    """

    def __init__(
        self,
        network: NetworkConfig,
        graph: GraphConfig,
        num_items: int,
        text_width: int,
        attribute_width: int,
        num_relations: int = 0,
    ) -> None:
        super().__init__()
        dim = network.dim
        self.id_dropout = graph.id_dropout
        self.ids = nn.Embedding(num_items, dim)
        nn.init.normal_(self.ids.weight, std=0.05)
        self.unknown = nn.Parameter(torch.zeros(dim))
        self.text = nn.Linear(text_width, dim, bias=False)
        self.graph = ItemGraph(graph, dim, num_relations)
        self.no_graph = nn.Parameter(torch.zeros(dim))
        self.attributes = nn.Linear(attribute_width, dim)  # narrowed first: the gates of N items are the costly part
        self.fusion = GatedFusion(dict.fromkeys(("text", "base", "graph", "attributes"), dim), dim)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        text: Tensor,
        attributes: Tensor,
        adjacency: Tensor | None,
        hidden: Tensor | None = None,
        relations: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor]:
        """Item vectors y [N, dim] and graph embeddings [N, dim].

        Args:
            text: [N, text_width] frozen text embeddings.
            attributes: [N, attribute_width].
            adjacency: the user-item graph; None while pre-training, which scores events that are edges of it.
            hidden: bool [N], items that are new, or pass for new (id dropout): their id and their edges are hidden.
            relations: further relations of the items; see ``ItemGraph``.
        """
        told = self.text(text)
        ids = self.ids.weight if hidden is None else torch.where(hidden[:, None], self.unknown, self.ids.weight)
        base = ids + told
        graph = self.no_graph.expand_as(base)
        if adjacency is not None:
            graph = self.graph(base, adjacency, relations)
            if hidden is not None:
                graph = torch.where(hidden[:, None], self._alone(base), graph)
        return self._fused(told, base, graph, attributes), graph

    def new(self, text: Tensor, attributes: Tensor) -> Tensor:
        """Item vectors y [M, dim] of items without id and without edges, from text and attributes as in ``forward``."""
        told = self.text(text)
        base = self.unknown + told
        return self._fused(told, base, self._alone(base), attributes)

    def _alone(self, base: Tensor) -> Tensor:
        """Graph embeddings [M, dim] of items without edges."""
        nobody = torch.zeros(0, dtype=torch.int64)
        alone: Tensor = self.graph(base, normalised_adjacency(nobody, nobody, nobody, 0, len(base)))
        return alone

    def _fused(self, told: Tensor, base: Tensor, graph: Tensor, attributes: Tensor) -> Tensor:
        sources = {"text": told, "base": base, "graph": graph, "attributes": self.attributes(attributes)}
        y: Tensor = self.norm(self.fusion(sources))
        return y
