"""What training minimises: the pre-training objectives on histories, and the losses of responses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recgym.user_models.preference import losses
from recgym.user_models.preference.attributes import SALES
from recgym.user_models.preference.config import ModelConfig
from recgym.user_models.preference.graph import TrainingGraph
from recgym.user_models.preference.model import Losses, PreferenceModel, TrainingData
from recgym.user_models.preference.samples import PairSampler, Segment, moments_before, segment_index, strangers
from recgym.user_models.preference.scoring import Groups, embed, fuse, fuse_rows, score_pairs, token_inputs
from recgym.user_models.preference.trips import Tokens, Trips

SCORED = 0.4  # share of the tokens whose items are predicted at a step of pre-training
MASKED = 0.15  # share of the tokens whose items are masked
CROPPED, DROPPED = 0.6, 0.3  # of a history: the share that a view keeps, and of the items in it that the view drops
TEMPERATURE = 0.2  # of the likeness of two views


@dataclass(frozen=True, eq=False)
class Objectives:
    """The losses of a batch of segments."""

    config: ModelConfig
    data: TrainingData
    trips: Trips  # of training
    graph: TrainingGraph
    sampler: PairSampler
    tables: tuple[Tensor, Tensor] | None = None  # item vectors and graph embeddings [N, d], where they are given

    def encode_items(self, model: PreferenceModel, with_graph: bool, hide: bool) -> tuple[Tensor, Tensor]:
        """Item vectors y [N, d] and item graph embeddings [N, d]; with ``hide``, some items pass for new."""
        if self.tables is not None:
            return self.tables
        data, items, graph = self.data, model.items, self.graph
        hidden = torch.rand(data.trips.num_items) < items.id_dropout if hide else None
        adjacency, relations = (graph.adjacency, graph.relations) if with_graph else (None, ())
        attributes = data.item_attributes
        if hidden is not None:  # what passes for new has sold nothing
            sold = torch.arange(attributes.shape[1]) >= attributes.shape[1] - SALES
            attributes = attributes.masked_fill(hidden[:, None] & sold, 0.0)
        vectors, embedded = items(data.text, attributes, adjacency, hidden, relations)
        return vectors, embedded

    # ------------------------------------------------------------------ pre-training

    def pretrain(
        self, tokens: Tokens, batch: list[Segment], rng: np.random.Generator, model: PreferenceModel
    ) -> Losses:
        """The weighted losses of the pre-training objectives. The graph is off: its edges are what is predicted."""
        weights = self.config.training
        vectors, _ = self.encode_items(model, with_graph=False, hide=True)
        index, rows, columns = segment_index(batch)
        parts: Losses = {}
        if weights.next_item:
            parts["next_item"] = weights.next_item * self._next_item(tokens, index, rows, columns, rng, model, vectors)
        if weights.masked_item:
            parts["masked_item"] = weights.masked_item * self._masked_item(tokens, index, rng, model, vectors)
        if weights.contrastive:
            parts["contrastive"] = weights.contrastive * self._contrastive(tokens, index, rng, model, vectors)
        return parts

    def _next_item(
        self,
        tokens: Tokens,
        index: np.ndarray,
        rows: np.ndarray,
        columns: np.ndarray,
        rng: np.random.Generator,
        model: PreferenceModel,
        vectors: Tensor,
    ) -> Tensor:
        """The items of a token from the state before it, over the catalogue."""
        network, token = model.network, index[rows, columns]
        before = _states_before(model, token_inputs(network, vectors, self.trips, tokens, index), rows, columns)
        keep = np.flatnonzero((tokens.items[token, 0] >= 0) & (rng.random(len(token)) < SCORED))
        moments = moments_before(self.trips, tokens, token[keep], before[torch.from_numpy(keep)])
        nowhere = torch.zeros(self.trips.num_users, vectors.shape[1])
        fused = fuse(network, moments, nowhere, self.data.user_attributes)
        logits = network.match(fused) @ vectors.T + network.item_bias(vectors)[:, 0]
        return losses.next_item_loss(logits, torch.from_numpy(tokens.items[token[keep]]))

    def _masked_item(
        self, tokens: Tokens, index: np.ndarray, rng: np.random.Generator, model: PreferenceModel, vectors: Tensor
    ) -> Tensor:
        """The items of masked tokens from the state after the token that follows each (Sun et al., 2019).

        Attention is causal, so a state sees what comes after a masked token only from there on: one token later it
        knows both sides. The masked token keeps its place, its gap and the number of its items.
        """
        network, heads = model.network, model.heads
        assert heads is not None
        holds = (index >= 0) & (tokens.items[np.maximum(index, 0), 0] >= 0)
        masked = holds & (rng.random(index.shape) < MASKED)
        rows, columns = np.nonzero(masked)
        groups = Groups.of(self.trips, tokens, index)
        states = network.encode(embed(network, vectors, groups, (torch.from_numpy(masked), heads.mask)))
        after = np.minimum(columns + 1, (index >= 0).sum(1)[rows] - 1)
        seen = states[torch.from_numpy(rows), torch.from_numpy(after)]
        logits = heads.recall(seen) @ vectors.T + network.item_bias(vectors)[:, 0]
        return losses.next_item_loss(logits, torch.from_numpy(tokens.items[index[rows, columns]]))

    def _contrastive(
        self, tokens: Tokens, index: np.ndarray, rng: np.random.Generator, model: PreferenceModel, vectors: Tensor
    ) -> Tensor:
        """Two views of a history are alike, those of different users are not (CL4SRec, Xie et al., 2022)."""
        network, heads = model.network, model.heads
        assert heads is not None
        views = []
        for _ in range(2):
            kept = crop(index, rng)
            states = network.encode(embed(network, vectors, augment(self.trips, tokens, kept, rng)))
            last = torch.from_numpy((kept >= 0).sum(1) - 1)
            views.append(heads.view(states[torch.arange(len(kept)), last]))
        users = torch.from_numpy(self.trips.trip_user[tokens.trip[index[:, 0]]])
        return losses.view_loss(views[0], views[1], users, TEMPERATURE)

    # ------------------------------------------------------------------ fine-tuning

    def finetune(
        self, tokens: Tokens, batch: list[Segment], rng: np.random.Generator, model: PreferenceModel
    ) -> Losses:
        """The losses of what was bought, how much of it or how it was rated, basket sizes and gaps."""
        network, trips, data, training = model.network, self.trips, self.data, self.config.training
        vectors, graph = self.encode_items(model, with_graph=True, hide=True)
        index, rows, columns = segment_index(batch)
        before = _states_before(model, token_inputs(network, vectors, trips, tokens, index), rows, columns)
        token = index[rows, columns]
        with torch.autocast("cpu", enabled=False):  # there are no sparse products in half precision
            user_graph = self.graph.folding @ graph.float()
        # Users without a graph are met in training too.
        user_graph = user_graph * (torch.rand(len(user_graph), 1) > 0.1)
        # Within trips, where at least half is left: the last items of a basket would count for all the others.
        within = 2 * tokens.bought[token] <= trips.size[tokens.trip[token]]
        within &= rng.random(len(token)) < training.inner_positions
        keep = np.flatnonzero(tokens.first[token] | within)
        moments = moments_before(trips, tokens, token[keep], before[torch.from_numpy(keep)])
        # Some trips are met as if the user were new: nobody else tells the network what new users want.
        cold = torch.from_numpy(tokens.first[token[keep]] & (rng.random(len(keep)) < training.cold_share))
        moments = strangers(moments, cold, network.start)
        known = user_graph[moments.user] * ~cold[:, None]
        fused = fuse_rows(network, moments, known, data.user_attributes[moments.user])
        pairs = self.sampler.draw(tokens, token[keep], rng).of_strangers(cold)
        output = score_pairs(network, fused, vectors, data.item_statistics, moments, pairs)
        parts = {
            "purchase": losses.purchase_loss(output.logit, pairs, len(keep)) * 0.1,
            "ranking": losses.ranking_loss(output.logit, pairs, len(keep)),
        }
        if data.ratings:
            parts["rating"] = losses.rating_loss(network, output, pairs)
        else:
            parts["quantity"] = 0.5 * losses.quantity_loss(output, pairs)
        starts = np.flatnonzero(tokens.first[token[keep]])
        sizes = trips.size[tokens.trip[token[keep][starts]]]
        parts["size"] = 0.3 * losses.size_loss(network, fused[torch.from_numpy(starts)], sizes)
        ends = np.flatnonzero(tokens.first[token] & (trips.number[tokens.trip[token]] > 0))
        ended = moments_before(trips, tokens, token[ends], before[torch.from_numpy(ends)], end_of_previous=True)
        after = fuse(network, ended, user_graph, data.user_attributes)
        parts["gap"] = 0.3 * losses.gap_loss(network, after, trips.gap[tokens.trip[token[ends]]])
        return parts


def _states_before(model: PreferenceModel, inputs: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """Sequence states [P, d] before the tokens at ``rows`` and ``columns`` [P] of token inputs [S, L, d]."""
    states = model.network.encode(inputs)
    begins = model.network.start.expand(states.shape[0], 1, -1)
    return torch.cat((begins, states[:, :-1]), dim=1)[torch.from_numpy(rows), torch.from_numpy(columns)]


def crop(index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A run of ``CROPPED`` of each row's tokens, drawn at random: [S, L] (-1 pads) -> [S, L']."""
    lengths = (index >= 0).sum(1)
    kept = np.ceil(CROPPED * lengths).astype(np.int64)
    begin = (rng.random(len(index)) * (lengths - kept + 1)).astype(np.int64)
    place = np.arange(kept.max())
    at = np.minimum(begin[:, None] + place, index.shape[1] - 1)
    return np.where(place < kept[:, None], np.take_along_axis(index, at, axis=1), -1)


def augment(trips: Trips, tokens: Tokens, index: np.ndarray, rng: np.random.Generator) -> Groups:
    """The tokens ``index`` [S, L] with each trip's groups in another order and ``DROPPED`` of the items left out.

    Items of one group have no order, so what is reordered are the groups of a trip; gaps stay where they are.
    """
    trip = np.where(index >= 0, tokens.trip[np.maximum(index, 0)] + rng.random(index.shape), np.inf)
    groups = Groups.of(trips, tokens, index, np.take_along_axis(index, np.argsort(trip, axis=1), axis=1))
    dropped = torch.from_numpy(rng.random(groups.items.shape) < DROPPED)
    return Groups(groups.items.masked_fill(dropped, -1), groups.feedback.masked_fill(dropped, 0), groups.level)
