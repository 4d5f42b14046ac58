"""LightGCN: graph convolution over who bought what, without weights or nonlinearities (He et al., SIGIR 2020).

By torch-geometric's ``LightGCN``. Departures from the paper: steps take a large random share of the purchases, since
every step propagates over the whole graph; and the vector of a user whom the graph does not hold is folded in.
"""

from __future__ import annotations

import warnings

import torch
from pydantic import Field
from torch import Tensor

from recgym.agents.collaborative import CollaborativeAgent, CollaborativeConfig
from recgym.agents.features.factors import Factors
from recgym.agents.features.pairs import Pairs


class LightGCNConfig(CollaborativeConfig):
    """Settings of ``LightGCNAgent``."""

    dim: int = Field(32, ge=1, description="width of the vectors")
    layers: int = Field(2, ge=1, description="convolutions; the vectors are the mean over all layers")
    steps: int = Field(60, ge=1, description="gradient steps, each over the whole graph")
    batch_size: int = Field(100_000, ge=1, description="purchases compared with a random item at a step")
    learning_rate: float = Field(0.03, gt=0, description="of Adam")
    regularization: float = Field(1e-4, ge=0, description="of the vectors before convolution")


class LightGCNAgent(CollaborativeAgent):
    """Ranks by the product of a user's and an item's vector, learned by Bayesian personalised ranking."""

    id = "lightgcn"
    Config = LightGCNConfig
    Model = Factors

    def learn(self, pairs: Pairs) -> Factors:
        """See ``CollaborativeAgent``."""
        if not len(pairs):
            return Factors.blank(pairs.num_users, pairs.num_items)
        from torch_geometric.nn.models import LightGCN

        config, num_users, num_nodes = self.config, pairs.num_users, pairs.num_users + pairs.num_items
        generator = torch.Generator().manual_seed(self.seed)
        graph = _adjacency(pairs)
        with torch.random.fork_rng(devices=[]):  # the weights that it draws by itself are replaced
            model = LightGCN(num_nodes, config.dim, config.layers, normalize=False)
        torch.nn.init.normal_(model.embedding.weight, std=0.1, generator=generator)
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
        size = min(config.batch_size, len(pairs))
        for _ in range(config.steps):
            chosen = torch.randint(len(pairs), (size,), generator=generator)
            other = torch.randint(pairs.num_items, (size,), generator=generator)
            nodes = torch.stack([pairs.users[chosen], num_users + pairs.items[chosen], num_users + other])
            vectors = model.get_embedding(graph)
            user, bought, random = vectors[nodes]
            ranking = -torch.nn.functional.logsigmoid((user * (bought - random)).sum(-1)).mean()
            start = model.embedding.weight[nodes].square().sum(-1).mean()
            optimizer.zero_grad(set_to_none=True)
            (ranking + config.regularization * start).backward()
            optimizer.step()
        with torch.no_grad():
            users, items = model.get_embedding(graph).split([num_users, pairs.num_items])
        return Factors(users.clone(), items.clone(), torch.zeros(len(items)), torch.eye(config.dim), torch.ones(()))


def _adjacency(pairs: Pairs) -> Tensor:
    """The graph as a sparse matrix [U + N, U + N], an edge weighing 1 / sqrt(degree of both ends)."""
    num_nodes = pairs.num_users + pairs.num_items
    ends = torch.stack([pairs.users, pairs.items + pairs.num_users])
    edges = torch.cat([ends, ends.flip(0)], dim=1)
    degree = torch.bincount(edges[0], minlength=num_nodes).float()
    weights = (degree[edges[0]] * degree[edges[1]]).rsqrt()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        shape = (num_nodes, num_nodes)
        return torch.sparse_coo_tensor(edges, weights, shape, check_invariants=False).coalesce().to_sparse_csr()
