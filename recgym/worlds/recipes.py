"""Recipes: from which log a world is built, what is kept, and how."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

import recgym.data
from recgym.data.interactions import Interactions
from recgym.data.own import LogFiles, file_knowledge, load_files
from recgym.user_models.preference.config import (
    GraphConfig,
    ModelConfig,
    NetworkConfig,
    TrainingConfig,
    TuningConfig,
)
from recgym.user_models.preference.text import DEFAULT_ENCODER, Pooling


class Binning(BaseModel):
    """An observable user attribute made of a column: the column's values under each level."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    levels: dict[str, tuple[str, ...]] = Field(description="level -> values of the column; an empty tuple takes itself")
    edges: tuple[float, ...] | None = Field(None, description="numeric columns: upper edges of all levels but the last")

    def apply(self, values: pd.Series) -> pd.Series:
        """The level of each value, missing where the value is missing or in no level."""
        if self.edges is not None:
            numeric = pd.to_numeric(values, errors="coerce")
            bounds = [-float("inf"), *self.edges, float("inf")]
            return pd.cut(numeric, bounds, labels=list(self.levels), right=False).astype("object")
        table = {value: level for level, members in self.levels.items() for value in (members or (level,))}
        return values.astype("object").map(table)


class Recipe(BaseModel):
    """How a world is built. The resolved recipe is stored in the bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    dataset: str
    files: LogFiles | None = Field(None, description="a log of the user's own, in place of the data set")
    kind: Literal["purchase", "rating"]
    currency: str | None = None
    min_item_users: int = Field(20, ge=1, description="items bought by fewer users are left out")
    min_user_trips: int = Field(5, ge=4, description="users with fewer trips are left out; two are held out")
    held_out_items: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="share of the items kept out of the world and all training; the card measures them",
    )
    every_item: bool = Field(False, description="keep items marked as not recommendable (fuel, coupons) too")
    examination_decay: float = Field(
        0.9, gt=0, le=1, description="logs with exposures: position p (from 0) was examined with chance decay ** p"
    )
    half: Literal["a", "b"] | None = Field(None, description="one half of the users, by a hash of their ids")
    attributes: dict[str, Binning] = {}
    encoder: str = Field(DEFAULT_ENCODER, description="name or path of a Hugging Face encoder or decoder")
    pooling: Pooling = Field("mean", description="a text's embedding: the mean of its last states, or its last token's")
    tuning: TuningConfig = TuningConfig()
    text_components: int | None = Field(
        None, ge=1, description="principal components of the texts that the model reads, evened out; null: all, as is"
    )
    seed: int = 0
    model: ModelConfig = ModelConfig()

    def changed(self, changes: dict[str, Any]) -> Recipe:
        """The recipe with some of its settings changed; ``changes`` is nested as they are, and the rest stays."""
        return Recipe.model_validate(_merged(self.model_dump(mode="json"), changes))

    def log(self) -> Interactions:
        """The log that the world is built from.

        Raises:
            DataError: it cannot be read, or its files have changed since the world was built.
        """
        return recgym.data.load(self.dataset) if self.files is None else load_files(self.files, self.name)

    def knowledge(self) -> pd.DataFrame:
        """Facts about the items of the log: columns item, relation, entity and other_item.

        Raises:
            DataError: the log brings none, or they cannot be read.
        """
        return recgym.data.knowledge(self.dataset) if self.files is None else file_knowledge(self.files)


def _merged(old: Any, new: dict[str, Any]) -> dict[str, Any]:
    """Nested settings ``old`` with those of ``new`` in their places."""
    old = old if isinstance(old, dict) else {}
    return {**old, **{key: _merged(old.get(key), v) if isinstance(v, dict) else v for key, v in new.items()}}


def own_recipe(name: str, files: LogFiles | None, log: Interactions, **changes: Any) -> Recipe:
    """The recipe of a world from a log of the user's own: what is rated and never bought is a rating log.

    Small logs keep more than the shipped recipes do: items of 5 users and users of 5 trips.
    """
    rated = "rating" in log and "purchase" not in log and "quantity" not in log
    recipe = Recipe(
        name=name,
        title=f"{name}, fitted on your own log",
        dataset=name,
        files=files,
        kind="rating" if rated else "purchase",
        min_item_users=5,
        min_user_trips=5,
    )
    return recipe.changed(changes)


def _levels(*names: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(names, ())


def ecommerce(**changes: Any) -> Recipe:
    """Grocery trips of about 2,300 households: The Complete Journey."""
    recipe = Recipe(
        name="ecommerce",
        title="Grocery shopping, fitted on The Complete Journey",
        dataset="completejourney",
        kind="purchase",
        currency="USD",
        text_components=256,
        attributes={
            "age": Binning(
                column="age",
                levels={"19-34": ("19-24", "25-34"), "35-54": ("35-44", "45-54"), "55+": ("55-64", "65+")},
            ),
            "income": Binning(
                column="income",
                levels={
                    "under 35K": ("Under 15K", "15-24K", "25-34K"),
                    "35-74K": ("35-49K", "50-74K"),
                    "75K+": ("75-99K", "100-124K", "125-149K", "150-174K", "175-199K", "200-249K", "250K+"),
                },
            ),
            "household_size": Binning(column="household_size", levels=_levels("1", "2", "3", "4", "5+")),
            "kids": Binning(column="kids_count", levels=_levels("0", "1", "2", "3+")),
        },
    )
    return recipe.model_copy(update=changes)


def ecommerce_a(**changes: Any) -> Recipe:
    """The grocery world of one half of the households; agents may train in it and be scored in the other."""
    return ecommerce().model_copy(update={"name": "ecommerce-a", "half": "a", **changes})


def ecommerce_b(**changes: Any) -> Recipe:
    """The grocery world of the other half of the households."""
    return ecommerce().model_copy(update={"name": "ecommerce-b", "half": "b", **changes})


def movies(**changes: Any) -> Recipe:
    """Film ratings of 943 people: MovieLens-100K, after ``recgym data fetch ml-100k``."""
    recipe = Recipe(
        name="movies",
        title="Film ratings, fitted on MovieLens-100K",
        dataset="ml-100k",
        kind="rating",
        min_item_users=5,
        attributes={
            "age": Binning(column="age", levels=_levels("under 25", "25-34", "35-44", "45+"), edges=(25, 35, 45)),
            "gender": Binning(column="gender", levels=_levels("F", "M")),
        },
        model=ModelConfig(
            network=NetworkConfig(dropout=0.3),
            graph=GraphConfig(fraction=0.5),
            training=TrainingConfig(pretrain_epochs=20, finetune_epochs=15),
        ),
    )
    return recipe.model_copy(update=changes)
