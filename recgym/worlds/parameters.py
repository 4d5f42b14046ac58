"""Every behavioural parameter of a built world, marked as fitted or assumed."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from recgym.scenario import load_scenario
from recgym.worlds.recipes import Recipe
from recgym.worlds.spec import Parameter


def behaviour_parameters(recipe: Recipe) -> tuple[Parameter, ...]:
    """What the log identifies, and what it does not: assumed values are the default scenario's, all of them."""
    behaviour = load_scenario("default").behaviour
    return (*_fitted(recipe), *_assumed(behaviour, "behaviour"))


def _fitted(recipe: Recipe) -> Iterator[Parameter]:
    log = f"log {recipe.dataset!r}"
    weights = "model.safetensors"
    if recipe.kind == "purchase":
        yield Parameter(
            name="q: chance that an item is in the next basket when nobody recommends",
            status="fitted",
            value=weights,
            evidence=f"{log}: ranking, AUC, log loss and calibration on each user's last trip",
            metrics={
                "AUC on uniform negatives": "auc.uniform.model",
                "log loss a trip": "purchase.log_loss.model",
                "calibration error": "purchase.top.equal_pairs.calibration_error",
            },
        )
        yield Parameter(
            name="quantity: geometric, by user and item",
            status="fitted",
            value=weights,
            evidence=f"{log}: likelihood of the quantities bought",
            metrics={"log loss": "quantity.log_loss.model", "MAE": "quantity.model.mae"},
        )
    else:
        yield Parameter(
            name="q: chance that an item is among the next run of ratings",
            status="fitted",
            value=weights,
            evidence=f"{log}, as next item: a rating log does not say what was passed over; ranking on each user's "
            "last trip",
            metrics={"AUC on uniform negatives": "auc.uniform.model", "NDCG@10": "next_trip.model.ndcg@10"},
        )
        yield Parameter(
            name="rating given watching: ordinal, by user and item",
            status="fitted",
            value=weights,
            evidence=f"{log}: RMSE and MAE on each user's last trip",
            metrics={
                "RMSE": "rating.model.rmse",
                "MAE": "rating.model.mae",
                "calibration error": "rating.expected.calibration_error",
            },
        )
    yield Parameter(
        name="intended basket size",
        status="fitted",
        value=f"{weights} (size_head)",
        evidence=f"{log}: KS distance of unaided trips",
        metrics={"KS": "marginals.rows.basket size.model.ks"},
    )
    yield Parameter(
        name="days until the next trip",
        status="fitted",
        value=f"{weights} (gap_head)",
        evidence=f"{log}: KS distance of unaided trips; the last bin, 91 days and more, is leaving for good",
        metrics={"KS": "marginals.rows.days between trips.model.ks"},
    )


def _assumed(section: BaseModel, path: str) -> Iterator[Parameter]:
    """The parameters of a section of the scenario, with what their schema says of them."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        where = f"{path}.{name}"
        if isinstance(value, BaseModel):
            yield from _assumed(value, where)
        elif isinstance(field.json_schema_extra, dict):
            yield Parameter(
                name=f"{where}: {field.description}",
                status="assumed",
                value=str(value),
                evidence=str(field.json_schema_extra["reference"]),
            )
