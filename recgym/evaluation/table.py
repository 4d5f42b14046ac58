"""The leaderboard and the paired differences, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from recgym.evaluation.families import Family, families, interval, number
from recgym.evaluation.metrics import METRICS
from recgym.evaluation.statistics import Comparison, Estimate
from recgym.evaluation.summary import Line, ScenarioSummary, Summary
from recgym.evaluation.transfer import Transfer

# What the short table shows; the report and the JSON file hold every metric.
COLUMNS = ("reward_per_step", "session_depth", "hit_rate", "discoveries")
_TITLES = {metric.id: metric.title for metric in METRICS}
_SHARES = {"hit_rate", "precision"}


def value(metric: str, estimate: Estimate | None) -> str:
    """The point estimate of a metric as text."""
    if estimate is None:
        return "–"
    return f"{estimate.value:.1%}" if metric in _SHARES else number(estimate.value)


def share(value: float | None) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{value:.1%}"


INTERVALS = (
    "Intervals are over users and their luck. A trained agent is one training run: another seed may rank otherwise, so "
    "train several before you trust a small difference."
)


def headline(part: ScenarioSummary) -> str:
    """The main finding of a scenario in one sentence: who is first, and from whom the data cannot tell it apart."""
    best = (part.competitors or list(part.lines))[0]
    others = [one for one in part.comparisons if one.first == best.agent][:1]
    against = {one.second: one.difference for one in ([part.lead] if part.lead else []) + others}
    leads = " and ".join(f"{interval(gap, signed=True)} against {agent}" for agent, gap in against.items())
    alike = " or ".join(agent for agent, gap in against.items() if not gap.excludes_zero)
    return (
        f"{best.agent} has the highest mean: {interval(best.scores['reward'])} an episode"
        + (f", {leads}" if leads else "")
        + f", on the same {part.num_users:,} users"
        + (f"; not told apart from {alike}." if alike else ".")
    )


def render(summary: Summary) -> RenderableType:
    """The tables of all scenarios, for a rich console."""
    pieces: list[RenderableType] = []
    for part in summary.scenarios:
        pieces += [_table(part), *_differences(part), Text("")]
    return Group(*pieces)


def show(summary: Summary, console: Console | None = None) -> None:
    """Prints ``render``."""
    (console or Console()).print(render(summary))


def markdown(summary: Summary) -> str:
    """The tables of all scenarios as Markdown."""
    lines: list[str] = ["# RecGym evaluation", ""]
    for part in summary.scenarios:
        lines += [f"## {part.scenario}", "", headline(part), "", *_markdown_table(part), ""]
        lines += [
            "Paired differences in reward, 95% intervals clustered by user; p-values are Holm's over the pairs of this "
            "list without privileged agents:",
            "",
        ]
        lines += [f"- {sentence(comparison)}" for comparison in part.comparisons]
        lines += ["", INTERVALS, ""]
        if part.transfer:
            lines += ["Reward at home, where the agents were trained, less reward away:", ""]
            lines += [f"- {one.agent}: {transferred(one)}" for one in part.transfer]
            lines += [""]
        for family in families(part):
            lines += [f"### {family.title}", "", *_grid(family), ""]
        if part.left_out:
            lines += ["### Not measured", ""]
            lines += [f"- {one['metric']}: {one['reason']}" for one in part.left_out]
            lines += [""]
    return "\n".join(lines)


def sentence(comparison: Comparison) -> str:
    """A comparison in words, such as ``frequency - popularity: +0.41 [0.35, 0.47], ahead in 62% of episodes``."""
    gap = interval(comparison.difference, signed=True)
    chance = f"better with chance {comparison.improvement.value:.0%}"
    return f"{comparison.first} - {comparison.second}: {gap}, {chance}{p_value(comparison)}"


def p_value(comparison: Comparison) -> str:
    """The adjusted p-value of a comparison as text, such as ``, p = 0.012``; nothing where it was not tested."""
    value = comparison.p_value
    return "" if value is None else ", p < 0.001" if value < 0.001 else f", p = {value:.3f}"


def _cells(line: Line, part: ScenarioSummary) -> Iterator[str]:
    yield interval(line.scores["reward"])
    for metric in COLUMNS:
        yield value(metric, line.scores.get(metric))
    yield share(line.coverage)


def _headings() -> list[str]:
    return ["agent", "reward [95%]", *(_TITLES[metric] for metric in COLUMNS), "coverage"]


def _table(part: ScenarioSummary) -> Table:
    table = Table(
        title=f"{part.scenario}: {part.num_users:,} users, {part.num_episodes:,} episodes an agent",
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for at, heading in enumerate(_headings()):
        table.add_column(heading, justify="left" if at == 0 else "right", no_wrap=True)
    for at, line in enumerate(part.lines):
        if line.privileged and at and not part.lines[at - 1].privileged:
            table.add_section()
        name = f"{line.agent} *" if line.privileged else line.agent
        table.add_row(name, *_cells(line, part), style="dim" if line.privileged else None)
    if any(line.privileged for line in part.lines):
        table.caption = "* sees the users' hidden state: a bound, not a competitor"
        table.caption_justify = "left"
    return table


def _differences(part: ScenarioSummary) -> Iterator[Text]:
    if part.comparisons:
        yield Text("Paired differences in reward on identical users and luck, 95% intervals", style="bold")
        yield Text(INTERVALS, style="dim")
    width = max((len(f"{c.first} - {c.second}") for c in part.comparisons), default=0)
    for comparison in part.comparisons:
        gap = comparison.difference
        style = "green" if gap.low > 0 else "red" if gap.high < 0 else "yellow"
        names = f"{comparison.first} - {comparison.second}:".ljust(width + 1)
        text = Text(f"  {names} ").append(f"{interval(gap, signed=True):<22}", style=style)
        yield text.append(f" better with chance {comparison.improvement.value:.0%}{p_value(comparison)}", style="dim")


def transferred(one: Transfer) -> str:
    """A transfer gap in words."""
    text = f"{number(one.home.value)} at home, {number(one.away.value)} away, gap {interval(one.gap, signed=True)}"
    if one.lead_gap is None:
        return text
    return f"{text}; its lead over {one.reference} shrinks by {interval(one.lead_gap, signed=True)}"


def _grid(family: Family) -> Iterator[str]:
    yield f"| agent | {' | '.join(column.title for column in family.columns)} |"
    yield f"|---|{'---:|' * len(family.columns)}"
    for agent, cells in family.rows:
        yield f"| {agent} | {' | '.join(cells)} |"


def _markdown_table(part: ScenarioSummary) -> Iterator[str]:
    headings = _headings()
    yield f"| {' | '.join(headings)} |"
    yield f"|---|{'---:|' * (len(headings) - 1)}"
    for line in part.lines:
        name = f"{line.agent} (privileged)" if line.privileged else line.agent
        yield f"| {name} | {' | '.join(_cells(line, part))} |"
