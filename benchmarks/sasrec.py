"""SASRec with softmax loss (RecTools) for ``next_item.py``, which runs this in an environment of its own.

    python sasrec.py LOG.csv TOP.csv SEED EPOCHS

LOG.csv holds user, item, left (events that the user makes after this one) in time order; the last event of each user is
never read. Epochs are chosen by NDCG@10 of the second-last event, then the model is trained anew on both.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

PATIENCE = 5
TOP = 10


class ValidationNDCG(Callback):
    """Logs NDCG@10 of the held-out items among those that the user has not had."""

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, torch.Tensor],
        batch: dict[str, torch.Tensor],
        *_: Any,
    ) -> None:
        right = batch["y"][:, :1]
        scores = outputs["logits"].view(len(right), -1).clone()
        scores.scatter_(1, batch["x"], -torch.inf)  # row 0 of the items is padding
        rank = (scores >= scores.gather(1, right)).sum(1)
        gain = torch.where(rank <= TOP, 1 / torch.log2(rank + 1.0), 0.0)
        pl_module.log("ndcg", gain.mean(), on_epoch=True, batch_size=len(right))


def fit(events: pd.DataFrame, seed: int, epochs: int, validate: bool) -> tuple[SASRecModel, Dataset, int]:
    """The model, its data and the number of epochs (the best one where ``validate``)."""

    def trainer() -> Trainer:
        return Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=epochs,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[ValidationNDCG(), EarlyStopping("ndcg", mode="max", patience=PATIENCE)] if validate else [],
        )

    seed_everything(seed, verbose=False)
    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=64,
        dropout_rate=0.2,
        session_max_len=100,
        loss="softmax",
        lr=1e-3,
        batch_size=32,
        epochs=epochs,
        recommend_torch_device="cpu",
        get_trainer_func=trainer,
        get_val_mask_func=(lambda interactions, **_: last_of_each(interactions)) if validate else None,
    )
    data = Dataset.construct(events)
    model.fit(data)
    used = model.fit_trainer  # a copy of the trainer, callbacks included
    waited = used.early_stopping_callback.wait_count if validate else 0
    return model, data, used.current_epoch - waited


def last_of_each(interactions: pd.DataFrame) -> object:
    """Mask [rows]: each user's last event."""
    rank = interactions.groupby(Columns.User)[Columns.Datetime].rank(method="first", ascending=False)
    return (rank == 1).to_numpy()


def main() -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    source, target, seed, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    frame = pd.read_csv(source)
    frame = frame[frame["left"] > 0]
    events = pd.DataFrame(
        {
            Columns.User: frame["user"],
            Columns.Item: frame["item"],
            Columns.Weight: 1.0,
            # Event numbers as seconds: ties in time keep the order that they came in.
            Columns.Datetime: pd.to_datetime(frame.groupby("user").cumcount(), unit="s"),
        }
    )
    started = time.perf_counter()
    _, _, chosen = fit(events, seed, epochs, validate=True)
    model, data, _ = fit(events, seed, chosen, validate=False)
    print(f"sasrec: {chosen} epochs, chosen on validation; trained twice in {time.perf_counter() - started:.0f} s")
    users = events[Columns.User].unique()
    top = model.recommend(users=users, dataset=data, k=10, filter_viewed=True)
    top = top.rename(columns={Columns.User: "user", Columns.Item: "item", Columns.Rank: "rank"})
    top[["user", "item", "rank"]].to_csv(target, index=False)


if __name__ == "__main__":
    main()
