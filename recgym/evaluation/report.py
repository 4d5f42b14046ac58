"""The report: one HTML file that needs no network, beside the same findings as Markdown and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import pandas as pd

from recgym.evaluation import charts, plots, table
from recgym.evaluation.families import families, interval, number
from recgym.evaluation.metrics import METRICS, Metric
from recgym.evaluation.metrics.cold_start import HISTORY_GROUPS
from recgym.evaluation.store import TRAINING, atomically, write_json
from recgym.evaluation.summary import ScenarioSummary, Summary, summarise_run

REPORT = "report.html"
_LEADERBOARD = (
    *("reward", "reward_per_step", "session_depth", "hit_rate", "precision", "discoveries", "revenue", "popularity"),
    *("ndcg", "disagreement"),
)
_REPLAYED_SLATES = 8  # an episode; longer ones say how many more there were


@dataclass(frozen=True)
class ReplayItem:
    """One position of a slate and what the user did."""

    title: str
    category: str
    price: str
    examined: bool
    consumed: bool
    note: str  # such as "bought 2" or "rated 4"


@dataclass(frozen=True)
class ReplaySlate:
    """One slate."""

    heading: str
    items: tuple[ReplayItem, ...]


@dataclass(frozen=True)
class ReplayEpisode:
    """One agent's episode with one user."""

    agent: str
    summary: str
    slates: tuple[ReplaySlate, ...]
    num_hidden: int


def write_report(directory: str | Path, summary: Summary | None = None) -> Path:
    """Writes ``report.html``, ``report.md`` and ``summary.json`` beside the rows of a finished evaluation.

    Args:
        directory: the ``out`` of ``evaluate``.
        summary: what was found, where it has been computed already.

    Returns:
        The path of ``report.html``.

    Raises:
        RecGymError: the directory holds no finished evaluation.
    """
    directory = Path(directory)
    summary = summary or summarise_run(directory)
    steps = pd.read_parquet(directory / "steps.parquet")
    curves = pd.read_parquet(directory / TRAINING) if (directory / TRAINING).is_file() else None
    html = render(summary, steps, curves)
    atomically(directory / REPORT, lambda file: file.write_text(html, encoding="utf-8"))
    text = table.markdown(summary)
    atomically(directory / "report.md", lambda file: file.write_text(text, encoding="utf-8"))
    write_json(directory / "summary.json", summary.to_dict())
    return directory / REPORT


def render(summary: Summary, steps: pd.DataFrame, curves: pd.DataFrame | None = None) -> str:
    """The report as HTML.

    Args:
        summary: what was found.
        steps: traced slates, as ``evaluate`` writes them.
        curves: training curves (scenario, agent, steps, reward), or None.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("recgym.evaluation"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        number=lambda value: number(value).replace("-", "−"),
        share=table.share,
        percent=lambda value: f"{value:.0%}",
        signed=lambda estimate: _ranged(interval(estimate, signed=True)),
        ranged=_ranged,
    )
    # The first is the reward; a world without prices has no revenue.
    lines = summary.scenarios[0].lines
    used = [metric for metric in METRICS if metric.id in _LEADERBOARD and all(metric.id in one.scores for one in lines)]
    configuration = summary.manifest.get("configuration", {})
    currency = (configuration.get("world") or {}).get("currency")
    return environment.get_template("report.html.j2").render(
        title=_title(configuration),
        subtitle=_subtitle(summary, configuration),
        sections=[_section(part, steps, curves, currency, used) for part in summary.scenarios],
        metrics=used,
        facts=_facts(summary.manifest),
        currency=_symbol(currency) or currency,
    )


def _ranged(text: str) -> markupsafe.Markup:
    """A number and its interval, the interval set back."""
    value, bracket, rest = text.replace("-", "−").partition(" [")
    if not bracket:
        return markupsafe.escape(value)
    return markupsafe.Markup('{} <span class="range">[{}</span>').format(value, rest)


def _section(
    part: ScenarioSummary,
    steps: pd.DataFrame,
    curves: pd.DataFrame | None,
    currency: str | None,
    used: Sequence[Metric],
) -> dict[str, Any]:
    mine = curves[curves["scenario"] == part.scenario] if curves is not None else pd.DataFrame()
    traced = steps[steps["scenario"] == part.scenario] if len(steps) else steps
    order = [line.agent for line in part.lines]
    return {
        "name": part.scenario,
        "headline": table.headline(part),
        "intervals": table.INTERVALS,
        "summary": part,
        "rows": [
            {"line": line, "scores": [table.value(metric.id, line.scores.get(metric.id)) for metric in used[1:]]}
            for line in part.lines
        ],
        "reward_plot": plots.reward_plot(part.lines, part.scenario),
        "forests": [(name, plots.forest_plot(part.versus(name), name, part.scenario)) for name in part.references],
        "history_plot": _history_plot(part),
        "about": {key: part.about.get(key) for key in ("question", "description", "metrics", "reference")},
        "figures": list(_figures(part, order)),
        "families": families(part),
        "learning_plot": plots.learning_plot(mine, _levels(part), part.scenario) if len(mine) else None,
        "replays": [
            {"user": int(user), "episodes": _episodes(mine, order, currency)}
            for user, mine in (traced.groupby("user", sort=False) if len(traced) else ())
        ],
    }


def _history_plot(part: ScenarioSummary) -> str:
    """By trips in the log or, where the scenario cuts what is known of users, by the purchases that are left."""
    scores = part.measures
    if len(scores):
        levels = scores[(scores["family"] == "cold start") & (scores["metric"] == "reward")]
        levels = levels[levels["group"].isin(list(HISTORY_GROUPS))]
        if {"0"} < set(levels["group"]):
            ordered = levels.assign(group=pd.Categorical(levels["group"], list(HISTORY_GROUPS), ordered=True))
            across = "purchases of the user that the platform knows"
            return plots.history_plot(ordered, _leaders(part), part.scenario, across)
    return plots.history_plot(part.history, _leaders(part), part.scenario)


def _figures(part: ScenarioSummary, order: list[str]) -> Iterator[tuple[str, str, str]]:
    """Title, caption and SVG of the figures that this scenario has data for."""
    key, some = part.scenario, _leaders(part)
    yield (
        "Performance profile",
        "Share of episodes with a reward above each threshold, 95% bands. Higher is better.",
        charts.curves_plot(
            part.profile, some, key, across="threshold", up="value", labels=("reward of an episode", "share above")
        ),
    )
    if len(part.retention):
        yield (
            "Retention",
            "Share of users who visit on that day of the episode or later.",
            charts.curves_plot(
                part.retention, some, key, across="day", up="retained", labels=("day", "still visiting")
            ),
        )
    for figure in part.over_time["figure"].unique() if len(part.over_time) else ():
        yield (
            f"{figure.capitalize()} over time",
            f"{figure.capitalize()} a day in each tenth of the horizon, 95% bands; who has left earns nothing.",
            charts.curves_plot(
                part.over_time[part.over_time["figure"] == figure],
                some,
                f"{key}-{figure}",
                across="day",
                up="value",
                labels=("day", f"{figure} of a day"),
                share=False,
            ),
        )
    if part.transfer:
        yield (
            "Away from home",
            "Filled: in the world of the training. Hollow: in a world fitted on other users. 95% intervals.",
            charts.transfer_plot(part.transfer, key),
        )
    scores = part.measures
    if scores.empty:
        return
    whole = scores[(scores["group"] == "overall") & (scores["family"] != "cold start")]
    if "disagreement" in set(whole["metric"]):
        yield (
            "How sure is the simulator",
            "Disagreement of an ensemble's members on what each agent shows. An agent that leads the simulator where "
            "its members disagree may exploit it.",
            charts.estimates_plot(whole[whole["metric"] == "disagreement"], order, key, "disagreement on the chance"),
        )
    wide = whole.pivot_table(index=["agent", "privileged"], columns="metric", values="value").reset_index()
    fair = scores[scores["metric"] == "exposed_utility"]
    rivals = [("NDCG of first slates", "ndcg", wide)]
    for attribute, mine in fair.groupby("group", sort=False):
        found = wide.merge(mine[["agent", "value"]].rename(columns={"value": "fair"}), on="agent")
        rivals.append((f"fairness of exposure by {attribute}", "fair", found))
    if "retained_30" in wide:
        rivals.append(("retained after 30 days", "retained_30", wide))
    for across, column, points in rivals:
        if column in points:
            both = points.rename(columns={column: "x", "reward": "y"})[["agent", "privileged", "x", "y"]].dropna()
            yield (
                f"Reward and {across}",
                "More of both is better; the line joins the agents that none beats in both. Hollow: privileged.",
                charts.pareto_plot(both, f"{key}-{column}-{across}", across=across, up="reward of an episode"),
            )
    gaps = scores[(scores["metric"] == "reward gap")]
    for attribute, mine in gaps.groupby("group", sort=False):
        yield (
            f"Gap between users by {attribute}",
            "Largest less smallest mean reward over groups, 95% interval. Orange: the gap that shuffled labels show.",
            charts.estimates_plot(mine, order, f"{key}-{attribute}", f"gap in reward by {attribute}"),
        )
    if len(part.exposure):
        for attribute, mine in part.exposure.groupby("attribute", sort=False):
            yield (
                f"Who is shown, by {attribute}",
                "Shares of attention on first slates of visits; the marks say where shares by relevance would end.",
                charts.shares_plot(mine, order, f"{key}-{attribute}"),
            )


def _leaders(part: ScenarioSummary) -> list[str]:
    """The agents that figures with a colour each show: the best, the references, and the best privileged one."""
    best = [line.agent for line in part.competitors[:5]]
    bound = [line.agent for line in part.lines if line.privileged][:1]
    chosen = dict.fromkeys([*best[:4], *bound, *part.references, *best])
    return list(chosen)[:8]


def _levels(part: ScenarioSummary) -> dict[str, float]:
    """Evaluated rewards of the references, to read a learning curve against."""
    return {line.agent: line.scores["reward"].value for line in part.lines if line.agent in part.references}


def _episodes(traced: pd.DataFrame, order: list[str], currency: str | None) -> list[ReplayEpisode]:
    found = []
    for agent in order:
        episode = traced[traced["agent"] == agent]
        slates = [slate for _, slate in episode.groupby("step", sort=True)]
        taken = int(episode["consumed"].sum())
        summary = f"{taken} taken from {len(slates)} slate{'s' * (len(slates) != 1)}"
        shown = tuple(_slate(slate, currency) for slate in slates[:_REPLAYED_SLATES])
        found.append(ReplayEpisode(agent, summary, shown, max(len(slates) - _REPLAYED_SLATES, 0)))
    return found


def _slate(slate: pd.DataFrame, currency: str | None) -> ReplaySlate:
    first = slate.iloc[0]
    heading = f"Slate {int(first['step']) + 1}"
    if slate["trip"].iloc[0] > 0:
        heading += f", visit {int(first['trip']) + 1}"
    items = []
    for row in slate.itertuples():
        note = ""
        if row.consumed:
            note = f"rated {row.rating}" if row.rating else f"bought {row.quantity}" if row.quantity > 1 else "bought"
        price = "" if row.price != row.price else f"{_symbol(currency)}{row.price:,.2f}"
        items.append(ReplayItem(row.title, row.category, price, bool(row.examined), bool(row.consumed), note))
    return ReplaySlate(heading, tuple(items))


def _symbol(currency: str | None) -> str:
    return {"USD": "$", "EUR": "€", "GBP": "£", "INR": "₹"}.get(currency or "", "")


def _title(configuration: dict[str, Any]) -> str:
    world = configuration.get("world")
    return world["title"] if world else "Evaluation"


def _subtitle(summary: Summary, configuration: dict[str, Any]) -> str:
    part = summary.scenarios[0]
    agents = f"{len(part.lines)} agent{'s' * (len(part.lines) != 1)}"
    users = f"{part.num_users:,} simulated users"
    seeds = len(configuration.get("seeds", ())) or part.num_episodes // max(part.num_users, 1)
    return f"{agents}, the same {users} for each, {seeds} seed{'s' * (seeds != 1)}"


def _facts(manifest: dict[str, Any]) -> list[tuple[str, str | list[str]]]:
    """What the numbers depend on, as pairs of name and text, or of name and lines."""
    configuration = manifest.get("configuration")
    if not configuration:
        return []
    world, users = configuration["world"], configuration["users"]
    used = f"{users['used']:,} of {users['available']:,}"
    if users["requested"] > users["used"]:
        used += f" (all there are; {users['requested']:,} were asked for)"
    facts: list[tuple[str, str | list[str]]] = [
        ("Command", manifest.get("command", "")),
        (
            "World",
            f"{world['name']}, {world['num_users']:,} users, {world['num_items']:,} items, sha256 {world['hash'][:16]}",
        ),
        *_data_facts(world["data"]),
        ("Users", used),
        ("Seeds", ", ".join(map(str, configuration["seeds"]))),
    ]
    for name, scenario in configuration["scenarios"].items():
        lift = scenario["behaviour"]["lift"]
        facts.append((f"Scenario {name}", f"effect of showing an item (assumed): {lift:+g} on the logit of buying it"))
    for label, digest in manifest.get("fingerprints", {}).items():
        facts.append((f"Agent {label}", f"sha256 {digest[:16]}"))
    versions = manifest.get("versions", {})
    facts.append(("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return facts


def _data_facts(data: Mapping[str, Any]) -> Iterator[tuple[str, str | list[str]]]:
    """Where the log that the users were fitted on comes from, and what became of it."""
    source = data.get("source")
    source = source if isinstance(source, Mapping) else {"name": source} if source else {}
    if name := source.get("name") or data.get("name"):
        yield "Data", ", ".join(str(part) for part in (name, source.get("origin"), source.get("url")) if part)
    if licence := source.get("licence") or source.get("license"):
        yield "Licence of the data", str(licence)
    if citation := source.get("citation"):
        yield "Citation", str(citation)
    counts = [f"{data[key]:,} {key}" for key in ("events", "trips") if isinstance(data.get(key), int)]
    if day := data.get("first_day"):
        counts.append(f"first day {day}")
    if digest := data.get("hash"):
        counts.append(f"sha256 {str(digest)[:16]}")
    if counts:
        yield "Log", ", ".join(counts)
    filters = [one for one in data.get("filters") or () if isinstance(one, Mapping)]
    if filters:
        yield "Filtered or changed", [_filter(one) for one in filters]


def _filter(one: Mapping[str, Any]) -> str:
    detail = f" ({one['detail']})" if one.get("detail") else ""
    count = one.get("count")
    return f"{one.get('reason')}: {f'{count:,}' if isinstance(count, int) else count}{detail}"
