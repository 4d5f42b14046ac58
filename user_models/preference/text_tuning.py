"""Fits a text encoder to what is bought: the texts of first purchases against histories, contrastively."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recgym.errors import WorldError
from recgym.user_models.preference.checkpoint import (
    digest,
    last_good,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from recgym.user_models.preference.config import TuningConfig
from recgym.user_models.preference.loop import descend, luck_of, pace
from recgym.user_models.preference.text import Pooling, TextEncoder, encode_texts, encoder_digest
from recgym.user_models.preference.trips import FirstPurchases, Trips

Progress = Callable[[str, float], None]


def tuned_encoder(
    texts: Sequence[str],
    trips: Trips,
    encoder: str,
    tuning: TuningConfig,
    seed: int,
    directory: Path,
    *,
    pooling: Pooling = "mean",
    progress: Progress | None = None,
) -> str:
    """The encoder to embed item texts with: ``encoder`` itself where it stays frozen, else a tuned copy's directory.

    Every text that a user buys for the first time is to be told from those that the user never buys, given the texts
    bought before: cross-entropy over the different texts of a step, whose logits are corrected for how often each is
    drawn (logQ; Yi et al., RecSys 2019). Histories are means of a table of embeddings that holds every text as it was
    when last encoded (a memory without gradient; Wang et al., CVPR 2020), through a linear projection that is trained
    along and left behind. Only training trips are read: each user's last two are held out. A tuning that was
    interrupted goes on from its last checkpoint; a finished one is not run again.

    Args:
        texts: [N] of the items.
        trips: all trips.
        encoder: name or path of a Hugging Face model.
        tuning: how to tune.
        seed: of LoRA's initial weights and of the draws.
        directory: of the checkpoints and, in ``encoder``, of the tuned model; it belongs to these arguments.
        pooling: see ``TextEncoder``.
        progress: called with what is under way and the share done of it.

    Raises:
        WorldError: the encoder cannot be loaded, or nobody buys anything new in training.
        RecGymError: the checkpoint in ``directory`` cannot be read, or it is of another tuning.
        DivergedError: the loss is not finite; says where, and which checkpoint is good.
    """
    if tuning.method == "frozen":
        return encoder
    out, checkpoint = directory / "encoder", directory / "checkpoint"
    origin = {
        "seed": seed,
        "tuning": tuning.model_dump(mode="json"),
        "encoder": [encoder_digest(encoder) or encoder, pooling],
        "texts": digest(*texts),
        "trips": digest(trips.item, trips.trip, trips.trip_user),
    }
    if out.is_dir():
        read_checkpoint(checkpoint, origin)
        return str(out)
    report = progress or (lambda what, share: None)
    unique, row = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
    pairs = NextTexts.of(trips, row, len(unique), tuning.history)
    before = encode_texts(unique.tolist(), encoder, pooling=pooling)
    encode = _trainable(TextEncoder.load(encoder, pooling), tuning, seed)
    learned = _Learned(encode.model, before)
    rates = {"lora": tuning.learning_rate, "full": tuning.full_learning_rate}
    groups = [
        {"params": list(learned.weights), "rate": rates[tuning.method]},
        {"params": [learned.projection], "rate": tuning.learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, lr=tuning.learning_rate, weight_decay=0.0)
    state = load_checkpoint(checkpoint, learned, optimizer, origin) or {"epoch": -1, "losses": []}
    losses: list[float] = state["losses"]
    for step in range(state["epoch"] + 1, tuning.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * pace(step, tuning.steps)
        draw = pairs.draw(tuning, np.random.default_rng([seed, 59, step]))
        embeddings = encode(unique[draw.texts].tolist())
        loss = next_text_loss(learned.queries(draw.histories), embeddings, draw, tuning.temperature)
        told = f"step {step} of tuning the text encoder; {last_good(checkpoint)}. Lower the learning rate."
        descend(loss, learned, optimizer, tuning.clip_norm, lambda told=told: told)  # type: ignore[misc]
        learned.table[torch.from_numpy(draw.texts)] = embeddings.detach()
        losses.append(round(float(loss.detach()), 6))
        if (step + 1) % tuning.checkpoint_steps == 0 or step + 1 == tuning.steps:
            save_checkpoint(checkpoint, learned, optimizer, {"epoch": step, "losses": losses}, False, origin)
        report("tuning the text encoder", (step + 1) / tuning.steps)
    model = encode.model.merge_and_unload() if tuning.method == "lora" else encode.model
    partial = directory / "encoder.partial"
    model.save_pretrained(partial)
    encode.tokenizer.save_pretrained(partial)
    partial.rename(out)
    return str(out)


def _trainable(encoder: TextEncoder, tuning: TuningConfig, seed: int) -> TextEncoder:
    """The encoder with LoRA's updates beside its linear layers (Hu et al., ICLR 2022), or with all weights free."""
    if tuning.method == "full":
        return encoder
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise WorldError("LoRA needs the package peft: pip install recgym[text]") from error
    config = LoraConfig(r=tuning.rank, lora_alpha=2 * tuning.rank, target_modules="all-linear", bias="none")
    with luck_of(seed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")  # peft, of transformers
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # and sets it as it should be
        model = get_peft_model(encoder.model, config)
    return dataclasses.replace(encoder, model=model.eval())


class _Learned(nn.Module):
    """What a checkpoint holds: the weights that are tuned, the projection of histories, the table of embeddings."""

    table: Tensor  # [T, width]

    def __init__(self, encoder: nn.Module, table: Tensor) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weight for weight in encoder.parameters() if weight.requires_grad)
        self.projection = nn.Parameter(torch.eye(table.shape[1]))
        self.register_buffer("table", table.clone())

    def queries(self, histories: np.ndarray) -> Tensor:
        """Unit-length queries [Q, width] of histories, int64 [Q, H] rows of the table, -1 pads."""
        inside = torch.from_numpy(histories >= 0)[..., None]
        held = self.table[torch.from_numpy(histories.clip(min=0))] * inside
        return F.normalize(held.sum(1) / inside.sum(1) @ self.projection, dim=-1)


@dataclass(frozen=True, eq=False)
class Draw:
    """Q histories of a step, each with the text that was bought next, and the S different texts among those."""

    texts: np.ndarray  # [S] int64 ascending
    label: np.ndarray  # [Q] int64 place of the text bought next
    histories: np.ndarray  # [Q, H] int64 texts bought before it, -1 pads
    bought: np.ndarray  # [Q, S] bool: the user buys the text on some training trip
    log_chance: np.ndarray  # [S] of being among the S texts


def next_text_loss(queries: Tensor, embeddings: Tensor, draw: Draw, temperature: float) -> Tensor:
    """Cross-entropy of the text bought next among the S texts of a step.

    Other texts that the user buys (in the same basket, before or after) are no negatives. The logits are corrected by
    the log chance that a text is among the S.

    Args:
        queries: [Q, width], of unit length.
        embeddings: [S, width], of unit length.
        draw: what they are.
        temperature: divides the cosines.
    """
    logits = queries @ embeddings.T / temperature - torch.from_numpy(draw.log_chance).float()
    label = torch.from_numpy(draw.label)
    false = torch.from_numpy(draw.bought).scatter(1, label[:, None], False)
    return F.cross_entropy(logits.masked_fill(false, -torch.inf), label)


@dataclass(frozen=True, eq=False)
class NextTexts:
    """The first purchases of T texts on training trips whose users had bought something before: P of them."""

    bought: FirstPurchases  # of texts
    user: np.ndarray  # [P] int64, by text, then user
    text: np.ndarray  # [P] int64 ascending
    stop: np.ndarray  # [P] int64: what was bought before are ``bought.items[bought.offsets[user] : stop]``
    num_texts: int
    history: int  # latest texts of a history

    @classmethod
    def of(cls, trips: Trips, row: np.ndarray, num_texts: int, history: int) -> NextTexts:
        """The first purchases on training trips; ``row``, int64 [N], is the text of each item.

        Raises:
            WorldError: there is none.
        """
        training = trips.select(trips.before_last(2))
        training = dataclasses.replace(training, item=row[training.item], num_items=num_texts, exposures=None)
        bought = FirstPurchases.of(training)
        place = np.arange(len(bought.items))
        user = np.searchsorted(bought.offsets, place, side="right") - 1
        starts = bought.offsets[training.trip_user] + bought.owned  # [trips] what was bought before ends here
        stop = starts[np.searchsorted(starts, place, side="right") - 1]
        later = np.flatnonzero(stop > bought.offsets[user])
        if not len(later):
            raise WorldError("the text encoder cannot be tuned: nobody's second training trip brings anything new")
        order = later[np.argsort(bought.items[later], kind="stable")]
        return cls(bought, user[order], bought.items[order], stop[order], num_texts, history)

    @functools.cached_property
    def _keys(self) -> np.ndarray:
        """Every (user, text) that was bought, int64 ascending: user * T + text."""
        user = np.repeat(np.arange(len(self.bought.offsets) - 1), np.diff(self.bought.offsets))
        return np.sort(user * self.num_texts + self.bought.items)

    def draw(self, tuning: TuningConfig, rng: np.random.Generator) -> Draw:
        """``batch`` first purchases at random, and for each the histories of ``buyers`` who bought the same text."""
        first = np.searchsorted(self.text, np.arange(self.num_texts + 1))
        counts = np.diff(first)
        wanted = self.text[rng.integers(0, len(self.text), tuning.batch)]
        texts, label = np.unique(wanted, return_inverse=True)
        pair = first[wanted, None] + rng.integers(0, counts[wanted, None], (tuning.batch, tuning.buyers))
        pair = pair.ravel()
        place = self.stop[pair, None] - 1 - np.arange(self.history)
        inside = place >= self.bought.offsets[self.user[pair], None]
        asked = self.user[pair, None] * self.num_texts + texts
        found = self._keys[np.minimum(np.searchsorted(self._keys, asked), len(self._keys) - 1)] == asked
        return Draw(
            texts=texts,
            label=np.repeat(label, tuning.buyers),
            histories=np.where(inside, self.bought.items[place.clip(min=0)], -1),
            bought=found,
            log_chance=np.log(-np.expm1(tuning.batch * np.log1p(-counts[texts] / len(self.text)))),
        )
