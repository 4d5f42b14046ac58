"""Every behavioural parameter of a built world, marked as fitted or assumed."""

from __future__ import annotations

from recgym.scenario import load_scenario
from recgym.worlds.recipes import Recipe
from recgym.worlds.spec import Parameter


def behaviour_parameters(recipe: Recipe) -> tuple[Parameter, ...]:
    """What the log identifies, and what it does not: assumed values are the default scenario's."""
    behaviour = load_scenario("default").behaviour
    log = f"log {recipe.dataset!r}"
    if recipe.kind == "purchase":
        wants = Parameter(
            name="q: chance that an item is in the next basket when nobody recommends",
            status="fitted",
            value="model.safetensors",
            evidence=f"{log}: ranking, AUC, log loss and calibration on each user's last trip",
        )
        answer = Parameter(
            name="quantity: geometric, by user and item",
            status="fitted",
            value="model.safetensors",
            evidence=f"{log}: likelihood of the quantities bought",
        )
    else:
        wants = Parameter(
            name="q: chance that an item is among the next run of ratings",
            status="fitted",
            value="model.safetensors",
            evidence=f"{log}, as next item: a rating log does not say what was passed over; ranking on each user's "
            "last trip",
        )
        answer = Parameter(
            name="rating given watching: ordinal, by user and item",
            status="fitted",
            value="model.safetensors",
            evidence=f"{log}: RMSE and MAE on each user's last trip",
        )
    fitted = (
        Parameter(
            name="intended basket size",
            status="fitted",
            value="model.safetensors (size_head)",
            evidence=f"{log}: KS distance of unaided trips",
        ),
        Parameter(
            name="days until the next trip",
            status="fitted",
            value="model.safetensors (gap_head)",
            evidence=f"{log}: KS distance of unaided trips; the last bin, 91 days and more, is leaving for good",
        ),
    )

    def assumed(name: str, value: object, reference: str) -> Parameter:
        return Parameter(name=name, status="assumed", value=str(value), evidence=reference)

    return (
        wants,
        answer,
        *fitted,
        assumed(
            "lift: added to the logit of q when an item is examined",
            behaviour.lift,
            "the log has no exposures; set in the scenario and to be swept",
        ),
        assumed(
            f"examination by position ({behaviour.examination.model} model), decay a position",
            behaviour.examination.decay,
            "Craswell et al., WSDM 2008",
        ),
        assumed(
            "chance factor of examining an item again that was declined on the trip",
            behaviour.reexamination,
            "no log identifies it; after the repeated-exposure fatigue of Ma et al., WWW 2016",
        ),
        assumed(
            "patience: chance of leaving after a slate without a purchase",
            behaviour.patience,
            "geometric abandonment as in RecSim, Ie et al. 2019",
        ),
        assumed("satisfaction: rate of its running mean", behaviour.satisfaction.rate, "RecSim, Ie et al. 2019"),
        assumed(
            "satisfaction: effect on the log hazard of returning",
            behaviour.satisfaction.return_effect,
            "Cai et al., WWW 2023 (return time as the measure of retention)",
        ),
    )
