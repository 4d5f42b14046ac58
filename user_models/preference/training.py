"""Pre-training on next items, then fine-tuning on responses, with early stopping and resumable checkpoints."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from recgym.user_models.preference import losses
from recgym.user_models.preference.calibration import calibrate, calibrate_answers, calibrate_bins
from recgym.user_models.preference.checkpoint import load_checkpoint, save_checkpoint
from recgym.user_models.preference.config import ModelConfig
from recgym.user_models.preference.items import ItemEncoder, edge_weights, normalised_adjacency
from recgym.user_models.preference.loop import descend
from recgym.user_models.preference.metrics import ranking_metrics
from recgym.user_models.preference.network import GAP_BINS, SIZE_BINS, PreferenceNetwork
from recgym.user_models.preference.samples import (
    PairSampler,
    Segment,
    batches,
    cut_segments,
    moments_before,
    segment_index,
    strangers,
)
from recgym.user_models.preference.scoring import (
    Components,
    Moments,
    fuse,
    fuse_rows,
    owned_before,
    receptive_field,
    score_answers,
    score_catalogue,
    score_pairs,
    states_before,
    token_inputs,
    trip_end_moments,
    trip_start_moments,
)
from recgym.user_models.preference.trends import Trends
from recgym.user_models.preference.trips import Tokens, Trips, draw_tokens

Progress = Callable[[str, float], None]  # (what is under way, share done in [0, 1])


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a preference model learns from: N items, U users."""

    trips: Trips  # all trips; each user's last two are held out
    text: Tensor  # [N, width] frozen text embeddings
    item_attributes: Tensor  # [N, F]
    user_attributes: Tensor  # [U, A]
    item_statistics: Tensor  # [N, 3] from training trips; see ``item_features``
    ratings: bool  # feedback is a rating and not a quantity


class PreferenceModel(nn.Module):
    """The item encoder and the preference network, trained together."""

    def __init__(self, config: ModelConfig, data: TrainingData) -> None:
        super().__init__()
        self.items = ItemEncoder(
            config.network, config.graph, data.trips.num_items, data.text.shape[1], data.item_attributes.shape[1]
        )
        self.network = PreferenceNetwork(config.network, data.user_attributes.shape[1])


def graph_edges(trips: Trips, half_life_days: float) -> tuple[Tensor, Tensor, Tensor]:
    """User rows, item rows and weights of the user-item edges of a log; ages count to each user's last trip in it."""
    user = trips.trip_user[trips.trip]
    pair, inverse, counts = np.unique(user * trips.num_items + trips.item, return_inverse=True, return_counts=True)
    last = np.zeros(len(pair), np.int64)
    np.maximum.at(last, inverse, trips.trip_day[trips.trip])
    users, items = pair // trips.num_items, pair % trips.num_items
    newest = np.zeros(trips.num_users, np.int64)
    np.maximum.at(newest, trips.trip_user, trips.trip_day)
    weights = edge_weights(torch.from_numpy(counts), torch.from_numpy(newest[users] - last), half_life_days)
    return torch.from_numpy(users), torch.from_numpy(items), weights


def fold_in(trips: Trips, graph: Tensor, half_life_days: float) -> Tensor:
    """User graph embeddings [U, d]: the weighted mean of the graph embeddings [N, d] of what each user bought."""
    return fold_matrix(trips, half_life_days) @ graph


def fold_matrix(trips: Trips, half_life_days: float) -> Tensor:
    """The fold-in as a sparse matrix [U, N] whose rows sum to one (zero for users without history)."""
    users, items, weights = graph_edges(trips, half_life_days)
    total = torch.zeros(trips.num_users).index_add_(0, users, weights)
    values = weights / total[users].clamp(min=1e-12)
    size = (trips.num_users, trips.num_items)
    return torch.sparse_coo_tensor(torch.stack((users, items)), values, size, check_invariants=False).coalesce()


class Trainer:
    """Trains one preference model; every epoch ends in a checkpoint from which an interrupted run goes on."""

    def __init__(
        self,
        data: TrainingData,
        config: ModelConfig,
        seed: int,
        directory: Path,
        progress: Progress | None = None,
        tables: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Lays out the training.

        Args:
            data: what is learned from.
            config: sizes and budgets.
            seed: of the initial weights and every draw.
            directory: of the checkpoints.
            progress: called with what is under way and the share done.
            tables: item vectors and graph embeddings, [N, d] each, taken as they are instead of being learned.
        """
        self.tables = tables
        self.data, self.config, self.seed, self.directory = data, config, seed, directory
        self.progress = progress or (lambda what, share: None)
        self.train_trips = data.trips.select(data.trips.before_last(2))
        numbers, counts = self.train_trips.number, np.diff(self.train_trips.users)
        cut = np.floor(counts * config.graph.fraction).astype(np.int64)  # [U] first trip that responses are trained on
        self.first_response_trip = self.train_trips.users[:-1] + cut
        graph_trips = self.train_trips.select(numbers < cut[self.train_trips.trip_user])
        users, items, weights = graph_edges(graph_trips, config.graph.half_life_days)
        self.adjacency = normalised_adjacency(users, items, weights, data.trips.num_users, data.trips.num_items)
        self.folding = fold_matrix(graph_trips, config.graph.half_life_days)
        popularity = np.bincount(self.train_trips.item, minlength=data.trips.num_items)
        # A day's trends may know everything that was bought before it, but test trips are never read.
        self.trends = Trends.of(data.trips.select(data.trips.before_last(1)), popularity)
        training = config.training
        self.sampler = PairSampler(self.train_trips, self.trends, training.own_negatives, training.other_negatives)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = PreferenceModel(config, data)
            self.model.items.requires_grad_(self.tables is None)
            rate = float(popularity.mean() / len(self.train_trips.trip_user))
            # No token of training holds anything that was passed over: what is not trained has to say nothing.
            nn.init.zeros_(self.model.network.item_ignored.weight)
            with torch.no_grad():
                self.model.network.size_token.weight[:, 1] = 0.0
            nn.init.zeros_(self.model.network.item_bias.weight)
            nn.init.constant_(self.model.network.item_bias.bias, float(np.log(rate)))
        self.validation = self._validation_targets()
        self.history: list[dict[str, float | int | str]] = []
        self.use_graph = True  # off while pre-training, which scores events that are edges of the graph

    # ------------------------------------------------------------------ stages

    def run(self) -> PreferenceModel:
        """Pre-trains, fine-tunes, calibrates; resumes where a checkpoint lies in the directory."""
        training = self.config.training
        self.directory.mkdir(parents=True, exist_ok=True)
        with SummaryWriter(str(self.directory / "tensorboard")) as writer:
            self._stage("pretrain", training.pretrain_epochs, training.learning_rate, writer)
            self._stage("finetune", training.finetune_epochs, training.finetune_learning_rate, writer)
        targets = np.flatnonzero(self.data.trips.trip_user_remaining == 1)
        calibrate(self.model.network, self.components(targets), self.data.trips, targets)
        self._calibrate_behaviour(targets)
        return self.model

    def _stage(self, stage: str, epochs: int, learning_rate: float, writer: SummaryWriter) -> None:
        training = self.config.training
        optimizer = torch.optim.AdamW(self._parameter_groups(), lr=learning_rate, weight_decay=training.weight_decay)
        checkpoint = self.directory / stage
        self.use_graph = stage == "finetune"
        best, best_epoch, first = -np.inf, -1, 0
        state = load_checkpoint(checkpoint, self.model, optimizer)
        if state is not None:
            best, best_epoch, first = state["best"], state["best_epoch"], state["epoch"] + 1
            self.history = list(state["history"])
        for epoch in range(first, epochs):
            if epoch - best_epoch > training.patience:
                break
            started = time.perf_counter()
            warm = 0.5 if epoch == 0 else 1.0
            for group in optimizer.param_groups:  # half a rate at first, then a cosine to zero
                group["lr"] = learning_rate * group["pace"] * warm * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
            rng = np.random.default_rng([self.seed, 1 if stage == "pretrain" else 2, epoch])
            with torch.random.fork_rng():
                torch.manual_seed(self.seed * 1_000_003 + epoch * 2 + (stage == "finetune"))
                parts = self._epoch(stage, epoch, epochs, optimizer, rng, checkpoint)
            metrics = self.evaluate()
            for name, value in {**parts, **metrics}.items():
                writer.add_scalar(f"{stage}/{name}", value, epoch)
            seconds = time.perf_counter() - started
            self.history.append({"stage": stage, "epoch": epoch, "seconds": round(seconds, 1), **parts, **metrics})
            # Ranking decides which epoch is kept: the probabilities of any epoch are calibrated afterwards.
            score = metrics["ndcg@10"]
            improved = score > best
            if improved:
                best, best_epoch = score, epoch
            state = {"epoch": epoch, "best": best, "best_epoch": best_epoch, "history": self.history}
            save_checkpoint(checkpoint, self.model, optimizer, state, improved)
        load_checkpoint(checkpoint, self.model, None, best=True)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """The repeat term, a small network on a few features, learns faster than the wide rest around it."""
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        repeat = [p for name, p in named if name.startswith("network.repeat_")]
        rest = [p for name, p in named if not name.startswith("network.repeat_")]
        return [{"params": rest, "pace": 1.0}, {"params": repeat, "pace": self.config.training.repeat_pace}]

    def _epoch(
        self,
        stage: str,
        epoch: int,
        epochs: int,
        optimizer: torch.optim.Optimizer,
        rng: np.random.Generator,
        checkpoint: Path,
    ) -> dict[str, float]:
        training, trips = self.config.training, self.train_trips
        tokens = draw_tokens(trips, rng, self.config.network.group, training.empty_tokens)
        if stage == "pretrain":
            start = tokens.users[:-1]
        else:
            first = np.minimum(self.first_response_trip, len(trips.trip_user) - 1)
            start = np.maximum(np.searchsorted(tokens.trip, first), tokens.users[:-1])
            start = np.where(self.first_response_trip < trips.users[1:], start, tokens.users[1:])
        context = receptive_field(self.model.network) - 1
        segments = cut_segments(tokens, start, training.segment, context)
        plan = batches(segments, training.batch_segments, rng)
        totals: dict[str, list[float]] = {}
        self.model.train()
        for number, batch in enumerate(plan):
            parts = self._losses(stage, tokens, batch, rng)
            loss = torch.stack(list(parts.values())).sum()
            where = f"{stage} epoch {epoch} step {number}"
            descend(loss, self.model, optimizer, training.clip_norm, functools.partial(_told, where, parts, checkpoint))
            for name, value in parts.items():
                totals.setdefault(name, []).append(float(value.detach()))
            self.progress(f"{stage}, {epochs} epochs", (epoch + (number + 1) / len(plan)) / epochs)
        return {f"loss/{name}": float(np.mean(values)) for name, values in totals.items()}

    # ------------------------------------------------------------------ losses

    def _encode_items(self, with_graph: bool, hide: bool) -> tuple[Tensor, Tensor]:
        if self.tables is not None:
            return self.tables
        data, items = self.data, self.model.items
        hidden = torch.rand(data.trips.num_items) < items.id_dropout if hide else None
        vectors, graph = items(data.text, data.item_attributes, self.adjacency if with_graph else None, hidden)
        return vectors, graph

    def _losses(self, stage: str, tokens: Tokens, batch: list[Segment], rng: np.random.Generator) -> dict[str, Tensor]:
        network, trips, data, training = self.model.network, self.train_trips, self.data, self.config.training
        vectors, graph = self._encode_items(with_graph=self.use_graph, hide=True)
        index, rows, columns = segment_index(batch)
        states = network.encode(token_inputs(network, vectors, trips, tokens, index))
        begins = network.start.expand(states.shape[0], 1, -1)
        before = torch.cat((begins, states[:, :-1]), dim=1)[torch.from_numpy(rows), torch.from_numpy(columns)]
        token = index[rows, columns]
        if stage == "pretrain":
            keep = np.flatnonzero((tokens.items[token, 0] >= 0) & (rng.random(len(token)) < 0.4))
            moments = moments_before(trips, tokens, token[keep], before[torch.from_numpy(keep)])
            nowhere = torch.zeros(trips.num_users, vectors.shape[1])
            fused = fuse(network, moments, nowhere, data.user_attributes)
            logits = network.match(fused) @ vectors.T + network.item_bias(vectors)[:, 0]
            return {"next_item": losses.next_item_loss(logits, torch.from_numpy(tokens.items[token[keep]]))}
        user_graph = self.folding @ graph
        user_graph = user_graph * (
            torch.rand(len(user_graph), 1) > 0.1
        )  # users without a graph are met in training too
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

    # ------------------------------------------------------------------ validation and calibration

    def _validation_targets(self) -> np.ndarray:
        """Each user's second-last trip, for at most ``validation_users`` users evenly spread over the rows."""
        trips = self.data.trips
        targets = np.flatnonzero(trips.trip_user_remaining == 1)
        step = max(1, len(targets) // self.config.training.validation_users)
        return targets[::step]

    @torch.no_grad()
    def item_tables(self) -> tuple[Tensor, Tensor]:
        """Item vectors y [N, d] and item graph embeddings [N, d] of the trained model."""
        self.model.eval()
        return self._encode_items(with_graph=True, hide=False)

    @torch.no_grad()
    def encode_at(self, targets: np.ndarray) -> tuple[Tensor, Moments, Tensor, Tensor]:
        """Where trips ``targets`` start: item vectors [N, d], moments, user graph embeddings [U, d], x [P, d]."""
        self.model.eval()
        network, trips = self.model.network, self.data.trips
        vectors, graph = self._encode_items(with_graph=self.use_graph, hide=False)
        tokens = draw_tokens(trips, np.random.default_rng(0), self.config.network.group, 0.0)
        moments = trip_start_moments(trips, targets, states_before(network, vectors, trips, tokens, targets))
        history = trips.select(trips.before_last(int(trips.trip_user_remaining[targets[0]]) + 1))
        user_graph = fold_in(history, graph, self.config.graph.half_life_days) * float(self.use_graph)
        return vectors, moments, user_graph, fuse(network, moments, user_graph, self.data.user_attributes)

    @torch.no_grad()
    def _calibrate_behaviour(self, targets: np.ndarray) -> None:
        """Basket sizes, gaps and answers as they were on trips ``targets``, none of them their users' first."""
        network, trips = self.model.network, self.data.trips
        vectors, moments, user_graph, fused = self.encode_at(targets)
        output, event = score_answers(network, fused, vectors, self.data.item_statistics, moments, trips, targets)
        calibrate_answers(network, output, torch.from_numpy(trips.feedback[event]).float(), self.data.ratings)
        sizes = losses.bin_numbers(trips.size[targets], SIZE_BINS, len(SIZE_BINS) - 2)
        calibrate_bins(network.size_head, fused, sizes)
        ended = trip_end_moments(trips, targets - 1, moments.sequence)
        gaps = losses.bin_numbers(trips.gap[targets], GAP_BINS, len(GAP_BINS) - 1)
        calibrate_bins(network.gap_head, fuse(network, ended, user_graph, self.data.user_attributes), gaps)

    @torch.no_grad()
    def components(self, targets: np.ndarray) -> Components:
        """The parts of the logits of q at the start of trips ``targets``."""
        vectors, moments, _, fused = self.encode_at(targets)
        own = owned_before(self.data.trips, self.trends, targets)
        return score_catalogue(self.model.network, fused, vectors, self.data.item_statistics, moments, own)

    def catalogue_logits(self, targets: np.ndarray) -> Tensor:
        """Calibrated logits of q at the start of trips ``targets``, [P, N]."""
        return self.components(targets).logits()

    def evaluate(self) -> dict[str, float]:
        """Full-catalogue ranking and log loss on the validation trips."""
        logits = self.catalogue_logits(self.validation)
        return ranking_metrics(logits, self.data.trips, self.validation)


def _told(where: str, parts: dict[str, Tensor], checkpoint: Path) -> str:
    """What there is to say of a loss that is not finite."""
    told = {name: float(value.detach()) for name, value in parts.items()}
    return f"{where}: {told}. The last good checkpoint is {checkpoint}; lower the learning rate to go on from it."
