"""Pre-training on histories, then fine-tuning on responses, with early stopping and resumable checkpoints."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from recgym.errors import RecGymError
from recgym.user_models.preference import losses
from recgym.user_models.preference.calibration import calibrate, calibrate_answers, calibrate_bins
from recgym.user_models.preference.checkpoint import digest, last_good, load_checkpoint, save_checkpoint, sketch
from recgym.user_models.preference.config import ModelConfig
from recgym.user_models.preference.graph import TrainingGraph, fold_in
from recgym.user_models.preference.loop import descend, luck_of, pace
from recgym.user_models.preference.metrics import ranking_metrics
from recgym.user_models.preference.model import PreferenceModel, TrainingData, initialise
from recgym.user_models.preference.network import GAP_BINS, SIZE_BINS
from recgym.user_models.preference.objectives import Objectives
from recgym.user_models.preference.samples import PairSampler, batches, cut_segments
from recgym.user_models.preference.scoring import (
    Components,
    Moments,
    fuse,
    owned_before,
    receptive_field,
    score_answers,
    score_catalogue,
    states_before,
    trip_end_moments,
    trip_start_moments,
)
from recgym.user_models.preference.trends import Trends
from recgym.user_models.preference.trips import draw_tokens

Progress = Callable[[str, float], None]  # (what is under way, share done in [0, 1])
Told = TypeVar("Told")
LONGEST_WAIT = timedelta(days=1)  # of processes for the one that tunes, encodes or measures for all
RANK_STRIDE = 7_919_000_003  # between the seeds of dropout in the processes of one training


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
            directory: of the checkpoints; it belongs to a training of this data, configuration, seed and tables.
            progress: called with what is under way and the share done.
            tables: item vectors and graph embeddings, [N, d] each, taken as they are instead of being learned.
        """
        training = config.training
        self.accelerator = _processes(training.mixed_precision)
        self.main = self.accelerator.is_main_process
        self.data, self.config, self.seed, self.directory = data, config, seed, directory
        self.progress = progress if progress is not None and self.main else (lambda what, share: None)
        self.train_trips = data.trips.select(data.trips.before_last(2))
        self.graph = TrainingGraph.of(self.train_trips, config.graph, data.knowledge)
        popularity = np.bincount(self.train_trips.item, minlength=data.trips.num_items)
        # A day's trends may know everything that was bought before it, but test trips are never read.
        self.trends = Trends.of(data.trips.select(data.trips.before_last(1)), popularity)
        sampler = PairSampler(self.train_trips, self.trends, training.own_negatives, training.other_negatives)
        self.objectives = Objectives(config, data, self.train_trips, self.graph, sampler, tables)
        with luck_of(seed):
            self.model = PreferenceModel(config, data)
            self.model.items.requires_grad_(tables is None)
            initialise(self.model, config, self.train_trips)
        # As it is called in training: in several processes their gradients are averaged, in mixed precision the matrix
        # products of the call are in it.
        self.wrapped = self.accelerator.prepare(self.model)
        self.validation = self._validation_targets()
        self.history: list[dict[str, float | int | str]] = []
        self.use_graph = True  # off while pre-training, which scores events that are edges of the graph

    # ------------------------------------------------------------------ stages

    def run(self) -> PreferenceModel:
        """Pre-trains, fine-tunes, calibrates; resumes where a checkpoint lies in the directory of the main process.

        Raises:
            RecGymError: the checkpoint cannot be read, or it is of another training.
            DivergedError: the loss or its gradient is not finite.
        """
        training = self.config.training
        self.directory.mkdir(parents=True, exist_ok=True)
        self._stage("pretrain", training.pretrain_epochs, training.learning_rate)
        self._stage("finetune", training.finetune_epochs, training.finetune_learning_rate)
        targets = np.flatnonzero(self.data.trips.trip_user_remaining == 1)
        calibrate(self.model.network, self.components(targets), self.data.trips, targets)
        self._calibrate_behaviour(targets)
        return self.model

    def _stage(self, stage: str, epochs: int, learning_rate: float) -> None:
        training = self.config.training
        optimizer = torch.optim.AdamW(self._parameter_groups(), lr=learning_rate, weight_decay=training.weight_decay)
        checkpoint = self.directory / stage
        self.use_graph = stage == "finetune"
        best, best_epoch, first = -np.inf, -1, 0
        state = load_checkpoint(checkpoint, self.model, optimizer, self.origin, read=self._from_main)
        if state is not None:
            best, best_epoch, first = state["best"], state["best_epoch"], state["epoch"] + 1
            self.history = list(state["history"])
        for epoch in range(first, epochs):
            if epoch - best_epoch > training.patience:
                break
            started = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * group["pace"] * pace(epoch, epochs, warm_up=2)
            with luck_of(self.seed * 1_000_003 + epoch * 2 + (stage == "finetune") + RANK_STRIDE * self._rank):
                parts = self._epoch(stage, epoch, epochs, optimizer, checkpoint)
            metrics = self._from_main(self.evaluate)
            seconds = time.perf_counter() - started
            self.history.append({"stage": stage, "epoch": epoch, "seconds": round(seconds, 1), **parts, **metrics})
            # Ranking decides which epoch is kept: the probabilities of any epoch are calibrated afterwards.
            score = metrics["ndcg@10"]
            improved = score > best
            if improved:
                best, best_epoch = score, epoch
            state = {"epoch": epoch, "best": best, "best_epoch": best_epoch, "history": self.history}
            if self.main:
                save_checkpoint(checkpoint, self.model, optimizer, state, improved, self.origin)
                self._plot(stage, epoch, {**parts, **metrics})
            self.wait()
        load_checkpoint(checkpoint, self.model, None, self.origin, best=True, read=self._from_main)

    @functools.cached_property
    def origin(self) -> dict[str, Any]:
        """What the training is made of, in JSON values, by which a checkpoint is known to be its own."""
        data, trips, tables = self.data, self.data.trips, self.objectives.tables
        shown, facts = trips.exposures, data.knowledge
        return {
            "seed": self.seed,
            "config": self.config.model_dump(mode="json", exclude={"rating", "next_item"}),
            "trips": digest(trips.item, trips.feedback, trips.trip, trips.trip_user, trips.trip_day),
            "exposures": None if shown is None else digest(shown.trip, shown.item, shown.examined),
            "knowledge": None if facts is None else digest(*facts.relations, facts.relation, facts.item, facts.node),
            "ratings": data.ratings,
            "text": sketch(data.text),
            "items": sketch(torch.cat((data.item_statistics, data.item_attributes), dim=1)),
            "users": sketch(data.user_attributes),
            "tables": None if tables is None else digest(*tables),
        }

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """The repeat term, a small network on a few features, learns faster than the wide rest around it."""
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        repeat = [p for name, p in named if name.startswith("network.repeat_")]
        rest = [p for name, p in named if not name.startswith("network.repeat_")]
        return [{"params": rest, "pace": 1.0}, {"params": repeat, "pace": self.config.training.repeat_pace}]

    def _epoch(
        self, stage: str, epoch: int, epochs: int, optimizer: torch.optim.Optimizer, checkpoint: Path
    ) -> dict[str, float]:
        training, trips = self.config.training, self.train_trips
        seeds = [self.seed, 1 if stage == "pretrain" else 2, epoch]
        rng = np.random.default_rng(seeds)
        tokens = draw_tokens(trips, rng, self.config.network.group, training.empty_tokens)
        if stage == "pretrain":
            start, objective = tokens.users[:-1], self.objectives.pretrain
        else:
            response, objective = self.graph.first_response_trip, self.objectives.finetune
            first = np.minimum(response, len(trips.trip_user) - 1)
            start = np.maximum(np.searchsorted(tokens.trip, first), tokens.users[:-1])
            start = np.where(response < trips.users[1:], start, tokens.users[1:])
        context = receptive_field(self.model.network) - 1
        segments = cut_segments(tokens, start, training.segment, context)
        plan = batches(segments, training.batch_segments, rng)
        # All processes have drawn the same tokens and batches; from here on each has its own luck.
        rng = rng if self.main else np.random.default_rng([*seeds, self._rank])
        totals: dict[str, list[float]] = {}
        self.wrapped.train()
        for number, batch in enumerate(plan):
            # Each process takes every n-th segment; where there are too few it repeats one, as all have to take part.
            share = batch[self._rank :: self.accelerator.num_processes] or batch[-1:]
            parts = self.wrapped(functools.partial(objective, tokens, share, rng))
            descend(
                torch.stack(list(parts.values())).sum(),
                self.model,
                optimizer,
                training.clip_norm,
                functools.partial(self._told, f"{stage} epoch {epoch} step {number}", parts, checkpoint),
                self.accelerator.backward,
            )
            for name, value in parts.items():
                totals.setdefault(name, []).append(float(value.detach()))
            self.progress(f"{stage}, {epochs} epochs", (epoch + (number + 1) / len(plan)) / epochs)
        return self._mean({f"loss/{name}": float(np.mean(values)) for name, values in totals.items()})

    def _told(self, where: str, parts: dict[str, Tensor], checkpoint: Path) -> str:
        """What there is to say of a loss that is not finite."""
        told = {name: float(value.detach()) for name, value in parts.items()}
        good = last_good(checkpoint, self.directory / "pretrain")
        return f"{where}: {told}; {good}. Lower the learning rate of that stage."

    # ------------------------------------------------------------------ processes

    @property
    def _rank(self) -> int:
        return int(self.accelerator.process_index)

    def wait(self) -> None:
        """Until all processes have come here."""
        self.accelerator.wait_for_everyone()

    def _from_main(self, tell: Callable[[], Told]) -> Told:
        """What the main process reads or measures, in all of them: they must agree on where to begin and stop."""
        found: list[Any] = [tell() if self.main else None]
        broadcast_object_list(found)
        result: Told = found[0]
        return result

    def _mean(self, values: dict[str, float]) -> dict[str, float]:
        """The mean of each value over the processes."""
        if self.accelerator.num_processes == 1:
            return values
        mean = self.accelerator.reduce(torch.tensor(list(values.values()), dtype=torch.float64), reduction="mean")
        return dict(zip(values, mean.tolist(), strict=True))

    def _plot(self, stage: str, epoch: int, values: dict[str, float]) -> None:
        with SummaryWriter(str(self.directory / "tensorboard")) as writer:
            for name, value in values.items():
                writer.add_scalar(f"{stage}/{name}", value, epoch)

    # ------------------------------------------------------------------ validation and calibration

    def _validation_targets(self) -> np.ndarray:
        """Each user's second-last trip, for at most ``validation_users`` users evenly spread over the rows."""
        trips = self.data.trips
        targets = np.flatnonzero(trips.trip_user_remaining == 1)
        count = min(len(targets), self.config.training.validation_users)
        return targets[np.arange(count) * len(targets) // max(count, 1)]

    @torch.no_grad()
    def item_tables(self) -> tuple[Tensor, Tensor]:
        """Item vectors y [N, d] and item graph embeddings [N, d] of the trained model."""
        self.model.eval()
        return self.objectives.encode_items(self.model, with_graph=True, hide=False)

    @torch.no_grad()
    def encode_at(self, targets: np.ndarray) -> tuple[Tensor, Moments, Tensor, Tensor]:
        """Where trips ``targets`` start: item vectors [N, d], moments, user graph embeddings [U, d], x [P, d]."""
        self.model.eval()
        network, trips = self.model.network, self.data.trips
        vectors, graph = self.objectives.encode_items(self.model, with_graph=self.use_graph, hide=False)
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


def _processes(mixed_precision: str) -> Accelerator:
    """The processes that train together: those that ``torchrun`` or ``accelerate launch`` started, or this one alone.

    Raises:
        RecGymError: this process has trained in another precision already.
    """
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # each stage leaves some parameters alone
    handlers = [unused, InitProcessGroupKwargs(timeout=LONGEST_WAIT)]
    try:
        return Accelerator(cpu=True, mixed_precision=mixed_precision, kwargs_handlers=handlers)
    except ValueError as error:
        raise RecGymError(
            f"training.mixed_precision is {mixed_precision!r}, but this process has used accelerate otherwise before; "
            f"train in a new process ({error})"
        ) from error
