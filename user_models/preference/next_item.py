"""Next items on a log of ratings: the preference model's sequence side, trained for ranking alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recgym.user_models.preference.config import ModelConfig
from recgym.user_models.preference.items import ItemEncoder
from recgym.user_models.preference.loop import Fit, Row, descend, fit, luck_of, pace, unsaved
from recgym.user_models.preference.network import NUM_TIME_FEATURES, PreferenceNetwork, gap_levels
from recgym.user_models.preference.sides import Sides

Progress = Callable[[str, float], None]
DAY = 86_400  # seconds
EVALUATED = 128  # histories scored at a time


@dataclass(frozen=True, eq=False)
class Events:
    """E events of U users with N items, sorted by user, then time; a user meets an item once."""

    user: np.ndarray  # [E] int64
    item: np.ndarray  # [E] int64
    feedback: np.ndarray  # [E] int64 rating 1 to 5
    time: np.ndarray  # [E] int64 seconds
    num_users: int
    num_items: int

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def starts(self) -> np.ndarray:
        """[U + 1] int64: user u owns the events ``starts[u]`` to ``starts[u + 1]``."""
        return np.searchsorted(self.user, np.arange(self.num_users + 1))

    @cached_property
    def place(self) -> np.ndarray:
        """[E] int64 number of the event in its user's history, from 0."""
        return np.arange(len(self)) - self.starts[self.user]

    @cached_property
    def level(self) -> np.ndarray:
        """[E] int64 level of the gap before the event: 0 at the same second, then by days."""
        gap = np.diff(self.time, prepend=0)
        days = gap_levels(torch.from_numpy(np.maximum(gap, 0) // DAY)).numpy()
        return np.where((gap > 0) & (self.place > 0), days, 0)

    def select(self, rows: np.ndarray) -> Events:
        """The events ``rows`` (a mask, or numbers in the order wanted)."""
        columns = {name: getattr(self, name)[rows] for name in ("user", "item", "feedback", "time")}
        return replace(self, **columns)

    def before_last(self, count: int) -> Events:
        """All but each user's last ``count`` events."""
        return self.select(self.starts[self.user + 1] - np.arange(len(self)) > count)

    def last(self) -> np.ndarray:
        """[U] int64 each user's last item; every user has an event."""
        return self.item[self.starts[1:] - 1]

    def reordered(self, rng: np.random.Generator) -> Events:
        """The events with those of one second in random order: a log does not tell theirs."""
        return self.select(np.lexsort((rng.random(len(self)), self.time, self.user)))

    def had_from(self) -> np.ndarray:
        """[U, N] int32 place in the user's history after which the user has had the item, a large number if never."""
        table = np.full((self.num_users, self.num_items), np.iinfo(np.int32).max, np.int32)
        table[self.user, self.item] = self.place
        return table


class NextItemModel(nn.Module):
    """The item encoder and the preference network."""

    def __init__(self, config: ModelConfig, sides: Sides) -> None:
        super().__init__()
        self.config = config
        num_items, width = sides.text.shape
        self.encoder = ItemEncoder(config.network, config.graph, num_items, width, sides.items.shape[1])
        self.network = PreferenceNetwork(config.network, sides.users.shape[1])

    def vectors(self, sides: Sides) -> Tensor:
        """Item vectors y [N, d]; in training some items show their texts and attributes alone."""
        hidden = torch.rand(len(sides.text)) < self.encoder.id_dropout if self.training else None
        share = self.config.next_item.input_dropout
        text, items = (F.dropout(values, share, self.training) for values in (sides.text, sides.items))
        vectors: Tensor = self.encoder(text, items, None, hidden)[0]
        return vectors

    def states(self, vectors: Tensor, events: Events, rows: np.ndarray) -> Tensor:
        """Sequence states [B, L, d] after each of the events ``rows`` [B, L]; -1 pads at the end."""
        inside, at = rows >= 0, np.maximum(rows, 0)
        item = torch.from_numpy(np.where(inside, events.item[at], -1))
        feedback = torch.from_numpy(np.where(inside, events.feedback[at], 0))
        pooled, count = self.network.pool(vectors, item[..., None], feedback[..., None])
        nothing = torch.zeros_like(count)
        level = torch.from_numpy(np.where(inside, events.level[at], 0))
        return self.network.encode(self.network.token(pooled, torch.zeros_like(pooled), count, nothing, level))

    def logits(self, vectors: Tensor, states: Tensor, attributes: Tensor) -> Tensor:
        """Logits of every item [P, N] after states [P, d] of users with attributes [P, A]."""
        fused = self.network.fusion(
            {
                "sequence": states,
                "graph": torch.zeros_like(states),
                "attributes": attributes,
                "time": states.new_zeros(len(states), NUM_TIME_FEATURES),
            }
        )
        scores: Tensor = self.network.match(fused) @ vectors.T + self.network.item_bias(vectors)[:, 0]
        return scores


def segments(events: Events, length: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Batches of event numbers [B, L] (-1 pads): histories cut into runs of at most ``length`` at random places."""
    cuts = []
    for low, high in zip(events.starts[:-1], events.starts[1:], strict=True):
        edges = [low, *range(low + int(rng.integers(2, length + 1)), high, length), high]
        cuts += [(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True) if b - a > 1]
    runs = sorted(cuts, key=lambda run: (run[1] - run[0], rng.random()))
    groups = [np.array(runs[low : low + size]) for low in range(0, len(runs), size)]
    for number in rng.permutation(len(groups)):
        begin, end = groups[number].T
        rows = begin[:, None] + np.arange((end - begin).max())
        yield np.where(rows < end[:, None], rows, -1)


def train(
    sides: Sides,
    events: Events,
    config: ModelConfig,
    seed: int,
    *,
    held_out: np.ndarray | None = None,
    epochs: int | None = None,
    progress: Progress | None = None,
) -> Fit[NextItemModel]:
    """Trains one model to rank each event's item above all that the user has not had.

    Args:
        sides: texts and attributes.
        events: all events that may be learned from.
        config: of the model.
        seed: of initial weights, dropout, the order of events of one second and the cuts.
        held_out: [U] each user's next item after ``events``; training stops early on the NDCG@10 of its rank and the
            best epoch's weights are kept.
        epochs: stop after that many epochs of the schedule of ``config.next_item.epochs``.
        progress: called with what is under way and the share done.

    Raises:
        DivergedError: the loss is not finite.
    """
    options = config.next_item
    with luck_of(seed):
        rng = np.random.default_rng(seed)
        model = NextItemModel(config, sides)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, betas=(0.9, 0.98)
        )

        def learn(epoch: int) -> Row:
            losses = []
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * pace(epoch, options.epochs)
            model.train()
            drawn = events.reordered(rng)
            had_from, place = torch.from_numpy(drawn.had_from()), torch.from_numpy(drawn.place)
            for number, rows in enumerate(segments(drawn, options.segment, options.batch, rng)):
                vectors = model.vectors(sides)
                scored = torch.from_numpy(rows[:, 1:] >= 0)
                target = torch.from_numpy(rows[:, 1:])[scored]
                user = torch.from_numpy(drawn.user)[target]
                states = model.states(vectors, drawn, rows[:, :-1])[scored]
                logits = model.logits(vectors, states, sides.users[user])
                logits = logits.masked_fill(had_from[user] < place[target][:, None], -torch.inf)
                loss = F.cross_entropy(logits, torch.from_numpy(drawn.item)[target])
                descend(loss, model, optimizer, options.clip_norm, functools.partial(unsaved, epoch, number))
                losses.append(float(loss.detach()))
            return {"loss": float(np.mean(losses))}

        def validate(held: np.ndarray) -> tuple[float, Row]:
            gain = ndcg(rank(model, sides, events), held)
            return -gain, {"ndcg@10": gain}

        return fit(
            model,
            min(epochs or options.epochs, options.epochs),
            options.patience,
            learn,
            None if held_out is None else lambda: validate(held_out),
            None if progress is None else lambda done: progress(f"seed {seed}", done / options.epochs),
        )


@torch.no_grad()
def rank(model: NextItemModel, sides: Sides, events: Events) -> Tensor:
    """Log chances [U, N] of every user's next item after ``events``, -inf for what the user has had; dropout off.

    Users without events stand where every history starts.
    """
    model.eval()
    vectors, starts = model.vectors(sides), events.starts
    reach = model.config.network.layers * (model.config.network.window - 1) + 1  # tokens that the last state can see
    begin, end = np.maximum(starts[:-1], starts[1:] - reach), starts[1:]
    parts = []
    for low in range(0, events.num_users, EVALUATED):
        first, stop = begin[low : low + EVALUATED], end[low : low + EVALUATED]
        count = torch.from_numpy(stop - first)
        rows = first[:, None] + np.arange(max(int(count.max()), 1))
        states = model.states(vectors, events, np.where(rows < stop[:, None], rows, -1))
        last = states[torch.arange(len(count)), (count - 1).clamp(min=0)]
        last = torch.where(count[:, None] > 0, last, model.network.start)
        parts.append(model.logits(vectors, last, sides.users[low : low + EVALUATED]))
    logits = torch.cat(parts)
    logits[torch.from_numpy(events.user), torch.from_numpy(events.item)] = -torch.inf
    return logits.log_softmax(1)


def ndcg(scores: Tensor, wanted: np.ndarray, k: int = 10) -> float:
    """Mean NDCG@k of one wanted item a user, [U], by scores [U, N]; ties count against it."""
    right = torch.from_numpy(wanted)[:, None]
    above = (scores >= scores.gather(1, right)).sum(1)  # itself included: its rank
    return float(torch.where(above <= k, 1 / torch.log2(above + 1.0), 0.0).mean())
